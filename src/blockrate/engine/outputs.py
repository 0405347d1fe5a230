"""What a run makes besides steps: validation, samples, exports, TensorBoard; each when it is due."""

from functools import partial
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import WriteError
from blockrate.engine.board import Board
from blockrate.engine.checkpoint import checkpoint_bytes, save_checkpoint
from blockrate.engine.export import export, export_name, file_metadata
from blockrate.engine.intervals import Due
from blockrate.engine.models import flux1
from blockrate.engine.models.sample import sample_images
from blockrate.engine.preparation import Data
from blockrate.engine.state import Trainee
from blockrate.engine.steps import StepResult, validation_loss
from blockrate.run.checkpoints import checkpoints, prune
from blockrate.run.durable import check_space
from blockrate.run.events import EventLog, Phase, Sampled, Saved, Validated, Warned
from blockrate.run.folder import RunFolder, StopFlag


class Outputs:
    """Knows what is due after each step and does it. ``step`` always counts finished steps."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        log: EventLog,
        trainee: Trainee,
        data: Data,
        stop: StopFlag,
        *,
        step: int,
        total_steps: int,
    ) -> None:
        self.config = config
        self.run = run
        self.log = log
        self.trainee = trainee
        self.data = data
        self.stop = stop
        self.total_steps = total_steps  # that the learning rate's schedule spans
        self.destination = Path(config.output_model_destination)
        due = partial(Due, step=step, epoch=data.schedule.epoch_of(step))
        part = config.transformer
        self._validate_due = due(config.validate_after, config.validate_after_unit)
        self._sample_due = due(
            config.sample_after, config.sample_after_unit, skip=config.sample_skip_first
        )
        self._export_due = due(
            config.save_every, config.save_every_unit, skip=config.save_skip_first
        )
        self._end_due = due(
            part.stop_training_after or 0, part.stop_training_after_unit
        )
        self._backup_due = due(config.backup_after, config.backup_after_unit)
        # What was last done at which step, so that the end repeats nothing.
        self._done: dict[str, int] = {"checkpoint": step}
        self._board = (
            Board(run.path / "tensorboard", log) if config.tensorboard else None
        )
        self._last = step

    def before_first_step(self, step: int) -> None:
        """Look whether there is room for what will be saved, and measure what the untrained model does."""
        rolling = self.config.rolling_backup_count if self.config.rolling_backup else 1
        missing = max(1, rolling + 1 - len(checkpoints(self.run.checkpoints)))
        check_space(
            self.run.checkpoints,
            missing * checkpoint_bytes(self.trainee, self.config),
            "what is saved",
        )
        self._check_export_space()
        if step == 0:
            self._validate(0)

    def after_step(self, step: int, result: StepResult, rate: float) -> None:
        """Do whatever is due now that ``step`` steps are finished, and what was asked for meanwhile."""
        self._last = step
        epoch = self.data.schedule.epoch_of(step)
        commands = [self.stop.commands.pop(0) for _ in range(len(self.stop.commands))]
        if self._board:
            self._board.step(step, result, rate)
        if self._validate_due(step, epoch):
            self._validate(step)
        if self._sample_due(step, epoch) or "sample" in commands:
            self._sample(step)
        if self._export_due(step, epoch) or "save" in commands:
            self._export(
                export_name(
                    self.destination, step, prefix=self.config.save_filename_prefix
                ),
                step,
            )
        # one look, or a stop that comes during the save would end the run without it
        stopping = self.stop.requested
        if self._backup_due(step, epoch) or "save" in commands or stopping:
            self._checkpoint(step)
        if stopping:
            self.stop.obey()

    def ended(self, step: int) -> bool:
        """Whether ``transformer.stop_training_after`` ends the training after ``step`` steps: nothing else trains."""
        after = self.config.transformer.stop_training_after or 0
        epoch = self.data.schedule.epoch_of(step)
        done = {"STEP": step, "EPOCH": epoch}.get(
            self.config.transformer.stop_training_after_unit
        )
        return self._end_due(step, epoch) if done is None else done >= after

    def finish(self) -> list[Path]:
        """Measure, sample and export the finished model; return the files to hand over. A stop shortens it only."""
        self._validate(self._last)
        if self.config.backup_after_unit != "NEVER":
            self._checkpoint(self._last)  # from which the run can be made longer
        if self.config.sample_after_unit != "NEVER":
            self._sample(self._last)
        self._export(self.destination, self._last)
        if self._board:
            self._board.close()
        return [self.destination]

    def _validate(self, step: int) -> None:
        if not self.data.validation or self._done.get("validation") == step:
            return
        self._done["validation"] = step
        with self.trainee.evaluation():
            loss = validation_loss(
                self.trainee, self.data.read(self.data.validation), self.config
            )
        self.log.write(Validated(loss), step=step)
        if self._board:
            self._board.scalars({"loss/validation": loss}, step)

    def _sample(self, step: int) -> None:
        if (
            not self.data.prompts
            or self._done.get("samples") == step
            or self.stop.requested
        ):
            return
        self._done["samples"] = step
        self.log.write(Phase("sampling"), step=step)
        files = self._images(self.run.samples, step, averaged=True)
        if self.trainee.ema and self.config.non_ema_sampling:
            files += self._images(
                self.run.samples / "without-ema", step, averaged=False
            )
        if files:  # none if a stop came
            self.log.write(
                Sampled([file.relative_to(self.run.path).as_posix() for file in files]),
                step=step,
            )
        if self._board and self.config.samples_to_tensorboard:
            self._board.images(files, step)
        self._training(step)

    def _images(self, folder: Path, step: int, *, averaged: bool) -> list[Path]:
        with self.trainee.evaluation(averaged=averaged):
            return sample_images(
                self.trainee.transformer,
                lambda: flux1.load_vae(
                    self.data.files, self.config, self.trainee.device
                ),
                self.data.prompts,
                folder=folder,
                step=step,
                scheduler_folder=self.data.files.folder / "scheduler",
                should_stop=lambda: self.stop.requested,
            )

    def _export(self, path: Path, step: int) -> None:
        self.log.write(Phase("saving"), step=step)
        self._check_export_space()
        with self.trainee.evaluation():
            export(
                path,
                self.trainee.transformer,
                self.config,
                metadata=file_metadata(self.config),
            )
        self.log.write(Saved(path, "export"), step=step)
        self._training(step)

    def _checkpoint(self, step: int) -> None:
        if self._done.get("checkpoint") == step:
            return
        self._done["checkpoint"] = step
        self.log.write(Phase("saving"), step=step)
        path = save_checkpoint(
            self.run.checkpoints,
            self.trainee,
            self.config,
            step=step,
            total_steps=self.total_steps,
            data=self.data.fingerprint,
        )
        self.log.write(Saved(path, "checkpoint"), step=step)
        if self.config.rolling_backup:
            try:
                prune(self.run.checkpoints, self.config.rolling_backup_count)
            except WriteError as error:  # one too many is no reason to end
                self.log.write(Warned("checkpoint", str(error)), step=step)
        self._training(step)

    def _check_export_space(self) -> None:
        whole = self.config.output_model_format == "DIFFUSERS"
        written = (
            self.trainee.transformer.parameters()
            if whole
            else self.trainee.learned().values()
        )
        size = 4 if self.config.output_dtype == "FLOAT_32" else 2
        check_space(
            self.destination.parent,
            size * sum(weights.numel() for weights in written),
            "the exported model",
        )

    def _training(self, step: int) -> None:
        self.log.write(
            Phase("training", step, self.data.schedule.number_of_steps), step=step
        )

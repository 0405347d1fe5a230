"""What a run makes besides steps: validation, samples, exports, checkpoints, TensorBoard."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.engine import ranks
from blockrate.engine.byproducts import (
    EXPORT,
    PRUNING,
    SAMPLES,
    SPOILT,
    VALIDATION,
    ByProduct,
    ByProducts,
    cause_of_all,
)
from blockrate.engine.checkpoint import save_checkpoint
from blockrate.engine.export import (
    adapters_at_zero,
    export,
    export_name,
    file_metadata,
)
from blockrate.engine.gathering import Gathering
from blockrate.engine.intervals import Moment
from blockrate.engine.live_rates import LiveRates
from blockrate.engine.memory import dtype_of, release
from blockrate.engine.preparation import Data
from blockrate.engine.room import check_checkpoint_space, check_export_space
from blockrate.engine.sampling import Drawn, draw_samples
from blockrate.engine.sampling import together as of_all_ranks
from blockrate.engine.spoilt import samples_in_words
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import BadSteps, TakenStep
from blockrate.engine.tensorboard_writer import TensorBoardWriter
from blockrate.engine.timetable import Action, Timetable
from blockrate.engine.untold import Untold
from blockrate.engine.validation import Measured, Validation, of_all
from blockrate.run.checkpoints import prune
from blockrate.run.events import Phase, Sampled, Saved, Warned
from blockrate.run.folder import RATES, RunSession
from blockrate.run.results import Results, fingerprint, make_way, one_writer

# what a run may be asked for at once, beside a stop
_COMMANDS = ("sample", "save", RATES)


class Outputs:
    """Does what the timetable says is due. ``step`` always counts finished steps.

    ``first``: the step that this session begins with. ``total_steps``: those that the rate's schedule spans.
    ``finished``: steps, up to now.
    """

    def __init__(
        self,
        config: TrainConfig,
        session: RunSession,
        state: TrainingState,
        data: Data,
        results: Results,
        bad: BadSteps,
        *,
        first: int,
        total_steps: int,
    ) -> None:
        self.config = config
        self.run = session.folder
        self.log = session.log
        self.stop = session.stop
        self.state = state
        self.data = data
        self.results = results
        self.total_steps = total_steps
        self.finished = first
        self._rates = LiveRates(session, state, total_steps)
        self._rates_are_asked = False
        self._is_first = data.world.is_first
        self._gathering = Gathering(ranks.whole, writes=self._is_first)
        # what was measured and drawn last, until it is told
        self._measured = Measured()
        self._drawn: list[Drawn] = []
        # those that the newest checkpoint holds
        self._saved = first
        self._cannot_save = False
        self._validation = Validation(state, data, config)
        self._byproducts = ByProducts(config, session.log)
        self.destination = Path(config.output_model_destination)
        self._timetable = Timetable(
            config,
            self._moment(first),
            validates=bool(data.validation),
            samples=bool(data.prompts),
        )
        self._tensorboard = None
        if config.tensorboard and self._is_first:
            self._tensorboard = TensorBoardWriter(
                self.run.path / "tensorboard", self.log
            )
        self.untold = Untold(state, session.log, bad, self._tensorboard)

    def before_first_step(self, step: int) -> None:
        """Look whether there is room for what will be saved, and measure what the untrained model does."""
        with ranks.in_step():
            check_checkpoint_space(self.run.checkpoints, self.state, self.config)
            check_export_space(self.destination, self.state, self.config)
        self._perform_all(self._timetable.due_before_first_step(step), step)

    def after_step(self, step: int, taken: TakenStep, rate: float) -> None:
        """Do whatever is due now that ``step`` steps are finished, and what was asked for meanwhile."""
        self.untold.add(taken, rate, step=step)
        self.finished = step
        now = self._moment(step, commands=_taken(self.stop.commands))
        self._rates_are_asked = RATES in now.commands
        self._perform_all(self._timetable.due_after(now), step)
        # one look, or a stop that comes during the save would end the run without it
        stopping = ranks.agree(self.stop).stop
        self._perform_all(self._timetable.saves_after(now, stopping=stopping), step)

    def ended(self, step: int) -> bool:
        """Whether the training ends after ``step`` steps, before the last of the run."""
        return self._timetable.training_ends(self._moment(step))

    def take_rates(self, step: int) -> bool:
        """Take new block rates, if any were asked for, and return whether the state is another now."""
        if not self._rates_are_asked:
            return False
        self._rates_are_asked = False
        # an average that is due is that of the old rates
        self.untold.tell()
        taken = self._rates.take(self.config, step)
        if taken is None:
            return False
        self.config = taken
        return True

    def finish(self, step: int) -> list[Path]:
        """Measure, sample and export the finished model; return the files to hand over. A stop shortens it only."""
        failed: Exception | None = None
        for action in self._timetable.due_at_end(step):
            try:
                self._perform(action, step)
            except Exception as error:
                # what of checkpoint and finished model can be written is written
                failed = failed or error
                self.keep(error, together=True)
        if self._tensorboard:
            self._tensorboard.close()
        if failed:
            raise failed
        return [self.destination]

    def keep(
        self, error: Exception, *, trusted: bool = True, together: bool = False
    ) -> None:
        """Save the finished steps that an error would lose, and let it tell what became of them.

        ``trusted``: whether what they learned is worth a checkpoint. ``together``: whether it has come to all ranks;
        else the first may save only what it has by itself.
        """
        told = self._tell()
        whole = told and self.state.weights_are_whole
        if trusted and whole and not self._cannot_save:
            # what the failed work holds on the device
            traceback.clear_frames(error.__traceback__)
            self.state.optimizer.zero_grad(set_to_none=True)
            release()
            self._try_to_save(together=together)
        if not (self._is_first or together or ranks.is_sharded()):
            # the first saves by itself, and this rank cannot know what
            return
        lost = self.finished - self._saved
        if lost:
            steps = "step is" if lost == 1 else f"{lost} steps are"
            error.add_note(f"The last {steps} in no checkpoint.")
        elif self.finished:
            error.add_note(f"Step {self.finished} is saved: the same command goes on.")

    def _tell(self) -> bool:
        """Return whether the last step is told of: what else it changes, the average too, is then as it should be."""
        try:
            self.untold.tell()
        except Exception:  # the error that there is says more
            return False
        return True

    def _try_to_save(self, *, together: bool) -> None:
        if self.finished <= self._saved:
            return
        # the error that there is says more
        with suppress(Exception):
            if together:
                self._checkpoint(self.finished)
            elif self._is_first and not ranks.is_sharded():
                self._save(self.finished)

    def _moment(self, step: int, *, commands: tuple[str, ...] = ()) -> Moment:
        """Return what decides what is due. The only reading of the clock: the first rank's is that of all."""
        epoch = self.data.order.epoch_of(step)
        seconds, *asked = ranks.of_first(
            [time.monotonic(), *(float(command in commands) for command in _COMMANDS)]
        )
        wanted = tuple(
            command
            for command, is_asked in zip(_COMMANDS, asked, strict=True)
            if is_asked
        )
        return Moment(step, epoch, seconds, wanted)

    def _perform_all(self, actions: Sequence[Action], step: int) -> None:
        if actions:
            self.untold.tell()
        for action in actions:
            self._perform(action, step)

    def _perform(self, action: Action, step: int) -> None:
        match action:
            case Action.VALIDATE:
                if self._make(VALIDATION, self._validate, step):
                    self._tell_loss(step)
            case Action.SAMPLE:
                if self._make(SAMPLES, self._sample, step):
                    self._tell_samples(step)
            case Action.EXPORT:
                self._make(EXPORT, self._export_on_the_way, step)
            case Action.CHECKPOINT:
                self._checkpoint(step)
            case Action.STOP:
                self.stop.obey()
            case Action.HAND_OVER:
                self._export(self.destination, step)

    def _make(self, what: ByProduct, work: Callable[[int], None], step: int) -> bool:
        """Do what a run can do without, and return whether all ranks have."""
        made = self._byproducts.make(
            what, partial(work, step), step, of_all=cause_of_all
        )
        if not self.state.weights_are_whole:
            raise RuntimeError(f"{what.name}, and the weights are not those of before")
        if not made:
            self._go_on_training(step)
        return made

    def _export_on_the_way(self, step: int) -> None:
        prefix = self.config.save_filename_prefix
        self._export(export_name(self.destination, step, prefix=prefix), step)

    def _validate(self, _step: int) -> None:
        self._measured = self._validation.measure()

    def _tell_loss(self, step: int) -> None:
        validated = of_all(self._measured, self.config)
        self.log.write(validated, step=step)
        if self._tensorboard:
            self._tensorboard.validated(step, validated)

    def _sample(self, step: int) -> None:
        self._drawn = []
        if ranks.agree(self.stop).stop:
            return
        draw = partial(
            draw_samples, self.config, self.state, self.data, stop=self.stop, step=step
        )
        with self._phase("sampling", step):
            self._drawn.append(draw(self.run.samples, averaged=True))
            if self.state.ema and self.config.non_ema_sampling:
                folder = self.run.samples / "without-ema"
                self._drawn.append(draw(folder, averaged=False))

    def _tell_samples(self, step: int) -> None:
        files: list[Path] = []
        for drawn in map(of_all_ranks, self._drawn):
            files += drawn.files.values()
            if drawn.spoilt:
                told = samples_in_words(drawn.spoilt, self.config)
                self._byproducts.tell(SPOILT, told, step)
        if files:  # none if a stop came
            names = [file.relative_to(self.run.path).as_posix() for file in files]
            self.log.write(Sampled(names), step=step)
        if self._tensorboard and self.config.samples_to_tensorboard:
            self._tensorboard.images(files, step)

    def _export(self, path: Path, step: int) -> None:
        with self._phase("saving", step), ranks.in_step(), ExitStack() as held:
            if self._is_first:
                check_export_space(self.destination, self.state, self.config)
                held.enter_context(one_writer(path.parent))
            self._put(path, step)

    def _put(self, path: Path, step: int) -> None:
        """Write what was learned to ``path``, and keep what is another's there."""
        if self._is_first:
            make_way(path, self.results, lambda text: self._warn_of(text, step))
        with self.state.evaluation():
            export(
                path,
                self.state.transformer,
                training_method=self.config.training_method,
                file_format=self.config.output_model_format,
                dtype=dtype_of(self.config.output_dtype),
                metadata=file_metadata(self.config, self.data.files.variant),
                at_zero=adapters_at_zero(self.state.transformer, self.config),
                gathering=self._gathering,
            )
        if self._is_first:
            self._written(path, step)

    def _warn_of(self, text: str, step: int) -> None:
        self.log.write(Warned("result", text), step=step)

    def _written(self, path: Path, step: int) -> None:
        """Take note of a result as it was written, by which it is known again."""
        sha256 = fingerprint(path)
        self.results.add(path, sha256)
        self.log.write(Saved(path, "export", sha256), step=step)

    def _checkpoint(self, step: int) -> None:
        with ranks.in_step():
            self._save(step)

    def _save(self, step: int) -> None:
        with self._phase("saving", step):
            self._cannot_save = True
            path = save_checkpoint(
                self.run.checkpoints,
                self.state,
                self.config,
                step=step,
                total_steps=self.total_steps,
                data=self.data.fingerprint,
                gathering=self._gathering,
            )
            self.log.write(Saved(path, "checkpoint"), step=step)
            self._cannot_save = False
            self._saved = step
            if self.config.rolling_backup and self._is_first:
                # one too many is no reason to end the run
                keep = self.config.rolling_backup_count
                work = partial(prune, self.run.checkpoints, keep)
                self._byproducts.make(PRUNING, work, step)

    @contextmanager
    def _phase(self, name: str, step: int) -> Iterator[None]:
        """Say what is being done, and at its end that training goes on."""
        self.log.write(Phase(name), step=step)
        yield
        self._go_on_training(step)

    def _go_on_training(self, step: int) -> None:
        last = self.data.order.number_of_steps
        self.log.write(Phase("training", step, last), step=step)


def _taken(commands: list[str]) -> tuple[str, ...]:
    """Take the commands out of a list, to which the thread that listens may add others meanwhile."""
    return tuple(commands.pop(0) for _ in range(len(commands)))

"""The whole story of a run: data, model, steps, files."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch

from blockrate.config.files import config_hash
from blockrate.config.launched import as_launched
from blockrate.config.plan import make_plan
from blockrate.config.streamed import fuses_back_pass
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError
from blockrate.engine import ranks
from blockrate.engine.adapters import ADAPTERS
from blockrate.engine.cards import ranks_of_run, tell_memory
from blockrate.engine.data.cache import prefetch
from blockrate.engine.device import on_device, tell_of_loading, tell_of_room
from blockrate.engine.exactness import allow_tf32, reproducible
from blockrate.engine.fused_back_pass import FusedBackPass
from blockrate.engine.outputs import Outputs
from blockrate.engine.phases import begin_phase
from blockrate.engine.preparation import Data, prepare_data
from blockrate.engine.profile_rates import set_rates
from blockrate.engine.resume import Resume, find_resume, sweep_interrupted_saves
from blockrate.engine.state import TrainingState, groups_of, make_training_state
from blockrate.engine.steps import BadSteps, TakenStep, take_step
from blockrate.engine.telemetry import BlockTelemetry
from blockrate.engine.world import world
from blockrate.run.durable import make_folder
from blockrate.run.events import (
    EventLog,
    Phase,
    Skipped,
    Started,
    Step,
    events_of,
)
from blockrate.run.folder import RunFolder, RunSession, StopFlag
from blockrate.run.results import Results, check_destination


def train(
    config: TrainConfig, run: RunFolder, log: EventLog, stop: StopFlag
) -> list[Path]:
    """Train one LoRA or one whole transformer, write everything under ``run``, and return the files to hand over.

    Goes on from the newest whole checkpoint, if there is one.
    """
    # refuses what cannot train, before anything is loaded
    plan = make_plan(_as_started(config))
    results = _results(config, run)
    with _joined(config, stop) as device:
        # it cleans up after earlier sessions, and must not clean up after this one
        with ranks.first(stop):
            resume = _resume(config, run, log)
        told = tell_of_room(plan, config, device, log)
        data = prepare_data(config, device, log, stop, check=resume.check_data)
        if config.only_cache:
            return []
        tell_of_loading(plan, config, device, log, told=told)
        # not before: encoders that are kept in fp32 stay exact
        allow_tf32(config, device)
        state = _state(config, data, resume, device)
        ranks.obey(stop)
        log.write(_started(config, state, plan.first_trained_block), step=resume.step)
        span = resume.tell_schedule(data.order.number_of_steps, log)
        resume.restore(state, log)
        session = RunSession(run, log, stop)
        bad = BadSteps(config, trained=_has_trained(run, resume.step))
        outputs = Outputs(
            config,
            session,
            state,
            data,
            results,
            bad,
            first=span.first,
            total_steps=span.length,
        )
        return outputs.finish(_trained(config, state, data, outputs, log, bad))


@contextmanager
def _joined(config: TrainConfig, stop: StopFlag) -> Iterator[torch.device]:
    """Give where to train, as the config wants it used, together with the other ranks if there are any."""
    sharded = config.sharding == "FULL"
    with (
        reproducible(config.deterministic),
        on_device(config) as device,
        ranks.together(device, stop, sharded=sharded),
    ):
        yield device


def _state(
    config: TrainConfig, data: Data, resume: Resume, device: torch.device
) -> TrainingState:
    """Load what trains, with the rates of the step that the run goes on from."""
    state = make_training_state(
        data.files,
        config,
        device,
        weights=resume.weights(),
        total_steps=resume.span(data.order.number_of_steps).length,
    )
    set_rates(state.optimizer, 1.0, state.profile.at(resume.step))
    return state


def _as_started(config: TrainConfig) -> TrainConfig:
    """Return a config that asks for the GPUs of this machine that it is started on."""
    here = world()
    return as_launched(config, here.local_size) if here.is_many else config


def _results(config: TrainConfig, run: RunFolder) -> Results:
    """Return what the run has written so far; raises what is wrong with the place for more."""
    results = Results(run.events_file)
    if world().is_first:
        check_destination(
            config.output_model_destination,
            results,
            folder=config.writes_folder(),
            probe=True,
        )
    return results


def _resume(config: TrainConfig, run: RunFolder, log: EventLog) -> Resume:
    """Clean up after interrupted saves, and return where the run goes on."""
    if world().is_first:
        make_folder(run.checkpoints)
        sweep_interrupted_saves(
            run,
            log,
            output=Path(config.output_model_destination),
            cache_dir=Path(config.cache_dir),
        )
    resume = find_resume(config, run, log)
    log.step = resume.step
    adapter = ADAPTERS.get(config.training_method)
    if adapter and not resume.checkpoint:
        # what is wrong with it is said now, not after the encoding
        adapter.read_start(config)
    return resume


def _trained(
    config: TrainConfig,
    state: TrainingState,
    data: Data,
    outputs: Outputs,
    log: EventLog,
    bad: BadSteps,
) -> int:
    """Take all steps and return how many are finished; what fails loses no more of them than it must."""
    try:
        last = _steps(config, state, data, outputs, log)
        bad.end()
    except Exception as error:
        # after bad numbers an older checkpoint may be the better one
        bad_numbers = isinstance(error, NotANumberError)
        outputs.keep(error, trusted=not bad_numbers)
        if bad_numbers and not world().is_first:
            # they are those of all ranks, and one tells
            raise ranks.ElsewhereError(str(error)) from error
        raise
    return last


def _steps(
    config: TrainConfig,
    state: TrainingState,
    data: Data,
    outputs: Outputs,
    log: EventLog,
) -> int:
    """Take the optimizer steps that are left, do what is due after each, and return how many are finished."""
    first = outputs.finished
    stepper = _Stepper(config, state)
    last = data.order.number_of_steps
    outputs.before_first_step(first)
    log.write(Phase("training", first, last), step=first)
    steps_ahead = prefetch(data.step_batches, range(first, last))
    with closing(steps_ahead) as steps:
        for step, batches in enumerate(steps, start=first):
            if outputs.ended(step):
                last = step
                break
            is_first = step == first
            if outputs.take_rates(step):
                stepper = stepper.anew()
                is_first = True
            is_first |= begin_phase(state, log, step)
            factor = config.rate_factor(step, outputs.total_steps)
            set_rates(state.optimizer, factor, state.profile.at(step))
            is_watched = is_first or (step + 1) % config.telemetry_every == 0
            taken = stepper.take(
                batches,
                config,
                step=step,
                telemetry=stepper.telemetry if is_watched else None,
                before_change=outputs.untold.tell,
            )
            if is_watched:
                tell_memory(log, state.device, step + 1)
            rate = config.base_learning_rate() * factor
            outputs.after_step(step + 1, taken, rate)
    outputs.untold.tell()
    return max(first, last)  # a run made shorter has taken more than its last


class _Stepper:
    """What takes the steps of a state, and looks at them, for as long as the same weights train."""

    def __init__(self, config: TrainConfig, state: TrainingState) -> None:
        self._config = config
        self._state = state
        self._fused: FusedBackPass | None = None
        self.take: Callable[..., TakenStep] = partial(take_step, state)
        if fuses_back_pass(config):
            self._fused = FusedBackPass(state)
            self.take = self._fused.take_step
        self.telemetry = BlockTelemetry(state.transformer, state.optimizer)

    def anew(self) -> "_Stepper":
        """Return one for what trains now."""
        if self._fused:
            self._fused.remove_hooks()
        return _Stepper(self._config, self._state)


def _has_trained(run: RunFolder, step: int) -> bool:
    """Whether the run learned anything in the ``step`` steps it goes on from; doubt counts for it."""
    if step == 0:
        return False
    skipped = False
    for record in events_of(run.events_file, Step, Skipped):
        if record.step <= step:
            if isinstance(record.event, Step):
                return True
            skipped = skipped or isinstance(record.event, Skipped)
    return not skipped


def _started(
    config: TrainConfig, state: TrainingState, first_trained_block: str | None
) -> Started:
    """Tell what was really built: groups and rates from the optimizer, the rest from the plan."""
    return Started(
        config_hash(config),
        os.getpid(),
        groups_of(state),
        first_trained_block,
        ranks_of_run(state.device),
        "FULL" if ranks.is_sharded() else "NONE",
    )

"""The one way to start a run: what is in the folder goes on, is set aside, or is finished; nothing is lost."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from blockrate.config.changes import (
    Reset,
    check_changes,
    check_is_asked_for,
    left_to_do,
)
from blockrate.config.files import config_json, load_config, parse_config
from blockrate.config.many_gpus import idle_warning, takes_all
from blockrate.config.named_files import check_start_file
from blockrate.config.new_rates import rates_of
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import (
    BlockrateError,
    ConfigError,
    FileError,
    NoCheckpointError,
    WayOn,
)
from blockrate.run.aside import set_aside
from blockrate.run.checkpoints import newest_valid, read_state
from blockrate.run.data_state import data_state
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.events import Finished, last_event
from blockrate.run.folder import InUseError, RunFolder, is_alive, is_at_work, lock
from blockrate.run.gpus import gpus_for
from blockrate.run.live_rates import STARTED_WITH, carried_on
from blockrate.run.process import run_state, start_engine
from blockrate.run.rate_commands import drop_asked
from blockrate.run.results import Results, check_destination


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of one start alone, and stands in no config.

    ``origin``: what the run is to remember its config by, see ``Placed``. ``own_rates``: the config's block rates count
    although the run was given others while it trained.
    """

    fresh: bool = False
    reset_optimizer: Reset = None
    extend: bool = False
    origin: str = ""
    own_rates: bool = False


@dataclass(frozen=True)
class Launched:
    """An engine was started.

    ``events_from``: where in the file its events begin, in bytes. ``asked``: the hash of what it is to do.
    """

    process: Popen[Any]
    events_from: int
    asked: str = ""

    def is_working(self, run: RunFolder) -> bool:
        """Whether the engine has not ended; the processes of a launcher that was killed save before they do."""
        code = self.process.poll()
        return code is None or (code < 0 and is_alive(run))

    def exit_code(self, run: RunFolder) -> int:
        """Return the code of the engine, which has ended: what its last event says, for a launcher has one of its own.

        The launcher's, negative for a signal, where the engine said nothing.
        """
        code = self.process.wait()
        while self.is_working(run):
            time.sleep(0.1)
        state = run_state(run)
        has_told = run.events_bytes() > self.events_from and state.name != "Lost"
        # where another start has put its settings, the events are of that one
        is_ours = self.asked in ("", run.asked())
        if code and has_told and is_ours and state.exit_code is not None:
            return state.exit_code
        return code


@dataclass(frozen=True)
class AlreadyDone:
    """The run in the folder is finished, after so many steps, and no more is asked for.

    ``can_go_on``: it has a checkpoint from which it can be made longer.
    """

    step: int
    can_go_on: bool = field(default=True, compare=False)

    @property
    def sentence(self) -> str:
        """What is told of it, up to the other ways on."""
        if self.can_go_on:
            return (
                f"This run is finished, after {self.step} steps: raise epochs to go on"
            )
        return (
            f"This run is finished, after {self.step} steps: "
            "it has no checkpoint to go on from"
        )


@dataclass(frozen=True)
class AtWork:
    """An engine is at work in the folder already."""


@dataclass(frozen=True)
class Refused:
    """The config cannot train, or not go on with what is in the folder."""

    error: BlockrateError


Unstarted = AlreadyDone | AtWork | Refused
Answer = Launched | Unstarted
# what a start is asked that goes this way on; what is not here is asked elsewhere
OPTIONS: Mapping[WayOn, Options] = {
    "fresh": Options(fresh=True),
    "reset_new": Options(reset_optimizer="new"),
    "reset_all": Options(reset_optimizer="all"),
    "extend": Options(extend=True),
}


def launch(
    config: TrainConfig,
    run: RunFolder,
    options: Options,
    say: Callable[[str], None] = lambda text: None,
    *,
    look_at_data: Callable[[], object] = lambda: None,
    before_start: Callable[[], object] = lambda: None,
) -> Answer:
    """Check everything that needs no model, and start an engine if there is anything to do.

    See ``make_ready``. ``before_start``: called when all is ready, and an engine is about to
    start. Raises WriteError and OSError for a disk that does not take the run, and an engine
    that cannot be started.
    """
    try:
        gpus = gpus_for(config)
    except ConfigError as error:
        return AtWork() if is_at_work(run) else Refused(error)
    ready = make_ready(config, run, options, say, look_at_data=look_at_data)
    if not isinstance(ready, str):
        return ready
    # of those that a config names the plan tells
    waiting = idle_warning(config, gpus.count) if takes_all(config) else ""
    if waiting:
        say(f"warning: {waiting}")
    events_from = run.events_bytes()
    before_start()
    process = start_engine(run, asked=ready, gpus=gpus)
    return Launched(process, events_from, ready)


def make_ready(
    config: TrainConfig,
    run: RunFolder,
    options: Options,
    say: Callable[[str], None] = lambda text: None,
    *,
    look_at_data: Callable[[], object] = lambda: None,
) -> Unstarted | str:
    """Check everything that needs no model, and make the folder ready for an engine if there is anything to do.

    Returns a hash of what it is to do. ``say``: is told what the plan warns of, and what
    became of an earlier run. ``look_at_data``: raises ConfigError if the folders cannot be
    trained on; called before the run folder is made or touched, and only where a finished
    run is not enough. Raises WriteError and OSError for a disk that does not take the run.
    """
    if is_at_work(run):
        return AtWork()
    try:
        for warning in make_plan(config).warnings:
            say(f"warning: {warning}")
        # the images of a finished run may be gone
        if not options.fresh and _is_finished(run):
            return prepare(config, run, options, say, look_at_data)
        check_start_file(config)
        look_at_data()
        return prepare(config, run, options, say)
    except InUseError as error:
        return AtWork() if is_at_work(run) else Refused(error)
    except (ConfigError, FileError, NoCheckpointError) as error:
        return Refused(error)


def prepare(
    config: TrainConfig,
    run: RunFolder,
    options: Options,
    say: Callable[[str], None],
    look_at_data: Callable[[], object] = lambda: None,
) -> AlreadyDone | str:
    """Make the run folder ready for an engine, unless there is nothing left to do; return a hash of what it is to do.

    Another start may come before that engine has the lock: by the hash it sees that its settings are gone.
    ``look_at_data``: see ``make_ready``; called if there is something left to do.

    Raises ConfigError, with the folder untouched, for a config that belongs to another run,
    or asks a finished one for another result; InUseError; NoCheckpointError; WriteError.
    """
    make_folder(run.path)
    with lock(run, sign=False):
        asked_rates = rates_of(config)
        if not (options.fresh or options.own_rates):
            config = carried_on(config, run, say)
        results = Results(run.events_file)
        if options.fresh:
            told = destination_note(config, results)
            if aside := set_aside(run):
                say(str(aside))
        else:
            if done := _look_at_earlier(run, config, options, results, say):
                return done
            told = destination_note(config, results)
        look_at_data()
        if told:
            say(f"warning: {told}")
        _write(config, run, options, asked_rates)
        return run.asked()


def _look_at_earlier(
    run: RunFolder,
    config: TrainConfig,
    options: Options,
    results: Results,
    say: Callable[[str], None],
) -> AlreadyDone | None:
    """Return that the run in the folder has done what is asked, if it has. Raises as ``prepare`` does."""
    # the engine reads every byte
    checkpoint = newest_valid(run.checkpoints, say, contents=False)
    last = last_event(run.events_file)
    if last and isinstance(last.event, Finished):
        trained = last.step > 0
        asked = _has_done(run, config, options, checkpoint, trained=trained)
        lost = _lost(last.event, results)
        if asked and _has_other_data(run, config):
            _look_again(checkpoint, say)
        elif asked and not lost:
            _remember(run, options)
            return AlreadyDone(last.step, can_go_on=checkpoint is not None)
        if last.step and not checkpoint:
            raise _nothing_to_go_on_from(run, lost)
    if checkpoint:
        before = _config_of(checkpoint)
        check_changes(before, config, reset=options.reset_optimizer)
    return None


def _has_other_data(run: RunFolder, config: TrainConfig) -> bool:
    """Whether the data folders are not as the run found them. One that is gone is no other data."""
    before = run.options().get("data")
    now = data_state(config)
    # what somebody wrote there by hand tells nothing
    return isinstance(before, str) and bool(before and now and before != now)


def _look_again(checkpoint: Path | None, say: Callable[[str], None]) -> None:
    """Let the engine look into the images of a finished run. Raises ConfigError if it has nothing to compare with."""
    problem = "files in the data folders have changed since the run began (names, sizes or times)"
    if checkpoint is None:
        problem += ", and there is no checkpoint that tells what it has learned from"
        cure = "Put them back, or choose another workspace_dir."
        raise ConfigError("concepts", problem, cure, ways_on=["fresh"])
    say(f"{problem}: looking whether images and captions are the same.")


def _remember(run: RunFolder, options: Options) -> None:
    """Let a run know its config, which may have been renamed since, although there is nothing to do."""
    before = run.options()
    if options.origin not in ("", before.get("origin")):
        values = {**before, "origin": options.origin}
        atomic_write(run.options_file, json.dumps(values))


def _lost(finished: Finished, results: Results) -> list[str]:
    """Return what a run has made and is not there as it was written: that is never handed out as the run's."""
    outputs = map(str, finished.outputs)
    return [path for path in outputs if not results.own(path, contents=False)]


def refuse_another_at_work(config: TrainConfig, run: RunFolder) -> None:
    """Raise ConfigError if the run at work in a folder makes something else than a config asks for."""
    try:
        at_work = load_config(run.config_file, ignore_unsupported=True).config
    except ConfigError:
        # changed by hand since: nobody can tell
        return
    check_is_asked_for(at_work, carried_on(config, run, lambda _: None))


def destination_note(config: TrainConfig, results: Results) -> str:
    """Return what is to be told of what is where a run writes, ``""`` if nothing. Raises WriteError if it cannot."""
    folder = config.writes_folder()
    return check_destination(config.output_model_destination, results, folder=folder)


def _is_finished(run: RunFolder) -> bool:
    last = last_event(run.events_file)
    return last is not None and isinstance(last.event, Finished)


def _write(
    config: TrainConfig,
    run: RunFolder,
    options: Options,
    asked_rates: Mapping[str, Any],
) -> None:
    """Put there what the engine reads. ``asked_rates``: the block rates that it was to begin with."""
    # what an earlier engine did not live to take
    drop_asked(run)
    values = {
        "reset_optimizer": options.reset_optimizer,
        "extend": options.extend,
        "events_bytes": run.events_bytes(),
        "data": data_state(config),
        # a run that is started by its own config does not forget whose it is
        "origin": options.origin or run.options().get("origin", ""),
        STARTED_WITH: asked_rates,
        # one start is told from another by it
        "start": f"{time.time_ns()}-{os.getpid()}",
    }
    # before the config, which is not that of the finished run from then on
    atomic_write(run.options_file, json.dumps(values))
    run.create(config_json(config))


def _has_done(
    run: RunFolder,
    config: TrainConfig,
    options: Options,
    checkpoint: Path | None,
    *,
    trained: bool,
) -> bool:
    """Whether a finished run has done what a config asks for. Raises ConfigError if it was trained otherwise."""
    if _never_began(run):
        return False
    try:
        before = load_config(run.config_file, ignore_unsupported=True).config
    except ConfigError as error:
        if checkpoint is None:
            error.ways_on = ("fresh",)
            raise
        # which holds the config, too
        before = _config_of(checkpoint)
    check_changes(before, config, reset=options.reset_optimizer)
    can_go_on = checkpoint is not None
    return not left_to_do(before, config, trained=trained, can_go_on=can_go_on)


def _config_of(checkpoint: Path) -> TrainConfig:
    data = read_state(checkpoint)["config"]
    with _fresh_is_a_way_on():
        return parse_config(data, ignore_unsupported=True, where=str(checkpoint)).config


@contextmanager
def _fresh_is_a_way_on() -> Iterator[None]:
    """Say of an earlier run whose config cannot be read that it can be set aside."""
    try:
        yield
    except ConfigError as error:
        error.ways_on = ("fresh",)
        raise


def _nothing_to_go_on_from(run: RunFolder, lost: Sequence[str]) -> ConfigError:
    problem = f"{run.path} holds a finished run without a checkpoint to go on from"
    if lost:
        problem += f", and {lost[0]} is gone or changed"
    cure = "Choose another one."
    return ConfigError("workspace_dir", problem, cure, ways_on=["fresh"])


def _never_began(run: RunFolder) -> bool:
    """Whether the last start put its config here, and then its engine ended before its first event."""
    return run.options().get("events_bytes") == run.events_bytes()

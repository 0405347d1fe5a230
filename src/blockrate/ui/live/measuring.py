"""A probe of the open config as the app sees it: through its folder alone, whoever started it."""

from dataclasses import dataclass, field
from functools import partial
from threading import Thread

from blockrate.config.train_config import TrainConfig
from blockrate.core.advice import Probe
from blockrate.core.errors import WriteError
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.events import Phase, end_of_events
from blockrate.run.folder import RunFolder, send_command
from blockrate.run.launch import AtWork, Launched, Refused
from blockrate.run.places import Source, place
from blockrate.run.probe_file import BATCHES
from blockrate.run.probes import launch_probe, probe_folder, probe_of
from blockrate.run.process import RunState, run_state, stop_engine


@dataclass(frozen=True)
class Measuring:
    """What a probe is doing: its state, and how far it is in what it does."""

    state: RunState
    phase: Phase = field(default_factory=partial(Phase, "starting"))

    @property
    def words(self) -> str:
        """What it does, in a few words."""
        if self.state.name == "Stopping":
            return "stopping"
        if not self.phase.total:
            return self.phase.name
        return f"{self.phase.name} {self.phase.done}/{self.phase.total}"


def look_at_probe(run: RunFolder) -> Measuring:
    """Return what a probe is doing. Raises OSError."""
    state = run_state(run)
    for record in reversed(end_of_events(run.events_file)):
        if isinstance(record.event, Phase):
            return Measuring(state, record.event)
    return Measuring(state)


def folder_of_probe(config: TrainConfig, source: Source) -> RunFolder:
    """Return where a config's probe is. Slow: for threads."""
    return probe_folder(place(config, source).config)


def measured_for(config: TrainConfig, source: Source) -> Probe | None:
    """Return what was measured for a config as it is and its pictures as they are. Slow: for threads."""
    return probe_of(place(config, source).config)


def start_probe(
    config: TrainConfig, source: Source
) -> tuple[Launched | AtWork | Refused, list[str]]:
    """Start a probe, and return what came of that and what is to be told. Slow: for threads.

    Raises WriteError and OSError for a disk that does not take it.
    """
    said: list[str] = []
    look = partial(refuse_bad_folders, config)
    placed = place(config, source).config
    answer = launch_probe(placed, BATCHES, said.append, look_at_data=look)
    if isinstance(answer, Launched):
        # somebody has to take note of its end, or it stays as a zombie
        Thread(target=answer.process.wait, daemon=True).start()
    return answer, said


def stop_probe(run: RunFolder) -> None:
    """Ask a probe to stop after its batch."""
    try:
        send_command(run, "stop")
    except WriteError:
        # a full disk is a reason to stop, so it must be possible then
        stop_engine(run)

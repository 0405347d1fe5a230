"""New block rates for a run at work, as whoever asks for them sees it; and those that the next start goes on with."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from blockrate.config.new_rates import rates_of, with_rates
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.events import Declined, Rates, Record, read_events
from blockrate.run.folder import RunFolder, is_alive
from blockrate.run.rate_commands import leave_rates
from blockrate.run.typed_json import read_object

# in options.json: the block rates that the last start was asked for
STARTED_WITH = "block_rates"


class Answer(NamedTuple):
    """What became of new rates. ``step``: after how many steps they were taken. ``sentence``: why they were not."""

    state: Literal["taken", "declined", "lost"]
    step: int = 0
    sentence: str = ""


class Question:
    """Rates that a run at work was asked to take. Made by ``ask_for_rates``."""

    def __init__(self, run: RunFolder, command: str, events_from: int) -> None:
        self.run = run
        self.command = command
        self._events_from = events_from

    def answer(self) -> Answer | None:
        """Return what became of it, None while the run is not between two steps."""
        # looked at first: an answer may come while we look
        waits = self.is_waiting()
        alive = is_alive(self.run)
        records, self._events_from = read_events(
            self.run.events_file, self._events_from
        )
        found = _answer_in(records, self.command)
        if found or (waits and alive) or records:
            return found
        if alive:
            return Answer("lost", sentence=_PASSED_OVER)
        self.take_back()
        return Answer("lost", sentence=_OVER)

    def is_waiting(self) -> bool:
        """Whether the file still lies there."""
        return (self.run.commands / f"{self.command}.json").exists()

    def take_back(self) -> None:
        """Ask no longer."""
        with suppress(OSError):
            (self.run.commands / f"{self.command}.json").unlink()


_OVER = "The run ended before it took the rates: start it again with them."
_PASSED_OVER = (
    "The run has passed the rates over: it may be of an earlier blockrate. "
    "Stop it and start it again with them."
)


def ask_for_rates(run: RunFolder, rates: Mapping[str, Any]) -> Question:
    """Leave new block rates, ``rates_in``, for the engine, which takes them after its step.

    Raises WriteError, and ConfigError where no engine would take them.
    """
    if not is_alive(run):
        problem = "no run is at work there"
        cure = "Set the rates in its config, and start it with that."
        raise ConfigError(str(run.path), problem, cure)
    events_from = _size(run)
    return Question(run, leave_rates(run, rates), events_from)


def carried_on(
    config: TrainConfig, run: RunFolder, say: Callable[[str], None]
) -> TrainConfig:
    """Return a config with the rates that the run in a folder was given while it trained, unless its own are newer.

    They are not where it asks for the same rates as the last start did: the same command goes on where the run was.
    """
    asked = run.options().get(STARTED_WITH)
    if asked is None or asked != rates_of(config):
        return config
    try:
        kept = with_rates(config, read_object(run.config_file))
    except (OSError, ValueError, ConfigError):
        return config
    if rates_of(kept) == asked:
        return config
    say(
        "The block rates of this run are those that it was given while it trained, in "
        f"{run.config_file}. `blockrate rates` gives others to a run that trains."
    )
    return kept


def _answer_in(records: Iterable[Record], command: str) -> Answer | None:
    for record in records:
        match record.event:
            case Rates(command=other) if other == command:
                return Answer("taken", record.step)
            case Declined(command=other, message=message) if other == command:
                return Answer("declined", record.step, message)
    return None


def _size(run: RunFolder) -> int:
    with suppress(OSError):
        return run.events_file.stat().st_size
    return 0

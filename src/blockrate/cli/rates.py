"""``blockrate rates``: other block rates for a run that trains."""

import sys
import time
from typing import TYPE_CHECKING, Any

from blockrate.cli.inputs import run_in
from blockrate.cli.options import RatesFile, Run
from blockrate.cli.screen import say
from blockrate.core.errors import ConfigError
from blockrate.core.multiplier_changes import changes_text

if TYPE_CHECKING:
    from blockrate.run.events import Declined, Rates
    from blockrate.run.folder import RunFolder
    from blockrate.run.live_rates import Answer, Question

STANDARD_INPUT = "-"
_LOOKS = 0.2  # seconds between two looks for an answer
_SAYS = 5.0  # seconds of waiting until that is said


def rates(folder: Run, file: RatesFile) -> None:
    """Give a run that trains other block rates: they hold from its next step on, and when it goes on later."""
    say(_given(run_in(folder), file))


def _given(run: "RunFolder", name: str) -> str:
    """Let a run train on with the block rates of a file, and return what to say of it.

    Raises BlockrateError for rates that it cannot take, and for a run that is over.
    """
    from blockrate.config.files import load_config
    from blockrate.config.new_rates import rates_in, with_rates
    from blockrate.config.plan import make_plan
    from blockrate.config.rate_phases import PHASES_KEY
    from blockrate.run.live_rates import ask_for_rates

    where = "standard input" if name == STANDARD_INPUT else name
    asked = rates_in(_read(name), where)
    before = load_config(run.config_file, ignore_unsupported=True).config
    now = with_rates(before, asked)
    known = make_plan(before).warnings
    warnings = [text for text in make_plan(now).warnings if text not in known]
    question = ask_for_rates(run, asked)
    answer = _awaited(question)
    if answer.state != "taken":
        raise ConfigError(str(run.path), answer.sentence)
    for warning in warnings:
        say(f"warning: {warning}")
    if before.block_learning_rate_phases:
        say(f"They replace the run's {PHASES_KEY}, which are kept in {run.path}.")
    return f"The new rates hold from step {answer.step + 1} on."


def rates_line(event: "Rates | Declined", step: int) -> str:
    """What became of new block rates after a step, in a line."""
    from blockrate.run.events import Declined, Rates

    match event:
        case Rates(old=old, new=new):
            return f"step {step}: new block rates, {changes_text(old, new)}"
        case Declined(message=message):
            return f"warning: new block rates were not taken: {message}"


def _read(name: str) -> Any:
    from blockrate.config.presets import read
    from blockrate.config.reading import LARGEST, json_in

    if name == STANDARD_INPUT:
        return json_in(sys.stdin.buffer.read(LARGEST + 1), "standard input")
    return read(name)


def _awaited(question: "Question") -> "Answer":
    """Return what became of the rates; the run looks after its step. Ctrl-C asks for them no longer."""
    began = time.monotonic()
    said = False
    try:
        while True:
            answer = question.answer()
            if answer:
                return answer
            if not said and time.monotonic() > began + _SAYS:
                said = True
                say("The run takes them when its step is over; Ctrl-C takes them back.")
            time.sleep(_LOOKS)
    except KeyboardInterrupt:
        question.take_back()
        raise

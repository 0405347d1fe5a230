"""Which settings reach the goal first, measured by short runs of ``blockrate train``.

A run needs steps and it needs views, which is how often it sees each picture. Large batches bring views, small ones
steps: with b pictures a step, ``steps = STEPS + VIEWS * pictures / b``. Source: McCandlish et al. 2018, "An Empirical
Model of Large-Batch Training", section 2.3, solved for the steps.
"""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import Look, Settings, read_events, train, write_config

# Where both terms are equal it takes 2,500 steps: a guess that is meant to be safe. A pilot at 64 pixels drew 296 names
# after 1,437 steps of 64, which is 310 views; 860 steps of 128 at 128 pixels were too few for 640 names (172 views).
STEPS = 1250
VIEWS = 310
WARM_UP = 4
MEASURED = 12
RESERVE = (
    0.95  # of the time; the rest is for steps that are slower than the measured ones
)
MOST_SECONDS = 600  # for one measurement, the time that a compiler takes included


@dataclass(frozen=True)
class Choice:
    """Settings, and what they were measured to need. ``seconds``: a step takes; infinite for what does not run."""

    settings: Settings
    batch: int
    seconds: float
    steps: int

    @property
    def needed(self) -> float:
        """The seconds until the goal is reached."""
        return self.steps * self.seconds


def fastest(work: Path, settings: Sequence[Settings], pictures: int) -> Choice:
    """Return the settings that reach the goal in the least time. Raises RuntimeError if none of them runs."""
    choices = []
    for each in settings:
        choice = measure(work, each, pictures)
        print(
            f"choice: {each}: {choice.seconds:.3f} s a step, {choice.steps} steps"
            f" needed, {choice.needed:.0f} s",
            flush=True,
        )
        choices.append(choice)
    best = min(choices, key=lambda choice: choice.needed)
    if math.isinf(best.seconds):
        raise RuntimeError("none of the choices could be trained with")
    return best


def unmeasured(settings: Settings, seconds: float, steps: int) -> Choice:
    """Return settings that are to take so many steps, which is trusted to fit into the time."""
    return Choice(settings, settings["batch_size"], RESERVE * seconds / steps, steps)


def measure(work: Path, settings: Settings, pictures: int) -> Choice:
    """Return how long a step of these settings takes, over some steps after a warm-up."""
    batch = min(settings["batch_size"], pictures)
    run = work / "choice"
    shutil.rmtree(run, ignore_errors=True)
    config = write_config(work, file=work / "choice.json", **_short(run, settings))
    seconds = math.inf
    try:
        train(config, _give_up_after(MOST_SECONDS))
        seconds = seconds_of_a_step(read_events(run))
    except (RuntimeError, TimeoutError) as error:  # another choice may do
        print(f"choice: {settings}: {error}", flush=True)
    return Choice(settings, batch, seconds, steps_needed(pictures, batch))


def steps_needed(pictures: int, batch: int) -> int:
    """Return after how many steps of so many pictures the goal is reached."""
    return STEPS + math.ceil(VIEWS * pictures / batch)


def seconds_of_a_step(events: Sequence[dict[str, Any]]) -> float:
    """Return the mean time from one step's end to the next, what it waits for data included."""
    times = [event["time"] for event in events if event["type"] == "step"]
    if len(times) < 2:
        return math.inf
    begin = min(WARM_UP, len(times) - 1) - 1
    return float((times[-1] - times[begin]) / (len(times) - 1 - begin))


def _short(run: Path, settings: Settings) -> Settings:
    """Return the settings of a run that ends after a few steps."""
    end = {
        "stop_training_after": WARM_UP + MEASURED,
        "stop_training_after_unit": "STEP",
    }
    return {
        **settings,
        "epochs": 10_000,
        "transformer": end,
        "workspace_dir": str(run),
        "output_model_destination": str(run / "transformer"),
    }


def _give_up_after(seconds: float) -> Look:
    begun = time.monotonic()

    def look() -> None:
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"not measured within {seconds:.0f} s")

    return look

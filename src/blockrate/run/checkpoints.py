"""The checkpoints of a run: which there are, which is whole, which may go."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blockrate.core.errors import NoCheckpointError
from blockrate.run.durable import keep_damaged, remove_folder, verify_folder
from blockrate.run.saved_state import STATE, wrong_in

_PREFIX = "step-"
# more digits than any number of steps has; int() refuses thousands
_NAME = re.compile(rf"{_PREFIX}([0-9]{{1,18}})")


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint after ``step`` finished steps; names sort by step."""
    return f"{_PREFIX}{step:08}"


def step_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint's run had finished."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints below ``folder``, oldest first: by step, never by a clock."""
    committed = [
        path for path in folder.glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name)
    ]
    return sorted(committed, key=step_of)


def newest_valid(
    folder: Path,
    warn: Callable[[str], None] = lambda text: None,
    *,
    contents: bool = True,
    look_inside: Callable[[Path], str] = lambda checkpoint: "",
) -> Path | None:
    """Return the newest whole checkpoint, None if there is none yet; each damaged one on the way is told to ``warn``.

    ``contents``: read every byte, not names and sizes only. ``look_inside``: returns what else is wrong with one,
    empty if nothing is. Raises NoCheckpointError when there are checkpoints and all of them are damaged: never start
    over in silence.
    """
    committed = checkpoints(folder)
    for checkpoint in reversed(committed):
        damage = _damage(checkpoint, contents) or look_inside(checkpoint)
        if not damage:
            return checkpoint
        damaged = f"checkpoint {checkpoint.name} is damaged ({damage})"
        warn(f"{damaged}: going back to the one before")
    if committed:
        problem = f"none of the {len(committed)} checkpoints is intact"
        cure = "Restore one from a backup."
        raise NoCheckpointError(str(folder), problem, cure, ways_on=["fresh"])
    return None


def _damage(checkpoint: Path, contents: bool) -> str:
    """Return the first thing that is wrong with a checkpoint, empty if nothing is."""
    step = step_of(checkpoint)
    if checkpoint.name != checkpoint_name(step):
        return f"one of step {step} is called {checkpoint_name(step)}"
    reasons = verify_folder(checkpoint, contents=contents)
    return reasons[0] if reasons else wrong_in(checkpoint, step)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the facts of a verified checkpoint: step, total_steps, config, data and more."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_bytes())
    return state


def set_damaged_aside(folder: Path, newest: Path) -> None:
    """Rename what is later than the newest whole checkpoint, so that it is in nobody's way and counts no more."""
    for damaged in checkpoints(folder):
        if step_of(damaged) > step_of(newest):
            keep_damaged(damaged)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints (2 or more): to be called after a commit, never before."""
    assert keep >= 2, "the newest may turn out to be damaged"
    for checkpoint in checkpoints(folder)[:-keep]:
        remove_folder(checkpoint)

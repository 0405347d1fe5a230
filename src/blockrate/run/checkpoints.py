"""The checkpoints of a run: which there are, which is whole, which may go."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blockrate.core.errors import NoCheckpointError
from blockrate.run.durable import keep_damaged, remove_folder, verify_folder

STATE = "state.json"  # what a checkpoint says of itself
_PREFIX = "step-"


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint after ``step`` finished steps; names sort by step."""
    return f"{_PREFIX}{step:08}"


def step_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint's run had finished."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(folder: Path) -> list[Path]:
    """Return the committed checkpoints below ``folder``, oldest first: by step, never by a clock."""
    committed = [
        path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal()
    ]
    return sorted(committed, key=step_of)


def newest_valid(
    folder: Path,
    warn: Callable[[str], None] = lambda text: None,
    *,
    contents: bool = True,
) -> Path | None:
    """Return the newest whole checkpoint, None if there is none yet; each damaged one on the way is told to ``warn``.

    ``contents``: read every byte, not names and sizes only.
    Raises NoCheckpointError when there are checkpoints and all of them are damaged: never start over in silence.
    """
    committed = checkpoints(folder)
    for checkpoint in reversed(committed):
        damage = verify_folder(checkpoint, contents=contents)
        if not damage:
            return checkpoint
        damaged = f"checkpoint {checkpoint.name} is damaged ({damage[0]})"
        warn(f"{damaged}: going back to the one before")
    if committed:
        problem = f"none of the {len(committed)} checkpoints is intact"
        cure = "Restore one from a backup."
        raise NoCheckpointError(str(folder), problem, cure, ways_on=["fresh"])
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the facts of a verified checkpoint: step, total_steps, config, data and more."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
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

"""Whether a checkpoint holds what belongs in it, beyond that its files are those of its manifest.

Folders are renamed and copied by hand, and a manifest can be written by anybody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.run.durable import MANIFEST, read_manifest
from blockrate.run.typed_json import Scalar, kind_of, read_object

STATE = "state.json"  # what a checkpoint says of itself
PARTS = ("weights", "optimizer", "average")
_LARGEST_STATE = 2**28  # bytes; a few numbers for each tensor that trains


@dataclass(frozen=True)
class SavedVersions:
    """What a checkpoint was saved by."""

    blockrate: str
    torch: str


@dataclass(frozen=True)
class SavedOptimizer:
    """What an optimizer keeps beside tensors: by parameter, and by group; and which tensors stay on the CPU."""

    name: str
    scalars: Mapping[str, Mapping[str, Scalar]]
    on_cpu: Sequence[str]
    groups: Mapping[str, Mapping[str, Scalar]]
    beta: float | None = None


@dataclass(frozen=True)
class SavedState:
    """What stands in state.json, see docs/run_folder.md."""

    step: int
    total_steps: int
    data: str
    versions: SavedVersions
    optimizer: SavedOptimizer
    config: Mapping[str, Any]


def wrong_in(checkpoint: Path, step: int) -> str:
    """Return what is wrong with a checkpoint that is called by ``step``, and whole; empty if nothing is."""
    manifest = read_manifest(checkpoint)
    lacking = {STATE, *(f"{part}.safetensors" for part in PARTS)} - set(
        manifest["files"]
    )
    if lacking:
        return f"{MANIFEST} leaves out {', '.join(sorted(lacking))}"
    try:
        state: SavedState = _STATE.read(read_object(checkpoint / STATE, _LARGEST_STATE))
    except (OSError, ValueError, TypeError):
        return f"{STATE} does not say what a checkpoint has to"
    if state.optimizer.name not in OPTIMIZERS:
        return f"{STATE} names an optimizer that is not known here"
    for file, told in ((MANIFEST, manifest.get("step")), (STATE, state.step)):
        if told != step:
            return f"{file} is of step {told!r}"
    return ""


_STATE = kind_of(SavedState)

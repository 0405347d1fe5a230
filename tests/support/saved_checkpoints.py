"""Checkpoints without a model: the files that belong in one, with nothing to learn in them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.durable import commit_folder

PARTS = ("weights", "optimizer", "average")
# of a safetensors file without tensors: the length of its header, and that
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"


def commit_checkpoint(
    folder: Path,
    step: int,
    config: Mapping[str, Any],
    *,
    parts: Iterable[str] = PARTS,
    facts: Mapping[str, Any] | None = None,
    name: str = "",
    state: Mapping[str, Any] | None = None,
) -> Path:
    """Commit one after ``step`` steps, or called ``name``; ``facts``, ``state``: what else it says of itself."""
    temporary = folder / f".tmp-{step}"
    temporary.mkdir(parents=True)
    told = {
        "step": step,
        "total_steps": 12,
        "data": "d",
        "versions": {"blockrate": "0", "torch": "0"},
        "optimizer": {
            "name": "ADAMW",
            "beta": 0.9,
            "scalars": {},
            "on_cpu": [],
            "groups": {},
        },
        "config": dict(config),
    }
    (temporary / "state.json").write_text(json.dumps({**told, **(state or {})}))
    for part in parts:
        (temporary / f"{part}.safetensors").write_bytes(NO_TENSORS)
    final = folder / (name or checkpoint_name(step))
    commit_folder(temporary, final, facts={"step": step} if facts is None else facts)
    return final

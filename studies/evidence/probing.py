"""What ``blockrate probe`` proposes for the pictures of a task: asked once, and kept beside the results."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiles import PROBED
from runs import base_settings
from tasks import Task

from blockrate.core.profile import Multipliers

FILE = Path(__file__).with_name("probed.json")


def probed(task: Task, work: Path, file: Path = FILE) -> Mapping[str, Multipliers]:
    """Return the probe's proposals for a task by its own names for them; asked of the probe where ``file`` has none."""
    known: dict[str, dict[str, dict[str, float]]] = {}
    if file.is_file():
        known = json.loads(file.read_text("utf-8"))
    if task.name not in known:
        known[task.name] = _ask(task, work)
        # a study that is killed now leaves the file as it was
        new = file.with_name(f".{file.name}.new")
        new.write_text(json.dumps(known, indent=1) + "\n")
        new.replace(file)
    return known[task.name]


def _ask(task: Task, work: Path) -> dict[str, dict[str, float]]:
    place = work / "runs" / f"probe-{task.name}"
    config = place.parent / f"{place.name}.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        **base_settings(task, work),
        "workspace_dir": str(place),
        "output_model_destination": str(place / "result.safetensors"),
    }
    config.write_text(json.dumps(settings, indent=1))
    command = [sys.executable, "-m", "blockrate", "probe", str(config), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    proposals = found["proposals"]
    return {key: dict(proposals[key]) for key in PROBED.values()}

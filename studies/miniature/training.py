"""The flow model, trained by ``blockrate train`` from ``miniature.json``.

Only what users have is used, the command line and the run's ``events.jsonl``.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

RECIPE = Path(__file__).with_name("miniature.json")
# For a GPU, both read by torch itself. What float32 products may do: ten bits of mantissa, several times faster. What
# is compiled is recorded and replayed in one launch, because thousands of small kernels are slower to launch than to
# compute. Only a forward with a backward can be, so a run validates nothing: its exports are measured instead.
ENVIRONMENT = {
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "TORCHINDUCTOR_CUDAGRAPHS": "1",
}
STOP_SECONDS = 30  # within which a run that is asked to stop ends its step
Look = Callable[[], None]
Settings = dict[str, Any]


def train(config: Path, look: Look = lambda: None) -> None:
    """Run ``blockrate train`` to its end, and call ``look`` every second meanwhile. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", "blockrate", "train", str(config), "--fresh"]
    with subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}) as training:
        try:
            while training.poll() is None:
                time.sleep(1)
                look()
        finally:
            _stop(training)
    if training.returncode:
        raise RuntimeError(f"blockrate train ended with code {training.returncode}")


def write_config(work: Path, *, file: Path, **changes: Any) -> Path:
    """Write the recipe with every path below ``work`` and these fields changed; return ``file``.

    Of a field that is an object, as ``transformer``, only the fields named inside are changed.
    """
    facts = json.loads(RECIPE.read_text("utf-8"))
    facts["base_model_name"] = str(work / "model")
    facts["workspace_dir"] = str(work / "run")
    facts["cache_dir"] = str(work / "cache")
    facts["output_model_destination"] = str(work / "trained" / "transformer")
    for concept in facts["concepts"]:
        concept["path"] = str(work / "data" / concept["name"])
    for name, value in changes.items():
        if isinstance(value, dict):
            value = {**facts[name], **value}
        facts[name] = value
    file.write_text(json.dumps(facts, indent=1))
    return file


def fill_cache(work: Path, **changes: Any) -> None:
    """Encode every picture and caption, with these fields of the recipe changed, and stop."""
    run = str(work / "caching")
    only = {"only_cache": True, "workspace_dir": run}
    train(write_config(work, file=work / "caching.json", **{**changes, **only}))


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return what happened in a run folder, oldest first; a line that is being written is left out."""
    file = run / "events.jsonl"
    if not file.exists():
        return []
    lines = file.read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def facts_of(run: Path) -> dict[str, Any]:
    """Return how many steps a run took, in what time, and the mean loss of its last fifty.

    ``training_seconds`` begin at the end of the first step, which a compiler may take long for.
    """
    steps = [event for event in read_events(run) if event["type"] == "step"]
    last = [event["loss"] for event in steps[-50:]]
    gaps = [later["time"] - step["time"] for step, later in pairwise(steps)]
    return {
        "steps": len(steps),
        "first_step_seconds": round(steps[0]["seconds"], 1),
        "training_seconds": round(sum(gaps), 1),
        "median_seconds_a_step": round(median(gaps), 4) if gaps else None,
        "training_loss": round(sum(last) / len(last), 4),
    }


def mean_loss_since(run: Path, begin: int, end: int) -> float | None:
    """Return the mean training loss of the steps after ``begin`` until ``end``, None if there are none."""
    losses = []
    for event in read_events(run):
        if event["type"] == "step" and begin < event["step"] <= end:
            losses.append(event["loss"])
    return round(sum(losses) / len(losses), 4) if losses else None


def _stop(training: subprocess.Popen[bytes]) -> None:
    """Ask a run that is still at work to stop after its step, and again to leave at once."""
    for _ in range(2):
        if training.poll() is None:
            training.terminate()
            try:
                training.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue

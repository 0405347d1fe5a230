"""diffusers' own LoRA script, unchanged, on a full-size model of random weights: seconds and memory of its steps.

The check starts this file as a program, and that runs the script. Its transformer is made on the device; its encoders
and VAE are toys of the right widths.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random_flux import Scale

    from device.shared import Check

STEPS = 9
UNTIMED = 3
LEARNS = "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0"


def measure_peer(check: "Check") -> None:
    """Say what the script's steps take at the first size, beside ours of the same LoRA."""
    from device.card import GIB, clear
    from device.shared import Size

    report = check.report
    if not check.script.exists():
        report.leave_out("peer", f"{check.script} does not exist")
        return
    if not report.has_time("peer", 60):
        return
    check.weights.drop()
    clear()
    size = check.scale.sizes[0]
    notes = report.folder / f"peer-{size}.json"
    notes.unlink(missing_ok=True)
    log = report.folder / "peer.log"
    code = run_script(check, size, notes, log)
    if not notes.exists():
        end = log.read_text(errors="replace")[-600:]
        note = f"failed: {code}: {end}"
        report.say("rows", {"what": "diffusers' script", "note": note})
        return
    found = json.loads(notes.read_text(encoding="utf-8"))
    steps = [after - before for before, after in pairwise(found["times"])]
    seconds = median_high(steps[UNTIMED - 1 :])
    row = {
        "what": "diffusers' script, bf16, attention only",
        "px": size,
        "s/step": round(seconds, 3),
        "peak GiB": round(found["peak"] / GIB, 2),
        "exit code": code,
    }
    ours = check.whole_steps.get(Size(size, 1, "attention"))
    if ours:
        row["ours of it"] = round(ours / seconds, 3)
    report.say("rows", row)


def run_script(check: "Check", size: int, notes: Path, log: Path) -> int | str:
    """Run the script in a process of its own, and return its exit code, or that it was cut off."""
    command = [sys.executable, __file__, str(check.script)]
    command += ["--project", str(check.project), "--notes", str(notes)]
    command += ["--size", str(size)]
    patience = max(30, check.report.left() - 5)
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "cut off"
    return done.returncode


def main() -> None:
    """Be the script."""
    options = read_options()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from device.setting import prepare

    prepare(options.project)
    # torch comes with them, and looks at what prepare sets
    import diffusers
    import diffusers.utils
    from peer import stand_in_if_needed

    from device.shared import scale_of_check
    from device.weights import BaseWeights

    scale = scale_of_check()
    base = BaseWeights(scale)
    folder = Path(tempfile.mkdtemp())
    make_model_and_images(folder, scale, options.size)
    diffusers.utils.check_min_version = lambda *_: None
    diffusers.FluxTransformer2DModel.from_pretrained = lambda *_, **__: (
        base.transformer(keep=False)
    )
    stand_in_if_needed()
    note_steps(options.notes)
    sys.argv = [str(options.script), *words(folder, scale, options.size)]
    runpy.run_path(str(options.script), run_name="__main__")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    return parser.parse_args()


def make_model_and_images(folder: Path, scale: "Scale", size: int) -> None:
    from PIL import Image

    from blockrate.core.blocks import BlockLayout
    from blockrate.engine.models.flux1 import make_tiny

    small = replace(scale.spec, layout=BlockLayout(1, 1), heads=1)
    make_tiny(folder / "model", spec=small)
    (folder / "images").mkdir()
    for number in range(2):
        image = Image.effect_noise((size, size), 50).convert("RGB")
        image.save(folder / "images" / f"{number}.png")


def note_steps(notes: Path) -> None:
    """Write the clock after every optimizer step; after the last one, end: what is saved then is not measured."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from device.card import CUDA, wait

    times: list[float] = []

    def note(*_: Any) -> None:
        wait()
        times.append(time.perf_counter())
        if len(times) == 2 and CUDA:
            torch.cuda.reset_peak_memory_stats()
        peak = torch.cuda.max_memory_allocated() if CUDA else 0
        text = json.dumps({"times": times, "peak": peak})
        notes.write_text(text, encoding="utf-8")
        if len(times) >= STEPS:
            os._exit(0)

    register_optimizer_step_post_hook(note)


def words(folder: Path, scale: "Scale", size: int) -> list[str]:
    """Return the script's command line."""
    values = {
        "pretrained_model_name_or_path": folder / "model",
        "instance_data_dir": folder / "images",
        "instance_prompt": "a photo of a cat",
        "resolution": size,
        "train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "output_dir": folder / "out",
        "rank": 16,
        "lora_layers": LEARNS,
        "seed": 0,
        "max_sequence_length": scale.text_tokens,
        "mixed_precision": "bf16",
        "max_train_steps": STEPS,
    }
    given = []
    for name, value in values.items():
        given += [f"--{name}", str(value)]
    return [*given, "--gradient_checkpointing", "--cache_latents"]


if __name__ == "__main__":
    main()

"""What a run has to survive on a card, with the command line alone: the toy, on the photographs of the examples.

Kill -9 after a checkpoint, go on, and compare with an unbroken run, bit for bit. Then fp8 and nf4 from end to end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from device.card import clear
from device.report import Report
from device.shared import Check

LORA = "lora.safetensors"
SECONDS = 60  # that must be left


def run_lives(check: Check) -> None:
    """Say what became of each run; whatever goes wrong is said too."""
    if not check.report.has_time("tests", SECONDS):
        return
    check.weights.drop()
    clear()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        lives = Lives(check.project, check.report, Path(folder))
        try:
            lives.fill_cache()
            lives.kill_and_resume()
            lives.train_in_few_bits()
        except Exception as error:
            told = f"failed: {type(error).__name__}: {str(error)[:300]}"
            check.report.say("tests", {"what": "tests", "note": told})
            traceback.print_exc()
        finally:
            lives.end_all()


class Lives:
    """Runs of the toy in one folder, with one cache, each in a process of its own."""

    def __init__(self, project: Path, report: Report, folder: Path) -> None:
        self.project = project
        self.report = report
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def fill_cache(self) -> None:
        process = self.train(self.config("cached", only_cache=True))
        code = process.wait(self.patience())
        self.report.say("tests", {"what": "encode and cache", "exit code": code})

    def kill_and_resume(self) -> None:
        whole = self.train(self.config("whole"))
        config = self.config("broken")
        self.kill_after_checkpoint(self.train(config), self.folder / "broken")
        again = self.train(config)
        self.compare((again.wait(self.patience()), whole.wait(self.patience())))

    def kill_after_checkpoint(
        self, process: subprocess.Popen[bytes], run: Path
    ) -> None:
        saved = 0
        while process.poll() is None and not saved:
            saved = last_checkpoint(run)
            time.sleep(0.02)
        os.kill(engine_of(run) or process.pid, signal.SIGKILL)
        row = {
            "what": "kill -9 after a checkpoint",
            "at step": saved,
            "exit code": process.wait(60),
        }
        self.report.say("tests", row)

    def compare(self, codes: tuple[int, int]) -> None:
        """Say whether the killed run is the unbroken one, and what the latter has left."""
        whole = self.folder / "whole"
        broken = self.folder / "broken"
        losses = losses_of(whole)
        others = losses_of(broken)
        apart = [step for step in losses if others.get(step) != losses[step]]
        row = {
            "what": "killed and resumed = unbroken",
            "exit codes": codes,
            "bit for bit": same_tensors(whole / LORA, broken / LORA),
            "steps": len(losses),
            "steps whose loss differs": len(apart),
            "first": apart[:1],
            "device": device_of(whole),
        }
        self.report.say("tests", row)
        left = {
            "what": "files of the run",
            "samples": len(list(whole.rglob("*.png"))),
            "events": sorted({event["type"] for event in events(whole)}),
        }
        self.report.say("tests", left)

    def train_in_few_bits(self) -> None:
        processes = {}
        for form in ("FLOAT_8", "INT_8", "NFLOAT_4"):
            part = {"weight_dtype": form, "gradient_checkpointing": True}
            config = self.config(form, epochs=4, transformer=part)
            processes[form] = self.train(config)
        for form, process in processes.items():
            row = {
                "what": f"toy end to end in {form}",
                "exit code": process.wait(self.patience()),
                "file": (self.folder / form / LORA).exists(),
            }
            self.report.say("tests", row)

    def config(self, name: str, **changes: Any) -> Path:
        """Write the config of a bf16 run: checkpoints, samples, validation, telemetry, bit-exact."""
        examples = self.project / "examples"
        values = json.loads((examples / "demo.json").read_text(encoding="utf-8"))
        values |= {
            "workspace_dir": str(self.folder / name),
            "cache_dir": str(self.folder / "cache"),
            "output_model_destination": str(self.folder / name / LORA),
            "deterministic": True,
            "seed": 7,
            "train_dtype": "BFLOAT_16",
            "epochs": 5,
            "batch_size": 2,
            "backup_after": 8,
            "telemetry_every": 5,
            "ema": "GPU",
            "sample_after": 20,
            "validate_after": 20,
            "tensorboard": False,
            "resolution": "64",
            "transformer": {
                "weight_dtype": "BFLOAT_16",
                "gradient_checkpointing": True,
            },
        }
        for sample in values["samples"]:
            sample.update(width=64, height=64, diffusion_steps=4)
        for concept in values["concepts"]:
            concept["path"] = str(examples / "photos")
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(values | changes), encoding="utf-8")
        return path

    def train(self, config: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "blockrate", "train", str(config)]
        with (self.report.folder / f"{config.stem}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def patience(self) -> float:
        """Return how many seconds a run may still take."""
        return max(30, self.report.left() - 20)

    def end_all(self) -> None:
        """Kill what is left: an engine is a session of its own, so its command's end does not end it."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for run in self.folder.iterdir():
            engine = engine_of(run)
            if engine and Path(f"/proc/{engine}").exists():
                os.kill(engine, signal.SIGKILL)


def engine_of(run: Path) -> int | None:
    """Return the process that started last in a run folder."""
    file = run / "who.json"
    if not file.exists():
        return None
    process: int = json.loads(file.read_text(encoding="utf-8"))["pid"]
    return process


def events(run: Path) -> list[dict[str, Any]]:
    """Return the events so far; a line that is being written is not one yet."""
    file = run / "events.jsonl"
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def last_checkpoint(run: Path) -> int:
    """Return the step of the last checkpoint; 0 if there is none."""
    steps = [0]
    for event in events(run):
        if event["type"] == "saved" and event.get("kind") == "checkpoint":
            steps.append(event["step"])
    return max(steps)


def losses_of(run: Path) -> dict[int, float]:
    """Return the loss of every step."""
    steps = [event for event in events(run) if event["type"] == "step"]
    return {event["step"]: event["loss"] for event in steps}


def device_of(run: Path) -> str:
    """Return what the run says of where it trained."""
    file = run / "log.txt"
    if not file.exists():
        return "?"
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("training on")), "?")


def same_tensors(one: Path, other: Path) -> bool:
    """Tell whether two files are there and hold the same, bit for bit."""
    if not one.exists() or not other.exists():
        return False
    left = load_file(one)
    right = load_file(other)
    if left.keys() != right.keys():
        return False
    return all(torch.equal(left[name], right[name]) for name in left)

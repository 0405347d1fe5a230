"""How long it takes to begin: from the command to the first step with warm caches, help, import, grouping.

Goals: the first step not later than that of the diffusers script in the same run; ``blockrate --help`` <= 0.5 s without
torch; grouping full-size FLUX.1 on the meta device <= 20 ms.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from common import (
    Times,
    arguments,
    make_toy,
    milliseconds,
    ratios,
    scratch,
    spread,
    table,
    toy_config,
)
from peer import peer_times
from peft import LoraConfig

from blockrate import parameter_groups
from blockrate.config.files import config_json
from blockrate.engine.models.flux1 import random_transformer
from blockrate.models.families import FAMILIES
from blockrate.models.module_table import modules
from blockrate.run.events import Step, events_of

SPEC = FAMILIES["flux1-dev"].spec
STEPS = 6


def main() -> None:
    """Print all figures."""
    options = arguments(__doc__, rounds=5)
    with scratch() as folder:
        make_toy(folder)
        first_steps(folder, options.diffusers, options.rounds)
    light = {
        "blockrate --help": ["-m", "blockrate", "--help"],
        "import blockrate": ["-c", "import blockrate"],
        "python alone": ["-c", "pass"],
    }
    rows = [
        [name, milliseconds(_seconds(command, options.rounds * 3))]
        for name, command in light.items()
    ]
    rates = {name: 0.99 - 0.01 * index for index, name in enumerate(SPEC.layout.names)}
    for name, lora in (
        ("full-size FLUX.1", False),
        ("full-size FLUX.1 with a LoRA everywhere", True),
    ):
        rows.append(
            [f"grouping {name}, 57 rates", milliseconds(grouping(rates, lora=lora))]
        )
    table("Other beginnings", ["what", "ms"], rows)


def first_steps(folder: Path, diffusers: Path | None, rounds: int) -> None:
    """Compare whole programs, in turns: blockrate, and the script of diffusers with and without its cache.

    Processor time is that of all processes up to the first step: blockrate is two, a command line and an engine.
    """
    config = folder / "config.json"
    config.write_text(config_json(toy_config(folder, epochs=1)), encoding="utf-8")
    first_step(folder, config)  # fills the cache
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        found.setdefault("blockrate train", []).append(first_step(folder, config))
        if not diffusers:
            continue
        for cached in (False, True):
            peer = peer_times(diffusers, folder, steps=2, cached=cached)
            name = "diffusers script, " + ("--cache_latents" if cached else "no cache")
            found.setdefault(name, []).append(
                (peer.first_step, peer.processor_first_step)
            )
    ours = list(zip(*found["blockrate train"], strict=True))
    rows = []
    for name, times in found.items():
        both = list(zip(*times, strict=True))
        of_it = [
            spread(ratios(mine, its)) for mine, its in zip(ours, both, strict=True)
        ]
        rows.append(
            [name, spread(both[0], ".2f"), of_it[0], spread(both[1], ".2f"), of_it[1]]
        )
    header = [
        "program",
        "seconds",
        "blockrate / it",
        "processor seconds",
        "blockrate / it",
    ]
    table("From the command to the first step of the toy, caches warm", header, rows)


def first_step(folder: Path, config: Path) -> tuple[float, float]:
    """Return the seconds from the command to the end of the first step, and the processor's up to then."""
    run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    command = [
        sys.executable,
        "-m",
        "blockrate",
        "train",
        str(config),
        "--set",
        f"workspace_dir={run}",
    ]
    events = run / "events.jsonl"
    begun = time.time()
    taken = 0.0
    with psutil.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as program:
        while program.poll() is None and not (steps := _steps(events)):
            time.sleep(0.02)
        if program.is_running():
            family = [program, *program.children(recursive=True)]
            taken = sum(sum(process.cpu_times()[:2]) for process in family)
        _, message = program.communicate()
    if program.returncode:
        raise SystemExit(f"blockrate failed:\n{message}")
    return (steps or _steps(events))[0] - begun, taken


def _steps(events: Path) -> list[float]:
    return [
        record.time
        for record in events_of(events, Step)
        if isinstance(record.event, Step) and record.time is not None
    ]


def grouping(rates: dict[str, float], *, lora: bool) -> list[float]:
    """Return the seconds that grouping the parameters of FLUX.1-dev takes, on the meta device."""
    with torch.device("meta"):
        transformer = random_transformer(SPEC)
    if lora:
        names = [module.name for module in modules(SPEC) if module.linear]
        pattern = "|".join(name.replace(".", r"\.") for name in names)
        transformer.add_adapter(LoraConfig(r=16, target_modules=pattern))
    times = Times()
    for _ in range(30):
        with times.measure():
            parameter_groups(transformer, learning_rate=1e-4, multipliers=rates)
    return times.wall


def _seconds(command: list[str], rounds: int) -> list[float]:
    times = Times()
    for _ in range(rounds):
        with times.measure():
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return times.wall


if __name__ == "__main__":
    main()

"""Runs that the code before the move has left (tests/fixtures/before_the_move): unpacked, gone on with, compared.

Only what a user has: the command line and the files. Nothing of ``blockrate`` is imported here.
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.event_lines import event_lines

FIXTURES = Path(__file__).parents[1] / "fixtures" / "before_the_move"
EXPECTED: dict[str, Any] = json.loads(
    (FIXTURES / "expected.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str


def unpack(folder: Path, *names: str) -> Path:
    """Unpack archives of the fixtures, the data always among them, into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("data", *names):
        with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder


def blockrate(*words: str | Path, folder: Path) -> Done:
    """Run ``blockrate`` with these words in ``folder``, where the relative paths of the old configs hold."""
    done = subprocess.run(
        [sys.executable, "-m", "blockrate", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """The events of these kinds that stand in a run folder."""
    return event_lines(run / "events.jsonl", *kinds)


def steps(run: Path) -> dict[int, tuple[float, ...]]:
    """Loss, rate and length of the gradient of every step, as the last life of the run took it."""
    names = ("loss", "learning_rate", "grad_norm")
    return {
        event["step"]: tuple(event[name] for name in names)
        for event in events(run, "step")
    }


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of the latest step."""
    return max((run / "checkpoints").glob("step-*"))


def damages(folder: Path) -> list[str]:
    """The files of a committed folder that are not what its manifest says."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return [
        name
        for name, facts in manifest["files"].items()
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != facts["sha256"]
    ]


def tensor_differences(expected: Path, found: Path) -> Iterator[str]:
    """Say of every tensor in two safetensors files whether they differ by more than a thousandth of its length.

    Not bit for bit: processors and versions of torch round differently, and since the fixtures were made the
    trainer's timesteps come from another form of the same formula, which moves their last bits.
    """
    from safetensors.torch import load_file

    before, after = load_file(expected), load_file(found)
    yield from (f"{name} is in one file only" for name in before.keys() ^ after.keys())
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            yield f"{name} was {old.dtype} {list(old.shape)} and is {new.dtype} {list(new.shape)}"
            continue
        distance = (old.double() - new.double()).norm()
        if distance > 1e-3 * old.double().norm():
            yield f"{name} is {distance:.3g} away"


def number_differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """Say where ``now`` lacks or changes what ``before`` holds; more may be there, and floats may differ a little."""
    match before, now:
        case dict(), dict():
            for key, value in before.items():
                yield from number_differences(value, now.get(key), f"{where}.{key}")
        case list(), list() if len(before) == len(now):
            for index, (one, other) in enumerate(zip(before, now, strict=True)):
                yield from number_differences(one, other, f"{where}[{index}]")
        case float(), float() if abs(before - now) <= 1e-4 * abs(before):
            return
        case _ if before != now:
            yield f"{where} was {before!r} and is {now!r}"

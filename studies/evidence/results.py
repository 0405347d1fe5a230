"""What runs have measured: one line of JSON each, added when the run is done, so that a study goes on where it was."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("results.jsonl")


class Key(NamedTuple):
    """Which run: no two have the same."""

    task: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Point:
    """What one validation says. ``drift``: mean square change of the predictions on the base set, 0 before training."""

    step: int
    subject: float
    keep: float
    drift: float


@dataclass(frozen=True)
class Result:
    """One run.

    ``points``: of a task and a seed one run alone has that before the first step, see ``whole``.
    ``mean``: of its rates. ``cost``: FLOPs of a step beside those of flat 1.0. ``seconds``: of one core.
    """

    task: str
    arm: str
    kind: str
    seed: int
    mean: float
    cost: float
    learning_rate: float
    points: tuple[Point, ...]
    seconds: float = 0.0

    @property
    def key(self) -> Key:
        """Which run it is."""
        return Key(self.task, self.arm, self.seed)

    @property
    def is_flat(self) -> bool:
        """Whether all blocks have one rate: of the sweep, or what proposes nothing."""
        return self.kind == "flat" or self.mean == 1.0

    @property
    def last(self) -> Point:
        """What was measured at the end."""
        return self.points[-1]


def read(file: Path = FILE) -> dict[Key, Result]:
    """Return all results; of two of the same run the later one. A line cut off in the middle is left out."""
    found: dict[Key, Result] = {}
    if not file.is_file():
        return found
    for line in file.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            facts = json.loads(line)
            facts["points"] = tuple(Point(**point) for point in facts["points"])
            result = Result(**facts)
            found[result.key] = result
    return found


def whole(found: Iterable[Result]) -> list[Result]:
    """Return results with what was measured before the first step, which is the same in all of a task and a seed.

    Those that nothing is known of yet are left out.
    """
    results = list(found)
    first = {
        (one.task, one.seed): one.points[0] for one in results if not one.points[0].step
    }
    return [
        replace(one, points=(first[one.task, one.seed], *points))
        for one in results
        if (one.task, one.seed) in first
        for points in [[point for point in one.points if point.step]]
    ]


def add(result: Result, file: Path = FILE) -> None:
    """Add a result as one line, on the disk before this returns."""
    mend(file)
    with file.open("ab") as stream:
        stream.write(f"{json.dumps(asdict(result))}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())


def mend(file: Path) -> None:
    """Cut off what a killed study has written of a line, so that the next line stands by itself."""
    if not file.is_file():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.write_bytes(whole)


def by_arm(results: Iterable[Result]) -> Mapping[str, dict[int, Result]]:
    """Return results of one task by arm and seed, arms in the order in which they came."""
    found: dict[str, dict[int, Result]] = {}
    for result in results:
        found.setdefault(result.arm, {})[result.seed] = result
    return found

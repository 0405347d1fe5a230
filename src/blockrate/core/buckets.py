"""Aspect-ratio buckets: the image sizes a run trains at."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from blockrate.core.errors import ConfigError

# Width to height and its inverse: OneTrainer's set.
_RATIOS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)
PATCH = 16  # pixels a side that make one image token: VAE factor 8, times 2 by packing
_LARGEST = 8192
_MOST_SIZES = 100


@dataclass(frozen=True, order=True)
class Bucket:
    """An image size in pixels."""

    width: int
    height: int

    @property
    def tokens(self) -> int:
        """Image tokens of one image of this size."""
        return (self.width // PATCH) * (self.height // PATCH)


@cache
def buckets(resolution: str) -> tuple[tuple[Bucket, ...], ...]:
    """Return one tuple of buckets per resolution of ``"512"``, ``"512,768"`` or ``"832x1216"``.

    A number is the side of the square whose area every bucket has; sides are multiples of 64, below 256 pixels of 16.
    ``WIDTHxHEIGHT`` is that one size. Raises ``ConfigError``.
    """
    parts = [part.strip().lower() for part in resolution.split(",")]
    if len(parts) > _MOST_SIZES:
        problem = f"names {len(parts):,} sizes"
        raise ConfigError("resolution", problem, f"The most is {_MOST_SIZES}.")
    return tuple(_buckets_of(part) for part in parts)


def nearest_bucket(width: int, height: int, buckets: Iterable[Bucket]) -> Bucket:
    """Return the bucket whose aspect ratio is nearest to an image's, so least is cropped; the larger if tied."""
    ratio = math.log(width / height)

    def unlikeness(bucket: Bucket) -> tuple[float, int, Bucket]:
        distance = abs(math.log(bucket.width / bucket.height) - ratio)
        return distance, -bucket.tokens, bucket

    return min(buckets, key=unlikeness)


def _buckets_of(part: str) -> tuple[Bucket, ...]:
    sides = _sides(part)
    cure = "Write it like 768, like 512,768 or like 832x1216."
    if not sides or not all(PATCH <= side <= _LARGEST for side in sides):
        problem = f"{part!r} is not a size from {PATCH} to {_LARGEST} pixels"
        raise ConfigError("resolution", problem, cure)
    if len(sides) == 1:
        return _buckets_of_area(sides[0])
    if any(side % PATCH for side in sides):
        problem = f"{part}: both sides must be multiples of {PATCH}"
        raise ConfigError("resolution", problem, cure)
    return (Bucket(*sides),)


def _sides(part: str) -> list[int]:
    """Return the one number of ``768``, the two of ``832x1216``, and none of anything else."""
    if part.isdecimal():
        return [int(part)]
    both = re.fullmatch(r"([0-9]+)x([0-9]+)", part)
    return [int(side) for side in both.groups()] if both else []


def _buckets_of_area(side: int) -> tuple[Bucket, ...]:
    """Return the buckets with the area of a square, wide and high ones, each once."""
    step = 64 if side >= 256 else PATCH
    different: list[Bucket] = []
    for ratio in _RATIOS:
        long = _multiple(side * ratio**0.5, step)
        short = _multiple(side * ratio**-0.5, step)
        for bucket in (Bucket(long, short), Bucket(short, long)):
            if bucket not in different:
                different.append(bucket)
    return tuple(different)


def _multiple(length: float, step: int) -> int:
    """Return the multiple of ``step`` that is nearest to a length, at least one."""
    return max(step, round(length / step) * step)

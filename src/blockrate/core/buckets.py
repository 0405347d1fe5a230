"""Aspect-ratio buckets: the image sizes a run trains at."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from blockrate.core.errors import ConfigError

# Width to height and its inverse: OneTrainer's set.
_RATIOS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0)
PATCH = 16  # pixels a side that make one image token: VAE factor 8, times 2 by packing
_LARGEST = 8192


@dataclass(frozen=True, order=True)
class Bucket:
    """An image size in pixels."""

    width: int
    height: int

    @property
    def tokens(self) -> int:
        """Image tokens of one image of this size."""
        return (self.width // PATCH) * (self.height // PATCH)


def buckets(resolution: str) -> tuple[tuple[Bucket, ...], ...]:
    """Return one tuple of buckets per resolution of ``"512"``, ``"512,768"`` or ``"832x1216"``.

    A number is the side of the square whose area every bucket has; sides are multiples of 64, below 256 pixels of 16.
    ``WIDTHxHEIGHT`` is that one size. Raises ``ConfigError``.
    """
    parts = [part.strip().lower() for part in resolution.split(",")]
    return tuple(_buckets_of(part) for part in parts)


def nearest_bucket(width: int, height: int, buckets: Iterable[Bucket]) -> Bucket:
    """Return the bucket whose aspect ratio is nearest to an image's, so least is cropped; the larger if tied."""
    ratio = math.log(width / height)
    return min(
        buckets,
        key=lambda bucket: (
            abs(math.log(bucket.width / bucket.height) - ratio),
            -bucket.tokens,
            bucket,
        ),
    )


def _buckets_of(part: str) -> tuple[Bucket, ...]:
    fixed = re.fullmatch(r"([0-9]+)x([0-9]+)", part)
    sides = (
        [int(side) for side in fixed.groups()]
        if fixed
        else [int(part)]
        if part.isdecimal()
        else []
    )
    cure = "Write it like 768, like 512,768 or like 832x1216."
    if not sides or not all(PATCH <= side <= _LARGEST for side in sides):
        raise ConfigError(
            "resolution",
            f"{part!r} is not a size from {PATCH} to {_LARGEST} pixels",
            cure,
        )
    if fixed:
        if any(side % PATCH for side in sides):
            raise ConfigError(
                "resolution", f"{part}: both sides must be multiples of {PATCH}", cure
            )
        return (Bucket(*sides),)
    step = 64 if sides[0] >= 256 else PATCH
    return tuple(
        dict.fromkeys(
            bucket for ratio in _RATIOS for bucket in _both_ways(sides[0], ratio, step)
        )
    )


def _both_ways(side: int, ratio: float, step: int) -> tuple[Bucket, Bucket]:
    long, short = (
        max(step, round(side * factor / step) * step)
        for factor in (ratio**0.5, ratio**-0.5)
    )
    return Bucket(long, short), Bucket(short, long)

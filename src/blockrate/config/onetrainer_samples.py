"""Sizes of samples that OneTrainer saved: it takes any, and samples at multiples of 64 pixels."""

from collections.abc import Iterator
from typing import Any

from blockrate.config.onetrainer_sections import is_versioned
from blockrate.config.reading import Json
from blockrate.config.unsupported import listed

_KEY = "samples"
_SIDES = ("width", "height")
_STEP = 64  # what OneTrainer rounds to
_FITS = 16  # what is taken here as it is


def round_sizes(data: Json) -> list[str]:
    """Round what no sample can be here, in samples that OneTrainer saved, as it does; return warnings.

    Lists and entries that get something are made anew.
    """
    samples = data.get(_KEY)
    if not isinstance(samples, list):
        return []
    all_saved = is_versioned(data)
    told = []
    rounded = list(samples)
    for index, sample in enumerate(samples):
        if not isinstance(sample, dict) or not (all_saved or is_versioned(sample)):
            continue
        sides = dict(_rounded(sample))
        rounded[index] = sample | sides
        told += [
            f"{_KEY}.{index}.{side} {sample[side]} -> {pixels}"
            for side, pixels in sides.items()
        ]
    if not told:
        return []
    data[_KEY] = rounded
    return [f"rounded to {_STEP} pixels, as OneTrainer does: {listed(told)}"]


def _rounded(sample: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the sides that do not fit, as OneTrainer rounds them."""
    for side in _SIDES:
        pixels = sample.get(side)
        # true is an int, too
        if type(pixels) is int and pixels > 0 and pixels % _FITS:
            yield side, max(_STEP, round(pixels / _STEP) * _STEP)

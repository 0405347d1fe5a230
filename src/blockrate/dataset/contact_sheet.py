"""What a run has drawn, on one sheet: before, after, and the truth where there is one."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageStat

from blockrate.config.train_config import TrainConfig

_SAMPLE = re.compile(r"step-([0-9]+)-([0-9]+)-.*\.png")
_GAP = 8  # pixels between pictures
_LABELS = 72  # pixels for the words at the left
_WORDS = 13  # pixels, size of the font
_NEAREST = 1e-3  # of a mean square, in 8 bits: no picture counts as nearer


class Column(NamedTuple):
    """One prompt, and its pictures by the row they stand in: before, after, truth."""

    prompt: str
    pictures: Mapping[str, Path]


def columns_of(config: TrainConfig, samples: Path) -> list[Column]:
    """Return what a run has drawn into ``samples`` for each of its prompts first and last.

    The truth is the validation image whose name is the prompt. Prompts that were not drawn twice are left out.
    """
    drawn: dict[int, dict[int, Path]] = {}
    for file in sorted(samples.glob("*.png")):
        if match := _SAMPLE.fullmatch(file.name):
            step, number = map(int, match.groups())
            drawn.setdefault(number, {})[step] = file
    columns = []
    for number, sample in enumerate(config.samples):
        files = drawn.get(number, {})
        if len(files) < 2:
            continue
        pictures = {"before": files[min(files)], "after": files[max(files)]}
        truth = _truth(config, sample.prompt)
        columns.append(
            Column(sample.prompt, pictures | ({"truth": truth} if truth else {}))
        )
    return columns


def sheet(columns: Sequence[Column]) -> bytes:
    """Return a PNG of at least one column side by side. Raises OSError for a picture that cannot be read."""
    rows = list(dict.fromkeys(row for column in columns for row in column.pictures))
    side = max(_open(column.pictures["after"]).height for column in columns)
    step = side + _GAP
    top = 2 * _GAP + _WORDS
    size = (_LABELS + step * len(columns), top + step * len(rows))
    paper = Image.new("RGB", size, "white")
    brush = ImageDraw.Draw(paper)
    font = ImageFont.load_default(_WORDS)
    for line, row in enumerate(rows):
        middle = top + step * line + side // 2
        brush.text((_GAP, middle), row, "black", font, anchor="lm")
    for place, column in enumerate(columns):
        left = _LABELS + step * place
        words = (left + side // 2, _GAP)
        brush.text(words, column.prompt, "black", font, anchor="mt")
        for line, row in enumerate(rows):
            if row in column.pictures:
                paper.paste(_open(column.pictures[row]), (left, top + step * line))
    stream = io.BytesIO()
    paper.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def nearness(columns: Sequence[Column], row: str) -> float | None:
    """Return how near a row is to the truth: the mean PSNR in dB, None where there is no truth of the same size."""
    ratios = []
    for column in columns:
        if "truth" in column.pictures:
            drawn, truth = (_open(column.pictures[name]) for name in (row, "truth"))
            if drawn.size == truth.size:
                squares = ImageStat.Stat(ImageChops.difference(drawn, truth)).rms
                square = max(fmean(rms**2 for rms in squares), _NEAREST)
                ratios.append(10 * math.log10(255**2 / square))
    return fmean(ratios) if ratios else None


def _truth(config: TrainConfig, prompt: str) -> Path | None:
    for concept in config.concepts:
        if concept.type == "VALIDATION":
            file = Path(concept.path, f"{prompt.replace(' ', '-')}.png")
            if file.is_file():
                return file
    return None


def _open(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")

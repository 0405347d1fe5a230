"""The samples of a run by prompt and step, and what stands in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from blockrate.core.errors import FileError
from blockrate.core.plain_text import visible
from blockrate.dataset.folders import open_file
from blockrate.dataset.headers import quiet_pillow

_STEP = re.compile(r"^step-(\d+)-")
# drawn a second time, without the average of the weights
_WITHOUT_EMA = "without-ema"
_LONGEST = 2000  # characters of a prompt


class Picture(NamedTuple):
    """A sample, and after which step."""

    step: int
    path: Path


class DrawnBy(NamedTuple):
    """What a picture says of itself; empty where it does not. ``rest``: its other settings, in words."""

    prompt: str = ""
    seed: str = ""
    rest: str = ""


def by_prompt(
    samples: Mapping[int, Sequence[str]], folder: Path
) -> dict[str, list[Picture]]:
    """The pictures by the number and the words of their prompt, which are in their names."""
    pictures: dict[str, list[Picture]] = {}
    for step, files in samples.items():
        for file in files:  # step-00000075-0-a-photo-of-a-cat.png
            path = Path(file)
            prompt = _STEP.sub("", path.stem)
            if path.parent.name == _WITHOUT_EMA:
                prompt += f"-{_WITHOUT_EMA}"
            pictures.setdefault(prompt, []).append(Picture(step, folder / file))
    return pictures


def words_of(prompt: str) -> str:
    """A prompt as it stands in the name of a file."""
    return visible(prompt.partition("-")[2].replace("-", " "))


def drawn_by(path: Path) -> DrawnBy | None:
    """What stands in a picture of ours, safe to show; None for what is no PNG."""
    try:
        with (
            quiet_pillow(),
            open_file(path) as file,
            Image.open(file, formats=["PNG"]) as image,
        ):
            texts = {
                name: visible(text[:_LONGEST])
                for name, text in image.info.items()
                if isinstance(text, str)
            }
    except FileError:
        return None
    rest = ""
    if "diffusion_steps" in texts and "cfg_scale" in texts:
        rest = f"{texts['diffusion_steps']} steps · guidance {texts['cfg_scale']}"
    return DrawnBy(texts.get("prompt", ""), texts.get("seed", ""), rest)


def sample_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every sample in a folder, with a name that says step, prompt and seed, in order."""
    for place in (folder, folder / _WITHOUT_EMA):
        for path in sorted(place.glob("step-*.png")):
            if name := _telling_name(path):
                yield f"{_WITHOUT_EMA}/{name}" if place != folder else name, path


def _telling_name(path: Path) -> str:
    """Return step-00000075-prompt-1-seed-42-a-cat.png for what is called step-00000075-0-a-cat.png."""
    found = re.fullmatch(r"step-(\d+)-(\d{1,6})-(.*)\.png", path.name)
    if not found or visible(path.name) != path.name:
        return ""
    step, number, words = found.groups()
    drawn = drawn_by(path)
    if drawn is None:
        return ""
    has_seed = drawn.seed.isdecimal() and len(drawn.seed) < 30
    said = f"-seed-{drawn.seed}" if has_seed else ""
    return f"step-{step}-prompt-{int(number) + 1}{said}-{words}.png"

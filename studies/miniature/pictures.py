"""Pictograms with their names: fetched from npm, drawn at 64 or 128 pixels, laid out as blockrate's concepts read them.

Three sets of SVG emoji, one JSON file each, in which one name means one subject. The flow model learns the first
style only; the same subjects in the others are the truth for what a LoRA should make of them.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

MARGIN = 1 / 16  # of a picture's side, white around the drawing
VERSIONS = {"noto": "1.2.9", "twemoji": "1.2.5", "fluent-emoji-flat": "1.2.6"}
STYLES = tuple(VERSIONS)
BASE = STYLES[0]  # the one that the flow model learns
# How many names.
KNOWN = 768
UNSEEN = 48
APART = 160
_CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "Smileys & Emotion",
    "Travel & Places",
)
_PEOPLE = tuple(
    """artist astronaut baby bone boy brain child clapping-hands construction-worker cook detective ear eye eyes
farmer firefighter flexed-biceps foot footprints girl guard handshake judge lungs man mouth nail-polish ninja nose
ok-hand old-man old-woman pilot police-officer prince princess raised-fist raised-hand santa-claus scientist singer
student teacher thumbs-down thumbs-up tongue tooth victory-hand waving-hand woman writing-hand""".split()  # noqa: SIM905
)
_LEFT_OUT = ("oclock", "thirty", "keycap", "japanese")
_SKIN_TONE = re.compile(r"skin-tone|-(light|medium|dark)$")
# What the page of examples shows: names that stay known and are never held apart as unseen.
WANTED = tuple(
    """grinning-face cat-face red-heart rocket pizza red-apple house soccer-ball guitar butterfly key turtle
umbrella fish bus dog-face tomato banana sun snowman airplane automobile bell crown gem-stone hamburger lemon pig-face
ghost skull penguin cactus teapot bicycle strawberry octopus""".split()  # noqa: SIM905
)


class Style(NamedTuple):
    """One set of emoji. ``svg``: by name. ``categories``: the names in each."""

    svg: dict[str, str]
    categories: dict[str, list[str]]


@dataclass(frozen=True)
class Names:
    """Which subjects are for what. ``apart`` lies within ``known``: of these no other style may ever be trained."""

    known: list[str]  # the flow model learns them, in the base style
    unseen: list[str]  # the flow model never sees them, in no style
    apart: list[str]


def prepare_pictures(
    work: Path, packages: Path, *, pixels: int = 128, known: int = KNOWN
) -> Names:
    """Draw all styles below ``work``, so many pixels a side; return who learns what.

    The base style's pictures and captions are written as concepts.
    """
    styles = {name: unpack(name, packages) for name in STYLES}
    names = choose_names(styles, known)
    for name, style in styles.items():
        _draw_style(work, name, style.svg, pixels)
    (work / "names.json").write_text(json.dumps(asdict(names), indent=1))
    images = load_pictures(work, BASE)
    write_concept(work / "data" / BASE, names.known, images)
    return names


def choose_names(styles: dict[str, Style], known: int) -> Names:
    """Return the subjects that all styles have, of one or two words, shorter ones first; chance is a hash."""
    shared = set.intersection(*(set(style.svg) for style in styles.values()))
    listed = []
    for category in _CATEGORIES:
        listed += styles[BASE].categories[category]
    fitting = [
        name for name in [*listed, *_PEOPLE] if name in shared and _is_short(name)
    ]
    unique = list(dict.fromkeys(fitting))
    by_chance = sorted(
        unique, key=lambda name: (name not in WANTED, _lot("unseen", name))
    )
    unseen = sorted(by_chance[-UNSEEN:])
    rest = [name for name in by_chance if name not in unseen]
    wanted = [name for name in rest if name in WANTED]
    others = [name for name in rest if name not in WANTED]
    others.sort(key=lambda name: (name.count("-"), _lot("known", name)))
    chosen = [*wanted, *others][:known]
    apart = sorted(chosen, key=lambda name: _lot("apart", name))[:APART]
    return Names(sorted(chosen), unseen, sorted(apart))


def caption(name: str) -> str:
    """The words for a picture: its name without the dashes."""
    return name.replace("-", " ")


def load_pictures(work: Path, style: str) -> dict[str, np.ndarray]:
    """Return the pictures of a style by name, each (pixels, pixels, 3), 8 bits."""
    names = json.loads((work / "pictures" / f"{style}.json").read_text())
    images = np.load(work / "pictures" / f"{style}.npy", mmap_mode="r")
    return dict(zip(names, images, strict=True))


def write_concept(
    folder: Path, names: Iterable[str], images: dict[str, np.ndarray]
) -> None:
    """Write a folder of PNG files with captions beside them, in place of an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.asarray(images[name])).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption(name))


def _is_short(name: str) -> bool:
    return name.count("-") <= 1 and not any(part in name for part in _LEFT_OUT)


def _lot(purpose: str, name: str) -> str:
    return hashlib.sha256(f"{purpose} {name}".encode()).hexdigest()


def unpack(name: str, packages: Path) -> Style:
    """Return a set's drawings and categories; npm fetches its package where that is not there."""
    packages.mkdir(parents=True, exist_ok=True)
    version = VERSIONS[name]
    archive = packages / f"iconify-json-{name}-{version}.tgz"
    if not archive.exists():
        command = ["npm", "pack", "--silent", f"@iconify-json/{name}@{version}"]
        subprocess.run(command, cwd=packages, check=True)
    with tarfile.open(archive) as tar:
        icons = _member(tar, "package/icons.json")
        about = _member(tar, "package/metadata.json")
    svg = {}
    for icon_name, icon in icons["icons"].items():
        if not icon.get("hidden") and not _SKIN_TONE.search(icon_name):
            svg[icon_name] = _svg(icon, icons)
    return Style(svg, about["categories"])


def _member(tar: tarfile.TarFile, name: str) -> dict[str, Any]:
    stream = tar.extractfile(name)
    assert stream is not None
    content: dict[str, Any] = json.load(stream)
    return content


def _svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    plain = 'xmlns="http://www.w3.org/2000/svg"'
    linked = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {plain} {linked} viewBox="{box}">{icon["body"]}</svg>'


def _draw_style(work: Path, style: str, svg: dict[str, str], pixels: int) -> None:
    """Draw what a set has of one or two words, on all cores, and keep it as one array."""
    folder = work / "pictures"
    if _is_drawn(folder, style, pixels):
        return print(f"pictures: {style}: drawn before", flush=True)
    names = [name for name in svg if _is_short(name)]
    with ProcessPoolExecutor() as pool:
        draw = partial(_draw, pixels=pixels)
        images = list(pool.map(draw, [svg[name] for name in names], chunksize=32))
    drawn = {}
    for name, image in zip(names, images, strict=True):
        if image is not None:
            drawn[name] = image
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{style}.npy", np.stack(list(drawn.values())))
    (folder / f"{style}.json").write_text(json.dumps(list(drawn)))
    failed = len(names) - len(drawn)
    print(f"pictures: {style}: {len(drawn)} drawn, {failed} could not be", flush=True)


def _is_drawn(folder: Path, style: str, pixels: int) -> bool:
    if not (folder / f"{style}.json").exists():
        return False
    images = np.load(folder / f"{style}.npy", mmap_mode="r")
    return bool(images.shape[1] == pixels)


def _draw(svg: str, pixels: int) -> np.ndarray | None:
    """Return one drawing on white, or None where the renderer refuses it."""
    import resvg_py  # type: ignore[import-not-found, unused-ignore]

    side = pixels - 2 * round(MARGIN * pixels)
    try:
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))
    except Exception:  # the renderer raises plain ValueErrors of its own wording
        return None
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    page = Image.new("RGB", (pixels, pixels), "white")
    corner = ((pixels - image.width) // 2, (pixels - image.height) // 2)
    page.paste(image, corner, image)
    return np.asarray(page)

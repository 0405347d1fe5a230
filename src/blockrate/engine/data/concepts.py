"""What there is to learn from: every image of the config's concepts with its captions, each one proven readable."""

import functools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.engine.data.images import SUFFIXES, Facts, Known, check_image, open_file, quiet_pillow
from blockrate.run.durable import atomic_write, make_folder

_NOT_READ = (".heic", ".heif", ".jxl", ".jp2", ".psd", ".tga", ".svg", ".exr", ".dng", ".cr2", ".nef")
_MASKS = ("-masklabel.png", "-condlabel.png")  # OneTrainer's names
_CHECKED = "checked_images_1.json"  # in the cache folder: what was decoded once is not decoded at every start
_MOST_NAMES = 20
Read = Callable[[Path], tuple[str, ...]]


@dataclass(frozen=True)
class Item:
    """An image with its captions. Width and height are the upright image's; concept is the place in the config."""

    path: Path
    name: str  # folder/relative/path.png: the same on every machine, and what random choices are drawn from
    sha256: str
    width: int
    height: int
    concept: int
    captions: tuple[str, ...]  # at least one, maybe empty; of several, one is chosen
    note: str  # how its pixels are not used as they are, or ""
    loss_weight: float
    validation: bool


def find_items(config: TrainConfig, warn: Callable[[str], None], progress: Callable[[int, int], None]) -> list[Item]:
    """Return the items of every enabled concept, sorted by concept and name, after reading each file to its end.

    Raises ``ConfigError`` for a concept without images and one ``FileError`` that lists every bad image and caption.
    """
    found = [(index, *image) for index in _used_concepts(config, warn) for image in _images(config, index, warn)]
    record = Path(config.cache_dir) / _CHECKED
    known: dict[str, Facts] = {}
    with suppress(OSError, ValueError, TypeError, LookupError):  # absent or damaged: everything is checked again
        known = {row[0]: tuple(row) for row in json.loads(record.read_bytes())}
    examine = functools.partial(_item, config, known=known, read=functools.cache(read_captions))
    results = []
    with quiet_pillow(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # Pillow lets other threads run
        for result in pool.map(examine, *zip(*found, strict=True)):
            results.append(result)
            progress(len(results), len(found))
    items = [result for result in results if isinstance(result, Item)]
    if not {item.sha256 for item in items} <= known.keys():
        rows = known | {item.sha256: (item.sha256, item.width, item.height, item.note) for item in items}
        make_folder(record.parent)
        atomic_write(record, json.dumps(list(rows.values())))
    if bad := [error for result in results if isinstance(result, list) for error in result]:
        raise _all_bad(bad, len(found))
    no_caption = "no caption in a .txt of the same name; trained without one"
    notes = [note for item in items for note in (item.note, no_caption * (item.captions == ("",))) if note]
    for note, count in sorted(Counter(notes).items()):
        warn(f"{count} of {len(items)} images: {note}")
    return items


def read_captions(path: Path) -> tuple[str, ...]:
    """Return a caption file's lines without the blank ones. Raises ``FileError`` with the offset of a wrong byte."""
    with open_file(path) as file:
        data = file.read()
    try:
        text = data.decode()  # not "utf-8-sig": it counts offsets from behind the mark
        wrong = data.find(0)  # UTF-16 without a mark is valid UTF-8 full of zeros
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise FileError(str(path), f"is not UTF-8 text: byte 0x{data[wrong]:02x} at offset {wrong}, line {line}")
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    return tuple(line.strip() for line in lines if line.strip())


def _item(config: TrainConfig, index: int, name: str, path: Path, known: Known, read: Read) -> Item | list[FileError]:
    concept = config.concepts[index]
    errors = []
    try:
        sha256, width, height, note = check_image(path, known)
    except FileError as error:
        errors.append(error)
    try:
        captions = _captions(concept, path, read)
    except FileError as error:
        errors.append(error)
    if errors:
        return errors
    held = concept.type == "VALIDATION"
    return Item(path, name, sha256, width, height, index, captions, note, concept.loss_weight, held)


def _used_concepts(config: TrainConfig, warn: Callable[[str], None]) -> list[int]:
    kinds = {index: concept.type for index, concept in enumerate(config.concepts) if concept.enabled}
    if "STANDARD" not in kinds.values():
        raise ConfigError("concepts", "there is none to train on", "Add an enabled one with a folder of images.")
    if "VALIDATION" in kinds.values() and not config.validation:
        warn("validation is off: the VALIDATION concepts are not used")
    if config.validation and "VALIDATION" not in kinds.values():
        warn("validation is on, but no concept is of type VALIDATION: nothing is measured")
    return [index for index, kind in kinds.items() if kind == "STANDARD" or config.validation]


def _images(config: TrainConfig, index: int, warn: Callable[[str], None]) -> list[tuple[str, Path]]:
    concept, where = config.concepts[index], f"concepts[{index}]"
    folder, text = Path(concept.path).expanduser(), concept.text
    if not concept.path or not folder.is_dir():
        raise ConfigError(f"{where}.path", f"{concept.path!r} is not a folder", "Set it to a folder of images.")
    if text.prompt_source == "concept" and not Path(text.prompt_path).expanduser().is_file():
        raise ConfigError(f"{where}.text.prompt_path", f"{text.prompt_path!r} is not a file", "Set it to a text file.")
    files = list(_files(folder, concept.include_subdirectories))
    if unread := Counter(path.suffix.lower() for path in files if path.suffix.lower() in _NOT_READ):
        warn(f"{folder}: save {', '.join(f'{n} {suffix}' for suffix, n in unread.items())} as PNG: they are not used")
    images = [path for path in files if path.suffix.lower() in SUFFIXES and not path.name.lower().endswith(_MASKS)]
    if not images:
        raise ConfigError(f"{where}.path", f"{concept.path!r} has no images", "Fill it, or set include_subdirectories.")
    names = [f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}" for path in images]
    return sorted(zip((unicodedata.normalize("NFC", name) for name in names), images, strict=True))


def _files(folder: Path, include_subdirectories: bool) -> Iterator[Path]:
    """Yield what is not hidden, and folders too: one that is named like an image is a mistake to be told."""
    seen: set[str] = set()  # links may lead in circles

    def unreadable(error: OSError) -> None:
        raise FileError(str(error.filename), f"cannot be read: {error.strerror}", "Check its permissions.")

    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in [*names, *folders] if not name.startswith("."))
        if not include_subdirectories:
            return
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in seen]


def _captions(concept: Concept, image: Path, read: Read) -> tuple[str, ...]:
    if concept.text.prompt_source == "filename":
        return (image.stem,)
    if concept.text.prompt_source == "concept":
        path = Path(concept.text.prompt_path).expanduser()
        if lines := read(path):
            return lines
        raise FileError(str(path), "has no captions")
    sidecar = image.with_suffix(".txt")
    return (read(sidecar) if os.path.lexists(sidecar) else ()) or ("",)


def _all_bad(bad: Sequence[FileError], total: int) -> FileError:
    lines = list(dict.fromkeys(f"\n  {error.where}: {error.problem}" for error in bad))
    problem = f"{len(lines)} bad files among {total} images and their captions"
    lines[_MOST_NAMES:] = [f"\n  and {len(lines) - _MOST_NAMES} more"] if len(lines) > _MOST_NAMES else []
    listed = "".join(lines).encode(errors="backslashreplace").decode()  # names need not be UTF-8
    return FileError("concepts", problem, f"Repair or remove:{listed}")

"""What there is to learn from: every image of the config's concepts with its captions, each one proven readable."""

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.dataset.folders import (
    Read,
    captions_of,
    concept_images,
    read_captions,
    used_concepts,
)
from blockrate.engine.data.images import Facts, Known, check_image, quiet_pillow
from blockrate.run.durable import atomic_write, make_folder

# in the cache folder: what was decoded once is not decoded at every start
_CHECKED = "checked_images_1.json"
_MOST_NAMES = 20


@dataclass(frozen=True)
class Item:
    """An image with its captions. Width and height are the upright image's; concept is the place in the config."""

    path: Path
    # folder/relative/path.png: the same on every machine, and what random choices are drawn from
    name: str
    sha256: str
    width: int
    height: int
    concept: int
    captions: tuple[str, ...]  # at least one, maybe empty; of several, one is chosen
    note: str  # how its pixels are not used as they are, or ""
    loss_weight: float
    validation: bool


def find_items(
    config: TrainConfig,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> list[Item]:
    """Return the items of every enabled concept, sorted by concept and name, after reading each file to its end.

    Raises ``ConfigError`` for a concept without images and one ``FileError`` that lists every bad image and caption.
    """
    found = []
    for index in _used_concepts(config, warn):
        concept = config.concepts[index]
        for name, path in concept_images(concept, f"concepts[{index}]", warn):
            found.append((concept, index, name, path))
    record = Path(config.cache_dir) / _CHECKED
    known: dict[str, Facts] = {}
    # absent or damaged: everything is checked again
    with suppress(OSError, ValueError, TypeError, LookupError):
        known = {row[0]: tuple(row) for row in json.loads(record.read_bytes())}
    examine = functools.partial(_item, known=known, read=functools.cache(read_captions))
    results = []
    # Pillow lets other threads run
    with quiet_pillow(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for result in pool.map(examine, *zip(*found, strict=True)):
            results.append(result)
            progress(len(results), len(found))
    items = [result for result in results if isinstance(result, Item)]
    if not {item.sha256 for item in items} <= known.keys():
        rows = known | {
            item.sha256: (item.sha256, item.width, item.height, item.note)
            for item in items
        }
        make_folder(record.parent)
        atomic_write(record, json.dumps(list(rows.values())))
    if bad := [
        error for result in results if isinstance(result, list) for error in result
    ]:
        raise _all_bad(bad, len(found))
    no_caption = "no caption in a .txt of the same name; trained without one"
    notes = [
        note
        for item in items
        for note in (item.note, no_caption * (item.captions == ("",)))
        if note
    ]
    for note, count in sorted(Counter(notes).items()):
        warn(f"{count} of {len(items)} images: {note}")
    return items


def _item(
    concept: Concept, index: int, name: str, path: Path, known: Known, read: Read
) -> Item | list[FileError]:
    errors = []
    try:
        sha256, width, height, note = check_image(path, known)
    except FileError as error:
        errors.append(error)
    try:
        captions = captions_of(concept, path, read)
    except FileError as error:
        errors.append(error)
    if errors:
        return errors
    held = concept.type == "VALIDATION"
    return Item(
        path,
        name,
        sha256,
        width,
        height,
        index,
        captions,
        note,
        concept.loss_weight,
        held,
    )


def _used_concepts(config: TrainConfig, warn: Callable[[str], None]) -> list[int]:
    used = used_concepts(config)
    held = any(
        concept.enabled and concept.type == "VALIDATION" for concept in config.concepts
    )
    if held and not config.validation:
        warn("validation is off: the VALIDATION concepts are not used")
    if config.validation and not held:
        warn(
            "validation is on, but no concept is of type VALIDATION: nothing is measured"
        )
    return used


def _all_bad(bad: Sequence[FileError], total: int) -> FileError:
    lines = list(dict.fromkeys(f"\n  {error.where}: {error.problem}" for error in bad))
    problem = f"{len(lines)} bad files among {total} images and their captions"
    lines[_MOST_NAMES:] = (
        [f"\n  and {len(lines) - _MOST_NAMES} more"] if len(lines) > _MOST_NAMES else []
    )
    # names need not be UTF-8
    listed = "".join(lines).encode(errors="backslashreplace").decode()
    return FileError("concepts", problem, f"Repair or remove:{listed}")

"""What there is to learn from: every image of the config's concepts with its captions, each one proven readable."""

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.core.plain_text import visible
from blockrate.dataset.folders import (
    Read,
    captions_of,
    concept_images,
    read_captions,
    used_concepts,
)
from blockrate.engine.data.images import ImageFacts, check_image, quiet_pillow
from blockrate.run.durable import atomic_write, make_folder

# in the cache folder: what was decoded once is not decoded at every start
_CHECKED = "checked_images_1.json"
_MOST_NAMES = 20


@dataclass(frozen=True)
class Item:
    """An image with its captions. Width and height are the upright image's; concept is its index in the config."""

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


class _ImageFile(NamedTuple):
    """An image of a concept, before anybody has looked into it. ``concept_index``: of the concept in the config."""

    concept: Concept
    concept_index: int
    name: str
    path: Path


def find_items(
    config: TrainConfig,
    warn: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> list[Item]:
    """Return the items of every enabled concept, sorted by concept and name, after reading each file to its end.

    Raises ``ConfigError`` for a concept without images and one ``FileError`` that lists every bad image and caption.
    """
    files = _image_files(config, warn)
    record = Path(config.cache_dir) / _CHECKED
    checked = _checked_before(record)
    items = []
    errors = []
    for result in _examined(files, checked, progress):
        if isinstance(result, Item):
            items.append(result)
        else:
            errors += result
    # also where others are bad: the next start need not decode the good ones again
    _remember(record, checked, items)
    if errors:
        raise _all_bad(errors, len(files))
    for note, count in sorted(Counter(_notes(items)).items()):
        warn(f"{count} of {len(items)} images: {note}")
    return items


def _image_files(config: TrainConfig, warn: Callable[[str], None]) -> list[_ImageFile]:
    files = []
    for index in _used_concepts(config, warn):
        concept = config.concepts[index]
        for name, path in concept_images(concept, f"concepts.{index}", warn):
            files.append(_ImageFile(concept, index, name, path))
    return files


def _used_concepts(config: TrainConfig, warn: Callable[[str], None]) -> list[int]:
    used = used_concepts(config)
    has_validation = any(
        concept.enabled and concept.type == "VALIDATION" for concept in config.concepts
    )
    if has_validation and not config.validation:
        warn("validation is off: the VALIDATION concepts are not used")
    if config.validation and not has_validation:
        warn(
            "validation is on, but no concept is of type VALIDATION: nothing is measured"
        )
    return used


def _checked_before(record: Path) -> dict[str, ImageFacts]:
    """Return what an earlier run found out about images, by their sha256."""
    # absent or damaged: everything is checked again
    with suppress(OSError, ValueError, TypeError, LookupError):
        rows = [ImageFacts(*row) for row in json.loads(record.read_bytes())]
        return {facts.sha256: facts for facts in rows}
    return {}


def _remember(
    record: Path, checked: Mapping[str, ImageFacts], items: Sequence[Item]
) -> None:
    known = dict(checked)
    for item in items:
        known[item.sha256] = ImageFacts(item.sha256, item.width, item.height, item.note)
    if known.keys() != checked.keys():
        make_folder(record.parent)
        atomic_write(record, json.dumps(list(known.values())))


def _examined(
    files: Sequence[_ImageFile],
    checked: Mapping[str, ImageFacts],
    progress: Callable[[int, int], None],
) -> Iterator[Item | list[FileError]]:
    """Yield for each file its item or what is wrong with it, in order."""
    read = functools.cache(read_captions)  # a concept's prompt file serves every image
    examine = functools.partial(_item, checked=checked, read=read)
    # Pillow lets other threads run
    with quiet_pillow(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(examine, files), start=1):
            progress(done, len(files))
            yield result


def _item(
    file: _ImageFile, *, checked: Mapping[str, ImageFacts], read: Read
) -> Item | list[FileError]:
    errors = []
    try:
        facts = check_image(file.path, checked)
    except FileError as error:
        errors.append(error)
    try:
        captions = captions_of(file.concept, file.path, read)
    except FileError as error:
        errors.append(error)
    if errors:
        return errors
    return Item(
        file.path,
        file.name,
        facts.sha256,
        facts.width,
        facts.height,
        file.concept_index,
        captions,
        facts.note,
        file.concept.loss_weight,
        validation=file.concept.type == "VALIDATION",
    )


def _notes(items: Sequence[Item]) -> Iterator[str]:
    """Yield what is to be known of the items, a sentence each time it holds for one."""
    for item in items:
        if item.note:
            yield item.note
        if item.captions == ("",):
            yield "no caption in a .txt of the same name; trained without one"


def _all_bad(errors: Sequence[FileError], total: int) -> FileError:
    """Return one error that lists what is wrong with each of ``total`` images and captions."""
    # a caption file that several images share is bad once
    lines = list(
        dict.fromkeys(
            f"\n  {visible(f'{error.where}: {error.problem}')}" for error in errors
        )
    )
    problem = f"{len(lines)} bad files among {total} images and their captions"
    if len(lines) > _MOST_NAMES:
        lines[_MOST_NAMES:] = [f"\n  and {len(lines) - _MOST_NAMES} more"]
    return FileError("concepts", problem, f"Repair or remove:{''.join(lines)}")

"""What there is to learn from: every image of the config's concepts with its captions, each one proven readable."""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from blockrate.config.partners import asks_for_masks
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.dataset.captions import (
    Names,
    Read,
    caption_names,
    captions_of,
    read_captions,
)
from blockrate.dataset.findings import all_bad
from blockrate.dataset.folders import concept_images, used_concepts
from blockrate.dataset.headers import quiet_pillow
from blockrate.dataset.partner_findings import wrong_mask
from blockrate.dataset.partners import Paired, Pairing
from blockrate.engine.data.images import ImageFacts, Partner, check_image
from blockrate.run.durable import atomic_write, make_folder

Made = TypeVar("Made")
# in the cache folder: what was decoded once is not decoded at every start
_CHECKED = "checked_images_1.json"


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
    references: tuple[Partner, ...] = ()
    mask: Partner | None = None

    @property
    def partners(self) -> tuple[Partner, ...]:
        """Its references, then its mask if it has one."""
        return self.references if self.mask is None else (*self.references, self.mask)


class _ImageFile(NamedTuple):
    """An image of a concept, before anybody has looked into it. ``concept_index``: of the concept in the config."""

    concept: Concept
    concept_index: int
    name: str
    path: Path
    paired: Paired


def find_items(config: TrainConfig, progress: Callable[[int, int], None]) -> list[Item]:
    """Return the items of every enabled concept, sorted by concept and name, after reading each file to its end.

    What is learned otherwise than it lies there is told before, by ``look_at_data``.
    Raises ``ConfigError`` for a concept without images and one ``FileError`` that lists every bad image and caption.
    """
    files = _image_files(config)
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
        raise all_bad(errors, len(files))
    return items


def _image_files(config: TrainConfig) -> list[_ImageFile]:
    files = []
    for index in used_concepts(config):
        concept = config.concepts[index]
        pairing = Pairing(concept, masked=asks_for_masks(config))
        for name, path in concept_images(concept, f"concepts.{index}"):
            files.append(_ImageFile(concept, index, name, path, pairing.of(path)))
    return files


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
        known |= {partner.facts.sha256: partner.facts for partner in item.partners}
    if known.keys() != checked.keys():
        make_folder(record.parent)
        atomic_write(record, json.dumps(list(known.values())))


def _examined(
    files: Sequence[_ImageFile],
    checked: Mapping[str, ImageFacts],
    progress: Callable[[int, int], None],
) -> list[Item | list[FileError]]:
    """Return for each file its item or what is wrong with it, in order."""
    read = functools.cache(read_captions)  # a concept's prompt file serves every image
    names = functools.cache(caption_names)
    examine = functools.partial(_item, checked=checked, read=read, names=names)
    results = []
    # Pillow lets other threads run
    with quiet_pillow(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(examine, files), start=1):
            progress(done, len(files))
            results.append(result)
    return results


def _item(
    file: _ImageFile, *, checked: Mapping[str, ImageFacts], read: Read, names: Names
) -> Item | list[FileError]:
    errors = [*file.paired.lacks]
    facts = _tried(lambda: check_image(file.path, checked), errors)
    captions = _tried(lambda: captions_of(file.concept, file.path, read, names), errors)
    partners = []
    for path in file.paired.every:
        found = _tried(partial(check_image, path, checked), errors)
        partners.append(Partner(path, found) if found else None)
    if errors or facts is None or captions is None:
        return errors
    whole = [partner for partner in partners if partner]
    references = whole[: len(file.paired.references)]
    mask = whole[-1] if file.paired.mask else None
    if mask and (wrong := wrong_mask(mask.path, mask.facts, facts)):
        return [wrong]
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
        references=tuple(references),
        mask=mask,
    )


def _tried(make: Callable[[], Made], errors: list[FileError]) -> Made | None:
    """Return what is made, or None with the reason among the errors."""
    try:
        return make()
    except FileError as error:
        errors.append(error)
        return None

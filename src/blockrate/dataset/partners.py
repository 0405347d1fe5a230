"""Which files belong to an image: its references and its mask, found by its name. None is opened."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from blockrate.config.parts import Concept
from blockrate.core.errors import FileError
from blockrate.dataset.folders import MASK, SUFFIXES, files_in

# by the path below the folder, without suffix
Named = dict[str, list[Path]]


class Paired(NamedTuple):
    """What belongs to an image: a file of each folder of references, and the mask if its model takes one.

    ``lacks``: what is missing or there twice, in their places.
    """

    references: tuple[Path, ...]
    mask: Path | None
    lacks: tuple[FileError, ...]

    @property
    def every(self) -> tuple[Path, ...]:
        """All that was found."""
        return self.references if self.mask is None else (*self.references, self.mask)


class Places(NamedTuple):
    """What belongs to an image, by folder; None for what is missing."""

    references: tuple[Path | None, ...]
    mask: Path | None


class Pairing:
    """Finds what belongs to the images of a concept. ``masked``: they need masks. Raises FileError for a folder."""

    def __init__(self, concept: Concept, *, masked: bool) -> None:
        self.concept = concept
        self.masked = masked
        self._files = cache(self._named)

    def places_of(self, image: Path) -> Places:
        """Return what belongs to an image, with None in the place of what is missing or there twice."""
        name = _name(image, self.concept.path)
        folders = [
            self._files(folder).get(name, []) for folder in self.concept.references
        ]
        mask = self._masks_of(image, name) if self.masked else []
        return Places(tuple(map(_only, folders)), _only(mask))

    def of(self, image: Path) -> Paired:
        """Return what belongs to an image of the concept."""
        name = _name(image, self.concept.path)
        references = []
        lacks = []
        for folder in self.concept.references:
            found = self._files(folder).get(name, [])
            if len(found) == 1:
                references.append(found[0])
            else:
                lacks.append(_lack(image, "reference", folder, found))
        mask = None
        if self.masked:
            found = self._masks_of(image, name)
            if len(found) == 1:
                mask = found[0]
            else:
                place = self.concept.masks or str(image.parent)
                lacks.append(_lack(image, "mask", place, found))
        return Paired(tuple(references), mask, tuple(lacks))

    def without_image(self, images: Sequence[Path]) -> Iterator[Path]:
        """Yield the references and masks that no image of the concept has."""
        names = {_name(image, self.concept.path) for image in images}
        folders = [*self.concept.references]
        if self.masked and self.concept.masks:
            folders.append(self.concept.masks)
        for folder in folders:
            for name, files in self._files(folder).items():
                if name not in names:
                    yield from files

    def _masks_of(self, image: Path, name: str) -> list[Path]:
        if self.concept.masks:
            return self._files(self.concept.masks).get(name, [])
        beside = image.with_name(f"{image.stem}{MASK}.png")
        return [beside] if beside.is_file() else []

    def _named(self, folder: str) -> Named:
        named: Named = {}
        inner = self.concept.include_subdirectories
        for path in sorted(files_in(folder, inner=inner)):
            if path.suffix.lower() in SUFFIXES:
                named.setdefault(_name(path, folder), []).append(path)
        return named


def pairs_needed(concept: Concept, *, masked: bool) -> bool:
    """Whether anything belongs to the images of a concept."""
    return masked or bool(concept.references)


def _name(path: Path, folder: str) -> str:
    """Return what an image and its partners have in common: the path below the folder, without suffix."""
    inside = path.relative_to(folder).with_suffix("").as_posix()
    return unicodedata.normalize("NFC", inside).removesuffix(MASK)


def _only(files: Sequence[Path]) -> Path | None:
    return files[0] if len(files) == 1 else None


def _lack(image: Path, what: str, folder: str, found: Sequence[Path]) -> FileError:
    if found:
        names = " and ".join(path.name for path in found)
        problem = f"has more than one {what} in {folder}: {names}"
        return FileError(str(image), problem, "Leave one.")
    return FileError(str(image), f"has no {what} of its name in {folder}")

"""Which images of a folder are shown: all, those without a caption, those whose caption contains a text."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from blockrate.config.parts import Concept
from blockrate.core.errors import BlockrateError
from blockrate.dataset.caption_changes import Inside
from blockrate.dataset.caption_findings import known_text
from blockrate.dataset.captions import Names, caption_names, captions_of
from blockrate.ui.media import Media


class Filter(NamedTuple):
    """``bare``: only images without a caption. ``contains``: only those whose caption has this text, capitals aside."""

    bare: bool = False
    contains: str = ""

    @property
    def is_on(self) -> bool:
        """Whether it leaves something out."""
        return self.bare or bool(self.contains)


def is_written_beside(concept: Concept) -> bool:
    """Whether a concept's captions are files beside its images, which can be edited."""
    return concept.text.prompt_source == "sample"


def filtered(
    media: Media, concept: Concept, images: tuple[Path, ...], wanted: Filter
) -> tuple[Path, ...]:
    """Return the images that a filter leaves. It reads every caption that it does not know: for threads."""
    if not wanted.is_on:
        return images
    names = cache(caption_names)
    inside = media.look_inside()
    return tuple(
        image for image in images if _fits(inside, concept, image, names, wanted)
    )


def _fits(
    inside: Inside, concept: Concept, image: Path, names: Names, wanted: Filter
) -> bool:
    def read(file: Path, _: object) -> tuple[str, ...]:
        return known_text(inside(file)).lines

    try:
        lines = captions_of(concept, image, read, names)
    except (BlockrateError, OSError, ValueError):
        # what cannot be read is no caption, and contains nothing that could be told
        lines = ()
    text = "\n".join(lines)
    if wanted.bare and text:
        return False
    return wanted.contains.casefold() in text.casefold()

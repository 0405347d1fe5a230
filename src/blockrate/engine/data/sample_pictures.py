"""The images that samples are made from, as they are encoded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blockrate.config.parts import Sample
from blockrate.core.buckets import Bucket
from blockrate.core.reference_sizes import capped, is_same_shape, whole
from blockrate.dataset.headers import Upright
from blockrate.dataset.partner_findings import wrong_mask
from blockrate.engine.data.images import ImageFacts, Partner, Picture, check_image
from blockrate.engine.data.reference_crops import middle_crop

_NOTHING_CHECKED: Mapping[str, ImageFacts] = {}


@dataclass(frozen=True)
class SamplePictures:
    """What a sample is made from beside its prompt. ``masked``: the image to draw into."""

    sample: Sample
    references: tuple[Picture, ...] = ()
    masked: Picture | None = None

    @property
    def every(self) -> list[Picture]:
        """All that is encoded for it."""
        return [*self.references, *filter(None, [self.masked])]


def sample_pictures(sample: Sample, *, masked: bool) -> SamplePictures:
    """Return what a sample is made from, each image decoded once. Raises FileError.

    ``masked``: the model draws into an image.
    """
    size = Bucket(sample.width, sample.height)
    references = []
    for name in sample.references:
        path = Path(name)
        facts = check_image(path, _NOTHING_CHECKED)
        crop = middle_crop(facts, _size_of(facts, size))
        references.append(Picture(path, facts.sha256, crop))
    into = _masked(sample, size) if masked else None
    return SamplePictures(sample, tuple(references), into)


def _size_of(reference: Upright, size: Bucket) -> Bucket:
    """Return the size of a reference of a sample: as in training, of an image of the sample's size."""
    if is_same_shape(reference.width, reference.height, size.width, size.height):
        return capped(size)
    return whole(reference.width, reference.height, size)


def _masked(sample: Sample, size: Bucket) -> Picture:
    path = Path(sample.base_image_path)
    facts = check_image(path, _NOTHING_CHECKED)
    mask_path = Path(sample.mask_image_path)
    mask = check_image(mask_path, _NOTHING_CHECKED)
    wrong = wrong_mask(mask_path, mask, facts)
    if wrong:
        raise wrong
    crop = middle_crop(facts, size)
    return Picture(path, facts.sha256, crop, Partner(mask_path, mask))

"""What there is to say of a concept's images: far too small, cut to less than half, or there twice."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError
from blockrate.dataset.copies import alike
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.folders import MASKS, image_buckets
from blockrate.dataset.headers import Header

# Enlarged by 2, an image has a quarter of the pixels that it trains at: what is learned from it is mostly blur.
MOST_ENLARGED = 2.0
# Cut to less than half, what the caption says is mostly not on what is left.
LEAST_LEFT = 0.5
_NOT_IMAGES_HERE = frozenset(
    [
        ".heic",
        ".heif",
        ".jxl",
        ".jp2",
        ".psd",
        ".tga",
        ".svg",
        ".exr",
        ".dng",
        ".cr2",
        ".nef",
    ]
)


def sizes_unlike_buckets(
    config: TrainConfig, looked: Looked, headers: Mapping[Path, Header]
) -> Iterator[Finding]:
    """Yield which images have far fewer pixels than their buckets, and which lose more than half to the crop."""
    enlarged: dict[Path, float] = {}
    cut: dict[Path, float] = {}
    for path, header in headers.items():
        choices: list[Bucket] = []
        with suppress(ConfigError):  # of a resolution of its own that is wrong
            choices = image_buckets(config, looked.concept, header.width, header.height)
        for bucket in choices:
            factor, left = fit(header, bucket)
            if factor > MOST_ENLARGED:
                enlarged[path] = max(factor, enlarged.get(path, 0.0))
            if left < LEAST_LEFT:
                cut[path] = min(left, cut.get(path, 1.0))
    if enlarged:
        most = max(enlarged.values())
        problem = (
            f"far smaller than they train at, enlarged up to {most:.1f} times a side"
        )
        cure = "Use larger ones, leave them out, or lower resolution."
        yield looked.finding("warning", "enlarged", list(enlarged), problem, cure)
    if cut:
        lost = 100 * (1 - min(cut.values()))
        problem = (
            f"so wide or so tall that more than half is cut off, up to {lost:.0f} %"
        )
        cure = "Crop them yourself to what is to be learned, at most 4 to 1."
        if not config.aspect_ratio_bucketing:
            cure = "Set aspect_ratio_bucketing to true, or crop them yourself."
        yield looked.finding("warning", "cropped", list(cut), problem, cure)


def fit(header: Header, bucket: Bucket) -> tuple[float, float]:
    """Return how much an image is enlarged a side to fill a bucket, and which share of it the crop leaves."""
    factor = max(bucket.width / header.width, bucket.height / header.height)
    scaled = header.width * factor * header.height * factor
    return factor, bucket.width * bucket.height / scaled


def pixels_not_as_they_are(
    looked: Looked, headers: Mapping[Path, Header]
) -> Iterator[Finding]:
    """Yield how pixels are not used as they are: transparent, animated."""
    notes: dict[str, list[Path]] = defaultdict(list)
    for path, header in headers.items():
        if header.note:
            notes[header.note].append(path)
    for note, paths in sorted(notes.items()):
        yield looked.finding("note", "pixels", paths, note, "")


def not_images(looked: Looked, *, with_masks: bool = False) -> Iterator[Finding]:
    """Yield which files are pictures that are not read, and, unless ``with_masks``, which are masks."""
    total = len(looked.others) + len(looked.images)

    def finding(found: Sequence[Path], problem: str, cure: str) -> Finding:
        return looked.finding(
            "warning", "not read", found, problem, cure, what="files", total=total
        )

    unread = [path for path in looked.others if path.suffix.lower() in _NOT_IMAGES_HERE]
    if unread:
        kinds = sorted({path.suffix.lower() for path in unread})
        problem = f"{', '.join(kinds)} is not read; they are not used"
        yield finding(unread, problem, "Save them as PNG.")
    masks = [path for path in looked.others if path.name.lower().endswith(MASKS)]
    if masks and not with_masks:
        problem = "masks, which are not used: whole images are learned"
        yield finding(masks, problem, "")


def copies(looked: Looked) -> Iterator[Finding]:
    """Yield which images are another one's copies, byte by byte."""
    groups = alike(looked.images)
    extra = [path for group in groups for path in group[1:]]
    if extra:
        problem = (
            "copies of others, byte for byte; each is learned as often as any image"
        )
        yield looked.finding("warning", "copies", extra, problem, "Keep one of each.")

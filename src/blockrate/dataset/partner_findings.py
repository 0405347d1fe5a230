"""What there is to say of references and masks: which are missing, which cannot be used, and how others are used."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from blockrate.config.partners import asks_for_masks
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.reference_sizes import is_same_shape
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.folders import image_buckets
from blockrate.dataset.headers import TRANSPARENT, Header, Upright, image_header
from blockrate.dataset.image_findings import MOST_ENLARGED, fit
from blockrate.dataset.partners import Paired, Pairing, pairs_needed

MISSING = "missing partners"
_MOST_NAMES = 20


def missing_partners(config: TrainConfig, looked: Looked) -> Iterator[Finding]:
    """Yield which images lack a reference or a mask, by name, and which of these no image has."""
    masked = asks_for_masks(config)
    if not pairs_needed(looked.concept, masked=masked):
        return
    pairing = Pairing(looked.concept, masked=masked)
    try:
        lacks = [
            (path, lack) for path in looked.images for lack in pairing.of(path).lacks
        ]
        left_over = list(pairing.without_image(looked.images))
    except FileError:  # told as what is wrong with the setting
        return
    by_problem: dict[tuple[str, str], list[Path]] = {}
    for path, lack in lacks:
        by_problem.setdefault((lack.problem, lack.cure), []).append(path)
    for (problem, cure), paths in by_problem.items():
        cure = cure or "Add them, or take these images out."
        yield looked.finding(
            "error", MISSING, paths, problem, cure, most_names=_MOST_NAMES
        )
    if left_over:
        total = len(left_over)
        problem = "references or masks that no image has; they are not used"
        yield looked.finding(
            "warning", "left over", left_over, problem, "", what="files", total=total
        )


def missing_in_words(findings: Sequence[Finding]) -> list[ConfigError]:
    """Return the errors of missing partners, each naming the images."""
    errors = []
    for finding in findings:
        if finding.kind == MISSING:
            names = ", ".join(finding.examples)
            more = finding.count - len(finding.examples)
            told = f"{names} and {more:,} more" if more else names
            problem = f"{finding.problem} ({told})"
            where = f"concepts.{finding.concept}"
            errors.append(ConfigError(where, problem, finding.cure))
    return errors


def measured_partners(
    config: TrainConfig, looked: Looked, headers: Mapping[Path, Header]
) -> Iterator[Finding | FileError]:
    """Yield what the headers of references and masks tell; an error for what cannot be used."""
    masked = asks_for_masks(config)
    if not pairs_needed(looked.concept, masked=masked):
        return
    pairing = Pairing(looked.concept, masked=masked)
    other_shape: list[Path] = []
    enlarged: list[Path] = []
    total = 0
    for path, header in headers.items():
        with suppress(FileError):
            paired = pairing.of(path)
            total += len(paired.references)
            for reference in paired.references:
                found = _header(reference)
                if isinstance(found, FileError):
                    yield found
                elif not is_same_shape(*found[:2], *header[:2]):
                    other_shape.append(reference)
                elif _is_enlarged(config, looked, header, found):
                    enlarged.append(reference)
            yield from _bad_masks(paired, header)
    if other_shape:
        problem = "of another shape than their image: used whole, in their own shape, with no more pixels than it"
        yield looked.finding(
            "note",
            "own shape",
            other_shape,
            problem,
            "",
            what="references",
            total=total,
        )
    if enlarged:
        problem = "far smaller than their image is trained at, and enlarged"
        cure = "Use larger ones."
        yield looked.finding(
            "warning",
            "enlarged",
            enlarged,
            problem,
            cure,
            what="references",
            total=total,
        )


def wrong_mask(mask: Path, facts: Upright, image: Upright) -> FileError | None:
    """Return why a mask cannot be that of an image, if it cannot; of another size it may be."""
    if facts.note == TRANSPARENT:
        problem = "is a mask with transparency, which may mean either part"
        return FileError(str(mask), problem, "Save it in black and white.")
    if is_same_shape(facts.width, facts.height, image.width, image.height):
        return None
    sizes = f"{facts.width} x {facts.height}, and its image is {image.width} x {image.height}"
    problem = f"is a mask of another shape: {sizes}"
    return FileError(str(mask), problem, "Draw it on the image.")


def _bad_masks(paired: Paired, image: Header) -> Iterator[FileError]:
    if not paired.mask:
        return
    found = _header(paired.mask)
    if isinstance(found, FileError):
        yield found
    elif wrong := wrong_mask(paired.mask, found, image):
        yield wrong


def _header(path: Path) -> Header | FileError:
    try:
        return image_header(path)
    except FileError as error:
        return error


def _is_enlarged(
    config: TrainConfig, looked: Looked, image: Header, reference: Header
) -> bool:
    with suppress(ConfigError):  # of a resolution of its own that is wrong
        buckets = image_buckets(config, looked.concept, image.width, image.height)
        return any(fit(reference, bucket)[0] > MOST_ENLARGED for bucket in buckets)
    return False

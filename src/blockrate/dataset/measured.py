"""What is to be said of images once their headers are read, and which files keep a run from starting."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.headers import Header, image_header
from blockrate.dataset.image_findings import (
    copies,
    pixels_not_as_they_are,
    sizes_unlike_buckets,
)
from blockrate.dataset.partner_findings import measured_partners
from blockrate.dataset.use_findings import (
    learned_by_two_concepts,
    validated_and_learned,
    validation_unlike_config,
)


class Measured(NamedTuple):
    """What is to be said of images; what is wrong with files."""

    findings: tuple[Finding, ...] = ()
    bad: tuple[FileError, ...] = ()


NOTHING_MEASURED = Measured()


def measure(config: TrainConfig, used: Sequence[Looked]) -> Measured:
    """Read the header of every image of the concepts that are used."""
    findings: list[Finding] = []
    bad: list[FileError] = []
    for looked in used:
        headers: dict[Path, Header] = {}
        wrong: list[FileError] = []
        for path in looked.images:
            try:
                headers[path] = image_header(path)
            except FileError as error:
                wrong.append(error)
        bad += wrong
        findings += looked.bad("bad images", wrong)
        findings += sizes_unlike_buckets(config, looked, headers)
        findings += pixels_not_as_they_are(looked, headers)
        findings += copies(looked)
        wrong_partners = []
        for told in measured_partners(config, looked, headers):
            if isinstance(told, FileError):
                wrong_partners.append(told)
            else:
                findings.append(told)
        bad += wrong_partners
        findings += looked.bad("bad references or masks", wrong_partners)
    findings += learned_by_two_concepts(used)
    findings += _validation(config, used)
    return Measured(tuple(findings), tuple(bad))


def _validation(config: TrainConfig, used: Sequence[Looked]) -> Iterator[Finding]:
    yield from validation_unlike_config(config)
    learned: list[Path] = []
    validated: dict[Path, Looked] = {}
    for looked in used:
        if looked.concept.type == "STANDARD":
            learned += looked.images
        else:
            validated |= dict.fromkeys(looked.images, looked)
    if validated:
        yield from validated_and_learned(learned, validated)

"""The report on the data of a run: what will and will not be learned, told before anything is loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blockrate.config.told_together import first_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.dataset.caption_findings import ELSEWHERE
from blockrate.dataset.findings import Finding, all_bad
from blockrate.dataset.folders import concept_problems
from blockrate.dataset.partner_findings import missing_in_words
from blockrate.dataset.sample_images import sample_problems
from blockrate.dataset.survey import Survey, survey


@dataclass(frozen=True)
class DataReport:
    """What a run would learn from. ``images``: that are trained on. ``steps``: of the whole run, about.

    ``findings``: what is learned otherwise than one may think, or not at all. ``errors``: why no run can start.
    """

    images: int
    steps: int | None
    findings: tuple[Finding, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class DataFound:
    """The report on the data, and the error that keeps a run from starting, if one does.

    ``refusal``: the part of the error that no pixels need to be decoded for. Bad files are the engine's to tell: it
    alone finds all of them, and one look should repair all.
    """

    report: DataReport
    error: BlockrateError | None
    refusal: BlockrateError | None

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return asdict(self.report)


def look_at_data(config: TrainConfig, *, beside: Path | None = None) -> DataFound:
    """Look into every folder, caption and header of an image.

    ``beside``: the folder that the config lies in.
    """
    *_, last = survey(config)
    settings = [
        *concept_problems(config, beside=beside),
        *captions_elsewhere(last),
        *missing_in_words(last.findings),
        *sample_problems(config, beside=beside),
    ]
    errors: list[BlockrateError] = [*settings]
    if last.bad:
        images = sum(len(folder.images) for folder in last.folders)
        errors.append(all_bad(last.bad, images))
    report = DataReport(
        last.all - last.unreadable,
        last.steps,
        last.findings,
        tuple(map(str, errors)),
    )
    return DataFound(report, _together(errors), _together(settings))


def refuse_bad_folders(config: TrainConfig) -> None:
    """Raise ``ConfigError`` if no run can start with the folders of a config."""
    refusal = look_at_data(config).refusal
    if refusal:
        raise refusal


def captions_elsewhere(found: Survey) -> list[ConfigError]:
    """Return the errors of concepts whose captions all lie where they are not read."""
    errors = []
    for finding in found.findings:
        if finding.level == "error" and finding.kind in ELSEWHERE:
            where = f"concepts.{finding.concept}.text.prompt_source"
            problem = f"{finding.problem} ({', '.join(finding.examples)})"
            errors.append(ConfigError(where, problem, finding.cure))
    return errors


def _together(errors: Sequence[BlockrateError]) -> BlockrateError | None:
    if len(errors) > 1:
        parts = first_of(errors)
        return ConfigError("concepts", "cannot be trained on", parts=parts)
    return errors[0] if errors else None

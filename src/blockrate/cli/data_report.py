"""What the terminal says of the data of a run."""

from typing import Any, NamedTuple

from blockrate.cli.screen import say
from blockrate.config.named_files import folder_of
from blockrate.config.schedule_check import schedule_warnings
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.dataset.findings import in_words
from blockrate.dataset.headers import quiet_pillow
from blockrate.dataset.report import DataFound, look_at_data


def tell_of_data(config: TrainConfig, name: str) -> DataFound:
    """Look into the folders of a config, say what is found there, and return it. ``name``: of the config."""
    with quiet_pillow():
        found = look_at_data(config, beside=folder_of(name))
    for finding in found.report.findings:
        if finding.level != "error":
            say(f"{finding.level}: {in_words(finding)}")
    return found


def refuse_bad_folders(config: TrainConfig, name: str) -> None:
    """Say what there is to say of the data. Raises ``ConfigError`` if no run can start with the folders."""
    refusal = tell_of_data(config, name).refusal
    if refusal:
        raise refusal


class PlannedData(NamedTuple):
    """What ``plan`` has to say of the data: as JSON has it, in lines, warnings, and why no run can start."""

    facts: dict[str, Any] | None = None
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: BlockrateError | None = None


def data_of_plan(config: TrainConfig, name: str) -> PlannedData:
    """Look at the data of a config, if it has any concepts (a preset has none), and say what is found there."""
    if not config.concepts:
        return PlannedData()
    found = tell_of_data(config, name)
    report = found.report
    if not report.steps:
        return PlannedData(found.as_json(), error=found.error)
    noun = "image" if report.images == 1 else "images"
    steps = "step" if report.steps == 1 else "steps"
    line = f"data: {report.images:,} {noun}, about {report.steps:,} {steps}"
    warnings = schedule_warnings(config, report.steps)
    return PlannedData(found.as_json(), (line,), warnings, found.error)

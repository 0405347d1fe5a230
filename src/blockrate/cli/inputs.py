"""What a command is given: a config by its file or name, and a run by its folder."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from blockrate.cli.named_run import check_run_folder
from blockrate.cli.screen import say

if TYPE_CHECKING:
    from blockrate.config.train_config import TrainConfig
    from blockrate.core.errors import ConfigError
    from blockrate.run.folder import RunFolder
    from blockrate.run.places import Placed, Source


def placed_config(
    name: str,
    settings: Sequence[str] | None = None,
    ignore_unsupported: bool = False,
    *,
    named: bool = False,
) -> "Placed":
    """Return the config in a file, a preset or an example, and where its run is; its warnings go to stderr.

    ``named``: of a preset or an example, whatever file there is of that name.
    """
    from blockrate.run.places import place

    return place(*read_config(name, settings, ignore_unsupported, named=named))


def read_config(
    name: str,
    settings: Sequence[str] | None = None,
    ignore_unsupported: bool = False,
    *,
    named: bool = False,
) -> "tuple[TrainConfig, Source]":
    """Return the config in a file, a preset or an example, and where it comes from; see ``placed_config``."""
    from blockrate.config.files import parse_config
    from blockrate.config.named_files import folder_of, misplaced
    from blockrate.config.presets import file_of, read, read_named
    from blockrate.config.told_together import together
    from blockrate.run.places import Source

    further = partial(_filter_and_folders, beside=folder_of(name))
    loaded = parse_config(
        read_named(name) if named else read(name),
        overrides=settings or (),
        ignore_unsupported=ignore_unsupported,
        where=name,
        further=further,
    )
    warn(loaded.warnings)
    elsewhere = misplaced(loaded.config, folder_of(name))
    if elsewhere:
        raise together(name, [*elsewhere, *further(loaded.config)])
    chosen = (setting.partition("=")[0].strip() for setting in settings or ())
    file = None if named else file_of(name)
    return loaded.config, Source(file, name, frozenset(chosen))


def with_gpus(settings: Sequence[str] | None, gpus: int | None) -> list[str]:
    """Return the settings of ``--set`` with those of ``--gpus``."""
    from blockrate.config.many_gpus import for_gpus

    return [*(settings or ()), *(for_gpus(gpus) if gpus else ())]


def _filter_and_folders(
    config: "TrainConfig", beside: Path | None
) -> "list[ConfigError]":
    """Return what is wrong with the layer filter, and with the folders if any are named."""
    from blockrate.config.plan import filter_problems
    from blockrate.dataset.folders import concept_problems

    problems = filter_problems(config)
    if config.concepts:
        problems += concept_problems(config, beside=beside)
    return problems


def run_in(path: Path) -> "RunFolder":
    """Return the run in a folder. Raises ConfigError if there is none."""
    from blockrate.run.folder import RunFolder

    check_run_folder(path)
    return RunFolder(path)


def warn(warnings: Iterable[str]) -> None:
    """Say each of these on stderr."""
    for warning in warnings:
        say(f"warning: {warning}")

"""The run folder that a user names, and what may be meant by what is none."""

from contextlib import suppress
from pathlib import Path

from blockrate.core.errors import BlockrateError, ConfigError


def check_run_folder(path: Path) -> None:
    """Raise ConfigError, with what may be meant, unless a path leads to a folder."""
    from blockrate.config.near_files import near_files
    from blockrate.core.plain_files import is_there

    if is_there(path) and path.is_dir():
        return
    problem = "there is no such run folder"
    cure = "Give the workspace_dir of a config."
    if is_there(path):
        problem = "is not a run folder"
        named = _workspace_of(path)
        cure = f"Did you mean {named}, its workspace_dir?" if named else cure
    elif near := near_files(str(path)):
        cure = f"Did you mean {' or '.join(near)}? {cure}"
    raise ConfigError(str(path), problem, cure)


def _workspace_of(file: Path) -> str:
    """Return the run folder of a config, empty for what is no config."""
    from blockrate.config.files import load_config
    from blockrate.run.places import Source, place

    with suppress(BlockrateError):
        config = load_config(file, ignore_unsupported=True).config
        return str(place(config, Source(file)).run.path)
    return ""

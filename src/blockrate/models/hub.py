"""Where the models of the hub lie on this computer, which are there, and who is logged in.

Nothing is downloaded here. The hub's client is imported where it is used, because most
commands need none of it.
"""

import os
from contextlib import suppress
from pathlib import Path

from blockrate.models.families import FAMILIES


def repo_of(name: str) -> str:
    """Return the hub id of a model by its own name or hub id."""
    return FAMILIES[name].repo if name in FAMILIES else name


def is_gated(repo: str) -> bool:
    """Whether the hub gives a model only to those who accepted its licence."""
    return any(family.gated and family.repo == repo for family in FAMILIES.values())


def is_logged_in() -> bool:
    """Whether a login to the hub is known on this computer; whether it is still good, only the hub knows."""
    from huggingface_hub import constants

    return "HF_TOKEN" in os.environ or Path(constants.HF_TOKEN_PATH).is_file()


def downloads_folder() -> Path:
    """Return the folder where the hub's client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def snapshot_folder(repo: str) -> Path:
    """Return the folder of the newest snapshot of a hub model, which need not be there."""
    from huggingface_hub import constants

    name = constants.REPO_ID_SEPARATOR.join(["models", *repo.split("/")])
    folder = downloads_folder() / name
    revision = "none"
    with suppress(OSError, ValueError):
        revision = (folder / "refs" / "main").read_text("utf-8").strip()
    return folder / "snapshots" / revision

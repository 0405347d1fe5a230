"""What the app remembers between starts, in a folder of the user: preferences.json, and configs not yet saved."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from blockrate.config.setting import Fraction
from blockrate.core.errors import WriteError
from blockrate.run.durable import atomic_write, disk_errors, make_folder

_FILE = "preferences.json"
_MOST_RECENT = 12
# which photographs somebody has, and what they are called, is nobody else's business
PRIVATE = 0o600


class Preferences(BaseModel):
    """The user's wishes. ``templates``: saved rates of blocks by name. ``last_run``: the run folder shown last."""

    recent: list[str] = []  # config files, the newest first
    theme: Literal["auto", "light", "dark"] = "auto"
    port: int = Field(default=0, ge=0, le=65535)
    templates: dict[str, dict[str, Fraction]] = {}
    last_run: str = ""

    def save(self) -> None:
        """Keep the wishes for the next start. Raises WriteError."""
        text = self.model_dump_json(indent=2)
        atomic_write(private_folder() / _FILE, text, mode=PRIVATE)

    def used(self, path: Path) -> None:
        """Put a config file at the head of the recent ones."""
        others = [other for other in self.recent if other != str(path)]
        self.recent = [str(path), *others][:_MOST_RECENT]
        with suppress(WriteError):  # the list is no reason to fail
            self.save()


def load_preferences() -> Preferences:
    """Return what was kept; where that is absent or damaged, the defaults."""
    try:
        return Preferences.model_validate_json((state_folder() / _FILE).read_bytes())
    except (OSError, ValueError):
        return Preferences()


def state_folder() -> Path:
    """Where the app remembers things: BLOCKRATE_HOME, else .blockrate in the home folder."""
    folder = os.environ.get("BLOCKRATE_HOME") or Path.home() / ".blockrate"
    return Path(folder).absolute()


def private_folder(name: str = "") -> Path:
    """Make the state folder, or a folder in it, which only the user may look into. Raises WriteError.

    One that BLOCKRATE_HOME names, and that is there already, stays as open as it is: it may be shared on purpose.
    """
    root = state_folder()
    folder = root / name
    closed = {root, folder}
    if root.exists() and os.environ.get("BLOCKRATE_HOME"):
        closed.discard(root)
    make_folder(folder)
    for own in closed:
        with disk_errors(own):
            own.chmod(0o700)
    return folder

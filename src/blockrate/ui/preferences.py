"""What the app remembers of a user's wishes between starts: preferences.json."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from blockrate.config.setting import Fraction
from blockrate.core.errors import WriteError
from blockrate.run.durable import atomic_write
from blockrate.run.home import PRIVATE, private_folder, state_folder

_FILE = "preferences.json"
_MOST_RECENT = 12


class Preferences(BaseModel):
    """The user's wishes. ``templates``: saved rates of blocks by name. ``last_run``: the run folder shown last.

    ``compared``: run folders that an address of a comparison may name, the newest first.
    ``all_settings``: whether the tabs show all of them; None as long as nobody has said so.
    """

    recent: list[str] = []  # config files, the newest first
    theme: Literal["auto", "light", "dark"] = "auto"
    port: int = Field(default=0, ge=0, le=65535)
    templates: dict[str, dict[str, Fraction]] = {}
    last_run: str = ""
    compared: list[str] = []
    all_settings: bool | None = None

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

"""The folder of a model that draws: what is asked of it, and what it has drawn, each a file.

``wanted/`` holds what waits, one JSON a picture, the oldest first. ``pictures/`` holds for each of them a PNG and a
JSON beside it with its settings, or with why there is none.
"""

import json
import secrets
import time
from contextlib import suppress
from pathlib import Path

from blockrate.config.drawing import Drawing, Drawn, read_drawing
from blockrate.core.errors import ConfigError
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.folder import RunFolder, read_json
from blockrate.run.typed_json import read_object

_MOST = 2000  # pictures that are looked at


class Easel:
    """The folder of one model that draws."""

    def __init__(self, path: Path) -> None:
        self.run = RunFolder(path.absolute())
        self.wanted = self.run.path / "wanted"
        self.pictures = self.run.path / "pictures"

    def ask(self, drawing: Drawing) -> str:
        """Ask for a picture, and return its id; ids are in the order they were asked for. Raises WriteError."""
        make_folder(self.wanted)
        picture = f"{time.time_ns():020}-{secrets.token_hex(2)}"
        text = json.dumps(drawing.model_dump())
        atomic_write(self.wanted / f"{picture}.json", text)
        return picture

    def waiting(self) -> list[str]:
        """Return the ids of what is wanted, the oldest first."""
        return sorted(file.stem for file in self.wanted.glob("[0-9]*.json"))

    def drawing(self, picture: str) -> Drawing:
        """Return what a picture that is wanted is to be. Raises ConfigError."""
        file = self.wanted / f"{picture}.json"
        try:
            return read_drawing(read_object(file))
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(str(file), f"cannot be read: {error}") from error

    def withdraw(self, picture: str) -> None:
        """Want a picture no longer."""
        with suppress(FileNotFoundError):
            (self.wanted / f"{picture}.json").unlink()

    def answer(self, drawn: Drawn) -> None:
        """Say what became of a picture, which then waits no longer. Raises WriteError."""
        text = drawn.model_dump_json(indent=2)
        atomic_write(self.pictures / f"{drawn.id}.json", text)
        self.withdraw(drawn.id)

    def drawn(self, picture: str) -> Drawn | None:
        """Return what became of a picture; None before, and for what cannot be read."""
        try:
            found = Drawn.model_validate(read_json(self.pictures / f"{picture}.json"))
        except ValueError:
            return None
        return found if found.id == picture else None

    def all_drawn(self) -> list[Drawn]:
        """Return what became of every picture, the newest first."""
        names = sorted(self.pictures.glob("[0-9]*.json"), reverse=True)[:_MOST]
        return [drawn for file in names if (drawn := self.drawn(file.stem))]

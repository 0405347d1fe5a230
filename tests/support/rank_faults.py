"""What happens to one of several ranks, put into its process before it lives a run."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from blockrate.run.folder import StopFlag

# of the one run that this process lives
STOP = StopFlag()


def stop_at(step: int, rank: int) -> None:
    """One rank is asked to stop while it takes a step, counted from 1."""
    train: Any = import_module("blockrate.engine.train")
    from blockrate.engine.world import world

    real: Any = train.take_step

    def take_step(*given: Any, **named: Any) -> Any:
        if named["step"] == step - 1 and world().rank == rank:
            STOP.requested = True
        return real(*given, **named)

    train.take_step = take_step


def not_a_number(files: list[str]) -> None:
    """Some images hold no numbers, for whichever rank sees them."""
    from blockrate.engine.data.cache import Cache

    real: Any = Cache.batch

    def batch(self: Cache, examples: Any) -> Any:
        made = real(self, examples)
        if any(Path(file).name in files for file in made.files):
            return replace(made, latents=made.latents * float("nan"))
        return made

    Cache.batch = batch  # type: ignore[method-assign]


def note_entries(folder: str) -> None:
    """Each rank writes down which entries of the cache it has made."""
    cache: Any = import_module("blockrate.engine.data.cache")
    from blockrate.engine.world import world

    real = cache.write_entry

    def write_entry(entry: Any) -> None:
        real(entry)
        with (Path(folder) / f"made-{world().rank}.txt").open("a") as notes:
            notes.write(f"{entry.file.name}\n")

    cache.write_entry = write_entry

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


def ask_for_rates(edits: dict[str, dict[str, float]], folder: str) -> None:
    """The run is asked for block rates after steps; only the first rank hears of it."""
    train: Any = import_module("blockrate.engine.train")
    from blockrate.engine.world import world
    from blockrate.run.folder import RATES, RunFolder
    from blockrate.run.rate_commands import leave_rates

    real: Any = train.take_step

    def take_step(*given: Any, **named: Any) -> Any:
        taken = real(*given, **named)
        rates = edits.get(str(named["step"] + 1))
        if rates is not None and world().is_first:
            key = "block_learning_rate_multiplier"
            leave_rates(RunFolder(Path(folder)), {key: rates})
            STOP.commands.append(RATES)
        return taken

    train.take_step = take_step


def fail_at(step: int, rank: int, folder: str) -> None:
    """Memory runs out on one rank in a step, counted from 1; what it has to say beside goes to a file in ``folder``."""
    train: Any = import_module("blockrate.engine.train")
    from blockrate.engine.outputs import Outputs
    from blockrate.engine.world import world

    take: Any = train.take_step
    keep: Any = Outputs.keep

    def take_step(*given: Any, **named: Any) -> Any:
        if named["step"] == step - 1 and world().rank == rank:
            raise MemoryError
        return take(*given, **named)

    def keep_and_note(self: Outputs, error: Exception, **named: Any) -> None:
        keep(self, error, **named)
        notes = "".join(getattr(error, "__notes__", ()))
        (Path(folder) / f"notes-{world().rank}.txt").write_text(notes)

    train.take_step = take_step
    Outputs.keep = keep_and_note  # type: ignore[method-assign]


def full_card(rank: int) -> None:
    """One rank computes on a card of which other programs have left nothing."""
    full_memory: Any = import_module("blockrate.engine.full_memory")
    from blockrate.engine.world import world

    def free_and_total(device: Any) -> tuple[int, int]:
        total = 24 * 2**30
        return (0 if world().rank == rank else total), total

    full_memory._free_and_total = free_and_total


def compile_no_blocks() -> None:
    """What ``compile`` is to do beside: blocks of the transformer take a minute."""
    from diffusers import FluxTransformer2DModel

    FluxTransformer2DModel.compile_repeated_blocks = lambda model: None


def not_a_number(files: list[str], *, validation: bool = False) -> None:
    """Some images hold no numbers, for whichever rank sees them. ``validation``: where they are measured on alone."""
    from blockrate.engine.data.cache import Cache

    real: Any = Cache.batch

    def batch(self: Cache, examples: Any) -> Any:
        made = real(self, examples)
        if validation and not examples[0].item.validation:
            return made
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

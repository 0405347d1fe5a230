"""The end of the demo: what was trained how fast, what it draws now, where everything lies, what to try next."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockrate.core.errors import FileError
from blockrate.core.plain_text import visible

if TYPE_CHECKING:
    from blockrate.run.events import Numbers
    from blockrate.run.folder import RunFolder
    from blockrate.run.places import Placed


def demo_result(placed: "Placed") -> Iterator[Any]:
    """What the demo shows: rates and changes block by block, the fall of the loss, pictures, files, what to try next.

    Raises FileError when the run does not say what it has made.
    """
    import typer

    from blockrate.cli.show import demo_table
    from blockrate.config.plan import make_plan
    from blockrate.models.lora_norms import inspect_lora

    run = placed.run
    outputs, rates, losses = _facts(run)
    if not outputs:
        problem = "does not say which file the run has made"
        raise FileError(str(run.events_file), problem, ways_on=["fresh"])
    report = inspect_lora(outputs[0])
    yield demo_table(
        asdict(make_plan(placed.config)),
        rates,
        {**report.blocks, "other": report.other},
    )
    if losses and losses[0]:
        fall = 100 * (1 - losses[-1] / losses[0])
        yield f"loss on what it never trained on: {losses[0]:.4f} -> {losses[-1]:.4f} ({fall:.0f} % lower)"
    file, nearer = _pictures(placed)
    yield from nearer
    yield ""
    for path in outputs:
        yield f"LoRA file   {_shown(path.absolute())}"
    yield f"run folder  {_shown(run.path.absolute())}\n\nTo try next, in {_shown(Path.cwd())}:"
    program = (
        "blockrate"
        if shutil.which("blockrate")
        else os.path.relpath(Path(sys.executable).with_name("blockrate"))
    )
    mine = "--set workspace_dir=workspace/mine --set output_model_destination=models/mine.safetensors"
    yield f"  {program} inspect {_shown(outputs[0])}"
    demo = "examples/demo.json" if Path("examples/demo.json").exists() else "demo"
    yield f"  {program} train {demo} {mine} --set block_learning_rate_multiplier.single_block_37=0"
    yield f"  {program} plan flux_lora --set block_learning_rate_multiplier.double_block_0=0.3"
    kind = "pictures" if file.is_file() else "samples "
    yield f"\n{kind}    {_shown(file.absolute())}"
    if file.is_file() and _has_desktop():
        typer.launch(str(file.absolute()))


def is_of_another_model(placed: "Placed") -> bool:
    """Whether the run that is there trained another base model than the demo does."""
    from blockrate.config.files import load_config

    file = placed.run.config_file
    if not file.is_file():
        return False
    trained = load_config(file).config.base_model_name
    return trained != placed.config.base_model_name


def _pictures(placed: "Placed") -> tuple[Path, list[str]]:
    """Write the sheet of pictures; return where it lies, else the folder of samples, and how near the truth it is."""
    from blockrate.dataset.contact_sheet import columns_of, nearness, sheet
    from blockrate.run.durable import atomic_write

    columns = columns_of(placed.config, placed.run.samples)
    if not columns:
        return placed.run.samples, []
    file = placed.run.path / "pictures.png"
    try:
        drawn = sheet(columns)
        before = nearness(columns, "before")
        after = nearness(columns, "after")
    except OSError as error:  # one that was damaged since; the rest is worth showing
        return placed.run.samples, [f"there is no sheet of pictures: {error}"]
    atomic_write(file, drawn)
    if before is None or after is None:
        return file, []
    told = f"distance to the truth (PSNR, more is nearer): before {before:.1f} dB, after {after:.1f} dB"
    return file, [told]


def _has_desktop() -> bool:
    """Whether somebody sits at this computer for whom a picture can be opened."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _shown(path: Path) -> str:
    return visible(str(path))


def _facts(run: "RunFolder") -> tuple[list[Path], "Numbers", list[float]]:
    """The files of a run, its last rates by block, and its first and last validation loss."""
    from blockrate.run.events import Blocks, Finished, Validated, events_of

    outputs: list[Path] = []
    rates: Numbers = {}
    losses: list[float] = []
    for record in events_of(run.events_file, Finished, Blocks, Validated):
        event = record.event
        match event:
            case Finished():
                outputs = [Path(output) for output in event.outputs]
            case Blocks():
                rates = event.learning_rates
            case Validated(loss=float(loss)):
                # of a run of any length the first and the last
                losses = [*losses[:1], loss]
    return outputs, rates, losses

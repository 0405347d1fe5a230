"""``blockrate draw``: pictures by what was trained."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockrate.cli.options import Settings
from blockrate.cli.screen import say, show
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible

if TYPE_CHECKING:
    from blockrate.config.drawing import Drawing
    from blockrate.config.train_config import TrainConfig
    from blockrate.run.drawing import Origin

Trained = Annotated[
    Path,
    typer.Argument(
        metavar="FROM",
        help="A run folder, a checkpoint, a LoRA file of any tool, or a fine-tuned model.",
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="What the picture shows; repeatable. Without one those of the config.",
    ),
]
Negative = Annotated[
    str,
    typer.Option(
        "--negative-prompt",
        metavar="TEXT",
        help="What it moves away from, where the model does that.",
    ),
]
OwnConfig = Annotated[
    str,
    typer.Option(
        "--config", metavar="CONFIG", help="The model that a file was trained on."
    ),
]
HowMuch = Annotated[
    float,
    typer.Option("--strength", help="How much of the LoRA is added; 1 as trained."),
]
Blocks = Annotated[
    list[str] | None,
    typer.Option(
        "--block",
        metavar="BLOCKS=SCALE",
        help='What some blocks have of it, 0 off to 2, as "single 7,12=0"; repeatable.',
    ),
]
Into = Annotated[
    Path,
    typer.Option("--output", metavar="DIR", help="The folder that keeps the pictures."),
]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="In pixels.")]
Number = Annotated[int | None, typer.Option(help="Of the first noise.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps.")]
Beside = Annotated[
    bool,
    typer.Option(
        "--beside-training",
        help="Draw although a run is at work, which then has less memory and time.",
    ),
]
Guidance = Annotated[float | None, typer.Option(help="Guidance of the sample.")]


def draw(
    trained: Trained,
    prompt: Prompt = None,
    negative: Negative = "",
    config: OwnConfig = "",
    strength: HowMuch = 1.0,
    block: Blocks = None,
    seed: Number = None,
    width: Size = None,
    height: Size = None,
    steps: Steps = None,
    guidance: Guidance = None,
    output: Into = Path("workspace/drawn"),
    beside: Beside = False,
    settings: Settings = None,
) -> None:
    """Draw pictures with what was trained, blocks of it switched off or scaled, and print the files."""
    from blockrate.run.drawing import origin_of

    if not beside:
        _refuse_beside_training(trained)
    origin = origin_of(trained, _config(config, settings, trained))
    given = _given(
        seed=seed,
        width=width,
        height=height,
        diffusion_steps=steps,
        cfg_scale=guidance,
    )
    given |= {"negative_prompt": negative, "strength": strength, "lora": origin.lora}
    given["block_scale"] = _scales(block or (), origin.config)
    drawings = _drawings(prompt or (), given, origin)
    code, files = _drawn(origin, drawings, output)
    show(*map(visible, files))
    raise typer.Exit(code)


def _given(**settings: Any) -> dict[str, Any]:
    """Return what was given of these settings."""
    return {name: value for name, value in settings.items() if value is not None}


def _refuse_beside_training(trained: Path) -> None:
    """Raise ConfigError while a run is at work that has the card, as far as can be seen from here."""
    from blockrate.run.drawing import knows_its_model
    from blockrate.run.folder import RunFolder, is_at_work
    from blockrate.run.queue import RUNNING, Queue

    jobs = [Path(job.run) for job in Queue().seen() if job.state == RUNNING]
    # a checkpoint, a save or the result may lie in the folder of its run
    around = filter(knows_its_model, trained.absolute().parents[:2])
    for path in (trained, *around, *jobs):
        if path.is_dir() and is_at_work(RunFolder(path)):
            problem = f"a run is at work in {path}, and has the memory"
            cure = "Wait until it has ended, or give --beside-training."
            raise ConfigError("draw", problem, cure)


def _config(
    name: str, settings: list[str] | None, trained: Path
) -> "TrainConfig | None":
    from blockrate.cli.inputs import read_config
    from blockrate.run.drawing import knows_its_model

    if name and knows_its_model(trained):
        problem = f"is for a file, and {trained} knows its model"
        cure = "Leave it out, or name the LoRA file itself."
        raise ConfigError("--config", problem, cure)
    if name:
        return read_config(name, settings)[0]
    if settings:
        problem = "is for a config, and none is given"
        raise ConfigError("--set", problem, "Give --config CONFIG, or leave it out.")
    return None


def _scales(
    texts: "list[str] | tuple[str, ...]", config: "TrainConfig"
) -> dict[str, float]:
    """Return the scales by block that "single 7,12=0" and its like ask for. Raises ConfigError."""
    from blockrate.config.base_model import model_spec
    from blockrate.core.selection import parse_selection

    layout = model_spec(config).layout
    scales: dict[str, float] = {}
    for text in texts:
        names, _, value = text.rpartition("=")
        try:
            scale = float(value)
        except ValueError:
            problem = f"{text!r} gives no number after ="
            cure = 'Write it like --block "single 7,12=0".'
            raise ConfigError("--block", problem, cure) from None
        blocks = [names] if names == "other" else parse_selection(names, layout)
        scales |= dict.fromkeys(blocks, scale)
    return scales


def _drawings(
    prompts: "list[str] | tuple[str, ...]", given: Mapping[str, Any], origin: "Origin"
) -> "list[Drawing]":
    """Return what to draw: the prompts as they are given, else those of the config. Raises ConfigError."""
    from blockrate.config.drawing import check_drawing, read_drawing

    samples = [sample for sample in origin.config.samples if sample.enabled]
    first = samples[0].model_dump() if samples else {}
    wanted: list[dict[str, Any]] = [{**first, "prompt": text} for text in prompts]
    if not prompts:
        wanted = [sample.model_dump() for sample in samples]
    if not wanted:
        cure = 'Give one: --prompt "a photograph of a cat".'
        raise ConfigError("--prompt", "there is nothing to draw", cure)
    drawings = [read_drawing({**values, "preview": "", **given}) for values in wanted]
    for drawing in drawings:
        check_drawing(drawing, origin.config)
    return drawings


def _drawn(
    origin: "Origin", drawings: "list[Drawing]", output: Path
) -> tuple[int, list[str]]:
    """Draw in a process of its own, and show it to its end; (exit code, files)."""
    from contextlib import ExitStack

    from blockrate.cli.show import signals_kept, watch
    from blockrate.run.drawing import make_ready, start
    from blockrate.run.easel import Easel

    easel = Easel(output)
    asked = make_ready(easel, origin.config, idle_seconds=0)
    pictures = [easel.ask(drawing) for drawing in drawings]
    signals: list[int] = []
    with ExitStack() as stack:
        keep = partial(stack.enter_context, signals_kept(signals))
        launched = start(easel, asked)
        keep()
        code = watch(easel.run, signals, launched)
    files = []
    for picture in pictures:
        drawn = easel.drawn(picture)
        # what a stop has left is not drawn by the next who draws here
        easel.withdraw(picture)
        if drawn and drawn.problem:
            say(f"error: {drawn.problem}")
            code = code or ConfigError.exit_code
        elif drawn:
            files.append(str(easel.pictures / drawn.file))
    return code, files

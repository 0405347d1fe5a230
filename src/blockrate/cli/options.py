"""The words of a command line, with what ``--help`` says of them."""

from pathlib import Path
from typing import Annotated

import typer

from blockrate.cli.screen import show
from blockrate.core.version import __version__


def _tell_version(asked: bool) -> None:
    if asked:
        show(f"blockrate {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        "-V",
        help="Print the version.",
        callback=_tell_version,
        is_eager=True,
    ),
]
ConfigName = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="A config file, or the name of a preset or an example."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field of the config."),
]
GpuCount = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        metavar="N",
        min=1,
        max=1000,
        help="Train on so many GPUs of this machine: multi_gpu and device_indexes.",
    ),
]
PrepareOnly = Annotated[
    bool,
    typer.Option(
        "--prepare-only",
        help="Make the run folder ready, print it, and leave the start to a launcher like torchrun.",
    ),
]
Unsupported = Annotated[
    bool,
    typer.Option(
        "--ignore-unsupported",
        help="Go on although the config asks for what blockrate cannot do.",
    ),
]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Set an earlier run in this folder aside and start anew."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
FitInto = Annotated[
    str,
    typer.Option(
        "--fit",
        metavar="GB",
        help="Set what is needed to train on a card with so many GB, or on this `card`.",
    ),
]
FitWritten = Annotated[
    Path | None,
    typer.Option(
        "--write", metavar="FILE", help="Write the config that --fit has found."
    ),
]
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder: the config's workspace_dir."),
]
RatesFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Block rates: a config, a mapping of blocks to multipliers, or - for standard input.",
    ),
]
OpenedConfig = Annotated[
    str,
    typer.Argument(
        metavar="[CONFIG]", help="A config file, or the name of a preset or an example."
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to serve; 0.0.0.0 for all networks.")
]
Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="0: the port of last time, else any free one."),
]
NoBrowser = Annotated[
    bool,
    typer.Option("--no-browser", help="Do not open a browser, only print the address."),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Another name of this server, with or without a port."
    ),
]
Native = Annotated[
    bool, typer.Option("--native", help="Show a window of its own, with pywebview.")
]
Roots = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="A folder that the app may show; repeatable.",
    ),
]
LargestUpload = Annotated[
    int,
    typer.Option(
        metavar="MIB",
        min=0,
        help="The largest file that a browser may bring in; 0: none.",
    ),
]
ComparedRuns = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run folders, the rates of the first are compared with; or the folder of planned runs.",
    ),
]
ComparedConfig = Annotated[
    str,
    typer.Option(
        "--plan",
        metavar="CONFIG",
        help="Write the configs of the runs that show whether this one's block rates help.",
    ),
]
SmallPlan = Annotated[
    bool,
    typer.Option("--small", help="Plan the profile and flat at its mean alone."),
]
Seeds = Annotated[
    int | None,
    typer.Option(help="How many seeds each of the planned has; 3 without it."),
]
KeepFolder = Annotated[
    str,
    typer.Option(
        "--keep",
        metavar="FOLDER",
        help="Measure these images, too, of what the model can do already and should keep.",
    ),
]
QueueRuns = Annotated[
    bool,
    typer.Option("--queue", help="Put what was planned into the queue, seed by seed."),
]
StartRuns = Annotated[
    bool,
    typer.Option(
        "--start", help="Train what was planned, one after another, and compare."
    ),
]

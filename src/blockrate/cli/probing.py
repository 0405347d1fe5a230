"""``blockrate probe``: measure what each block could learn first, before choosing rates."""

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from blockrate.cli.inputs import placed_config
from blockrate.cli.options import AsJson, ConfigName, Settings, Unsupported
from blockrate.cli.screen import say, show, show_json

if TYPE_CHECKING:
    from blockrate.run.places import Placed

Batches = Annotated[
    int,
    typer.Option(
        help="Batches of training pictures to measure by: a multiple of 8 up to 64."
    ),
]


def probe(
    config: ConfigName,
    settings: Settings = None,
    batches: Batches = 16,
    ignore_unsupported: Unsupported = False,
    as_json: AsJson = False,
) -> None:
    """Measure where a step of the same size lowers the loss most, block by block, before training. Changes nothing."""
    from dataclasses import asdict

    from blockrate.cli.probe_table import probe_table
    from blockrate.run.probe_file import read_probe
    from blockrate.run.probes import probe_folder

    placed = placed_config(config, settings, ignore_unsupported)
    code = _measure(placed, batches, config)
    if code:
        raise typer.Exit(code)
    found = read_probe(probe_folder(placed.config).probe_file)
    if as_json:
        return show_json(asdict(found))
    show(*probe_table(found))


def _measure(placed: "Placed", batches: int, name: str) -> int:
    """Start an engine that measures, or find the one at work, and show it to its end; gives the exit code."""
    from blockrate.cli.data_report import refuse_bad_folders
    from blockrate.cli.show import signals_kept, watch
    from blockrate.run.folder import InUseError
    from blockrate.run.launch import AtWork, Refused
    from blockrate.run.probes import launch_probe, probe_folder

    run = probe_folder(placed.config)
    signals: list[int] = []
    with ExitStack() as stack:
        # Ctrl-C ends us until there is an engine, and from then on reaches that
        keep = partial(stack.enter_context, signals_kept(signals))
        look = partial(refuse_bad_folders, placed.config, name)
        answer = launch_probe(
            placed.config, batches, say, look_at_data=look, before_start=keep
        )
        match answer:
            case AtWork():
                raise InUseError(run)
            case Refused(error=error):
                raise error
        say(f"measures in {run.path}")
        return watch(run, signals, answer)

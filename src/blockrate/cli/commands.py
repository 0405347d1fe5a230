"""The command line: results on stdout, everything else on stderr.

Heavy imports stand inside the commands, so that ``--help`` answers at once; torch is the engine's alone.
"""

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blockrate.cli.drawing import draw
from blockrate.cli.inputs import placed_config, read_config, run_in, warn, with_gpus
from blockrate.cli.options import (
    AllowedHosts,
    AsJson,
    ComparedConfig,
    ComparedRuns,
    ConfigName,
    FitInto,
    FitWritten,
    Fresh,
    GpuCount,
    Host,
    KeepFolder,
    LargestUpload,
    Native,
    NoBrowser,
    OpenedConfig,
    Port,
    PrepareOnly,
    QueueRuns,
    Roots,
    Run,
    Seeds,
    Settings,
    SmallPlan,
    StartRuns,
    Unsupported,
    Version,
)
from blockrate.cli.probing import probe
from blockrate.cli.queueing import app as queue_app
from blockrate.cli.rates import rates
from blockrate.cli.screen import plain_streams, say, say_fault, show, show_json
from blockrate.cli.usage import tell_usage
from blockrate.cli.ways_on import WAYS_ON
from blockrate.core.errors import (
    BlockrateError,
    ConfigError,
    in_words,
    with_ways_on,
)
from blockrate.core.plain_text import visible

if TYPE_CHECKING:
    from blockrate.run.comparison_plan import PlannedRun
    from blockrate.run.launch import Options
    from blockrate.run.places import Placed

TITLE = "Train Flux image models with a learning rate of its own for every transformer block."
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=TITLE,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(queue_app, name="queue")
# click's own, which typer has moved and not named
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


@app.callback()
def _program(version: Version = False) -> None:
    pass


@app.command()
def train(
    config: ConfigName,
    settings: Settings = None,
    fresh: Fresh = False,
    reset_optimizer: Annotated[
        Literal["new", "all"] | None,
        typer.Option(
            help="Begin anew the moments of weights that are new to the run, or all; the weights stay."
        ),
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Stretch the rate's schedule to the new epochs."),
    ] = False,
    gpus: GpuCount = None,
    prepare_only: PrepareOnly = False,
    ignore_unsupported: Unsupported = False,
) -> None:
    """Train, and print the files it made. The same command again goes on where a run was, or shows it at work."""
    from blockrate.cli.preparing import prepared_run
    from blockrate.run.launch import Options

    placed = placed_config(config, with_gpus(settings, gpus), ignore_unsupported)
    options = Options(
        fresh=fresh,
        reset_optimizer=reset_optimizer,
        extend=extend,
        origin=placed.origin,
    )
    if prepare_only:
        return show(visible(prepared_run(placed, options, config)))
    code, outputs = _train(placed, options, config)
    show(*map(visible, outputs))
    raise typer.Exit(code)


@app.command()
def plan(
    config: ConfigName,
    settings: Settings = None,
    fit: FitInto = "",
    write: FitWritten = None,
    gpus: GpuCount = None,
    ignore_unsupported: Unsupported = False,
    as_json: AsJson = False,
) -> None:
    """Print what would train at which rate, on which data, and what it costs. Loads no weights."""
    from blockrate.cli.data_report import data_of_plan
    from blockrate.cli.fitting import beside_cards, beside_compiler, fitted_to
    from blockrate.cli.show import places_line, plan_table
    from blockrate.config.named_files import check_start_file
    from blockrate.config.plan import make_plan
    from blockrate.run.places import place

    read, source = read_config(config, with_gpus(settings, gpus), ignore_unsupported)
    check_start_file(read)
    fitted = fitted_to(fit, read, write)
    placed = place(fitted.config, source)
    made = make_plan(placed.config)
    facts = asdict(made)
    data = data_of_plan(placed.config, config)
    beside = beside_cards(made, fitted)
    refused = beside_compiler(placed.config)
    facts["warnings"] += (*data.warnings, *beside.warnings, *refused)
    warn([*facts["warnings"], *_notes_of_places(placed)])
    if as_json:
        told = {"cards": beside.cards, **fitted.facts, "data": data.facts}
        show_json({**facts, **told})
    else:
        lines = [*beside.lines, *data.lines, visible(places_line(placed))]
        show(*fitted.lines, *plan_table(facts), *lines)
    if data.error:
        raise data.error


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A LoRA file.")], as_json: AsJson = False
) -> None:
    """Print how much a LoRA file changes each block, and the rates it was trained with if it knows them."""
    from blockrate.models.lora_norms import inspect_lora

    report = asdict(inspect_lora(file))
    if as_json:
        return show_json(report)
    from blockrate.cli.show import inspect_table

    show(*inspect_table(report))


@app.command()
def status(folder: Run, as_json: AsJson = False) -> None:
    """Print what a run is doing."""
    from blockrate.run.process import run_state

    state = run_state(run_in(folder))
    if as_json:
        facts = asdict(state)
        return show_json({"state": facts.pop("name"), **facts})
    sentence = with_ways_on(state.sentence, state.ways_on, WAYS_ON)
    # whose sentence begins with the word itself
    told = sentence if state.name == "Stopped" else f"{state.name}: {sentence}"
    show(visible(told, lines="indented"))


@app.command()
def stop(folder: Run) -> None:
    """Ask a run to finish its step and stop."""
    from blockrate.run.folder import is_alive, send_command

    run = run_in(folder)
    if not is_alive(run):
        return say(f"Nothing is running in {folder}.")
    send_command(run, "stop")
    say("Asked it to stop after the current step.")


app.command()(rates)


@app.command()
def compare(
    runs: ComparedRuns = None,
    plan: ComparedConfig = "",
    small: SmallPlan = False,
    seeds: Seeds = None,
    keep: KeepFolder = "",
    start: StartRuns = False,
    queue: QueueRuns = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say whether runs with other block rates did better, or plan the runs that show it. Chance is told from effect."""
    from blockrate.cli.comparing import Asked, compared, planned_runs, tell_of_plan

    folders = list(runs or ())
    if plan and folders:
        problem = "run folders and --plan are given together"
        raise ConfigError("RUN", problem, "Give one or the other.")
    if not plan:
        if small or seeds is not None or keep or start or queue or settings:
            problem = "--small, --seeds, --keep, --start, --queue and --set are for what --plan plans"
            cure = "Give --plan CONFIG, or leave them out."
            raise ConfigError("--plan", problem, cure)
        return compared(folders, as_json=as_json)
    asked = Asked(plan, settings, small, seeds, keep, as_json)
    planned = planned_runs(asked, start=start, queue=queue)
    if not start:
        return tell_of_plan(asked, planned, queue=queue)
    for run in planned:
        _train_planned(run)
    return compared([planned[0].file.parents[1]], as_json=as_json)


@app.command()
def demo(fresh: Fresh = False) -> None:
    """Teach a small Flux a style in minutes, without a download; once done, show its result again."""
    from blockrate.cli.demo_result import demo_result, is_of_another_model
    from blockrate.config import presets
    from blockrate.run.launch import Options
    from blockrate.run.process import run_state

    root = presets.clone()
    if root:
        os.chdir(root)  # the paths of the example are relative to it
    placed = placed_config("demo", named=True)
    earlier = is_of_another_model(placed)
    if earlier:
        say(f"The run in {placed.run.path} is of an earlier demo: it is kept aside.")
    code = 0
    if fresh or earlier or run_state(placed.run).name != "Finished":
        code, _ = _train(placed, Options(fresh=fresh or earlier), "demo")
    if code == 0:
        show(*demo_result(placed))
    raise typer.Exit(code)


@app.command()
def ui(
    config: OpenedConfig = "",
    host: Host = "127.0.0.1",
    port: Port = 0,
    no_browser: NoBrowser = False,
    allowed_host: AllowedHosts = None,
    native: Native = False,
    root: Roots = None,
    largest_upload: LargestUpload = 4096,
) -> None:
    """Open the app in a browser. The address it prints lets in whoever has it; Ctrl-C ends it, and training goes on."""
    from blockrate.ui.app import serve

    names = allowed_host or ()
    roots = root or ()
    with plain_streams():
        code = serve(
            config,
            host=host,
            port=port,
            browser=not no_browser,
            native=native,
            names=names,
            roots=roots,
            largest_upload=largest_upload * 2**20,
        )
    raise typer.Exit(code)


app.command()(draw)
app.command()(probe)


def main() -> None:
    """The console script: a user's mistake is one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]  # Windows consoles
    try:
        sys.exit(app(standalone_mode=False))
    except BlockrateError as error:
        from blockrate.run.last_words import leave

        words = in_words(error, WAYS_ON)
        say(f"error: {words}")
        leave(words)
        sys.exit(error.exit_code)
    except _USAGE_ERROR as error:
        tell_usage(error)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception:
        say_fault()
        sys.exit(1)


def _notes_of_places(placed: "Placed") -> list[str]:
    """Return what is not plain of where a run is and what it writes."""
    from blockrate.run.launch import destination_note
    from blockrate.run.results import Results

    note = destination_note(placed.config, Results(placed.run.events_file))
    return list(filter(None, (placed.note, note)))


def _train_planned(run: "PlannedRun") -> None:
    """Train one of the runs of a comparison to its end. Raises typer.Exit with its code if it fails."""
    from blockrate.run.launch import Options

    name = str(run.file)
    code, _ = _train(placed_config(name), Options(), name)
    if code:
        raise typer.Exit(code)


def _train(placed: "Placed", options: "Options", name: str) -> tuple[int, list[str]]:
    """Start the engine, or find the one at work, and show it to its end; (exit code, outputs)."""
    from blockrate.cli.data_report import refuse_bad_folders
    from blockrate.cli.show import places_line, signals_kept, watch
    from blockrate.run.events import finished_outputs
    from blockrate.run.folder import InUseError
    from blockrate.run.launch import (
        AlreadyDone,
        AtWork,
        Launched,
        Refused,
        launch,
        refuse_another_at_work,
    )

    run = placed.run
    if placed.note:
        say(f"{placed.note}.")
    elif not placed.chosen:
        say(places_line(placed))
    code = 0
    signals: list[int] = []
    with ExitStack() as stack:
        # Ctrl-C ends us until there is an engine, and from then on reaches that
        keep = partial(stack.enter_context, signals_kept(signals))
        look = partial(refuse_bad_folders, placed.config, name)
        answer = launch(
            placed.config, run, options, say, look_at_data=look, before_start=keep
        )
        match answer:
            case Launched():
                code = watch(run, signals, answer)
            case AtWork() if options.fresh:
                raise InUseError(run)
            case AtWork():
                refuse_another_at_work(placed.config, run)
                say(
                    f"A run is at work in {run.path}: showing it. Nothing new was started; Ctrl-C stops that run."
                )
                keep()
                code = watch(run, signals)
            case AlreadyDone() as done:
                say(f"{done.sentence}, --fresh starts anew.")
            case Refused(error=error):
                raise error
    return code, finished_outputs(run.events_file)

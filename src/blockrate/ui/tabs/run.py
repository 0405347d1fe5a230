"""The Run tab: what the run does, how it learns, what it draws and writes, and the runs before it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from nicegui import Event, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from blockrate.config.files import read_object
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.selection import selection_text
from blockrate.run.events import Group
from blockrate.run.folder import RunFolder
from blockrate.ui.live.charts import Gallery, heat_card, loss_card
from blockrate.ui.live.history import History
from blockrate.ui.live.watch import ALIVE, PastRun, Watch
from blockrate.ui.open_save import may_replace
from blockrate.ui.page import Page
from blockrate.ui.parts.components import section, set_props, watched
from blockrate.ui.parts.dialogs import ask, heading, icon_button
from blockrate.ui.parts.follow import read_aside, rebuilt
from blockrate.ui.parts.labels import advice, duration, sentence

_END = 30  # lines of the log that a run which failed shows at once
_COPY = """() => (navigator.clipboard?.writeText(document.getElementById("{}").textContent) ?? Promise.reject())
    .then(() => emit(true), () => emit(false))"""


def build(page: Page) -> None:
    """Lay out the tab. It follows the run while it is in front."""
    watch = page.watch
    changed = Event[[]]()
    for event in (watch.changed, page.turned):
        watched(event, lambda: changed.emit() if page.tab == "Run" else None)
    with ui.element("div").classes("card empty wide") as empty:
        ui.icon("show_chart")
        ui.label("No run yet. Start from the Training tab.")
        ui.button("Go to Training", on_click=lambda: page.go("Training")).props(
            "no-caps outline"
        )
        watched(changed, lambda: empty.set_visibility(_is_empty(watch)))
    _head(page, changed)
    loss_card(watch, changed)
    heat_card(watch, changed)
    with _card("Samples", changed, lambda: watch.history.samples, "wide"):
        Gallery(page, changed)
    with _card("What is really trained", changed, lambda: watch.history.groups):
        _trained(watch, changed)
    with _card("Log", changed, lambda: watch.log, "log-card"):
        _log(page, changed)
    _past_runs(page, changed)


@contextmanager
def _card(
    title: str, changed: Event[[]], content: Callable[[], object], classes: str = ""
) -> Iterator[None]:
    """A card that shows while there is something in it."""
    with ui.element("div").classes(classes) as card, section(title):
        yield
        watched(changed, lambda: card.set_visibility(bool(content())))


def _is_empty(watch: Watch) -> bool:
    return watch.run is None or (
        watch.state.name == "No run" and watch.state.exit_code is None
    )


def _head(page: Page, changed: Event[[]]) -> None:
    watch = page.watch
    with ui.element("section").classes("card wide run-head") as card:
        with ui.element("div").classes("run-title"):
            title = heading("")
            commands = _commands(page)
        bar = (
            ui.element("progress")
            .classes("full")
            .props('max=1 aria-label="How far the run is"')
        )
        facts = ui.label().classes("totals")
        words = ui.label().classes("dim")
        cure = ui.label().classes("banner")
        end = (
            ui.label()
            .classes("mono log-text")
            .props('tabindex=0 role=region aria-label="End of the log"')
        )
        with ui.element("ul").classes("run-notes"):
            rebuilt(changed, lambda: watch.history.warnings, _notes)
        with ui.element("ul").classes("run-files"):
            rebuilt(changed, lambda: _files(watch), partial(_file_rows, page))

    def refresh() -> None:
        name = watch.state.name
        code = watch.state.exit_code
        card.set_visibility(not _is_empty(watch))
        for command, button in commands.items():
            button.set_visibility(
                watch.can_force if command == "Force stop" else name == "Running"
            )
        bar.set_visibility(name in ALIVE)
        set_props(bar, {"value": share(watch)})
        end_of_log = (
            "\n".join(watch.log.split("\n")[-_END:])
            if name in ("Failed", "Lost")
            else ""
        )
        advised = advice("lost" if name == "Lost" else str(code))
        texts = (
            headline(watch),
            _facts(watch),
            sentence(watch.state.sentence),
            advised,
            end_of_log,
        )
        for label, text in zip((title, facts, words, cure, end), texts, strict=True):
            label.text = text
            label.set_visibility(bool(text))

    watched(changed, refresh)


def headline(watch: Watch) -> str:
    """What the run does, or how it ended, in a few words."""
    history = watch.history
    step = f"step {watch.history.step:,}"
    match watch.state.name:
        case "Preparing":
            count = f" {history.done:,} of {history.total:,}" if history.total else ""
            return f"{sentence(history.phase or 'starting')}{count}"
        case "Running":
            return f"Step {history.step:,} of {history.total_steps:,}"
        case "No run":
            return f"Stopped at {step}"
        case name:
            return (
                f"{name} {'at' if name in ('Stopping', 'Failed') else 'after'} {step}"
            )


def share(watch: Watch) -> float:
    """How much of the run, or of its preparation, is done."""
    history = watch.history
    preparing = watch.state.name == "Preparing" or not history.total_steps
    done, of = (
        (history.done, history.total)
        if preparing
        else (history.step, history.total_steps)
    )
    return done / of if of else 0.0


def _facts(watch: Watch) -> str:
    """How fast it is, for how long still, and the loss."""
    history = watch.history
    each = watch.history.seconds_per_step
    left = watch.history.seconds_left
    facts = [f"{'—' if each is None else f'{each:.3g}'} s/step"]
    facts += [f"{'—' if left is None else duration(left)} left"] * (
        watch.state.name == "Running"
    )
    facts += [] if history.loss is None else [f"loss {history.loss:.4g}"]
    return " · ".join(facts) if history.step else ""


def _commands(page: Page) -> dict[str, ui.button]:
    """The buttons that tell a running engine something."""
    watch = page.watch

    def tell(command: Callable[[], None], done: str) -> None:
        try:
            command()
            page.tell(done)
        except BlockrateError as error:
            page.tell(str(error), kind="error")

    async def force() -> None:
        text = "What was learned since the last checkpoint is lost. Start goes on from there."
        if (
            await ask("Stop the run at once?", text, ["Keep waiting", "Force stop"])
            == "Force stop"
        ):
            watch.force_stop()

    actions = {
        "Sample now": lambda: tell(watch.sample_now, "Samples come after this step"),
        "Save now": lambda: tell(watch.save_now, "A checkpoint comes after this step"),
        "Force stop": force,
    }
    with ui.element("div").classes("chips"):
        return {
            name: ui.button(name, on_click=action).props("no-caps outline")
            for name, action in actions.items()
        }


def _notes(warnings: list[str]) -> None:
    for warning in warnings:
        with ui.element("li"):
            ui.label(sentence(warning))


def _copy_button(page: Page, source: Element, name: str) -> None:
    """A button that copies the text of an element; only its number enters the script."""

    def told(copied: object) -> None:
        page.tell(
            "Copied"
            if copied is True
            else "Without https browsers do not copy. Mark the text and press Ctrl+C."
        )

    button = icon_button("content_copy", name, lambda: None)
    button.on(
        "click", lambda event: told(event.args), js_handler=_COPY.format(source.html_id)
    )


def _log(page: Page, changed: Event[[]]) -> None:
    with ui.element("div").classes("chips corner") as corner:
        follow = ui.switch("Follow", value=True, on_change=changed.emit)
    with (
        ui.element("div")
        .classes("log-box")
        .props('tabindex=0 role=region aria-label="Lines of the log"')
    ):
        text = ui.label().classes("mono log-text")
    with corner:
        _copy_button(page, text, "Copy the log")
    watched(changed, lambda: text.set_text(page.watch.log) if follow.value else None)


def _files(watch: Watch) -> dict[str, str]:
    """Where everything is that the run has written: kind by path."""
    history = watch.history
    places = {
        history.checkpoint: "Last checkpoint",
        str(watch.run.path if watch.run else ""): "Run folder",
    }
    files = {
        **dict.fromkeys(history.exports, "Export"),
        **dict.fromkeys(history.outputs, "Result"),
        **places,
    }
    return {path: kind for path, kind in files.items() if path}


def _file_rows(page: Page, files: dict[str, str]) -> None:
    for path, kind in files.items():
        with ui.element("li"):
            ui.label(kind)
            label = ui.label(str(Path(path).absolute())).classes("mono")
            with ui.element("div"):
                if kind in ("Result", "Export"):
                    _download_button(page, Path(path))
                _copy_button(page, label, f"Copy the path of {Path(path).name}")


def _download_button(page: Page, path: Path) -> None:
    """A button that brings a LoRA file to the browser's machine, if the file lies where files may be seen."""
    with suppress(ConfigError, OSError):
        address = page.media.whole_file_url(path)
        button = icon_button("download", f"Download {path.name}", lambda: None)
        button.props.update({"href": address, "download": path.name})


def _trained(watch: Watch, changed: Event[[]]) -> None:
    """A row for each group of the optimizer; the rates are those it holds now."""
    rates: dict[str, TextElement] = {}

    def fill(groups: list[Group]) -> None:
        rates.clear()
        for group in groups:
            blocks = _in_words(group.blocks or [group.name], watch.history)
            parameters = f"{group.parameters:,}"
            multiplier = f"{group.multiplier:g}"
            rates[group.name] = _row(blocks, parameters, multiplier, "")[-1]

    def refresh() -> None:
        history = watch.history
        words.set_text(_summary(history))
        held = {group.name: group.learning_rate for group in history.groups}
        held.update(history.rates)
        for name, cell in rates.items():
            rate = held.get(name)
            cell.text = "—" if rate is None else f"{rate:.2e}"

    words = ui.label().classes("dim")
    with (
        ui.element("div")
        .classes("table-box")
        .props('tabindex=0 role=region aria-label="Groups of the optimizer"')
    ):
        with ui.element("table").props('aria-label="What is really trained"'):
            with ui.element("thead"):
                _row("Blocks", "Parameters", "Multiplier", "Learning rate", tag="th")
            with ui.element("tbody"):
                rebuilt(changed, lambda: watch.history.groups, fill)
        watched(changed, refresh)


def _row(*cells: str, tag: str = "td") -> list[TextElement]:
    with ui.element("tr"):
        return [TextElement(tag=tag, text=cell) for cell in cells]


def _in_words(names: Iterable[str], history: History) -> str:
    return selection_text(
        names, BlockLayout.of(name for name in history.names if name != OTHER)
    )


def _summary(history: History) -> str:
    trained = history.trained
    frozen = set(history.frozen)
    rest = {
        "frozen": frozen - trained,
        "left out by the layer filter": set(history.names) - trained - frozen,
    }
    blocks = len(trained - {OTHER})
    known = len(set(history.names) - {OTHER})
    parameters = sum(group.parameters for group in history.groups)
    untrained = [
        f"{sentence(_in_words(names, history))} {why}."
        for why, names in rest.items()
        if names
    ]
    return " ".join(
        [f"{blocks} of {known} blocks trained, {parameters:,} parameters.", *untrained]
    )


def _past_runs(page: Page, changed: Event[[]]) -> None:
    watch = page.watch
    session = page.session

    def asked() -> tuple[object, ...]:
        return (
            watch.run and watch.run.path,
            watch.state.name,
            session.usable.workspace_dir,
        )

    def show(runs: list[PastRun]) -> None:
        rows.clear()
        with rows:
            for run in runs:
                _past_run(page, run)
        changed.emit()

    with _card("Past runs", changed, lambda: list(rows), "wide"):
        rows = ui.element("ul").classes("past-runs")
        read_aside(changed, asked, lambda _: iter([watch.past_runs(session)]), show)


def _past_run(page: Page, run: PastRun) -> None:
    async def again() -> None:
        try:
            data = read_object(RunFolder(run.path).config_file)
            if await may_replace(page):
                page.session.open_data(data, path=None, title=f"{run.name} again")
                page.go("Training")
        except BlockrateError as error:
            page.tell(str(error), kind="error")

    def show() -> None:
        at_work = page.watch.state.name in ALIVE
        page.tell(
            "Past runs can be shown when this one has ended."
        ) if at_work else page.watch.show(run.path)

    word = run.state.name
    loss = "" if run.loss is None else f" · loss {run.loss:.4g}"
    time = datetime.fromtimestamp(run.time)
    shown = page.watch.run and page.watch.run.path == run.path
    with ui.element("li"):
        ui.label("Stopped" if word == "No run" else word).classes(
            f"state is-{word.lower().replace(' ', '-')}"
        )
        with ui.element("div"):
            ui.label(run.name)
            ui.label(f"{time:%Y-%m-%d %H:%M} · step {run.state.step:,}{loss}").classes(
                "dim"
            )
        for name, action in {
            **({} if shown else {"Show": show}),
            "Run again with these settings": again,
        }.items():
            button = ui.button(name, on_click=action, color=None).props(
                "no-caps flat dense"
            )
            button.props["aria-label"] = f"{name}: {run.name}"

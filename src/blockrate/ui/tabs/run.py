"""The Run tab: what the run does, how it learns, what it draws and writes, and the runs before it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from nicegui import Event, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from blockrate.config.files import read_object
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import BlockrateError
from blockrate.core.multipliers import selection_text
from blockrate.run.folder import RunFolder
from blockrate.ui.components import section, set_props, watched
from blockrate.ui.dialogs import ask, heading, icon_button
from blockrate.ui.history import History, Json
from blockrate.ui.labels import duration, sentence
from blockrate.ui.open_save import may_replace
from blockrate.ui.page import Page
from blockrate.ui.run_charts import heat_card, loss_card
from blockrate.ui.tabs import read_aside, rebuilt
from blockrate.ui.tabs.gallery import Gallery
from blockrate.ui.watch import ALIVE, PastRun, Watch

_GO_ON = "Press Start: it goes on from the last checkpoint, or from the beginning if there is none."
_ADVICE = {  # by exit code
    1: f"This is a fault of blockrate; the log says more. {_GO_ON}",
    2: "Put the setting right, then press Start.",
    65: "The Model and Data tabs say which files are missing or damaged. Mend them, then press Start.",
    71: f"Lower the batch size or the resolution, turn gradient checkpointing on, or freeze more blocks. {_GO_ON}",
    73: f"Make room on the disk, or choose another workspace. {_GO_ON}",
    74: "Press Start and choose to start anew: the earlier run is set aside, and nothing is deleted.",
    75: "Press Start: it goes on from there.",
    76: f"Lower the learning rate, or clip the gradients. {_GO_ON}",
}
_END = 30  # lines of the log that a run which failed shows at once
_COPY = """() => (navigator.clipboard?.writeText(document.getElementById("{}").textContent) ?? Promise.reject())
    .then(() => emit(true), () => emit(false))"""


def build(page: Page) -> None:
    """Lay out the tab. It follows the run while it is in front."""
    watch, changed = page.watch, Event[[]]()
    for event in (watch.changed, page.turned):
        watched(event, lambda: changed.emit() if page.tab == "Run" else None)
    with ui.element("div").classes("card empty wide") as empty:
        ui.icon("monitoring")
        ui.label("No run yet. Start from the Training tab.")
        ui.button("Go to Training", on_click=lambda: page.go("Training")).props("no-caps outline")
        watched(changed, lambda: empty.set_visibility(_is_empty(watch)))
    _head(page, changed)
    loss_card(watch, changed)
    heat_card(watch, changed)
    with _card("Samples", changed, lambda: watch.history.samples, "wide"):
        Gallery(page, changed)
    with _card("What is really trained", changed, lambda: watch.history.groups):
        _trained(watch, changed)
    with _card("Log", changed, lambda: watch.log):
        _log(page, changed)
    with _card("Files", changed, lambda: _files(watch.history), "wide"), ui.element("ul").classes("run-files"):
        rebuilt(changed, lambda: _files(watch.history), partial(_file_list, page))
    _past_runs(page, changed)


@contextmanager
def _card(title: str, changed: Event[[]], content: Callable[[], object], classes: str = "") -> Iterator[None]:
    """A card that shows while there is something in it."""
    with ui.element("div").classes(classes) as card, section(title):
        yield
        watched(changed, lambda: card.set_visibility(bool(content())))


def _is_empty(watch: Watch) -> bool:
    return watch.run is None or (watch.state.name == "No run" and watch.state.exit_code is None)


def _head(page: Page, changed: Event[[]]) -> None:
    watch = page.watch
    with ui.element("section").classes("card wide run-head") as card:
        with ui.element("div").classes("run-title"):
            title, commands = heading(""), _commands(page)
        bar = ui.element("progress").classes("full").props('max=1 aria-label="How far the run is"')
        figures = _figures(("Time left", "A step takes", "Loss", "Last checkpoint"))
        words, advice = ui.label().classes("dim"), ui.label().classes("banner")
        end = ui.label().classes("mono log-text").props('tabindex=0 role=region aria-label="End of the log"')
        with ui.element("ul").classes("run-notes"):
            rebuilt(changed, lambda: watch.history.warnings, _notes)
        with ui.element("div").classes("place"):
            folder = ui.label().classes("mono")
            _copy_button(page, folder, "Copy the path of the run folder")

    def refresh() -> None:
        state = watch.state
        card.set_visibility(not _is_empty(watch))
        title.set_text(headline(watch))
        words.set_text(sentence(state.sentence))
        for command, button in commands.items():
            button.set_visibility(watch.can_force if command == "Force stop" else state.name == "Running")
        bar.set_visibility(state.name in ALIVE)
        set_props(bar, {"value": share(watch)})
        for figure, text in zip(figures, _measured(watch), strict=True):
            figure.set_text(text)
        advice.set_text(_GO_ON if state.name == "Lost" else _ADVICE.get(state.exit_code or 0, ""))
        advice.set_visibility(bool(advice.text))
        end.set_text("\n".join(watch.log.split("\n")[-_END:]) if state.name in ("Failed", "Lost") else "")
        end.set_visibility(bool(end.text))
        folder.set_text(str(watch.run.path if watch.run else ""))

    watched(changed, refresh)


def headline(watch: Watch) -> str:
    """What the run does, or how it ended, in a few words."""
    history, step = watch.history, f"step {watch.history.step:,}"
    match watch.state.name:
        case "Preparing":
            count = f" {history.done:,} of {history.total:,}" if history.total else ""
            return f"{(history.phase or 'starting').capitalize()}{count}"
        case "Running":
            return f"Step {history.step:,} of {history.total_steps:,}"
        case "No run":
            return f"Stopped at {step}"
        case name:
            return f"{name} {'after' if name in ('Finished', 'Lost') else 'at'} {step}"


def share(watch: Watch) -> float:
    """How much of the run, or of its preparation, is done."""
    history = watch.history
    preparing = watch.state.name == "Preparing" or not history.total_steps
    done, of = (history.done, history.total) if preparing else (history.step, history.total_steps)
    return done / of if of else 0.0


def _figures(names: tuple[str, ...]) -> list[TextElement]:
    """Places for numbers, each with what it is."""
    figures = []
    with ui.element("dl").classes("figures"):
        for name in names:
            with ui.element("div"):
                TextElement(tag="dt", text=name)
                figures.append(TextElement(tag="dd", text=""))
    return figures


def _measured(watch: Watch) -> tuple[str, str, str, str]:
    history, each = watch.history, watch.history.seconds_per_step
    left = history.seconds_left if watch.state.name in ("Running", "Stopping") else None
    return (
        "—" if left is None else duration(left),
        "—" if each is None else f"{each:.3g} s",
        "—" if history.loss is None else f"{history.loss:.4g}",
        f"Step {int(digits):,}" if (digits := history.checkpoint.rpartition("-")[2]).isdecimal() else "—",
    )


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
        if await ask("Stop the run at once?", text, ["Keep waiting", "Force stop"]) == "Force stop":
            watch.force_stop()

    with ui.element("div").classes("chips"):
        actions = {
            "Sample now": lambda: tell(watch.sample_now, "Samples come after this step"),
            "Save now": lambda: tell(watch.save_now, "A checkpoint comes after this step"),
            "Force stop": force,
        }
        return {name: ui.button(name, on_click=action).props("no-caps outline") for name, action in actions.items()}


def _notes(warnings: list[str]) -> None:
    for warning in warnings:
        with ui.element("li"):
            ui.label(sentence(warning))


def _copy_button(page: Page, source: Element, name: str) -> None:
    """A button that copies the text of an element; only its number enters the script."""

    def told(event: object) -> None:
        copied = getattr(event, "args", None) is True
        page.tell("Copied" if copied else "Without https browsers do not copy. Mark the text and press Ctrl+C.")

    icon_button("content_copy", name, lambda: None).on("click", told, js_handler=_COPY.format(source.html_id))


def _log(page: Page, changed: Event[[]]) -> None:
    with ui.element("div").classes("chips corner"):
        follow = ui.switch("Follow", value=True, on_change=changed.emit)
        place = ui.element("div")
    with ui.element("div").classes("log-box").props('tabindex=0 role=region aria-label="Log"'):
        text = ui.label().classes("mono log-text")
    with place:
        _copy_button(page, text, "Copy the log")
    watched(changed, lambda: text.set_text(page.watch.log) if follow.value else None)


def _files(history: History) -> list[tuple[str, str]]:
    """What the run has written, and where."""
    made = [("Result", path) for path in history.outputs] + [("Export", path) for path in history.exports]
    return made + [("Last checkpoint", history.checkpoint)] * bool(history.checkpoint)


def _file_list(page: Page, files: list[tuple[str, str]]) -> None:
    for kind, path in files:
        with ui.element("li"):
            ui.label(kind)
            label = ui.label(str(Path(path).absolute())).classes("mono")
            _copy_button(page, label, f"Copy the path of {Path(path).name}")


def _trained(watch: Watch, changed: Event[[]]) -> None:
    """A row for each group of the optimizer; the rates are those it holds now."""
    rates: dict[str, TextElement] = {}

    def fill(groups: list[Json]) -> None:
        rates.clear()
        history, layout = watch.history, _layout(watch.history)
        for group in groups:
            blocks = group.get("blocks") or [group["name"]]
            multiplier = group.get("multiplier")
            cells = (_named(blocks, layout), f"{group.get('parameters', 0):,}", f"{multiplier:g}", "")
            rates[blocks[0]] = _row(cells)[-1]
        untrained, frozen = set(history.names) - history.trained, set(history.frozen)
        for names, why in ((untrained & frozen, "frozen"), (untrained - frozen, "left out by the filter")):
            if names:
                _row((_named(names, layout), "0", "0" if why == "frozen" else "", why))

    def refresh() -> None:
        for name, cell in rates.items():
            rate = watch.history.rates.get(name)
            cell.set_text("—" if rate is None else f"{rate:.2e}")

    words = ui.label().classes("dim")
    with ui.element("div").classes("table-box").props('tabindex=0 role=region aria-label="What is really trained"'):
        with ui.element("table").props('aria-label="What is really trained"'):
            with ui.element("thead"):
                _row(("Blocks", "Parameters", "Multiplier", "Learning rate"), "th")
            with ui.element("tbody"):
                rebuilt(changed, lambda: watch.history.groups, fill)
        watched(changed, refresh)
    watched(changed, lambda: words.set_text(_summary(watch.history)))


def _row(cells: tuple[str, ...], tag: str = "td") -> list[TextElement]:
    with ui.element("tr"):
        return [TextElement(tag=tag, text=cell) for cell in cells]


def _layout(history: History) -> BlockLayout:
    return BlockLayout.of(name for name in history.names if name != OTHER)


def _named(names: object, layout: BlockLayout) -> str:
    return selection_text(names, layout)  # type: ignore[arg-type]


def _summary(history: History) -> str:
    blocks = [name for name in history.names if name != OTHER]
    trained = [name for name in blocks if name in history.trained]
    parameters = sum(group.get("parameters", 0) for group in history.groups)
    return f"{len(trained)} of {len(blocks)} blocks trained, {parameters:,} parameters"


def _past_runs(page: Page, changed: Event[[]]) -> None:
    watch, session = page.watch, page.session

    def asked() -> tuple[object, ...]:
        return watch.run and watch.run.path, watch.state.name, session.last_good.workspace_dir

    def show(runs: list[PastRun]) -> None:
        card.set_visibility(bool(runs))
        rows.clear()
        with rows:
            for run in runs:
                _past_run(page, run)

    with ui.element("div").classes("wide") as card, section("Past runs"):
        rows = ui.element("ul").classes("past-runs")
        card.set_visibility(False)
        read_aside(changed, asked, lambda _: iter([watch.past_runs(session)]), show)


def _past_run(page: Page, run: PastRun) -> None:
    async def again() -> None:
        try:
            data = read_object(RunFolder(run.path).config_file)
            if await may_replace(page):
                page.session.replace(data, path=None, title=f"{run.path.name} again")
                page.go("Training")
        except BlockrateError as error:
            page.tell(str(error), kind="error")

    def show() -> None:
        if page.watch.state.name in ALIVE:
            return page.tell("A run is at work. Past runs can be shown when it has ended.")
        return page.watch.show(run.path)

    time, loss = datetime.fromtimestamp(run.time), "" if run.loss is None else f" · loss {run.loss:.4g}"
    with ui.element("li"):
        ui.label(run.state.name).classes(f"state is-{run.state.name.lower().replace(' ', '-')}")
        with ui.element("div"):
            ui.label(run.path.name)
            ui.label(f"{time:%Y-%m-%d %H:%M} · step {run.state.step:,}{loss}").classes("dim")
        for name, action in (("Show", show), ("Run again with these settings", again)):
            button = ui.button(name, on_click=action, color=None).props("no-caps flat dense")
            button.props["aria-label"] = f"{name}: {run.path.name}"

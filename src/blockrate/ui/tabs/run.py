"""The Run tab: what the run does, how it learns, what it draws and writes, and the runs before it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nicegui import Event, ui
from nicegui.elements.mixins.text_element import TextElement

from blockrate.core.errors import BlockrateError, with_ways_on
from blockrate.ui.live.charts import heat_card, loss_card
from blockrate.ui.live.files import copy_button, files_list
from blockrate.ui.live.finished import finished_buttons
from blockrate.ui.live.jobs_card import jobs_card
from blockrate.ui.live.pace import pace
from blockrate.ui.live.past_runs import past_runs
from blockrate.ui.live.progress import (
    details,
    gpus,
    headline,
    memory_now,
    share,
    speed,
    why_no_samples,
    why_no_save,
)
from blockrate.ui.live.sample_grid import Gallery
from blockrate.ui.live.trained import groups_table
from blockrate.ui.live.watch import ALIVE, Watch
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section, set_props
from blockrate.ui.parts.dialogs import ask, heading
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import advice, in_labels, sentence
from blockrate.ui.starting import way_buttons
from blockrate.ui.ways_on import WAYS_ON

_END = 30  # lines of the log that a run which failed shows at once


def build(page: Page) -> None:
    """Lay out the tab. It follows the run while it is in front."""
    watch = page.watch
    changed = Event[[]]()

    def follow() -> None:
        if page.tab == "Run":
            changed.emit()

    call_on_change(watch.changed, follow)
    call_on_change(page.tab_changed, follow)
    _empty_card(page, changed)
    _head(page, changed)
    loss_card(watch, changed)
    heat_card(watch, changed)
    with _card("Samples", changed, lambda: watch.history.files.samples, "wide"):
        Gallery(page, changed)
    with _card("What is really trained", changed, lambda: watch.history.blocks.groups):
        groups_table(watch, changed)
    with _card("Log", changed, lambda: watch.log, "log-card"):
        _log(page, changed)
    with _card("Queue", changed, lambda: _has_queue(watch), "wide"):
        jobs_card(page, changed)
    with _card("Past runs", changed, lambda: list(rows), "wide"):
        rows = past_runs(page, changed)


@contextmanager
def _card(
    title: str, changed: Event[[]], content: Callable[[], object], classes: str = ""
) -> Iterator[None]:
    """A card that shows while there is something in it."""
    with ui.element("div").classes(classes) as card, section(title):
        yield
        call_on_change(changed, lambda: card.set_visibility(bool(content())))


def _empty_card(page: Page, changed: Event[[]]) -> None:
    with ui.element("div").classes("card empty wide") as card:
        ui.icon("show_chart")
        ui.label("No run yet. Start from the Training tab.")
        go = ui.button("Go to Training", on_click=lambda: page.go("Training"))
        go.props("no-caps outline")
        call_on_change(changed, lambda: card.set_visibility(_is_empty(page.watch)))


def _is_empty(watch: Watch) -> bool:
    never_ran = watch.state.name == "No run" and watch.state.exit_code is None
    return watch.run is None or never_ran


def _has_queue(watch: Watch) -> bool:
    """Whether there are jobs, or a run after which one could come."""
    seen = watch.jobs.seen
    return bool(seen.jobs or seen.unreadable) or not _is_empty(watch)


def _head(page: Page, changed: Event[[]]) -> None:
    watch = page.watch
    with ui.element("section").classes("card wide run-head") as card:
        with ui.element("div").classes("run-title"):
            _text(changed, heading(""), lambda: headline(watch))
            _commands(page, changed)
            way_buttons(page, changed)
            finished_buttons(page, changed)
        _progress_bar(watch, changed)
        _speed_and_memory(watch, changed)
        words = ui.label().classes("dim")
        _text(changed, words, lambda: _how_it_is(watch))
        cure = ui.label().classes("banner")
        _text(changed, cure, lambda: _advice(watch))
        end = ui.label().classes("mono log-text")
        end.props('tabindex=0 role=region aria-label="End of the log"')
        _text(changed, end, lambda: _end_of_log(watch))
        with ui.element("ul").classes("run-notes"):
            rebuild_on_change(changed, lambda: watch.history.warnings, _notes)
        files_list(page, changed)
        call_on_change(changed, lambda: card.set_visibility(not _is_empty(watch)))


def _speed_and_memory(watch: Watch, changed: Event[[]]) -> None:
    facts = ui.label().classes("totals")
    _text(changed, facts, lambda: speed(watch))
    predicted = ui.label().classes("dim")
    _text(changed, predicted, lambda: pace(watch))
    cards = ui.label().classes("run-gpus")
    _text(changed, cards, lambda: gpus(watch))
    memory = ui.label().classes("dim")
    _text(changed, memory, lambda: memory_now(watch))


def _text(changed: Event[[]], element: TextElement, text: Callable[[], str]) -> None:
    """Keep the text of an element, which is gone without one."""

    def refresh() -> None:
        element.text = text()
        element.set_visibility(bool(element.text))

    call_on_change(changed, refresh)


def _progress_bar(watch: Watch, changed: Event[[]]) -> None:
    bar = ui.element("progress").classes("full")
    bar.props('max=1 aria-label="How far the run is"')

    def refresh() -> None:
        bar.set_visibility(watch.state.name in ALIVE)
        set_props(bar, {"value": share(watch)})

    call_on_change(changed, refresh)


def _how_it_is(watch: Watch) -> str:
    ways_on = watch.state.ways_on
    return sentence(in_labels(with_ways_on(details(watch), ways_on, WAYS_ON)))


def _advice(watch: Watch) -> str:
    state = watch.state
    return advice("lost" if state.name == "Lost" else str(state.exit_code))


def _end_of_log(watch: Watch) -> str:
    if watch.state.name not in ("Failed", "Lost"):
        return ""
    lines = watch.log.split("\n")
    return "\n".join(lines[-_END:])


def _commands(page: Page, changed: Event[[]]) -> None:
    """The buttons that tell a running engine something."""
    watch = page.watch

    def send(command: Callable[[], None], why_not: str, done: str) -> None:
        if why_not:
            return page.show_message(why_not)
        try:
            command()
            page.show_message(done)
        except BlockrateError as error:
            page.show_message(str(error), kind="error")
        return None

    def sample_now() -> None:
        send(watch.sample_now, why_no_samples(watch), "Samples come after this step")

    def save_now() -> None:
        send(watch.save_now, why_no_save(watch), "A checkpoint comes after this step")

    async def force_stop() -> None:
        text = "What was learned since the last checkpoint is lost. Start goes on from there."
        choices = ["Keep waiting", "Force stop"]
        if await ask("Stop the run at once?", text, choices) == "Force stop":
            watch.force_stop()

    with ui.element("div").classes("chips"):
        sample = ui.button("Sample now").props("no-caps outline")
        save = ui.button("Save now").props("no-caps outline")
        force = ui.button("Force stop").props("no-caps outline")
    sample.on_click(sample_now)
    save.on_click(save_now)
    force.on_click(force_stop)

    def refresh() -> None:
        is_running = watch.state.name == "Running"
        sample.set_visibility(is_running)
        save.set_visibility(is_running)
        force.set_visibility(watch.can_force)

    call_on_change(changed, refresh)


def _notes(warnings: list[str]) -> None:
    for warning in warnings:
        with ui.element("li"):
            ui.label(sentence(in_labels(warning)))


def _log(page: Page, changed: Event[[]]) -> None:
    with ui.element("div").classes("chips corner") as corner:
        follow = ui.switch("Follow", value=True, on_change=changed.emit)
    with ui.element("div").classes("log-box") as box:
        box.props('tabindex=0 role=region aria-label="Lines of the log"')
        text = ui.label().classes("mono log-text")
    with corner:
        copy_button(page, text, "Copy the log")

    def refresh() -> None:
        if follow.value:
            text.set_text(page.watch.log)

    call_on_change(changed, refresh)

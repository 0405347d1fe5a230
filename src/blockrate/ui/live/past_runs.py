"""The runs beside the one that is shown, to be shown and to be run again."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.config.reading import read_object
from blockrate.core.errors import BlockrateError
from blockrate.run.folder import RunFolder
from blockrate.ui.compare.chosen import compare_with_its_like
from blockrate.ui.live.another_profile import NAME, try_another_profile
from blockrate.ui.live.found_runs import FoundRun
from blockrate.ui.live.watch import ALIVE, Watch
from blockrate.ui.open_save import may_replace
from blockrate.ui.page import Page
from blockrate.ui.parts.follow import show_from_thread


class ToFind(NamedTuple):
    """What the list depends on: the run that is shown, its state, and where the open config trains."""

    run: Path | None
    state: str
    workspace: str


def past_runs(page: Page, changed: Event[[]]) -> Element:
    """Show what a thread finds, the newest first. Return the list."""
    watch = page.watch
    session = page.session
    rows = ui.element("ul").classes("past-runs")

    def to_find() -> ToFind:
        run = watch.run.path if watch.run else None
        return ToFind(run, watch.state.name, session.usable.workspace_dir)

    def show(runs: list[FoundRun]) -> None:
        rows.clear()
        with rows:
            for run in runs:
                # the one at work is all of the page above
                if watch.state.name not in ALIVE or not _is_shown(watch, run):
                    _row(page, run)
        changed.emit()

    show_from_thread(changed, to_find, lambda _: iter([watch.past_runs(session)]), show)
    return rows


def _is_shown(watch: Watch, run: FoundRun) -> bool:
    return watch.run is not None and watch.run.path == run.path


def _row(page: Page, run: FoundRun) -> None:
    state = run.state.name
    time = datetime.fromtimestamp(run.time)
    facts = f"{time:%Y-%m-%d %H:%M} · step {run.state.step:,}"
    if run.loss is not None:
        facts = f"{facts} · loss {run.loss:.4g}"
    with ui.element("li"):
        # of one that nobody has signed no more is known
        word = ui.label("Stopped" if state == "No run" else state)
        word.classes(f"state is-{state.lower().replace(' ', '-')}")
        with ui.element("div"):
            ui.label(run.name)
            ui.label(facts).classes("dim")
        _buttons(page, run)


def _buttons(page: Page, run: FoundRun) -> None:
    watch = page.watch

    async def run_again() -> None:
        try:
            data = read_object(RunFolder(run.path).config_file)
            if await may_replace(page):
                page.session.open_data(data, path=None, title=f"{run.name} again")
                page.go("Training")
        except BlockrateError as error:
            page.show_message(str(error), kind="error")

    def show() -> None:
        if watch.state.name in ALIVE:
            page.show_message("Past runs can be shown when this one has ended.")
        else:
            watch.show(run.path)

    actions: dict[str, Callable[[], object]] = {}
    if not _is_shown(watch, run):
        actions["Show"] = show
    actions["Compare"] = partial(compare_with_its_like, page, run.path)
    actions["Run again with these settings"] = run_again
    for name, action in actions.items():
        _button(name, run).on_click(action)
    if run.state.name == "Finished":
        another = _button(NAME, run)
        another.on_click(partial(try_another_profile, page, run.path, another))


def _button(name: str, run: FoundRun) -> ui.button:
    button = ui.button(name, color=None).props("no-caps flat dense")
    button.props["aria-label"] = f"{name}: {run.name}"
    return button

"""The runs that are compared, each with its line in the charts, its rates as a picture, and what became of it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nicegui import ui
from nicegui.element import Element

from blockrate.core.blocks import BlockLayout, is_block
from blockrate.core.plain_text import visible
from blockrate.run.process import RunState
from blockrate.ui.compare.adding import add_run
from blockrate.ui.compare.better import TITLE, ask_whether_better, has_rates
from blockrate.ui.compare.chosen import MOST, compare_runs, names_of
from blockrate.ui.compare.readings import Reading, Readings
from blockrate.ui.live.another_profile import NAME, try_another_profile
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.dialogs import heading, icon_button
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.windows.rate_picture import RatePicture
from blockrate.ui.windows.rates import RatesDraft

_NOTHING = "Choose two to four runs to see them beside each other."
_ENOUGH = f"Four runs can be told apart, and {MOST} are chosen. Remove one first."
_UNKNOWN = "{} of the runs in this address are not known here any more."


def runs_card(page: Page, readings: Readings) -> None:
    """Show the runs, and let others be added."""
    with ui.element("div").classes("wide"), section("Runs"):
        with ui.element("div").classes("chips corner"):
            add = ui.button("Add a run", on_click=partial(_add, page))
            add.props("no-caps outline")
        note = ui.label()
        with ui.element("ul").classes("compared-runs"):
            rebuild_on_change(
                page.compared_changed,
                lambda: page.compared.paths,
                partial(_rows, page, readings, add),
            )

    def refresh() -> None:
        words = _NOTHING if len(page.compared.paths) < 2 else ""
        if page.compared.unknown:
            words = f"{_UNKNOWN.format(page.compared.unknown)} {words}".rstrip()
        note.set_text(words)
        note.set_visibility(bool(words))

    call_on_change(page.compared_changed, refresh)


async def _add(page: Page) -> None:
    if len(page.compared.paths) >= MOST:
        return page.show_message(_ENOUGH)
    return await add_run(page)


def _rows(page: Page, readings: Readings, add: Element, paths: Sequence[Path]) -> None:
    names = names_of(paths)
    for slot, (reading, name) in enumerate(zip(readings.all, names, strict=True)):
        with ui.element("li").classes(f"run{slot}"):
            remove = partial(_remove, page, reading.path, add)
            _row(readings, reading, name, remove)
            _more(page, readings, reading, name)


def _row(
    readings: Readings, reading: Reading, name: str, remove: Callable[[], None]
) -> None:
    with ui.element("div").classes("compared-title"):
        ui.element("i").classes("line-sample").props("aria-hidden=true")
        heading(name, 3).props["title"] = visible(str(reading.path))
        icon_button("close", f"Remove {name}", remove)
    facts = ui.label().classes("dim")
    picture = RatePicture()
    words = ui.label().classes("dim")

    def refresh() -> None:
        facts.set_text(_facts(reading))
        draft = rates_of(reading)
        if draft:
            picture.show(draft)
            # what it was given on its way is in no picture
            told = (rates_in_words(reading), reading.history.blocks.changed)
            words.set_text(" · ".join(filter(None, told)))

    call_on_change(readings.changed, refresh)


def _more(page: Page, readings: Readings, reading: Reading, name: str) -> None:
    """What can be done with a run that is finished."""
    with ui.element("div").classes("run-more") as buttons:
        another = ui.button(NAME, color=None)
        better = ui.button(TITLE, color=None)
    another.on_click(partial(try_another_profile, page, reading.path, another))
    better.on_click(partial(ask_whether_better, page, reading.path))
    for button in (another, better):
        button.props("no-caps flat dense")
        button.props["aria-label"] = f"{button.text}: {name}"

    def refresh() -> None:
        buttons.set_visibility(reading.state.name == "Finished")
        is_part = reading.path.name.startswith("seed-")
        better.set_visibility(has_rates(reading.history.config) and not is_part)

    call_on_change(readings.changed, refresh)


def _remove(page: Page, path: Path, add: Element) -> None:
    compare_runs(page, [other for other in page.compared.paths if other != path])
    with add:  # what was pressed is gone
        page.focus(add)


def _facts(reading: Reading) -> str:
    progress = reading.history.progress
    facts = [_state_words(reading.state, started=bool(progress.step))]
    if progress.step:
        facts.append(f"step {progress.step:,}")
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.4g}")
    validations = reading.history.validations.rows
    if validations and (last := validations[-1].get("loss")) is not None:
        facts.append(f"validation {last:.4g}")
    if reading.share < 1:
        facts.append(f"{round(100 * reading.share)} % read")
    return " · ".join(facts)


def _state_words(state: RunState, *, started: bool) -> str:
    if state.name != "No run":
        return state.name
    return "Stopped" if started else "No run yet"


def rates_of(reading: Reading) -> RatesDraft | None:
    """Return the block rates that a run begins with as the pictures have them; None while they are not known."""
    config = reading.history.config
    if config is None:
        return None
    blocks = filter(is_block, reading.history.blocks.names)
    return RatesDraft(BlockLayout.of(blocks), config.first_rates())


def rates_in_words(reading: Reading) -> str:
    """Return in a line what the block rates of a run are, ``""`` while they are not known."""
    draft = rates_of(reading)
    config = reading.history.config
    if draft is None or config is None:
        return ""
    phases = len(config.block_learning_rate_phases)
    summary = draft.summary()
    return f"{phases} phases, at first {summary}" if phases > 1 else summary

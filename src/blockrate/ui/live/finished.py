"""What can be done with the run that is shown once it is finished: compare it, and try other rates."""

from nicegui import Event, ui

from blockrate.ui.compare.better import TITLE, ask_whether_better, has_rates
from blockrate.ui.compare.chosen import compare_with_its_like
from blockrate.ui.live.another_profile import NAME, try_another_profile
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change


def finished_buttons(page: Page, changed: Event[[]]) -> None:
    """Show the buttons while the run that is shown is finished."""
    watch = page.watch

    def compare() -> None:
        if watch.run:
            compare_with_its_like(page, watch.run.path)

    async def another() -> None:
        if watch.run:
            await try_another_profile(page, watch.run.path, profile)

    async def better() -> None:
        if watch.run:
            await ask_whether_better(page, watch.run.path)

    with ui.element("div").classes("chips") as buttons:
        profile = ui.button(NAME, on_click=another).props("no-caps outline")
        ui.button("Compare", on_click=compare).props("no-caps outline")
        question = ui.button(TITLE, on_click=better).props("no-caps outline")

    def refresh() -> None:
        buttons.set_visibility(watch.state.name == "Finished")
        question.set_visibility(has_rates(watch.history.config))

    call_on_change(changed, refresh)

"""Every setting that a config can hold is shown in a tab or a window, and a problem with it leads there."""

import re
from collections.abc import Callable

from nicegui import ui
from support.settings import all_paths

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.core.profile import KEY
from blockrate.ui import shell
from blockrate.ui.page import Page
from blockrate.ui.starting import tab_of
from blockrate.ui.windows.optimizer_window import open_optimizer_window
from blockrate.ui.windows.scheduler_window import open_scheduler_window
from blockrate.ui.windows.timestep_window import open_timestep_window

OnAPage = Callable[[Callable[[Page], None]], None]


def shown(page: Page) -> set[str]:
    frames = ui.context.client.elements.values()
    paths = {
        str(frame.props["data-setting"])
        for frame in frames
        if "data-setting" in frame.props
    }
    return {re.sub(r"\.\d+\.", ".N.", path) for path in paths}


def test_every_setting_is_shown(on_a_page: OnAPage) -> None:
    def look(page: Page) -> None:
        for tab in shell.TABS:
            page.show_tab(tab)
        opener = page.controls["epochs"]
        open_scheduler_window(page, opener)
        open_timestep_window(page, opener)
        for name in OPTIMIZERS:
            page.session.set({"optimizer.optimizer": name})
            open_optimizer_window(page, opener)
        assert shown(page) | {KEY} == set(all_paths()), (
            "the window of block rates has a test of its own"
        )
        assert KEY in page.controls

    on_a_page(look)


def test_a_problem_leads_to_the_tab_that_shows_the_setting(on_a_page: OnAPage) -> None:
    def look(page: Page) -> None:
        before: set[str] = set()
        wrong = {}
        for tab in shell.TABS:
            page.show_tab(tab)
            wrong |= {
                path: tab
                for path in page.controls.keys() - before
                if tab_of(path) != tab
            }
            before = set(page.controls)
        assert wrong == {}
        assert len(before) > 100

    on_a_page(look)

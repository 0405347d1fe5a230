"""Every setting is shown where its facts say, and nowhere else; a problem with it leads there."""

import re
from collections.abc import Callable

from nicegui import ui

from blockrate.config.fields import fields, in_window, tab_of
from blockrate.config.fork_rates import PRESETS_KEY
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.core.profile import KEY
from blockrate.ui import shell
from blockrate.ui.page import Page
from blockrate.ui.windows.optimizer_window import open_optimizer_window
from blockrate.ui.windows.scheduler_window import open_scheduler_window
from blockrate.ui.windows.timestep_window import open_timestep_window

OnAPage = Callable[[Callable[[Page], None]], None]
# it stands in the tab and in the window of the scheduler
# two text encoders; of a model with one the tab shows no other
HAS_EVERY_PART = {
    "base_model_name": "black-forest-labs/FLUX.1-dev",
    "model_type": "FLUX_DEV_1",
}
IN_BOTH = "learning_rate_warmup_steps"


def shown() -> list[str]:
    """The paths of all controls, twice where there are two."""
    frames = ui.context.client.elements.values()
    paths = [
        str(frame.props["data-setting"])
        for frame in frames
        if "data-setting" in frame.props
    ]
    return [re.sub(r"\.0\.", ".N.", path) for path in paths if ".1." not in path]


def test_every_setting_is_in_the_tab_that_it_names_once_and_nowhere_else(
    on_a_page: OnAPage,
) -> None:
    def look(page: Page) -> None:
        page.session.set(HAS_EVERY_PART)
        before: list[str] = []
        for tab in shell.TABS:
            page.show_tab(tab)
            now = shown()
            expected = [
                path
                for path, field in fields().items()
                if field.tab == tab and not field.window
            ]
            assert sorted(now[len(before) :]) == sorted(expected), tab
            before = now
        assert len(before) > 100

    on_a_page(look)


def test_every_setting_behind_three_dots_is_in_the_window_that_it_names(
    on_a_page: OnAPage,
) -> None:
    def look(page: Page) -> None:
        page.show_tab("Training")
        in_tab = set(shown())
        opener = page.controls["epochs"]
        open_scheduler_window(page, opener)
        scheduler = shown()
        assert set(scheduler) - in_tab == {*in_window("Learning Rate Scheduler")}
        assert scheduler.count(IN_BOTH) == 2
        open_timestep_window(page, opener)
        timesteps = set(shown()) - set(scheduler)
        assert timesteps == {*in_window("Timestep Distribution")}
        for name in OPTIMIZERS:
            page.session.set({"optimizer.optimizer": name})
            open_optimizer_window(page, opener)
        optimizer = set(shown()) - set(scheduler) - timesteps
        assert optimizer == {*in_window("Optimizer")}
        # the window of block rates has tests of its own
        own = (KEY, "block_learning_rate_phases", PRESETS_KEY)
        assert in_window("Block Learning Rate") == own
        assert KEY in page.controls

    on_a_page(look)


def test_a_problem_leads_to_the_tab_that_shows_the_setting(on_a_page: OnAPage) -> None:
    def look(page: Page) -> None:
        before: set[str] = set()
        wrong: dict[str, object] = {}
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

"""The Learning Rate Scheduler window, with a picture of the rate over the run."""

from nicegui import ui
from nicegui.element import Element

from blockrate.core.schedules import rate_factor
from blockrate.ui.charts import Drawing
from blockrate.ui.components import field, watched
from blockrate.ui.labels import option_label
from blockrate.ui.page import Page
from blockrate.ui.session import Draft
from blockrate.ui.tabs import read_aside
from blockrate.ui.tabs.survey import Survey, survey
from blockrate.ui.windows.window import Window

PATHS = (
    "learning_rate_warmup_steps",
    "learning_rate_min_factor",
    "learning_rate_cycles",
    "learning_rate_scaler",
)
_POINTS, _STEPS = 200, 1000  # of the picture; of a run of which nothing is known yet


def open_scheduler_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen scheduler."""
    draft, steps = Draft(page.session, PATHS), [_STEPS]
    window = Window.of_draft(page, "Learning Rate Scheduler", opener, draft)
    with window.header():
        title = ui.label()
    with window.body(), ui.element("div").classes("card-body"):
        for path in PATHS:
            field(draft, path, classes="half")
        drawing = Drawing("first step", "")

        def refresh() -> None:
            config = draft.checked.config or page.session.last_good
            title.set_text(option_label(config.learning_rate_scheduler))
            factors = [
                rate_factor(
                    round(place * (steps[0] - 1) / (_POINTS - 1)),
                    scheduler=config.learning_rate_scheduler,
                    total_steps=steps[0],
                    warmup_steps=config.learning_rate_warmup_steps,
                    cycles=config.learning_rate_cycles,
                    min_factor=config.learning_rate_min_factor,
                )
                for place in range(_POINTS)
            ]
            rates = [factor * config.base_learning_rate() for factor in (factors[0], max(factors), factors[-1])]
            words = "The rate starts at {:.2e}, is {:.2e} at most and ends at {:.2e}.".format(*rates)
            drawing.show(factors, words, f"step {steps[0]:,}")

        def know(now: Survey) -> None:
            if now.steps:
                steps[0] = now.steps
                refresh()

        watched(draft.changed, refresh)
        watched(page.session.changed, refresh)
        read_aside(page.session.changed, lambda: page.session.last_good, survey, know)
    window.open()

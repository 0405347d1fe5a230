"""The Learning Rate Scheduler window, with a picture of the rate over the run."""

from nicegui.element import Element

from blockrate.config.fields import in_window
from blockrate.config.train_config import TrainConfig
from blockrate.dataset.survey import Survey, survey
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field
from blockrate.ui.parts.drawing import Drawing
from blockrate.ui.parts.follow import read_aside
from blockrate.ui.parts.labels import option_label
from blockrate.ui.window_draft import WindowDraft
from blockrate.ui.windows.window import DraftWindow

PATHS = in_window("Learning Rate Scheduler")
_POINTS, _STEPS = 200, 1000  # of the picture; of a run of which nothing is known yet


def open_scheduler_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen scheduler."""
    # warm-up stands in the tab, too
    paths = ("learning_rate_warmup_steps", *PATHS)
    steps = [0]
    window = DraftWindow(
        page, "Learning Rate Scheduler", opener, "learning_rate_scheduler", paths, _make
    )

    def draw() -> None:
        config = window.config
        number = steps[0] or _STEPS
        window.chosen.set_text(option_label(config.learning_rate_scheduler))
        curve = factors(config, number)
        rates = [
            factor * config.base_learning_rate()
            for factor in (curve[0], max(curve), curve[-1])
        ]
        words = (
            "The rate starts at {:.2e}, is {:.2e} at most and ends at {:.2e}.".format(
                *rates
            )
        )
        drawing.show(
            curve,
            words,
            f"step {number:,}" if steps[0] else f"step {number:,}, for example",
        )

    def know(now: Survey) -> None:
        if now.steps:
            steps[0] = now.steps
            draw()

    with window.fields:
        drawing = Drawing("first step", "")
        read_aside(page.session.changed, lambda: page.session.usable, survey, know)
    window.watch(draw)
    window.open()


def factors(config: TrainConfig, steps: int) -> list[float]:
    """Return what the rate is multiplied with at 200 places of a run of so many steps."""
    last = _POINTS - 1
    return [
        config.rate_factor(round(place * (steps - 1) / last), steps)
        for place in range(_POINTS)
    ]


def _make(draft: WindowDraft, path: str) -> None:
    def why_not() -> str:
        name = str(draft.get("learning_rate_scheduler"))
        if draft.problem(path):
            return ""  # it is to be put right
        if path == "learning_rate_min_factor" and name == "CONSTANT":
            return "Not for a constant rate"
        return (
            "Only with restarts"
            if path == "learning_rate_cycles" and "RESTARTS" not in name
            else ""
        )

    field(draft, path, classes="half", why_not=why_not)

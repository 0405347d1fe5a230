"""The Learning Rate Scheduler window, with a picture of the rate over the run."""

from nicegui.element import Element

from blockrate.config.fields import in_window
from blockrate.config.schedule_check import schedule_warnings
from blockrate.config.train_config import TrainConfig
from blockrate.dataset.survey import Survey, survey
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field
from blockrate.ui.parts.drawing import Drawing
from blockrate.ui.parts.follow import show_from_thread
from blockrate.ui.parts.labels import in_labels, option_label
from blockrate.ui.window_draft import WindowDraft
from blockrate.ui.windows.window import DraftWindow

PATHS = in_window("Learning Rate Scheduler")
_POINTS = 200  # of the picture
_STEPS = 1000  # of a run of which nothing is known yet


def open_scheduler_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen scheduler."""
    # warm-up stands in the tab, too
    paths = ("learning_rate_warmup_steps", *PATHS)
    steps: int | None = None
    window = DraftWindow(
        page, "Learning Rate Scheduler", opener, "learning_rate_scheduler", paths, _make
    )

    def draw() -> None:
        config = window.config
        window.chosen.set_text(option_label(config.learning_rate_scheduler))
        curve = factors(config, steps or _STEPS)
        last_step = f"step {steps:,}" if steps else f"step {_STEPS:,}, for example"
        words = [_curve_in_words(curve, config)]
        if steps:
            words += map(in_labels, schedule_warnings(config, steps))
        drawing.show(curve, " ".join(words), last_step)

    def take_steps(result: Survey) -> None:
        nonlocal steps
        if result.steps:
            steps = result.steps
            draw()

    with window.fields:
        drawing = Drawing("first step", "")
        show_from_thread(
            page.session.changed, lambda: page.session.usable, survey, take_steps
        )
    window.watch(draw)
    window.open()


def factors(config: TrainConfig, steps: int) -> list[float]:
    """Return what the rate is multiplied with at 200 points of a run of so many steps."""
    last = _POINTS - 1
    return [
        config.rate_factor(round(point * (steps - 1) / last), steps)
        for point in range(_POINTS)
    ]


def _curve_in_words(curve: list[float], config: TrainConfig) -> str:
    base = config.base_learning_rate()
    first = f"{base * curve[0]:.2e}"
    most = f"{base * max(curve):.2e}"
    last = f"{base * curve[-1]:.2e}"
    return f"The rate starts at {first}, is {most} at most and ends at {last}."


def _make(draft: WindowDraft, path: str) -> None:
    def why_not() -> str:
        name = str(draft.get("learning_rate_scheduler"))
        if draft.problem(path):
            return ""  # it is to be corrected
        if path == "learning_rate_min_factor" and name == "CONSTANT":
            return "Not for a constant rate"
        if path == "learning_rate_cycles" and "RESTARTS" not in name:
            return "Only with restarts"
        return ""

    field(draft, path, classes="half", why_not=why_not)

"""The Timestep Distribution window, with a picture of how often each noise level is trained."""

from functools import partial

from nicegui import ui
from nicegui.element import Element

from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import buckets
from blockrate.core.timesteps import dynamic_shift, timestep_at
from blockrate.ui.charts import Drawing
from blockrate.ui.components import field, watched
from blockrate.ui.labels import option_label
from blockrate.ui.page import Page
from blockrate.ui.session import Draft
from blockrate.ui.windows.window import Window

_LOGIT_NORMAL = ("noising_weight", "noising_bias")
_ALWAYS = ("min_noising_strength", "max_noising_strength", "dynamic_timestep_shifting", "timestep_shift")
PATHS = (*_LOGIT_NORMAL, *_ALWAYS)
_DRAWN, _BINS = 4000, 50


def open_timestep_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen distribution."""
    draft = Draft(page.session, PATHS)
    window = Window.of_draft(page, "Timestep Distribution", opener, draft)
    with window.header():
        title = ui.label()
    with window.body(), ui.element("div").classes("card-body"):
        for path in PATHS:
            field(draft, path, classes="half", why_not=partial(_why_not, draft, path))
        drawing = Drawing("no noise", "only noise")

        def refresh() -> None:
            config = draft.checked.config or page.session.last_good
            title.set_text(option_label(config.timestep_distribution))
            counts = histogram(config)
            words = f"Half of all steps train noise levels above {median(config):.2f}."
            drawing.show([count / max(counts) for count in counts], words, steps=True)

        watched(draft.changed, refresh)
        watched(page.session.changed, refresh)
    window.open()


def histogram(config: TrainConfig) -> list[int]:
    """Return how often noise levels of 0..1 are trained, in 50 bins, at the first resolution."""
    counts = [0] * _BINS
    for place in range(_DRAWN):
        counts[min(int(_timestep(config, (place + 0.5) / _DRAWN) * _BINS), _BINS - 1)] += 1
    return counts


def median(config: TrainConfig) -> float:
    """Return the noise level that half of all steps lie above."""
    return _timestep(config, 0.5)


def _timestep(config: TrainConfig, share: float) -> float:
    dynamic = config.dynamic_timestep_shifting
    return timestep_at(
        share,
        distribution=config.timestep_distribution,
        weight=config.noising_weight,
        bias=config.noising_bias,
        low=config.min_noising_strength,
        high=config.max_noising_strength,
        shift=dynamic_shift(buckets(config.resolution)[0][0].tokens) if dynamic else config.timestep_shift,
    )


def _why_not(draft: Draft, path: str) -> str:
    if path in _LOGIT_NORMAL and draft.get("timestep_distribution") == "UNIFORM":
        return "Only for Logit normal"
    if path == "timestep_shift" and draft.get("dynamic_timestep_shifting") is True:
        return "Dynamic shifting sets it"
    return ""

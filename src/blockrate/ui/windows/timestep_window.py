"""The Timestep Distribution window, with a picture of how often each noise level is trained."""

from nicegui.element import Element

from blockrate.config.fields import in_window
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import buckets
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field
from blockrate.ui.parts.drawing import Drawing
from blockrate.ui.parts.labels import option_label
from blockrate.ui.window_draft import WindowDraft
from blockrate.ui.windows.window import DraftWindow

_LOGIT_NORMAL = ("noising_weight", "noising_bias")
PATHS = in_window("Timestep Distribution")
_DRAWN = 4000
_BINS = 50


def open_timestep_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen distribution."""
    window = DraftWindow(
        page, "Timestep Distribution", opener, "timestep_distribution", PATHS, _make
    )
    with window.fields:
        drawing = Drawing("no noise", "only noise")

    def draw() -> None:
        window.chosen.set_text(option_label(window.config.timestep_distribution))
        config = window.config
        counts = histogram(config)
        most = max(counts)
        middle = config.timestep_at(0.5, tokens=_tokens(config))
        words = f"Half of all steps train noise levels above {middle:.2f}."
        drawing.show([count / most for count in counts], words)

    window.watch(draw)
    window.open()


def histogram(config: TrainConfig) -> list[int]:
    """Return how often noise levels of 0..1 are trained, in 50 bins, at the first resolution."""
    counts = [0] * _BINS
    tokens = _tokens(config)
    for number in range(_DRAWN):
        timestep = config.timestep_at((number + 0.5) / _DRAWN, tokens=tokens)
        # 1.0 itself counts to the last bin
        counts[min(int(timestep * _BINS), _BINS - 1)] += 1
    return counts


def _tokens(config: TrainConfig) -> int:
    return buckets(config.resolution)[0][0].tokens


def _make(draft: WindowDraft, path: str) -> None:
    def why_not() -> str:
        if draft.problem(path):
            return ""  # it is to be corrected
        if path in _LOGIT_NORMAL and draft.get("timestep_distribution") == "UNIFORM":
            return "Only for Logit-normal"
        is_dynamic = draft.get("dynamic_timestep_shifting") is True
        if path == "timestep_shift" and is_dynamic:
            return "Dynamic shifting sets it"
        return ""

    field(draft, path, classes="half", why_not=why_not)

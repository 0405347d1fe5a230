"""The Optimizer window: what the chosen optimizer can be told, and what it costs."""

from nicegui import ui
from nicegui.element import Element

from blockrate.config.optimizers import (
    OPTIMIZERS,
    OptimizerRow,
    differing_rates_refusal,
)
from blockrate.config.parts import OptimizerSettings
from blockrate.ui.page import Page
from blockrate.ui.parts.components import Source, field
from blockrate.ui.parts.field_types import as_text
from blockrate.ui.parts.labels import in_labels, label_of, option_label
from blockrate.ui.window_draft import WindowDraft
from blockrate.ui.windows.window import DraftWindow


def open_optimizer_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen optimizer."""
    row = _row(page.session)

    def make(draft: WindowDraft, path: str) -> None:
        default = row.parameters[path.rpartition(".")[2]]
        text = as_text(default)
        if isinstance(default, bool):
            text = option_label(default)
        label = f"{label_of(path)} (default {text})" if text else ""
        field(draft, path, label=label, classes="half")

    paths = [f"optimizer.{name}" for name in row.parameters]
    window = DraftWindow(page, "Optimizer", opener, "optimizer.optimizer", paths, make)
    window.chosen.set_text(row.title)
    with window.fields.classes("is-wordy"):
        banner = ui.label().classes("banner")
        banner.move(target_index=0)
    window.watch(lambda: set_banner(banner, why_not_differing_rates(window.draft)))
    with window.frame.footer:
        memory = f"{row.state_bytes:g} bytes of memory per trained parameter"
        ui.label(f"{row.package} · {memory}")
    window.open()


def why_not_differing_rates(source: Source) -> str:
    """Why blocks cannot have rates of their own with the chosen optimizer; nothing if they can.

    Says so too while other settings are wrong, and the config that is left without them
    has another optimizer.
    """
    row = _row(source)
    values = {name: source.get(f"optimizer.{name}") for name in row.parameters}
    settings = OptimizerSettings.model_construct(**{"optimizer": row.name, **values})
    refusal = differing_rates_refusal(settings)
    return in_labels(f"{refusal}.") if refusal else ""


def set_banner(banner: ui.label, text: str) -> None:
    """Show a text in a banner, which is gone without one."""
    banner.set_text(text)
    banner.set_visibility(bool(text))


def _row(source: Source) -> OptimizerRow:
    """The optimizer that is chosen; AdamW while the choice is wrong."""
    name = str(source.get("optimizer.optimizer"))
    return OPTIMIZERS.get(name, OPTIMIZERS["ADAMW"])

"""The Optimizer window: what the chosen optimizer can be told, and what it costs."""

from nicegui import ui
from nicegui.element import Element

from blockrate.config.optimizers import OPTIMIZERS, OptimizerRow
from blockrate.ui.components import field
from blockrate.ui.field_types import as_text
from blockrate.ui.labels import label_of
from blockrate.ui.page import Page
from blockrate.ui.session import Draft, Session
from blockrate.ui.windows.window import Window


def row_of(session: Session) -> OptimizerRow:
    """The optimizer that is chosen; the usual one while the choice is wrong."""
    return OPTIMIZERS.get(str(session.get("optimizer.optimizer")), OPTIMIZERS["ADAMW"])


def open_optimizer_window(page: Page, opener: Element) -> None:
    """Open the window for the chosen optimizer."""
    row = row_of(page.session)
    paths = [f"optimizer.{name}" for name in row.parameters]
    draft = Draft(page.session, paths)
    window = Window.of_draft(page, "Optimizer", opener, draft)
    with window.header():
        ui.label(row.title)
    with window.body():
        if not row.per_block_rates:
            ui.label(f"{row.title} cannot give blocks rates of their own: {row.why}.").classes("banner")
        with ui.element("div").classes("card-body"):
            for path, usual in zip(paths, row.parameters.values(), strict=True):
                label = label_of(path) if usual is None else f"{label_of(path)} (usual {as_text(usual)})"
                field(draft, path, label=label, classes="half")
    with window.footer():
        ui.label(f"{row.package} · {row.state_bytes:g} bytes of memory for each trained number")
    window.open()

"""Fit into a card: the settings that a run needs for so much memory, set by one press, and told."""

from nicegui import ui
from nicegui.run import io_bound

from blockrate.config.fit import Fit, fit
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.units import share_text
from blockrate.models.cards import Card, card_of_size, cards_here, chosen_card
from blockrate.ui.page import Page
from blockrate.ui.parts.labels import label_of

_SIZES = (6, 8, 12, 16, 24)
_THIS = "This card"


def build(page: Page) -> None:
    """Lay out the choice of a card and the button."""
    ui.label(
        "Sets what a run needs to fit into the memory of a card, the mildest first, and says what that was."
    ).classes("dim")
    sizes = [_THIS, *[f"{size} GB" for size in _SIZES]]
    with ui.element("div").classes("chips"):
        choice = ui.select(sizes, value=_THIS, label="Card")
        choice.props("outlined dense")

        async def press() -> None:
            await _fit(page, str(choice.value))

        button = ui.button("Fit", on_click=press, color=None)
        button.props("outline no-caps dense")


async def _fit(page: Page, size: str) -> None:
    """Set what the open config needs, and say what that was; nothing is set where it cannot fit."""
    session = page.session
    config = session.config
    if config is None:
        page.show_message("Correct the settings first.", kind="warning")
        return
    try:
        found = await io_bound(_found, config, size)
    except BlockrateError as error:
        problem = f"{error.problem}. {error.cure}"
        page.show_message(problem[:1].upper() + problem[1:], kind="warning")
        return
    if found is None or session.config != config:
        # the app is ending, or something else was set meanwhile
        return
    if found.changes:
        session.set(found.changes)
    page.show_message(in_words(found))


def _found(config: TrainConfig, size: str) -> Fit:
    return fit(config, _card(config, size))


def _card(config: TrainConfig, size: str) -> Card:
    if size != _THIS:
        return card_of_size(float(size.removesuffix(" GB")))
    card = chosen_card(config.train_device, cards_here())
    if not card:
        cure = "Choose how many GB your card has."
        raise ConfigError("train_device", "no NVIDIA card was found here", cure)
    return card


def in_words(found: Fit) -> str:
    """Return what a fit has set, and what a step loses by it."""
    memory = share_text(found.needed, found.card.free)
    fits = f"Needs {memory} that {found.card.name} has free"
    if not found.changes:
        return f"{fits}: nothing had to be set."
    told = [
        f"{label_of(path)} {_value(value)}" for path, value in found.changes.items()
    ]
    words = f"{fits}. Set: {', '.join(told)}."
    if found.slow_down >= 1.005:
        words += f" A step takes {found.slow_down:.2f} times as long, as predicted."
    return words


def _value(value: object) -> str:
    if value is None:
        return "empty"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"

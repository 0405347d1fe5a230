"""Fit into a card: the settings that a run needs for so much memory, set by one press, and told."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.run import io_bound

from blockrate.config.fit import Fit, fit, needed_bytes
from blockrate.config.room import before_training, encoding_needed
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.units import share_text, size_text
from blockrate.models.cards import Card, card_of_size, cards_here, chosen_card
from blockrate.run.main_memory import main_memory, taken_text, too_little
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.follow import count_visits, show_from_thread
from blockrate.ui.parts.labels import in_labels, label_of, sentence
from blockrate.ui.tabs.model_check import nvidia_cards

_SIZES = (6, 8, 12, 16, 24)
_THIS = "This card"
_NONE = "No NVIDIA card was found here"
_ANOTHER = "Choose how many GB the card has that is to train, and press Fit."


class Asked(NamedTuple):
    """What is said of the card here depends on this. ``needed``: bytes, 0 while the settings are wrong."""

    device: str | None
    needed: int
    visits: int


class Here(NamedTuple):
    """The card that the open config would train on, if there is one, and what is to be said of it."""

    card: str
    words: str


class FitCard:
    """What the card holds: the card that was found, the choice of another, and the button."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._card = ""
        self._told = ui.label().props("aria-live=polite")
        with ui.element("div").classes("chips"):
            self._choice = ui.select([_THIS], value=_THIS, label="Card")
            self._choice.props("outlined dense").classes("fit-choice")
            self._choice.on_value_change(self._name_button)
            self._button = ui.button("Fit", on_click=self._press, color=None)
            self._button.props("outline no-caps dense")
        self._follow()

    def _follow(self) -> None:
        """Look at the card anew when the plan changes and when the tab is come back to: other programs use it, too."""
        page = self._page
        changed = Event[[]]()
        visits = count_visits(page, "Model", changed)

        def asked() -> Asked:
            plan = page.session.plan
            usable = page.session.usable
            needed = 0
            if plan:
                needed = max(needed_bytes(plan), encoding_needed(usable))
            return Asked(usable.train_device, needed, visits())

        call_on_change(page.session.changed, changed.emit)
        show_from_thread(changed, asked, _look, self._show)

    def _show(self, found: Here) -> None:
        self._card = found.card
        self._told.set_text(found.words)
        sizes = [f"{size} GB" for size in _SIZES]
        first = {_THIS: f"{_THIS}: {found.card}"} if found.card else {}
        chosen = self._choice.value
        if not found.card and chosen == _THIS:
            chosen = None
        elif found.card and chosen is None:
            chosen = _THIS
        options = {**first, **dict(zip(sizes, sizes, strict=True))}
        self._choice.set_options(options, value=chosen)
        self._name_button()

    def _name_button(self) -> None:
        into = self._card if self._choice.value == _THIS else self._choice.value
        self._button.set_text(f"Fit into {into}" if into else "Fit")

    async def _press(self) -> None:
        await _fit(self._page, str(self._choice.value or _THIS))


def build(page: Page) -> None:
    """Lay out what is known of the card here, the choice of another, and the button."""
    ui.label(
        "Sets what a run needs to fit into the memory of a card, the mildest first, and says what that was."
    ).classes("dim")
    FitCard(page)


def _look(asked: Asked) -> Iterator[Here]:
    """It asks the cards: for a thread."""
    yield here(nvidia_cards(), asked.device, asked.needed)


def here(cards: Sequence[Card], device: str | None, needed: int) -> Here:
    """Return what is to be said of the cards here for a run that needs so many bytes of one; 0: that is not known."""
    card = chosen_card(device, cards)
    if card is None:
        none = f"{label_of('train_device')} is {device}" if cards else _NONE
        return Here("", f"{none}. {_ANOTHER}")
    free = f"{card.name} has {size_text(card.free)} of {size_text(card.total)} free"
    if not needed:
        return Here(card.name, f"{free}.")
    need = f"as it is set now, a run needs {size_text(needed)}"
    if needed <= card.free:
        return Here(card.name, f"{free}; {need}: it fits.")
    return Here(
        card.name, f"{free}; {need}. One press sets what suits this card instead."
    )


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
        problem = in_labels(f"{error.problem}. {error.cure}")
        page.show_message(problem[:1].upper() + problem[1:], kind="warning")
        return
    if found is None or session.config != config:
        # the app is ending, or something else was set meanwhile
        return
    if found.changes:
        session.set(found.changes)
    page.show_message(in_words(found, main_memory().total))


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


def in_words(found: Fit, main: int) -> str:
    """Return what a fit has set, what a step loses by it, and what has no room all the same.

    ``main``: bytes of this computer's main memory.
    """
    memory = share_text(found.needed, found.card.free)
    fits = f"Needs {memory} that {found.card.name} has free"
    too_large = [one.text for one in before_training(found.config, found.card)]
    too_large += too_little(found.config, found.plan, main)
    notes = [f"It takes {taken_text(found.plan)}"]
    notes += [in_labels(sentence(text)) for text in too_large if text]
    note = "".join(f" {text}." for text in notes)
    if not found.changes:
        return f"{fits}: nothing had to be set.{note}"
    told = [
        f"{label_of(path)} {_value(value)}" for path, value in found.changes.items()
    ]
    words = f"{fits}. Set: {', '.join(told)}."
    if found.slow_down >= 1.005:
        words += f" A step takes {found.slow_down:.2f} times as long, as predicted."
    return words + note


def _value(value: object) -> str:
    if value is None:
        return "empty"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"

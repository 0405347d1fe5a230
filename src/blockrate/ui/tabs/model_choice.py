"""The choice of a model in the gallery: what comes with it, what stays, and a way back."""

from collections.abc import Iterator, Mapping
from typing import Any

from nicegui import ui

from blockrate.config.base_model import model_spec
from blockrate.config.model_choice import ModelChange, change_of_model
from blockrate.config.other_layout import carried_over
from blockrate.config.unlearned import learned_settings
from blockrate.core.blocks import BlockLayout
from blockrate.core.depth import layout_text
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.models.families import Family, encoder_names
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.labels import Encoders, label_of, option_label
from blockrate.ui.session import Session

_IDENTITY = ("base_model_name", "model_type")


class ModelChoice:
    """What takes a model, tells what that changed, and takes it back. One for a page."""

    def __init__(self, page: Page) -> None:
        self._session = page.session
        self._left_rates = _LeftRates()
        self._aside: dict[str, Any] = {}  # what a user had set that a model cannot have
        self._before: tuple[Any, int] | None = None  # the config, its revision after
        self._kept: dict[str, Any] = {}
        with ui.element("div").classes("model-note") as self._note:
            self._note.props["aria-live"] = "polite"
            self._lines = ui.element("ul")
            with ui.element("div").classes("chips"):
                self._take = ui.button("Take what suits it", on_click=self._take_all)
                undo = ui.button("Undo", on_click=self._undo)
            for button in (self._take, undo):
                button.props("no-caps flat dense")
            call_on_change(self._session.changed, self._forget)

    def take(self, family: Family) -> None:
        """Take a model with what suits it."""
        session = self._session
        data = session.data
        rates, words = self._left_rates.rates_for(session, family)
        change = change_of_model(data, family, self._aside)
        values = {**change.values, **({KEY: rates} if words else {})}
        self._set_aside(change, family)
        old = {path: session.get(path) for path in (*values, *change.removed)}
        session.change(values, change.removed)
        self._before = (data, session.revision)
        self._kept = change.kept
        self._tell(family, change, old, words)

    def _set_aside(self, change: ModelChange, family: Family) -> None:
        """Keep what a user had set in the place of what a model has learned with, until another one is chosen."""
        learned = learned_settings(family)
        lost = {path: value for path, value in change.lost.items() if path in learned}
        kept = {
            path: value
            for path, value in self._aside.items()
            if path in learned or path not in change.values
        }
        self._aside = {**kept, **lost}

    def _tell(
        self, family: Family, change: ModelChange, old: Mapping[str, Any], words: str
    ) -> None:
        encoders = encoder_names(family)
        new = {path: self._session.get(path) for path in old if path not in _IDENTITY}
        lines = list(_told(family, change, old, new, encoders))
        if words:
            lines.append(words)
        self._lines.clear()
        with self._lines:
            for line in lines:
                with ui.element("li"):
                    ui.label(line)
        self._take.set_visibility(bool(self._kept))
        self._note.set_visibility(bool(lines))

    def _take_all(self) -> None:
        before = self._before
        self._session.set(self._kept)
        self._before = before and (before[0], self._session.revision)
        self._kept = {}
        self._take.set_visibility(False)
        self._note.set_visibility(True)

    def _undo(self) -> None:
        if self._before:
            self._session.put_back(self._before[0])

    def _forget(self) -> None:
        """Tell no more of a choice once something else was changed."""
        if self._before is None or self._before[1] != self._session.revision:
            self._before = None
            self._note.set_visibility(False)


def _told(
    family: Family,
    change: ModelChange,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    encoders: Encoders,
) -> Iterator[str]:
    """Yield what a choice changed, what it left as the user has set it, and what is gone, a sentence each."""
    came = [
        _setting(path, value, encoders)
        for path, value in new.items()
        if path != KEY and value != old[path] and value != ""
    ]
    if came:
        yield f"With {family.title} come: {', '.join(came)}."
    if change.kept:
        stays = [
            f"{label_of(path, encoders)} (what suits it: {_shown(value)})"
            for path, value in change.kept.items()
        ]
        yield f"As you have set it stays: {', '.join(stays)}."
    if change.lost:
        gone = [_setting(path, value, encoders) for path, value in change.lost.items()]
        yield f"With the model before goes what you had set: {', '.join(gone)}."


def _setting(path: str, value: Any, encoders: Encoders) -> str:
    return f"{label_of(path, encoders)} {_shown(value)}"


def _shown(value: Any) -> str:
    """A value as its field shows it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    is_word = not isinstance(value, str) or value.isupper()
    return option_label(value) if is_word else str(value)


class _LeftRates:
    """The block rates of models that were left, as long as what was carried over from them is not changed.

    A model with fewer blocks keeps fewer rates: whoever comes back finds the own ones, not steps.
    """

    def __init__(self) -> None:
        self._own: dict[BlockLayout, dict[str, float]] = {}
        self._carried: dict[str, float] = {}

    def rates_for(
        self, session: Session, family: Family
    ) -> tuple[dict[str, float], str]:
        """Return the block rates for a model with other blocks, and what was done, in words; none where they stay."""
        rates = dict(session.usable.block_learning_rate_multiplier)
        layout = family.spec.layout
        try:
            before = model_spec(session.usable).layout
        except BlockrateError:
            return {}, ""
        if before == layout:
            return {}, ""
        if rates != self._carried:
            self._own = {}
        self._own[before] = rates
        blocks = layout_text(layout)
        own = self._own.get(layout)
        if own is not None and own != rates:
            self._carried = own
            return own, f"The block rates are those of {blocks} again."
        found = carried_over(rates, layout, before)
        if found is None:
            return {}, ""
        self._carried = found.rates
        words = f"The block rates go over {blocks} now, by relative depth."
        return found.rates, words

"""In which settings compared runs differ, in the words of the app."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from blockrate.config.differences import Differing, differing
from blockrate.config.fields import field_at
from blockrate.config.new_rates import RATES_KEYS
from blockrate.core.plain_text import visible
from blockrate.core.profile import KEY
from blockrate.run.places import PLACES
from blockrate.ui.compare.chosen import names_of
from blockrate.ui.compare.readings import Reading, Readings
from blockrate.ui.compare.runs_card import rates_in_words, rates_of
from blockrate.ui.parts.components import section
from blockrate.ui.parts.field_types import as_text
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import label_of, option_label

_LONGEST = 300  # letters of a value
_SAME = "These runs have the same settings, but for their folders."
_IN_LISTS = {"concepts": "Concept", "samples": "Sample"}


class Row(NamedTuple):
    """A setting in words, and its values."""

    name: str
    values: tuple[str, ...]


class Known(NamedTuple):
    """What the list depends on: the runs, and of which the settings are known by now."""

    paths: tuple[Path, ...]
    configs: tuple[int, ...]


def settings_card(readings: Readings) -> None:
    """Show the settings that are not the same in all runs."""

    def known() -> Known:
        every = readings.all
        return Known(
            tuple(reading.path for reading in every),
            tuple(id(reading.history.config) for reading in every),
        )

    def fill(known: Known) -> None:
        every = [reading for reading in readings.all if reading.history.config]
        if len(every) < 2:
            ui.label("The settings show once two runs are read.")
            return
        rows = _rows(every)
        if rows:
            _table(names_of([reading.path for reading in every]), rows)
        else:
            ui.label(_SAME)

    with (
        ui.element("div").classes("wide"),
        section("Different settings"),
        ui.element("div"),
    ):
        rebuild_on_change(readings.changed, known, fill)


def _rows(readings: Sequence[Reading]) -> list[Row]:
    configs = [reading.history.config for reading in readings]
    rows = []
    for row in differing([config for config in configs if config]):
        first = row.path.partition(".")[0]
        if first not in (*PLACES, *RATES_KEYS):
            rows.append(_in_words(row))
    rates = list(map(_rates, readings))
    if any(one != rates[0] for one in rates):
        words = tuple(map(rates_in_words, readings))
        rows.insert(0, Row(label_of(KEY), words))
    return rows


def _rates(reading: Reading) -> object:
    """Return the rates of a run, in all its phases."""
    draft = rates_of(reading)
    config = reading.history.config
    if draft is None or config is None:
        return None
    return draft.rates, config.block_learning_rate_phases


def _in_words(row: Differing) -> Row:
    values = tuple(visible(_value(value))[:_LONGEST] for value in row.values)
    return Row(_name(row.path), values)


def _name(path: str) -> str:
    """What a setting is called, with the entry of the list that it is in and the tab that shows it."""
    field = field_at(path)
    label = label_of(path)
    first, *inside = path.split(".")
    if first in _IN_LISTS and inside:
        label = f"{_IN_LISTS[first]} {int(inside[0]) + 1}: {label}"
    return visible(f"{label} ({field.tab})" if field else label)


def _value(value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, Mapping):
        return ", ".join(value) or "—"
    if isinstance(value, bool | str) and (isinstance(value, bool) or value.isupper()):
        return option_label(value)
    return as_text(value)


def _table(names: Sequence[str], rows: Sequence[Row]) -> None:
    with ui.element("div").classes("table-box settings-table") as box:
        box.props('tabindex=0 role=region aria-label="Different settings"')
        with ui.element("table").props('aria-label="Different settings"'):
            with ui.element("thead"), ui.element("tr"):
                TextElement(tag="th", text="Setting")
                for name in names:
                    TextElement(tag="th", text=name)
            with ui.element("tbody"):
                for row in rows:
                    with ui.element("tr"):
                        TextElement(tag="th", text=row.name).props("scope=row")
                        for value in row.values:
                            TextElement(tag="td", text=value)

"""The screen that puts two to four runs beside each other: rates, losses, blocks, samples, settings."""

from nicegui import ui

from blockrate.ui.compare.charts import HeatMaps, losses
from blockrate.ui.compare.pictures import SamplesBeside
from blockrate.ui.compare.readings import Readings
from blockrate.ui.compare.runs_card import runs_card
from blockrate.ui.compare.settings import settings_card
from blockrate.ui.compare.verdict_card import verdict_card
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change


def build(page: Page) -> None:
    """Lay out the screen."""
    readings = Readings(page)
    runs_card(page, readings)
    verdict_card(page, readings)
    with ui.element("div").classes("wide compare-cards") as cards:
        losses(readings)
        HeatMaps(readings)
        SamplesBeside(page, readings)
        settings_card(readings)
    call_on_change(
        readings.changed, lambda: cards.set_visibility(bool(page.compared.paths))
    )

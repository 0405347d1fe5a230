"""The gallery on the Model tab: models that people train, what each costs to get, and whether the card is enough."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.config.files import parse_config
from blockrate.config.gallery import Offered, gallery
from blockrate.config.plan import make_plan
from blockrate.config.presets import read_named
from blockrate.core.errors import BlockrateError
from blockrate.core.units import size_text
from blockrate.models.cards import SLACK, Card, chosen_card
from blockrate.models.families import FAMILIES, is_toy, known_as
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, set_props
from blockrate.ui.parts.follow import count_visits, show_from_thread
from blockrate.ui.tabs.hub_login import hub_login_button
from blockrate.ui.tabs.model_check import device_of, nvidia_cards
from blockrate.ui.tabs.model_choice import ModelChoice


class Fit(NamedTuple):
    """Whether a model fits a card: ``kind`` is "fits", "tight" or "large", nothing without a card."""

    kind: str
    text: str


class Fits(NamedTuple):
    """What is said of the card, and by model of how it fits."""

    card: str
    models: Mapping[str, Fit]


class ToFit(NamedTuple):
    """What the fit depends on. ``visits``: how often the tab was come back to."""

    device: str | None
    visits: int


def models(page: Page) -> None:
    """Lay out the models, with what a choice has changed below them."""
    card = ui.label().classes("dim")
    fits: dict[str, ui.label] = {}
    with ui.element("ul").classes("models"):
        rows = {row: ui.element("li") for row in gallery()}
    choice = ModelChoice(page)
    for row, element in rows.items():
        with element:
            fits[row.name] = _model(page, choice, row, element)
    with ui.element("div").classes("chips"):
        hub_login_button(page)
    _toys(choice)

    def show(found: Fits) -> None:
        card.set_text(found.card)
        for name, fit in found.models.items():
            fits[name].set_text(fit.text)
            fits[name].classes(replace=f"model-fit is-{fit.kind or 'unknown'}")

    _follow_card(page, show)


def _model(page: Page, choice: ModelChoice, row: Offered, element: Element) -> ui.label:
    """Lay out one model; return the label that says how it fits."""
    take = partial(choice.take, row.family)
    with ui.element("button").props("type=button").classes("model-name") as button:
        ui.label(row.family.title)
    button.on("click", take, [])
    facts = ui.label(facts_text(row)).classes("model-facts")
    fit = ui.label().classes("model-fit")
    button.props["aria-describedby"] = f"{facts.html_id} {fit.html_id}"

    def refresh() -> None:
        name = str(page.session.get("base_model_name"))
        is_chosen = known_as(name) == row.family
        set_props(button, {"aria-pressed": "true" if is_chosen else "false"})
        element.classes(**{"add" if is_chosen else "remove": "is-chosen"})

    call_on_change(page.session.changed, refresh)
    return fit


def facts_text(row: Offered) -> str:
    """Say what a model costs to get, and what draws quickly with its LoRA."""
    if not row.download_gb:
        return f"Comes with blockrate · {row.licence}"
    login = "login needed" if row.family.gated else "no login"
    facts = [f"{row.download_gb:g} GB to download", row.licence, login]
    if row.preview:
        facts.append(f"samples quickly with {row.preview.title}")
    return " · ".join(facts)


def _toys(choice: ModelChoice) -> None:
    """Offer what is made on the spot, to try a setup."""
    toys = [family for family in FAMILIES.values() if is_toy(family.name)]
    with ui.element("div").classes("chips"):
        ui.label("To try a setup, without a download:").classes("dim")
        for family in toys:
            button = ui.button(
                family.title, on_click=partial(choice.take, family), color=None
            )
            button.props("outline no-caps dense")


def _follow_card(page: Page, show: Callable[[Fits], None]) -> None:
    """Look at the card anew when another one is chosen and when the tab is come back to: other programs use it, too."""
    changed = Event[[]]()
    visits = count_visits(page, "Model", changed)

    def to_fit() -> ToFit:
        return ToFit(page.session.usable.train_device, visits())

    call_on_change(page.session.changed, changed.emit)
    show_from_thread(changed, to_fit, lambda wanted: iter([fits_of(wanted)]), show)


def fits_of(wanted: ToFit) -> Fits:
    """Say of each model whether its preset fits the card, by the plan. It asks the card: for a thread."""
    cards = nvidia_cards()
    card = chosen_card(wanted.device, cards)
    needed = dict(needs())
    device = device_of(wanted.device, cards)
    text = (
        f"{device.text}. By the plan of its preset, each model needs so much of a card."
    )
    if card:
        free = f"{size_text(card.free)} of {size_text(card.total)} free"
        text = (
            f"{card.name}: {free}. By the plan of its preset, each model needs so much."
        )
    models = {name: fit_of(need, card) for name, need in needed.items()}
    return Fits(text, models)


def fit_of(need: int, card: Card | None) -> Fit:
    """Compare what a plan predicts with what is free."""
    size = size_text(need)
    if card is None:
        return Fit("", f"Needs {size}")
    if need > card.free:
        return Fit("large", f"Needs {size}: more than is free")
    if need * SLACK > card.free:
        return Fit("tight", f"Needs {size}: tight")
    return Fit("fits", f"Needs {size}: fits")


def needs() -> Iterator[tuple[str, int]]:
    """Yield by model how many bytes of a card its preset takes."""
    for row in gallery():
        try:
            yield row.name, _need_of(row.preset)
        except BlockrateError:
            continue  # the check says of the chosen one what is wrong


@cache
def _need_of(preset: str) -> int:
    """Return the bytes that a run with a preset takes of a device. Nothing on this machine changes that."""
    return make_plan(parse_config(read_named(preset)).config).peak_bytes

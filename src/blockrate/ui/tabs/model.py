"""The Model tab: which model, how it is trained, what comes out, and a check of all that before the first start."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.config.fields import fields as config_fields
from blockrate.config.other_layout import carried_over
from blockrate.config.plan import Plan
from blockrate.config.presets import named
from blockrate.config.train_config import TrainConfig
from blockrate.config.unlearned import learned_settings
from blockrate.core.blocks import BlockLayout
from blockrate.core.depth import layout_text
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.core.units import size_text
from blockrate.models.families import FAMILIES, Family, lora_forms
from blockrate.run.places import Source
from blockrate.ui.open_save import open_config
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, section
from blockrate.ui.parts.dialogs import heading
from blockrate.ui.parts.follow import fields, show_from_thread
from blockrate.ui.parts.labels import label_of
from blockrate.ui.session import Session
from blockrate.ui.tabs.model_check import (
    Finding,
    Report,
    check,
    memory_finding,
    method_change,
)
from blockrate.ui.tabs.other_blocks import note_of_other_blocks

# What stands in each card, in its order.
_OUTPUT = (
    "output_model_destination",
    "output_model_format",
    "output_dtype",
    "output_frozen_blocks",
)
_PARTS = (
    "transformer.weight_dtype",
    "transformer.model_name",
    "text_encoder.weight_dtype",
    "text_encoder.model_name",
    "text_encoder_2.weight_dtype",
    "text_encoder_2.model_name",
    "vae.weight_dtype",
    "vae.model_name",
)
_RUN = (
    "workspace_dir",
    "cache_dir",
    "train_device",
    "seed",
    "compile",
    "deterministic",
    "tensorboard",
    "only_cache",
)
_TEXT = (
    "text_encoder.dropout_probability",
    "text_encoder_2.dropout_probability",
    "text_encoder_2_sequence_length",
)
# What the check hangs on, but for what names a model: while any of it is wrong, there is nothing to check.
_ALSO_CHECKED = ("model_type", "cache_dir")
_ICONS = {"Fine": "check_circle", "Note": "info", "Problem": "error"}


class _Method:
    """The session, where a training method brings its form of output along."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.changed = session.changed
        self.get = session.get
        self.problem = session.problem

    def set(self, values: Mapping[str, Any]) -> None:
        """Take the method and what goes with it as one change."""
        destination = str(self.session.get("output_model_destination"))
        self.session.set(method_change(values["training_method"], destination))


def build(page: Page) -> None:
    """Lay out the tab."""
    session = page.session
    _welcome(page)
    with ui.element("div").classes("stack"):
        with section("Model"):
            field(_Method(session), "training_method", classes="half")
            field(session, "model_type", classes="half")
            field(session, "base_model_name")
            field(session, "model_variant", classes="half")
            with ui.element("div").classes("chips"):
                _family_buttons(page)
            note_of_other_blocks(page)
        fields(session, "Output", *_OUTPUT)
        fields(session, "Parts", *_PARTS)
    with ui.element("div").classes("stack"):
        with section("Check"), ui.element("div").classes("check") as findings:
            findings.props["aria-live"] = "polite"
            _follow_check(page, findings)
        fields(session, "Run", *_RUN)
        fields(session, "Captions", *_TEXT)


def _family_buttons(page: Page) -> None:
    offered = [family for family in FAMILIES.values() if not family.distilled]
    left = _LeftRates()
    for family in offered:
        choose = partial(_choose, page, left, family)
        button = ui.button(family.title, on_click=choose, color=None)
        button.props("outline no-caps dense")


def _choose(page: Page, left: "_LeftRates", family: Family) -> None:
    """Take a model with the settings that it has learned with, and leave those of the one before."""
    session = page.session
    learned = learned_settings(family)
    reset = [
        setting
        for setting, value in learned_settings(_chosen(session)).items()
        if setting not in learned and session.get(setting) == value
    ]
    choice: dict[str, Any] = {
        "base_model_name": family.repo or family.name,
        "model_type": family.model_type,
        **_form_of_output(session, family),
    }
    rates, words = left.rates_for(session, family)
    if words:
        choice[KEY] = rates
    variant = ["model_variant"] if session.get("model_variant") else []
    session.change({**choice, **learned}, [*reset, *variant])
    if learned:
        told = [f"{label_of(setting)} {value}" for setting, value in learned.items()]
        page.show_message(f"With it come {' and '.join(told)}.")
    if reset:
        told = [f"{label_of(setting)} {session.get(setting)}" for setting in reset]
        page.show_message(f"With the model before go its settings: {', '.join(told)}.")
    if words:
        page.show_message(words)


def _chosen(session: Session) -> Family | None:
    """Return the known model that is open, if it is one."""
    name = session.get("base_model_name")
    known = (row for row in FAMILIES.values() if name in (row.repo, row.name))
    return next(known, None)


def _form_of_output(session: Session, family: Family) -> dict[str, str]:
    """Return the usual form of a LoRA of a model, where its architecture is another than before."""
    forms = lora_forms(family.model_type)
    is_lora = session.get("training_method") == "LORA"
    if not is_lora or lora_forms(str(session.get("model_type"))) == forms:
        return {}
    return {"output_model_format": forms[0]}


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


class ToCheck(NamedTuple):
    """What the check depends on. ``visits``: how often the tab was come back to."""

    config: TrainConfig | None
    plan: Plan | None
    source: Source
    visits: int


def _follow_check(page: Page, findings: Element) -> None:
    """Check anew when settings change and when the tab is come back to: models and logins come from outside."""
    session = page.session
    changed = Event[[]]()
    visits = 0

    def count_visits() -> None:
        nonlocal visits
        if page.tab == "Model":
            visits += 1
        changed.emit()

    def to_check() -> ToCheck:
        return ToCheck(_config_to_check(session), session.plan, session.source, visits)

    call_on_change(session.changed, changed.emit)
    call_on_change(page.tab_changed, count_visits)
    show_from_thread(
        changed,
        to_check,
        lambda wanted: iter([check(wanted.config, wanted.plan, wanted.source)]),
        partial(_show, findings),
    )


def _config_to_check(session: Session) -> TrainConfig | None:
    """The config, if what says which model it is is right."""
    if session.config:
        return session.config
    naming = [path for path, field in config_fields().items() if field.names_a_model]
    needed = {path.partition(".")[0] for path in (*naming, *_ALSO_CHECKED)}
    wrong = {problem.field.partition(".")[0] for problem in session.problems}
    return session.usable if wrong.isdisjoint(needed) else None


def _welcome(page: Page) -> None:
    """Offer a way in while nothing is open and nothing was changed."""
    session = page.session
    with ui.element("div").classes("card wide welcome") as card:
        ui.label(
            "New here? The demo teaches a small Flux a style in minutes, without a download."
        )
        demo = ui.button("Open the demo", on_click=lambda: session.open_named("demo"))
        demo.props("no-caps unelevated").set_visibility("demo" in named())
        preset = ui.button(
            "Open a preset for your card", on_click=lambda: open_config(page)
        )
        preset.props("no-caps flat")

        def refresh() -> None:
            card.set_visibility(not session.data and not session.path)

        call_on_change(session.changed, refresh)


def _show(element: Element, report: Report) -> None:
    findings, memory, card = report
    element.clear()
    with element:
        for finding in findings:
            _line(finding)
        if memory:
            heading("Memory", 3)
            ui.label(f"{card.text}.")
            _bar(asdict(memory), card.total)
            _line(memory_finding(memory, card))


def _line(finding: Finding) -> None:
    with ui.element("div").classes(f"finding finding-{finding.kind.lower()}"):
        icon = ui.icon(_ICONS[finding.kind])
        icon.props["role"] = "img"
        icon.props["aria-label"] = finding.kind
        ui.label(finding.text)


def _bar(parts: Mapping[str, int], total: int) -> None:
    free = max(0, total - sum(parts.values()))
    with ui.element("div").classes("memory-bar"):
        for name, size in (*parts.items(), ("free", free)):
            ui.element("span").classes(f"memory-{name}").style(f"flex-grow: {size}")
    with ui.element("ul").classes("memory-parts"):
        for name, size in parts.items():
            with ui.element("li"):
                ui.element("span").classes(f"memory-key memory-{name}")
                ui.label(f"{name.capitalize()} {size_text(size)}")

"""The Model tab: which model, how it is trained, what comes out, and a check of all that before the first start."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.config.fields import fields as config_fields
from blockrate.config.gallery import gallery
from blockrate.config.model_choice import change_of_method
from blockrate.config.plan import Plan
from blockrate.config.presets import named
from blockrate.config.train_config import TrainConfig
from blockrate.core.units import size_text
from blockrate.run.places import Source
from blockrate.ui.document import NO_TITLE
from blockrate.ui.live.card_memory import memory_of
from blockrate.ui.open_save import open_config
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, section
from blockrate.ui.parts.dialogs import heading
from blockrate.ui.parts.follow import (
    count_visits,
    fields,
    rebuild_on_change,
    show_from_thread,
)
from blockrate.ui.parts.labels import option_label
from blockrate.ui.parts.short_view import rarely_set
from blockrate.ui.session import Session
from blockrate.ui.tabs import first_use, fit_card
from blockrate.ui.tabs.gallery import models
from blockrate.ui.tabs.model_check import (
    Finding,
    Report,
    check,
    form_change,
    memory_finding,
    method_change,
)
from blockrate.ui.tabs.other_blocks import note_of_other_blocks

# What stands in each card, in its order.
_OUTPUT = (
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
_ENCODER = "text_encoder"
_LENGTH = "_sequence_length"
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
        method = values["training_method"]
        destination = str(self.session.get("output_model_destination"))
        change = change_of_method(self.session.data, method)
        named = {**method_change(method, destination), **change.values}
        removed = [path for path in change.removed if path not in named]
        self.session.change(named, removed)


class _Form:
    """The session, where the form of the result brings the name of its folder or file along."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.changed = session.changed
        self.get = session.get
        self.problem = session.problem

    def set(self, values: Mapping[str, Any]) -> None:
        """Take the form and the name as one change."""
        destination = str(self.session.get("output_model_destination"))
        form = values["output_model_format"]
        self.session.change(form_change(form, destination), [])


def build(page: Page) -> None:
    """Lay out the tab."""
    session = page.session
    _welcome(page)
    with ui.element("div").classes("stack"):
        with section("Models") as card:
            models(page)
        card.classes("step")
        with section("Model"):
            with rarely_set(page):
                field(_Method(session), "training_method", classes="half")
                field(session, "model_type", classes="half")
            field(session, "base_model_name")
            with rarely_set(page):
                field(session, "model_variant", classes="half")
            note_of_other_blocks(page)
    with ui.element("div").classes("stack"):
        first_use.photographs(page)
        first_use.name(page)
        with section("Fit into a card") as card:
            fit_card.build(page)
        card.classes("step")
        with section("Check"):
            with ui.element("div").classes("check") as findings:
                findings.props["aria-live"] = "polite"
                _follow_check(page, findings)
            # not among them: it changes by the second, and nobody wants to hear that
            _memory_now(page)
        with rarely_set(page, *_PARTS, *_TEXT):
            _output(session)
            _of_the_model(session, "Parts", _PARTS)
            _of_the_model(session, "Captions", _TEXT)
            fields(session, "Run", *_RUN)


def _output(session: Session) -> None:
    with section("Output"):
        field(session, "output_model_destination")
        field(_Form(session), "output_model_format", classes="half")
        for path in _OUTPUT:
            field(session, path, classes="half")


def _of_the_model(session: Session, title: str, paths: Sequence[str]) -> None:
    """A card with what the model has of these settings, called as it calls its text encoders."""

    def shown() -> tuple[dict[str, str], list[str]]:
        return session.encoders, [path for path in paths if _has(session, path)]

    def build(now: tuple[dict[str, str], list[str]]) -> None:
        for path in now[1]:
            field(session, path, classes="half")

    with section(title):
        rebuild_on_change(session.changed, shown, build)


def _has(session: Session, path: str) -> bool:
    """Whether a model has the part, or the length of captions, that a setting is for; what is wrong is shown always."""
    part = path.partition(".")[0]
    if path.endswith(_LENGTH):
        has = session.spec.facts["caption_tokens"] == path
    else:
        has = part in session.encoders or not part.startswith(_ENCODER)
    return has or bool(session.problem(path))


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
    visits = count_visits(page, "Model", changed)

    def to_check() -> ToCheck:
        config = _config_to_check(session)
        return ToCheck(config, session.plan, session.source, visits())

    call_on_change(session.changed, changed.emit)
    show_from_thread(
        changed,
        to_check,
        lambda wanted: iter([check(wanted.config, wanted.plan, wanted.source)]),
        partial(_show, session, findings),
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
        first = gallery()[0].family
        account = "" if first.gated else ", which needs no account"
        ui.label(
            "New here? The demo teaches a small Flux a style in minutes, without a download. "
            f"A real LoRA trains {first.title}{account}: bring your photographs, give it a name, then press Start."
        )
        demo = ui.button("Open the demo", on_click=lambda: session.open_named("demo"))
        demo.props("no-caps unelevated").set_visibility("demo" in named())
        preset = ui.button(
            "Open a preset or an example", on_click=lambda: open_config(page)
        )
        preset.props("no-caps flat")

        def refresh() -> None:
            is_new = session.title == NO_TITLE and not session.path
            card.set_visibility(is_new and not session.dirty)

        call_on_change(session.changed, refresh)


def _show(session: Session, element: Element, report: Report) -> None:
    findings, memory, card, main = report
    element.clear()
    with element:
        for finding in findings:
            _line(finding)
            if finding.choices:
                _answers(session, finding)
        if memory:
            heading("Memory", 3)
            ui.label(f"{card.text}.")
            _bar(asdict(memory), card.total)
            _line(memory_finding(memory, card))
        if main:
            _line(main)


def _memory_now(page: Page) -> None:
    """What the card holds that would be trained on, as it changes."""
    label = ui.label().classes("dim")

    def refresh() -> None:
        label.text = memory_of(page.session.usable, page.watch.memory)
        label.set_visibility(bool(label.text))

    for event in (page.watch.changed, page.session.changed):
        call_on_change(event, refresh)


def _line(finding: Finding) -> None:
    with ui.element("div").classes(f"finding finding-{finding.kind.lower()}"):
        icon = ui.icon(_ICONS[finding.kind])
        icon.props["role"] = "img"
        icon.props["aria-label"] = finding.kind
        ui.label(finding.text)


def _answers(session: Session, finding: Finding) -> None:
    """A button for each answer to what only the user can know."""
    with ui.element("div").classes("chips"):
        for choice in finding.choices:
            answer = partial(session.set, {finding.field: choice})
            button = ui.button(option_label(choice), on_click=answer, color=None)
            button.props("outline no-caps dense")


def _bar(parts: Mapping[str, int], total: int) -> None:
    free = max(0, total - sum(parts.values()))
    with ui.element("div").classes("memory-bar"):
        for name, size in (*parts.items(), ("free", free)):
            ui.element("span").classes(f"memory-{name}").style(f"flex-grow: {size}")
    with ui.element("ul").classes("memory-parts"):
        for name, size in parts.items():
            if not size:
                continue
            with ui.element("li"):
                ui.element("span").classes(f"memory-key memory-{name}")
                ui.label(f"{name.capitalize()} {size_text(size)}")

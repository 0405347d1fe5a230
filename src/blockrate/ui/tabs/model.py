"""The Model tab: which model, how it is trained, what comes out, and a check of all that before the first start."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from os.path import expanduser
from typing import Any

from nicegui import ui

from blockrate.config.parts import Part
from blockrate.config.plan import Plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.families import FAMILIES
from blockrate.ui.components import field, heading, section
from blockrate.ui.page import Page
from blockrate.ui.session import Session
from blockrate.ui.tabs import read_aside, rebuilt
from blockrate.ui.tabs.model_check import (
    Card,
    Finding,
    card_of,
    check_model,
    memory_sentence,
    method_change,
    nvidia_cards,
)

_PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
_OUTPUT = ("output_model_destination", "output_model_format", "output_dtype")
_RUN = ("workspace_dir", "cache_dir", "train_device", "seed", "compile", "deterministic", "tensorboard", "only_cache")
_WIDE = ("_dir", "_destination")
_ICONS = {"good": "check_circle", "note": "info", "wrong": "error"}
_KINDS = {"good": "Fine", "note": "Note", "wrong": "Problem"}


def build(page: Page) -> None:
    """Lay out the tab."""
    session = page.session
    with ui.element("div").classes("stack"):
        with section("Model"):
            field(_Method(session), "training_method", classes="half")
            field(session, "model_type", classes="half")
            field(session, "base_model_name")
            with ui.element("div").classes("chips"):
                for family in FAMILIES.values():
                    choice = {"base_model_name": family.repo or family.name, "model_type": family.model_type}
                    button = ui.button(family.title, on_click=partial(session.set, choice), color=None)
                    button.props("outline no-caps dense")
        _fields(session, "Output", *_OUTPUT)
        _fields(session, "Parts", *(f"{part}.{name}" for part in _PARTS for name in ("weight_dtype", "model_name")))
    with ui.element("div").classes("stack"):
        _check(session)
        _fields(session, "Run", *_RUN)


def _fields(session: Session, title: str, *paths: str) -> None:
    with section(title):
        for path in paths:
            field(session, path, classes="" if path.endswith(_WIDE) else "half")


class _Method:
    """The session, where a training method brings its form of output along."""

    def __init__(self, session: Session) -> None:
        self.session, self.changed = session, session.changed
        self.get, self.problem = session.get, session.problem

    def set(self, values: Mapping[str, Any]) -> None:
        """Take the method and what goes with it as one change."""
        destination = str(self.session.get("output_model_destination"))
        self.session.set(method_change(values["training_method"], destination))


def _check(session: Session) -> None:
    with section("Check"):
        with ui.element("ul").classes("findings") as found:
            found.props["aria-live"] = "polite"

        def show(findings: list[Finding]) -> None:
            found.clear()
            with found:
                for finding in findings:
                    _finding(finding, "li")

        read_aside(session.changed, lambda: _model_asked_for(session), check_model, show)
        heading("Memory", 3)
        with ui.element("div").classes("memory"):
            read_aside(session.changed, lambda: None, nvidia_cards, lambda cards: _memory(session, cards))


def _model_asked_for(session: Session) -> TrainConfig:
    """The settings that the check looks at, as they stand, right or wrong; the rest may be wrong."""
    names = ("base_model_name", "model_type", "cache_dir")
    values: dict[str, Any] = {name: expanduser(str(session.get(name))) for name in names}
    for part in _PARTS:
        values[part] = Part.model_construct(model_name=expanduser(str(session.get(f"{part}.model_name") or "")))
    return TrainConfig.model_construct(**values)


def _finding(finding: Finding, tag: str) -> None:
    with ui.element(tag).classes(f"finding finding-{finding.kind}"):
        icon = ui.icon(_ICONS[finding.kind])
        icon.props["role"], icon.props["aria-label"] = "img", _KINDS[finding.kind]
        ui.label(finding.text)


def _memory(session: Session, cards: list[Card]) -> None:
    """Show the plan's bytes as a bar, against the memory of the card."""

    def build(plan: Plan | None) -> None:
        if not plan:
            ui.label("Predicted when the settings are right.").classes("dim")
            return
        card, memory = card_of(session.last_good.train_device, cards), plan.memory_bytes
        ui.label(f"{card.text}.")
        _bar(asdict(memory), card.total)
        _finding(memory_sentence(memory, card), "div")

    rebuilt(session.changed, lambda: session.plan, build)


def _bar(parts: Mapping[str, int], total: int) -> None:
    with ui.element("div").classes("memory-bar"):
        for name, size in parts.items():
            ui.element("span").classes(f"memory-{name}").style(f"flex-grow: {size}")
        ui.element("span").style(f"flex-grow: {max(0, total - sum(parts.values()))}")
    with ui.element("ul").classes("memory-parts"):
        for name, size in parts.items():
            with ui.element("li"):
                ui.element("span").classes(f"memory-key memory-{name}")
                ui.label(f"{name.capitalize()} {size / 2**30:.2f} GiB")

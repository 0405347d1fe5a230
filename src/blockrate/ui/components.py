"""What every tab is made of: a field for a setting, a dropdown with a three-dot button, cards and questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from nicegui import Event, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from blockrate.ui.field_types import FieldType, as_text, field_type, parse
from blockrate.ui.labels import label_of, option_label
from blockrate.ui.page import current_page
from blockrate.ui.picker import pick

LONGEST_TEXT = 20_000


class Source(Protocol):
    """What a field edits: the session, or a window's draft."""

    changed: Event[[]]

    def get(self, path: str) -> Any:
        """Return the user's value, which may be wrong, else the default."""

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path as one change."""

    def problem(self, path: str) -> str:
        """Return what is wrong with this field, or nothing."""


def never() -> str:
    """No reason against it."""
    return ""


def watched(event: Event[[]], refresh: Callable[[], None]) -> None:
    """Call ``refresh`` now and at every event, as long as the element that is being built lives."""
    owner = ui.context.slot.parent

    def update() -> None:
        if owner.is_deleted:
            event.unsubscribe(update)
        else:
            refresh()

    event.subscribe(update, unsubscribe_on_delete=False)
    refresh()


def heading(text: str, level: int = 2) -> TextElement:
    """A heading; the text is shown as text."""
    return TextElement(tag=f"h{level}", text=text)


@contextmanager
def section(title: str) -> Iterator[Element]:
    """A card with a heading, and place for what belongs together."""
    with ui.element("section").classes("card") as card:
        card.props["aria-labelledby"] = heading(title).html_id
        with ui.element("div").classes("card-body"):
            yield card


def field(
    source: Source, path: str, *, label: str = "", why_not: Callable[[], str] = never, classes: str = ""
) -> Element:
    """A control for the setting at ``path``, of the kind its type asks for, with its problem below.

    ``why_not``: a reason that disables it. The control itself is focused by ``Page.go``.
    """
    kind = field_type(path)
    name = label or label_of(path)
    with ui.element("div").classes(f"field field-{kind.kind} {classes}") as frame:
        control = _CONTROLS[kind.kind](source, path, kind, name)
        ui.tooltip(kind.description).props("delay=500 max-width=22rem").move(control)
        note = ui.label().classes("field-note")
    control.props["aria-description"] = kind.description
    current_page().controls[path] = control

    def tell_problem() -> None:
        problem, reason = source.problem(path), why_not()
        note.set_text(problem or reason)
        note.set_visibility(bool(problem or reason))
        frame.classes(remove="is-wrong is-off").classes("is-wrong" if problem else "is-off" if reason else "")
        _set_props(
            control,
            {
                "error": bool(problem),
                "aria-invalid": "true" if problem else None,
                "aria-describedby": note.html_id if problem or reason else None,
                "disable": bool(reason),
            },
        )

    watched(source.changed, tell_problem)
    return frame


def options_adv(
    source: Source, path: str, *, label: str, open: Callable[[Element], object], why_not: Callable[[], str] = never
) -> Element:
    """A dropdown with a three-dot button that opens a window; a reason against it is told instead."""
    with ui.element("div").classes("options-adv") as row:
        field(source, path, label=label)
        settings_button(source.changed, label, open=open, why_not=why_not)
    return row


def settings_button(
    changed: Event[[]], label: str, *, open: Callable[[Element], object], why_not: Callable[[], str] = never
) -> Element:
    """The three-dot button of ``label``. Disabled it stays in reach of the keyboard, and says why."""
    page = current_page()
    button = ui.button(icon="more_horiz", color=None).props("flat").classes("three-dots")
    button.props["aria-label"] = f"{label} settings"
    with button:
        tip = ui.tooltip()
    reason_text = ui.label().classes("sr-only")

    def refresh() -> None:
        reason = why_not()
        tip.set_text(reason or f"{label} settings")
        reason_text.set_text(reason)
        button.classes(remove="is-off").classes("is-off" if reason else "")
        described = reason_text.html_id if reason else None
        _set_props(button, {"aria-disabled": "true" if reason else None, "aria-describedby": described})

    async def pressed() -> None:
        if reason := why_not():
            page.tell(reason)
        elif (result := open(button)) and hasattr(result, "__await__"):
            await result

    button.on_click(pressed)
    watched(changed, refresh)
    return button


async def ask(title: str, text: str | Sequence[str], choices: Sequence[str]) -> str:
    """Ask in a small dialog; return the choice, or nothing for Esc. The last choice is the usual one."""
    with ui.dialog() as dialog, ui.element("div").classes("ask"):
        dialog.props["aria-label"] = title
        heading(title)
        for line in [text] if isinstance(text, str) else text:
            ui.label(line)
        with ui.element("div").classes("ask-choices"):
            for choice in choices:
                usual = choice == choices[-1]
                button = ui.button(choice, on_click=lambda choice=choice: dialog.submit(choice))
                button.props("no-caps unelevated autofocus" if usual else "no-caps flat")
    dialog.on("hide", dialog.delete)  # not earlier: closing gives the focus back
    return str(await dialog or "")


def _set_props(element: Element, props: Mapping[str, Any]) -> None:
    """Set props as values, never as text that is parsed; None removes one. Sends nothing when nothing changed."""
    if any(element.props.get(name) != value for name, value in props.items()):
        with element.props.suspend_updates():
            for name, value in props.items():
                element.props.set_optional(name, value)
        element.update()


def _text_control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    control = ui.input(name).props("outlined dense hide-bottom-space no-error-icon spellcheck=false autocomplete=off")
    control.props["maxlength"] = LONGEST_TEXT
    shown: list[str] = []

    def show() -> None:
        value = source.get(path)
        if shown != [_key(value)]:  # else the user's own spelling, or what is being typed, stays
            shown[:] = [_key(value)]
            control.set_value(as_text(value))

    def take(text: object) -> None:
        if isinstance(text, str) and len(text) <= LONGEST_TEXT:
            value = parse(text, kind)
            if shown != [_key(value)]:
                shown[:] = [_key(value)]
                source.set({path: value})

    # "change" comes when the field is left or Enter is pressed, so that nothing half-typed is judged.
    control.on("change", lambda event: take(event.args))
    if kind.kind == "place":
        with control.add_slot("append"):
            _picker_button(source, path, kind, name)
    watched(source.changed, show)
    return control


def _picker_button(source: Source, path: str, kind: FieldType, name: str) -> None:
    page = current_page()

    async def choose() -> None:
        chosen = await pick(page, kind=kind.place, suffixes=kind.suffixes, start=str(source.get(path) or ""))
        if chosen is not None:
            source.set({path: chosen})

    button = ui.button(icon="folder_open", on_click=choose, color=None).props("flat dense round size=sm")
    button.props["aria-label"] = f"Choose {name}"


def _select_control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    known = {_key(value): option_label(value) for value in kind.options}
    control = ui.select({**known}, label=name).props("outlined dense hide-bottom-space no-error-icon options-dense")
    control.props["popup-content-class"] = "options"

    def show() -> None:
        key = _key(source.get(path))
        if control.value != key:
            stranger = {} if key in known else {key: f"{as_text(source.get(path))} (not an option)"}
            control.set_options(known | stranger, value=key)

    def take(event: GenericEventArguments) -> None:
        if control.value in known and control.value != _key(source.get(path)):
            source.set({path: json.loads(control.value)})

    control.on("update:model-value", take)
    watched(source.changed, show)
    return control


def _switch_control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    control = ui.switch(name)

    def take(event: GenericEventArguments) -> None:
        if isinstance(event.args, bool):
            source.set({path: event.args})

    control.on("update:model-value", take)
    watched(source.changed, lambda: control.set_value(source.get(path) is True))
    return control


def _key(value: object) -> str:
    """A value as JSON, which tells 1, 1.0, true and "1" apart."""
    return json.dumps(value, default=str)


_CONTROLS = {
    "text": _text_control,
    "number": _text_control,
    "place": _text_control,
    "choice": _select_control,
    "flag": _switch_control,
}

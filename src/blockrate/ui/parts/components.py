"""What every tab is made of: a field for a setting, a dropdown with a three-dot button, and cards."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.config.setting import Place
from blockrate.core.errors import BlockrateError
from blockrate.ui.page import Page, current_page
from blockrate.ui.parts.dialogs import heading, icon_button
from blockrate.ui.parts.field_types import FieldType, as_text, field_type, parse
from blockrate.ui.parts.help import help_button
from blockrate.ui.parts.labels import in_labels, label_of, option_label
from blockrate.ui.parts.picker import pick
from blockrate.ui.window_draft import WindowDraft

LONGEST_TEXT = 20_000
_LOOK = "outlined dense hide-bottom-space no-error-icon"


class Source(Protocol):
    """What a field edits: the session, or a window's draft."""

    changed: Event[[]]

    def get(self, path: str) -> Any:
        """Return the user's value, which may be wrong, else the default. A copy."""

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path, as one change."""

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, or nothing."""


def never() -> str:
    """No reason against it."""
    return ""


def call_on_change(event: Event[[]], refresh: Callable[[], object]) -> None:
    """Call ``refresh`` now and at every event, as long as the element that is being built lives."""
    owner = ui.context.slot.parent

    def update() -> None:
        if owner.is_deleted:
            event.unsubscribe(update)
        else:
            refresh()

    # which would keep every closed window until the page ends
    event.subscribe(update, unsubscribe_on_delete=False)
    refresh()


@contextmanager
def section(title: str) -> Iterator[Element]:
    """A card with a heading, and room for what belongs together."""
    with ui.element("section").classes("card") as card:
        card.props["aria-labelledby"] = heading(title).html_id
        help_button(title)
        with ui.element("div").classes("card-body"):
            yield card


def field(
    source: Source,
    path: str,
    *,
    label: str = "",
    why_not: Callable[[], str] = never,
    classes: str = "",
) -> Element:
    """A control for the setting at ``path``, of the kind its type asks for, with its problem below.

    ``why_not``: a reason that disables it. ``Page.go`` finds the control, if it is in no window.
    """
    kind = field_type(path)
    page = current_page()
    with ui.element("div").classes(f"field field-{kind.kind} {classes}") as frame:
        name = label or label_of(path, page.session.encoders)
        control = _control(source, path, kind, name)
        with control:
            ui.tooltip(kind.description).props("delay=500 max-width=22rem")
        note = ui.label().classes("field-note")
    frame.props["data-setting"] = path
    control.props["aria-description"] = kind.description
    if not isinstance(source, WindowDraft):
        page.controls[path] = control

    def show_problem() -> None:
        problem = source.problem(path)
        reason = why_not()
        text = _in_words(page, problem or reason)
        note.set_text(text)
        note.set_visibility(bool(text))
        _set_class(frame, "is-wrong", problem)
        props = {
            "error": bool(problem),
            "disable": bool(reason),
            "aria-invalid": "true" if problem else None,
            "aria-describedby": note.html_id if text else None,
        }
        set_props(control, props)

    call_on_change(source.changed, show_problem)
    return frame


def options_adv(
    source: Source,
    path: str,
    *,
    label: str,
    open: Callable[[Element], object],
    why_not: Callable[[], str] = never,
    holds: Sequence[str] = (),
) -> Element:
    """A dropdown with a three-dot button that opens a window; a reason against it is told instead.

    ``holds``: the paths that the window edits. What is wrong with them is told at the button, which ``Page.go`` finds.
    """
    page = current_page()

    def pressed() -> None:
        reason = why_not()
        if reason:
            page.show_message(reason)
        else:
            open(button)

    with ui.element("div").classes("options-adv") as row:
        field(source, path, label=label)
        button = ui.button(icon="more_horiz", color=None, on_click=pressed)
        button.props("flat").classes("three-dots")
        with button:
            tip = ui.tooltip()
        words = ui.label().classes("sr-only")
    button.props["aria-label"] = f"{label} settings"
    page.controls.update(dict.fromkeys(holds, button))

    def refresh() -> None:
        reason = why_not()
        problem = " ".join(filter(None, map(source.problem, holds)))
        text = _in_words(page, reason or problem)
        tip.set_text(text or f"{label} settings")
        words.set_text(text)
        _set_class(button, "is-off", reason)
        _set_class(button, "is-wrong", problem)
        props = {
            "aria-disabled": "true" if reason else None,
            "aria-describedby": words.html_id if text else None,
        }
        set_props(button, props)

    call_on_change(source.changed, refresh)
    return row


def _in_words(page: Page, text: str) -> str:
    """A text as the labels of the open model have it."""
    return in_labels(text, page.session.encoders)


def _control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    match kind.kind:
        case "choice":
            return _select_control(source, path, kind, name)
        case "flag":
            return _switch_control(source, path, name)
        case _:
            return _text_control(source, path, kind, name)


def _text_control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    value = source.get(path)
    # The value is there from the beginning: one that is set later is sent once the page is open, over what was typed.
    is_list = kind.kind == "places"
    make = ui.textarea if is_list else ui.input
    control = make(name, value=as_text(value))
    control.props(f"{_LOOK} spellcheck=false autocomplete=off")
    if is_list:
        control.props("autogrow rows=1")
    control.props["maxlength"] = LONGEST_TEXT
    shown = _key(value)

    def show() -> None:
        nonlocal shown
        value = source.get(path)
        # else the user's own spelling stays, and so does what is being typed
        if _key(value) != shown:
            shown = _key(value)
            control.set_value(as_text(value))

    def take(text: object) -> None:
        nonlocal shown
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            return
        value = parse(text, kind)
        if _key(value) != shown:
            shown = _key(value)
            _write(source, path, value)

    # "change" comes when the field is left or Enter is pressed, so that nothing half-typed is judged.
    control.on("change", lambda event: take(event.args))
    if kind.place:
        with control.add_slot("append"):
            _picker_button(source, path, kind.place, name, adds=is_list)
    call_on_change(source.changed, show)
    return control


def _picker_button(
    source: Source, path: str, place: Place, name: str, *, adds: bool
) -> None:
    """``adds``: the value is a list, and what is chosen is its next entry."""
    page = current_page()

    async def choose() -> None:
        value = source.get(path)
        there = value if adds and isinstance(value, list) else []
        last = (there or [""])[-1] if adds else value
        now = str(last or "")
        wanted = "folder" if place.kind == "new" else place.kind
        chosen = await pick(page, kind=wanted, suffixes=place.suffixes, start=now)
        if chosen and place.kind == "new":
            chosen = str(Path(chosen, Path(now).name))
        if chosen:
            _write(source, path, [*there, chosen] if adds else chosen)

    icon_button("folder_open", f"Choose {name}", choose)


def _select_control(source: Source, path: str, kind: FieldType, name: str) -> Element:
    labels = {_key(value): option_label(value) for value in kind.options}
    control = ui.select(dict(labels), label=name)
    control.props(f"{_LOOK} options-dense popup-content-class=options")

    def show() -> None:
        value = source.get(path)
        key = _key(value)
        if control.value != key:
            options = dict(labels)
            options.setdefault(key, f"{as_text(value)} (not an option)")
            control.set_options(options, value=key)

    def take() -> None:
        if control.value in labels:
            _write(source, path, json.loads(control.value))

    control.on("update:model-value", take)
    call_on_change(source.changed, show)
    return control


def _switch_control(source: Source, path: str, name: str) -> Element:
    control = ui.switch(name)

    def take() -> None:
        _write(source, path, control.value is True)

    control.on("update:model-value", take)
    call_on_change(source.changed, lambda: control.set_value(source.get(path) is True))
    return control


def _write(source: Source, path: str, value: object) -> None:
    try:
        source.set({path: value})
    except BlockrateError as error:  # the entry of the list was removed in another tab
        current_page().show_message(str(error), kind="error")


def _key(value: object) -> str:
    """A value as JSON, which tells 1, 1.0, true and "1" apart."""
    return json.dumps(value, default=str)


def _set_class(element: Element, name: str, wanted: object) -> None:
    if wanted:
        element.classes(name)
    else:
        element.classes(remove=name)


def set_props(element: Element, props: Mapping[str, Any]) -> None:
    """Set props as values, never as text that is parsed; None removes one. Sends nothing when nothing changed."""
    if all(element.props.get(name) == value for name, value in props.items()):
        return
    with element.props.suspend_updates():
        for name, value in props.items():
            element.props.set_optional(name, value)
    element.update()

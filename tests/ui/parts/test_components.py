"""Fields of the form without a browser: what they show, what they write, and how they say what is wrong."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nicegui import Client, Event, ui
from nicegui.element import Element
from support.settings import all_paths

from blockrate.core.errors import ConfigError
from blockrate.run.process import RunState
from blockrate.ui.live.history import History
from blockrate.ui.live.progress import details, doing
from blockrate.ui.page import Page
from blockrate.ui.parts.components import (
    LONGEST_TEXT,
    call_on_change,
    field,
    options_adv,
)
from blockrate.ui.parts.field_types import as_text, field_type, parse
from blockrate.ui.parts.labels import USUAL_ENCODERS, duration, label_of, option_label


class Form:
    """A source with as little as a field needs."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self.problems = dict[str, str]()
        self.changed = Event[[]]()
        self.refuses = False
        self.encoders = USUAL_ENCODERS

    def get(self, path: str) -> Any:
        return self.values[path]

    def set(self, values: Mapping[str, Any]) -> None:
        if self.refuses:
            raise ConfigError("samples.7", "there is no such entry")
        self.values.update(values)
        self.changed.emit()

    def problem(self, path: str) -> str:
        return self.problems.get(path, "")


# controls of several classes, each with what it holds
Show = Callable[..., Any]


def page_of(form: Form) -> Page:
    """A page of a form alone, which nothing else is asked of."""
    nothing: Any = None
    return Page(cast(Any, form), nothing, nothing, nothing)


@pytest.fixture
def show() -> Iterator[Show]:
    """Build a field of a form on a page; the control of the session's field is given back."""
    client = Client(ui.page("/form"))
    with client:

        def show(form: Form, path: str, **options: Any) -> Any:
            page = page_of(form)
            page.enter()
            field(form, path, **options)
            return page.controls[path]

        yield show
    client.delete()


def happen(control: Element, name: str, args: object) -> None:
    """What the browser sends."""
    for listener in list(control._event_listeners.values()):
        if listener.type == name:
            control._handle_event({"listener_id": listener.id, "args": args})


# -- text and value ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (1e-5, "1e-5"),
        (-2.5e-7, "-2.5e-7"),
        (0.001, "0.001"),
        (0.35, "0.35"),
        (200.0, "200"),
        (1e300, "1e+300"),
        (0.0, "0"),
        (16, "16"),
        (None, ""),
        ("abc", "abc"),
        (True, "true"),
        ([1], "[1]"),
        ({"a": "é"}, '{"a": "é"}'),
    ],
)
def test_a_value_is_shown_by_one_rule(value: object, text: str) -> None:
    assert as_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_shown_and_read_again_is_the_same(number: float) -> None:
    again = parse(as_text(number), field_type("learning_rate"))
    assert again == number
    assert math.copysign(1, again) == math.copysign(1, number) or number == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("16", 16),
        ("1.0", 1.0),
        (" 2 ", 2),
        ("0,0003", 0.0003),
        ("1,5", 1.5),
        ("-2,5e-4", -2.5e-4),
        ("0,125", 0.125),
        ("", ""),
        ("abc", "abc"),
        ("true", "true"),
        ("[1]", "[1]"),
    ],
)
def test_a_number_is_read_by_the_rules_of_json(text: str, value: object) -> None:
    found = parse(text, field_type("learning_rate"))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "[" * 5000,
        "1,500",
        "1,5,5",
        ",5",
        ".5",
    ],
)
def test_what_is_no_number_stays_as_it_was_typed(text: str) -> None:
    assert parse(text, field_type("learning_rate")) == text


def test_an_empty_field_means_none_only_where_that_is_allowed() -> None:
    assert parse("  ", field_type("clip_grad_norm")) is None
    assert parse("", field_type("train_device")) is None
    assert parse("", field_type("lora_model_name")) == ""


# -- kinds and labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("learning_rate", "number"),
        ("transformer.learning_rate", "number"),
        ("samples.3.width", "number"),
        ("layer_filter_preset", "choice"),
        ("optimizer.optimizer", "choice"),
        ("optimizer.fused", "choice"),
        ("concepts.0.image.enable_random_flip", "flag"),
        ("base_model_name", "place"),
        ("concepts.0.path", "place"),
        ("resolution", "text"),
        ("train_device", "text"),
    ],
)
def test_the_type_of_a_setting_gives_its_kind_of_control(path: str, kind: str) -> None:
    assert field_type(path).kind == kind


def test_every_setting_has_a_control_a_description_and_a_label() -> None:
    paths = all_paths()
    assert {
        "vae.weight_dtype",
        "concepts.N.text.tag_delimiter",
        "samples.N.prompt",
        "optimizer.beta3",
    } <= set(paths)
    for path in paths:
        kind = field_type(path.replace(".N.", ".0."))
        assert kind.description
        assert all(option_label(value) for value in kind.options)
        assert len(set(map(option_label, kind.options))) == len(kind.options), path
        assert "_" not in label_of(path)


def test_a_choice_that_is_not_made_is_called_the_default() -> None:
    assert option_label(None) == "Default"


# -- fields ------------------------------------------------------------------------------------------------------------


def test_a_field_keeps_what_was_typed_and_writes_its_value(show: Show) -> None:
    form = Form({"learning_rate": 1e-4})
    control = show(form, "learning_rate")
    assert control.value == "1e-4"
    happen(control, "update:value", "0.0003")
    happen(control, "change", "0.0003")
    assert form.values == {"learning_rate": 0.0003}
    assert control.value == "0.0003"


def test_what_is_being_typed_survives_an_unrelated_change(show: Show) -> None:
    form = Form({"learning_rate": 1e-4, "epochs": 1})
    control = show(form, "learning_rate")
    happen(control, "update:value", "3e")
    form.set({"epochs": 2})
    assert control.value == "3e"
    form.set({"learning_rate": 2e-4})
    assert control.value == "2e-4"


def test_nothing_is_sent_later_over_what_is_typed_into_a_page_just_opened(
    show: Show,
) -> None:
    control = show(Form({"learning_rate": 1e-4}), "learning_rate")
    assert control.value == "1e-4"
    assert [
        message
        for message in control.client.outbox.messages
        if "updateValue" in str(message)
    ] == []


def test_leaving_a_field_unchanged_writes_nothing(show: Show) -> None:
    form = Form({"lora_alpha": 1.0})
    control = show(form, "lora_alpha")
    form.refuses = True  # would raise
    happen(control, "change", "1.0")
    assert form.values == {"lora_alpha": 1.0}


@pytest.mark.parametrize("args", [None, 3, {"a": 1}, ["x"], "x" * (LONGEST_TEXT + 1)])
def test_a_field_takes_no_nonsense_from_a_browser(args: object, show: Show) -> None:
    form = Form({"resolution": "768"})
    happen(show(form, "resolution"), "change", args)
    assert form.values == {"resolution": "768"}


def test_a_problem_is_told_by_more_than_colour(show: Show) -> None:
    form = Form({"lora_rank": 0})
    form.problems["lora_rank"] = "0 should be at least 1."
    control = show(form, "lora_rank")
    frame = control.parent_slot.parent
    note = next(child for child in frame if "field-note" in child.classes)
    assert (control.props["aria-invalid"], control.props["aria-describedby"]) == (
        "true",
        note.html_id,
    )
    assert (note.text, note.visible) == ("0 should be at least 1.", True)
    form.problems.clear()
    form.set({"lora_rank": 1})
    assert "aria-invalid" not in control.props
    assert "aria-describedby" not in control.props
    assert not note.visible


def test_a_reason_disables_a_field_and_is_told(show: Show) -> None:
    form = Form({"lora_rank": 4})
    reasons = ["Only a LoRA has a rank."]
    control = show(form, "lora_rank", why_not=lambda: reasons[0])
    assert control.props["disable"]
    assert "aria-invalid" not in control.props
    reasons[0] = ""
    form.changed.emit()
    assert not control.props["disable"]


def test_a_choice_shows_words_and_writes_the_exact_value(show: Show) -> None:
    form = Form({"optimizer.optimizer": "ADAMW"})
    control = show(form, "optimizer.optimizer")
    labels = [option["label"] for option in control.props["options"]]
    happen(
        control,
        "update:modelValue",
        {"value": labels.index("Lion 8-bit"), "label": "Lion 8-bit"},
    )
    assert form.values == {"optimizer.optimizer": "LION_8BIT"}


@pytest.mark.parametrize("stranger", ["MUON", None, 3, ["ADAMW"], {"name": "ADAMW"}])
def test_a_value_that_is_no_option_is_shown_and_kept(
    stranger: object, show: Show
) -> None:
    form = Form({"optimizer.optimizer": stranger})
    control = show(form, "optimizer.optimizer")
    labels = [option["label"] for option in control.props["options"]]
    assert control.props["model-value"]["label"] == labels[-1]
    assert labels[-1].endswith("(not an option)")
    happen(
        control,
        "update:modelValue",
        {"value": len(labels) - 1, "label": "what the browser says"},
    )
    assert form.values == {"optimizer.optimizer": stranger}


def test_a_choice_of_yes_no_or_usual_writes_none_for_usual(show: Show) -> None:
    form = Form({"optimizer.fused": True})
    control = show(form, "optimizer.fused")
    assert control.props["model-value"]["label"] == "On"
    happen(control, "update:modelValue", {"value": 0})
    assert form.values == {"optimizer.fused": None}


def test_a_switch_writes_true_and_false_only(show: Show) -> None:
    form = Form({"compile": "yes"})
    control = show(form, "compile")
    assert control.value is False
    happen(control, "update:modelValue", True)
    assert form.values == {"compile": True}
    happen(control, "update:modelValue", "maybe")
    assert form.values == {"compile": False}


def test_an_entry_that_another_tab_removed_is_told(
    show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        Page, "show_message", lambda page, text, **options: told.append(text)
    )
    form = Form({"samples.7.seed": 1})
    control = show(form, "samples.7.seed")
    form.refuses = True
    happen(control, "change", "2")
    assert told == ["samples.7: there is no such entry."]


# -- the three-dot button ----------------------------------------------------------------------------------------------


def test_the_three_dot_button_gives_its_reason_instead_of_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        Page, "show_message", lambda page, text, **options: told.append(text)
    )
    form = Form({"layer_filter_preset": "full", "block_learning_rate_multiplier": {}})
    reasons = ["No."]
    opened: list[object] = []
    client = Client(ui.page("/adv"))
    with client:
        page = page_of(form)
        page.enter()
        holds = ["block_learning_rate_multiplier"]
        options_adv(
            form,
            "layer_filter_preset",
            label="Layer Filter",
            open=opened.append,
            why_not=lambda: reasons[0],
            holds=holds,
        )
    button = page.controls["block_learning_rate_multiplier"]
    assert button.props["aria-label"] == "Layer Filter settings"
    assert button.props["aria-disabled"] == "true"
    assert "disable" not in button.props, "a disabled button cannot have the focus"
    reasons[0] = ""
    form.problems["block_learning_rate_multiplier"] = "double_block_99 does not exist."
    form.changed.emit()
    assert "aria-disabled" not in button.props
    assert "is-wrong" in button.classes
    words: Any = client.elements[
        int(button.props["aria-describedby"].removeprefix("c"))
    ]
    assert words.text == "double_block_99 does not exist."
    client.delete()


def test_a_closed_window_leaves_nothing_behind() -> None:
    event = Event[[]]()
    calls = []
    client = Client(ui.page("/window"))
    with client:
        with ui.element() as window:
            call_on_change(event, lambda: calls.append(1))
        event.emit()
        window.delete()
        event.emit()
    assert calls == [1, 1]
    assert not event.callbacks
    client.delete()
    gc.collect()


# -- the bottom bar ----------------------------------------------------------------------------------------------------


def watch_in(state: Any, **facts: Any) -> Any:
    history = History()
    for name, value in facts.items():
        setattr(history.progress, name, value)
    return SimpleNamespace(state=RunState(state, "It says so."), history=history)


@pytest.mark.parametrize(
    ("watch", "words"),
    [
        (watch_in("No run"), ""),
        (watch_in("Failed"), ""),
        (watch_in("Finished", total_steps=20, step=20), ""),
        # it is over before it is told so
        (
            watch_in("Running", total_steps=20, step=20, _seconds=[1.5] * 10),
            "Step 20 of 20",
        ),
        (
            watch_in("Preparing", phase="caching", done=1000, total=4000),
            "Caching 1,000 of 4,000",
        ),
        (watch_in("Running", total_steps=2000, step=1000), "Step 1,000 of 2,000"),
        (
            watch_in("Running", total_steps=2000, step=1000, _seconds=[1.5] * 10),
            "Step 1,000 of 2,000 · 25 min left",
        ),
    ],
)
def test_the_bottom_bar_says_what_is_done_and_for_how_long_still(
    watch: Any, words: str
) -> None:
    assert doing(watch) == words


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs tzset")
def test_since_when_it_runs_is_told_by_the_clock_on_the_wall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = watch_in("Running", step=1)
    watch.state = replace(watch.state, since="2026-11-26T22:18:21+00:00")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert details(watch) == "since 2026-11-27 07:18"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (29, "29 s"),
        (31, "31 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_a_time_is_told_as_it_is_waited_for(seconds: float, words: str) -> None:
    assert duration(seconds) == words

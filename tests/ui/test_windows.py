"""The frame of all windows; the windows of optimizer, scheduler and timesteps, and the curves that they draw."""

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from nicegui import helpers, ui
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from support.apps import App
from support.pages import OpenPage, StartApp
from support.screens import faint, nameless, sideways, small_targets

from blockrate.config.files import parse_config
from blockrate.config.optimizers import OPTIMIZERS, differing_rates_refusal
from blockrate.config.train_config import TrainConfig
from blockrate.ui.page import Page as PageOfApp
from blockrate.ui.parts.dialogs import small_dialog
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
)
from blockrate.ui.windows.optimizer_window import (
    open_optimizer_window,
    why_not_differing_rates,
)
from blockrate.ui.windows.scheduler_window import factors, open_scheduler_window
from blockrate.ui.windows.timestep_window import histogram, open_timestep_window

Opened = Callable[..., tuple[App, Page, Locator]]
WINDOWS = (
    open_optimizer_window,
    open_scheduler_window,
    open_timestep_window,
    open_block_learning_rate_window,
)
TITLES = ("Optimizer", "Learning Rate Scheduler", "Timestep Distribution")


@pytest.fixture
def opened(start_app: StartApp, open_page: OpenPage) -> Opened:
    """Open one of the windows over a config."""

    def opened(title: str, config: object, **look: object) -> tuple[App, Page, Locator]:
        app = start_app()
        app.kill()
        app.write("mine.json", config)
        app = start_app("mine.json")
        page = open_page(app, "/training", **look)
        page.get_by_role("button", name=f"{title} settings").click()
        window = page.get_by_role("dialog", name=title)
        expect(window).to_be_visible()
        return app, page, window

    return opened


def saved(app: App, page: Page) -> object:
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    return json.loads((app.folder / "mine.json").read_text())


def type_in(window: Locator, name: str, text: str) -> None:
    field = window.get_by_role("textbox", name=name)
    field.fill(text)
    field.press("Tab")


def button(window: Locator, name: str) -> Locator:
    return window.get_by_role("button", name=name, exact=True)


# -- without a browser -------------------------------------------------------------------------------------------------


def test_the_curve_of_a_constant_rate_climbs_and_stays() -> None:
    curve = factors(TrainConfig(learning_rate_warmup_steps=100.0), 200)
    assert curve[0] == pytest.approx(0.01)
    assert curve[50] == pytest.approx(0.51, abs=0.02)
    assert curve[100:] == [1.0] * 100


def test_the_curve_of_a_cosine_ends_at_the_floor() -> None:
    config = TrainConfig(
        learning_rate_scheduler="COSINE",
        learning_rate_warmup_steps=0.0,
        learning_rate_min_factor=0.2,
    )
    curve = factors(config, 10_000)
    assert curve[0] == 1.0
    assert curve[100] == pytest.approx(0.6, abs=0.01)
    assert curve[-1] == pytest.approx(0.2, abs=0.001)
    assert curve == sorted(curve, reverse=True)


def test_uniform_noise_levels_are_drawn_evenly_between_the_ends() -> None:
    config = TrainConfig(
        timestep_distribution="UNIFORM",
        dynamic_timestep_shifting=False,
        min_noising_strength=0.5,
        batch_size=1,
    )
    assert histogram(config) == [0] * 25 + [160] * 25


def test_dynamic_shifting_draws_more_noise_for_larger_images() -> None:
    def mean(resolution: str) -> float:
        counts = histogram(TrainConfig(resolution=resolution))
        return sum(place * count for place, count in enumerate(counts)) / sum(counts)

    assert 25 < mean("256") < mean("1024")


@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_an_extreme_bias_can_be_drawn(bias: float) -> None:
    counts = histogram(TrainConfig(noising_bias=bias))
    assert counts[0 if bias < 0 else -1] == sum(counts)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_app_refuses_rates_exactly_where_the_trainer_does(name: str) -> None:
    class Values:
        def __init__(self, **values: object) -> None:
            self.values = {"optimizer.optimizer": name} | {
                f"optimizer.{key}": value for key, value in values.items()
            }

        def get(self, path: str) -> object:
            return self.values.get(path)

    for chosen in ({}, {"relative_step": True}, {"relative_step": False}):
        settings = parse_config(
            {"optimizer": {"optimizer": name, **chosen}}
        ).config.optimizer
        why = differing_rates_refusal(settings)
        said = why_not_differing_rates(Values(**chosen))  # type: ignore[arg-type]
        assert said == (f"{why}." if why else "")


# -- the frame ---------------------------------------------------------------------------------------------------------


def test_ok_writes_the_changes_and_gives_the_focus_back(opened: Opened) -> None:
    app, page, window = opened("Optimizer", {"epochs": 3})
    type_in(window, "Weight decay", "0.05")
    button(window, "OK").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Optimizer settings")).to_be_focused()
    assert saved(app, page) == {"epochs": 3, "optimizer": {"weight_decay": 0.05}}


def test_what_is_still_being_typed_counts_when_ok_is_pressed(opened: Opened) -> None:
    app, page, window = opened("Optimizer", {})
    window.get_by_role("textbox", name="Beta1").fill("0.8")
    button(window, "OK").click()
    expect(window).to_have_count(0)
    assert saved(app, page) == {"optimizer": {"beta1": 0.8}}


@pytest.mark.cases(2)
@pytest.mark.parametrize("way", ["Cancel", "Escape", "Back"])
def test_leaving_asks_only_after_a_change(way: str, opened: Opened) -> None:
    def leave() -> None:
        if way == "Cancel":
            button(window, way).click()
        else:
            page.keyboard.press(way) if way == "Escape" else page.go_back()

    app, page, window = opened("Learning Rate Scheduler", {"epochs": 3})
    address = page.url
    question = page.get_by_role("dialog", name="Discard the changes?")
    leave()
    expect(window).to_have_count(0)
    page.get_by_role("button", name="Learning Rate Scheduler settings").click()
    type_in(window, "Warm-up steps", "0.1")
    leave()
    button(question, "Keep editing").click()
    expect(question).to_have_count(0)
    expect(window.get_by_role("textbox", name="Warm-up steps")).to_have_value("0.1")
    leave()
    button(question, "Discard").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.url == address
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    assert saved(app, page) == {"epochs": 3}


@pytest.mark.parametrize("way", ["Escape", "Back"])
def test_what_is_still_being_typed_is_asked_about(way: str, opened: Opened) -> None:
    _, page, window = opened("Optimizer", {})
    window.get_by_role("textbox", name="Beta1").fill("0.8")
    page.keyboard.press(way) if way == "Escape" else page.go_back()
    button(
        page.get_by_role("dialog", name="Discard the changes?"), "Keep editing"
    ).click()
    expect(window.get_by_role("textbox", name="Beta1")).to_have_value("0.8")


def test_a_key_pressed_many_times_asks_once(opened: Opened) -> None:
    _, page, window = opened("Optimizer", {})
    type_in(window, "Beta1", "0.8")
    question = page.get_by_role("dialog", name="Discard the changes?")
    for _ in range(20):
        window.get_by_role("textbox", name="Beta1").dispatch_event(
            "keydown", {"key": "Escape", "bubbles": True}
        )
    expect(question).to_have_count(1)
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(window).to_be_visible()


def test_esc_closes_an_open_list_first(opened: Opened) -> None:
    _, page, window = opened("Optimizer", {})
    window.get_by_role("combobox", name="Fused", exact=True).click()
    expect(page.get_by_role("listbox")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)
    expect(window).to_be_visible()
    page.keyboard.press("Escape")
    expect(window).to_have_count(0)


def test_closed_windows_leave_nothing_behind(opened: Opened) -> None:
    _, page, window = opened("Optimizer", {})
    button(window, "Cancel").click()
    expect(window).to_have_count(0)
    # tooltips come and go with the mouse
    count = (
        "[document.querySelectorAll('[id^=c]:not(.q-tooltip)').length, history.length]"
    )
    before = page.evaluate(count)
    for _ in range(5):
        page.get_by_role("button", name="Optimizer settings").click()
        expect(window).to_be_visible()
        page.keyboard.press("Escape")
        expect(window).to_have_count(0)
    assert page.evaluate(count) == before


@pytest.mark.cases(2)
@pytest.mark.parametrize("open_window", WINDOWS)
def test_closed_windows_leave_nothing_on_the_server(
    open_window: Callable[..., None],
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
) -> None:
    def look(page: PageOfApp) -> None:
        page.session.set(
            {"base_model_name": "tiny-flux1", "layer_filter_preset": "blocks"}
        )
        page.show_tab("Training")
        elements = ui.context.client.elements
        opener = page.controls["epochs"]
        before = len(elements), len(page.session.changed.callbacks)
        for _ in range(10):
            with opener:
                open_window(page, opener)
            (dialog,) = (
                element
                for element in elements.values()
                if isinstance(element, ui.dialog)
            )
            (hidden,) = (
                listener
                for listener in dialog._event_listeners.values()
                if listener.type == "hide"
            )
            # as the browser tells once it is closed
            dialog._handle_event({"listener_id": hidden.id, "args": None})
        page.session.recheck()
        assert (len(elements), len(page.session.changed.callbacks)) == before

    on_a_page(look)


def test_the_focus_stays_in_the_window(opened: Opened) -> None:
    _, page, window = opened("Optimizer", {})
    page.wait_for_function(
        "document.querySelector('.q-dialog').contains(document.activeElement)"
    )
    for _ in range(20):
        page.keyboard.press("Tab")
        # after the last control comes the browser's own bar, and then the window again
        assert window.evaluate(
            "window => [...window.querySelectorAll('*'), document.body].includes(document.activeElement)"
        )


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("answer", "decay"),
    [("Overwrite", "0.05"), ("Take theirs", "0.2"), ("Cancel", "0.05")],
)
def test_a_change_in_another_tab_is_asked_about(
    answer: str, decay: str, opened: Opened, open_page: OpenPage
) -> None:
    app, page, window = opened("Optimizer", {})
    type_in(window, "Weight decay", "0.05")
    other = open_page(app, "/training")
    other.get_by_role("button", name="Optimizer settings").click()
    type_in(other.get_by_role("dialog"), "Weight decay", "0.2")
    button(other.get_by_role("dialog"), "OK").click()
    expect(other.get_by_role("dialog")).to_have_count(0)
    button(window, "OK").click()
    question = page.get_by_role("dialog", name="Changed in another tab")
    button(question, answer).click()
    expect(question).to_have_count(0)
    expect(window).to_have_count(1 if answer == "Cancel" else 0)
    if answer != "Cancel":
        page.get_by_role("button", name="Optimizer settings").click()
    expect(window.get_by_role("textbox", name="Weight decay")).to_have_value(decay)


def test_a_config_that_was_opened_in_another_tab_is_asked_about(
    opened: Opened, open_page: OpenPage
) -> None:
    app, page, window = opened("Optimizer", {})
    type_in(window, "Weight decay", "0.05")
    app.write("other.json", {"base_model_name": "tiny-flux1"})
    other = open_page(app, "/training")
    other.get_by_role("button", name="Open", exact=True).click()
    other.get_by_role("button", name="New config").click()
    expect(other.get_by_role("banner")).to_contain_text("New config")
    button(window, "OK").click()
    question = page.get_by_role("dialog", name="Changed in another tab")
    expect(question).to_contain_text("Another config was opened")
    button(question, "Take theirs").click()
    expect(window).to_have_count(0)
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()


# -- each of them ------------------------------------------------------------------------------------------------------


def test_the_optimizer_window_shows_what_the_optimizer_takes_and_costs(
    opened: Opened,
) -> None:
    _, _, window = opened("Optimizer", {"optimizer": {"optimizer": "LION"}})
    fields = window.get_by_role("textbox")
    assert [field.get_attribute("aria-label") for field in fields.all()] == [
        "Beta1 (default 0.9)",
        "Beta2 (default 0.99)",
        "Weight decay (default 0)",
    ]
    expect(window).to_contain_text("4 bytes of memory per trained parameter")
    expect(window).not_to_contain_text("cannot give blocks rates")


def test_reset_brings_the_defaults_back_and_ok_takes_the_keys_out(
    opened: Opened,
) -> None:
    app, page, window = opened(
        "Optimizer", {"epochs": 3, "optimizer": {"optimizer": "LION", "beta1": 0.5}}
    )
    expect(window.get_by_role("textbox", name="Beta1")).to_have_value("0.5")
    button(window, "Reset to defaults").click()
    expect(window.get_by_role("textbox", name="Beta1")).to_have_value("")
    button(window, "OK").click()
    expect(window).to_have_count(0)
    assert saved(app, page) == {"epochs": 3, "optimizer": {"optimizer": "LION"}}


def test_the_optimizer_window_says_when_blocks_cannot_have_rates(
    opened: Opened,
) -> None:
    _, page, window = opened("Optimizer", {"optimizer": {"optimizer": "ADAFACTOR"}})
    banner = window.get_by_text("Adafactor cannot give blocks rates of their own")
    expect(banner).to_be_hidden()
    window.get_by_role("combobox", name="Relative step").click()
    page.get_by_role("option", name="On").click()
    expect(banner).to_be_visible()


def test_a_wrong_value_is_told_at_its_field(opened: Opened) -> None:
    _, _, window = opened("Optimizer", {})
    type_in(window, "Beta1", "2")
    field = window.get_by_role("textbox", name="Beta1")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("less than 1"))


def test_the_scheduler_is_drawn_as_it_is_set(opened: Opened) -> None:
    config = {
        "learning_rate": 1e-3,
        "learning_rate_scheduler": "COSINE",
        "learning_rate_warmup_steps": 100,
    }
    _, _, window = opened("Learning Rate Scheduler", config)
    expect(window).to_contain_text(
        "starts at 1.00e-05, is 1.00e-03 at most and ends at 3.05e-09"
    )
    curve = window.locator("path.line")
    before = curve.get_attribute("d")
    type_in(window, "Floor", "0.5")
    expect(window).to_contain_text("ends at 5.00e-04")
    assert curve.get_attribute("d") != before
    expect(window).to_contain_text("step 1,000, for example")


def test_a_rate_that_never_gets_to_what_is_set_is_said_when_the_steps_are_known(
    opened: Opened, tmp_path: Path
) -> None:
    for number in range(4):
        Image.new("RGB", (768, 768), (number, 0, 0)).save(tmp_path / f"{number}.png")
    config = {
        "learning_rate": 1e-3,
        "epochs": 4,
        "concepts": [{"path": str(tmp_path)}],
    }
    _, _, window = opened("Learning Rate Scheduler", config)
    expect(window).to_contain_text("is more than the 16 steps of the run")
    expect(window).to_contain_text("8.00e-05 at most, not 1.00e-03")
    type_in(window, "Warm-up steps", "1")
    expect(window).to_contain_text("is the whole run of 16 steps")
    type_in(window, "Warm-up steps", "0")
    expect(window).not_to_contain_text("whole run")


def test_the_picture_follows_while_something_else_is_wrong(opened: Opened) -> None:
    refused = {
        "optimizer": {"optimizer": "PRODIGY"},
        "block_learning_rate_multiplier": {"single_block_3": 0.5},
    }
    _, _, window = opened(
        "Learning Rate Scheduler", {**refused, "learning_rate_scheduler": "LINEAR"}
    )
    expect(window).to_contain_text("Linear")
    expect(window).to_contain_text(
        "starts at 1.50e-06, is 3.00e-04 at most and ends at"
    )
    type_in(window, "Warm-up steps", "0")
    expect(window).to_contain_text("starts at 3.00e-04")


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("scheduler", "idle"),
    [
        ("CONSTANT", {"Floor", "Cycles"}),
        ("COSINE", {"Cycles"}),
        ("COSINE_WITH_HARD_RESTARTS", set()),
    ],
)
def test_what_a_scheduler_does_not_heed_says_so(
    scheduler: str, idle: set[str], opened: Opened
) -> None:
    _, _, window = opened(
        "Learning Rate Scheduler", {"learning_rate_scheduler": scheduler}
    )
    for name, reason in (
        ("Floor", "Not for a constant rate"),
        ("Cycles", "Only with restarts"),
    ):
        field = window.get_by_role("textbox", name=name)
        expect(field).to_be_disabled() if name in idle else expect(
            field
        ).to_be_enabled()
        expect(window.get_by_text(reason)).to_be_visible(visible=name in idle)


def test_a_wrong_value_can_be_put_right_even_where_it_is_not_heeded(
    opened: Opened,
) -> None:
    _, _, window = opened("Learning Rate Scheduler", {"learning_rate_cycles": 0})
    type_in(window, "Cycles", "1")
    expect(window.get_by_role("textbox", name="Cycles")).to_be_disabled()


def test_the_timesteps_are_drawn_as_they_are_set(opened: Opened) -> None:
    _, _, window = opened("Timestep Distribution", {"resolution": "1024"})
    expect(window).to_contain_text("above 0.76")
    shift = window.get_by_role("textbox", name="Timestep shift")
    expect(shift).to_be_disabled()
    expect(shift).to_have_accessible_description(re.compile("Dynamic shifting sets it"))
    window.get_by_role("switch", name="Dynamic timestep shifting").click()
    expect(shift).to_be_enabled()
    expect(window).to_contain_text("above 0.50")
    type_in(window, "Bias", "1")
    expect(window).to_contain_text("above 0.73")


@pytest.mark.cases(1)
@pytest.mark.parametrize("widths", [[390], [1280, 1920]], ids=["phone", "desktop"])
def test_every_window_fits_and_can_be_read(widths: list[int], opened: Opened) -> None:
    _, page, _ = opened(
        "Optimizer", {"optimizer": {"optimizer": "PRODIGY"}}, touch=widths == [390]
    )
    for title, width in product(TITLES, widths):
        page.set_viewport_size({"width": width, "height": 800})
        if title != "Optimizer" or width == 1920:
            page.get_by_role("button", name=f"{title} settings").click()
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            expect(page.locator(f".body--{scheme}")).to_be_attached()
            assert [faint(page), sideways(page)] == [[], []]
        assert nameless(page) == []
        assert width > 390 or small_targets(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_dialog_that_is_gone_hears_no_second_press(
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(helpers, "warn_once", lambda message, **_: told.append(message))

    def look(_: PageOfApp) -> None:
        with small_dialog("Paste rates") as dialog:
            pass
        dialog.open()
        dialog.delete()
        dialog.close()
        dialog.submit("again")

    on_a_page(look)
    assert told == []

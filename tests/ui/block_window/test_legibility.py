"""The Block Learning Rate window in a real browser: on a phone, by fingers, in every colour, at every width."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect
from support.faders import FLUX, Faders
from support.screens import faint, sideways

from blockrate.core.profile import complete


@pytest.mark.parametrize("dark", [False, True])
def test_the_window_is_legible_at_every_width(
    training: Callable[..., Faders], dark: bool
) -> None:
    faders = training({"double_block_0": 0.0}, {"dark": dark}).open()
    faders.select("double_block_0", "double_block_4")
    faders.page.keyboard.down("Control")
    faders.select("single_block_0", "single_block_4")
    faders.page.keyboard.up("Control")
    for width in (1280, 1920, 900):
        faders.page.set_viewport_size({"width": width, "height": 900})
        assert [sideways(faders.page), faint(faders.page)] == [[], []], width


def test_fingers_draw_on_the_tracks_and_scroll_elsewhere(faders: Faders) -> None:
    action = "element => getComputedStyle(element).touchAction"
    assert set(
        faders.window.locator(".mixer-tracks").evaluate_all(f"all => all.map({action})")
    ) == {"none"}
    assert faders.page.locator("body").evaluate(action) == "auto"
    assert faders.window.locator(".mixer-numbers").first.evaluate(action) == "pan-y"


def test_what_moves_stands_still_for_who_wishes_so(faders: Faders) -> None:
    moving = """mixer => [mixer, ...mixer.querySelectorAll("*")].flatMap(e => ["", "::before", "::after"].map(part => {
      const style = getComputedStyle(e, part);
      return [style.transitionDuration, style.animationName == "none" ? "0s" : style.animationDuration];
    })).flat().flatMap(times => times.split(",")).filter(time => parseFloat(time) > 0).length"""
    mixer = faders.window.locator(".mixer")
    assert mixer.evaluate(moving) == 0
    faders.page.emulate_media(reduced_motion="no-preference")
    assert mixer.evaluate(moving) >= 2 * len(FLUX.names), (
        "the handles and what is below them"
    )


def test_faders_can_be_told_apart_in_forced_colours(faders: Faders) -> None:
    faders.press("double_block_3", "Delete")
    faders.page.emulate_media(forced_colors="active")

    def style(element: Locator, name: str, part: str = "") -> str:
        return str(
            element.evaluate(f"element => getComputedStyle(element, '{part}').{name}")
        )

    frozen = faders.slider("double_block_3")
    full = faders.slider("double_block_4")
    ground = style(faders.window.locator(".mixer-bank").first, "backgroundColor")
    assert style(frozen, "height", "::after") == "0px"
    assert style(full, "height", "::after") != "0px"
    assert style(full, "backgroundColor", "::after") != ground
    for fader in (frozen, full):
        assert style(fader.locator("i"), "borderTopStyle") == "solid"
        assert style(fader.locator("i"), "borderTopColor") != ground
    assert "\u2744" in style(frozen.locator("i"), "content", "::before")
    assert style(full.locator("i"), "content", "::before") == "none"
    assert style(frozen, "outlineStyle") == "solid", "it has the focus"
    assert style(full, "outlineStyle") == "none"


def test_the_small_picture_opens_the_window_under_every_filter_that_leaves_something(
    training: Callable[..., Faders],
) -> None:
    rates = {
        f"single_block_{index}": (index + 1) / 10 for index in range(9)
    } | dict.fromkeys(FLUX.names[:3], 0.0)
    faders = training(rates)
    picture = faders.page.get_by_role("button", name="Block learning rates: ")
    expect(picture).to_contain_text("12 of 57 blocks adjusted · 3 frozen")
    bars = {
        kind: picture.locator(f".is-{kind}").get_attribute("d") or ""
        for kind in ("double", "single", "frozen")
    }
    assert {kind: path.count("M") for kind, path in bars.items()} == {
        "double": 19,
        "single": 38,
        "frozen": 3,
    }
    heights = [
        float(height) / 24
        for height in re.findall(r"24v-([\d.]+)h", bars["double"] + bars["single"])
    ]
    assert heights == pytest.approx(list(complete(rates, FLUX).values())[:57], abs=1e-3)
    faders.open("Block learning rates").button("Cancel").click()
    expect(faders.window).to_have_count(0)
    expect(picture).to_be_focused()
    faders.page.get_by_role("combobox", name="Layer Filter").click()
    faders.page.get_by_role("option", name="attn-only").click()
    # the three dots keep to "blocks", the picture does not
    dots = faders.page.get_by_role("button", name="Layer Filter settings")
    for _ in range(3):
        dots.click(force=True)
    toast = faders.page.locator(".toast")
    expect(toast).to_contain_text('Choose the "blocks" filter')
    # how often it was asked for looks like a number of faults
    expect(faders.page.locator(".q-notification__badge")).to_be_hidden()
    faders.open("Block learning rates").button("Cancel").click()
    expect(faders.window).to_have_count(0)
    faders.page.get_by_role("combobox", name="Layer Filter").click()
    faders.page.get_by_role("option", name="custom").click()
    pattern = faders.page.get_by_role("textbox", name="Pattern")
    pattern.fill("no such layer")
    pattern.press("Enter")
    expect(picture).to_have_attribute("aria-disabled", "true")
    expect(picture).to_contain_text("Correct the layer filter")
    picture.click(force=True)
    expect(toast.last).to_contain_text("Correct the layer filter")
    expect(faders.window).to_have_count(0)


def test_little_height_is_left_to_what_is_set(training: Callable[..., Faders]) -> None:
    faders = training(look={"width": 640, "height": 400})
    header = faders.page.get_by_role("banner")
    faders.page.mouse.move(320, 300)
    faders.page.mouse.wheel(0, 600)
    faders.page.wait_for_function(
        "document.querySelector('.top').getBoundingClientRect().bottom <= 0"
    )
    expect(header).not_to_be_in_viewport()
    # the bar at the bottom goes with the page, too
    faders.page.mouse.wheel(0, -4000)
    expect(faders.page.get_by_role("contentinfo")).not_to_be_in_viewport()
    faders.open()
    row = faders.window.locator(".mixer-row").first
    row.evaluate("row => row.scrollIntoView({ block: 'start' })")
    shown = row.bounding_box()
    footer = faders.window.locator("footer").bounding_box()
    assert shown
    assert footer
    assert shown["y"] > -1
    assert shown["y"] + shown["height"] <= footer["y"], "a whole row above OK"
    # and whatever else can be pressed there is whole
    for name in ("Measure", "Cancel", "OK"):
        expect(faders.button(name)).to_be_in_viewport(ratio=1)

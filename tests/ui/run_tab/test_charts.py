"""The Run tab in a real browser: charts that grow."""

import re
from collections.abc import Callable
from contextlib import suppress

from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as TooLate
from support.runs import Engine, Made, heat_map, loss


def test_the_loss_is_drawn_raw_smoothed_and_of_the_validation(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(loss(page)).to_have_accessible_name(
        re.compile(r"Loss\. Step 60, raw 0\.0167, smoothed 0\.\d+, validation 0\.5")
    )
    chart = page.locator(".loss-chart")
    smooth = page.locator(".loss-chart .smoothed").last
    before = smooth.get_attribute("d")
    page.get_by_role("slider", name="Smoothing").fill("0")
    expect(smooth).to_have_attribute(
        "d", str(chart.locator("path.raw").get_attribute("d"))
    )
    assert smooth.get_attribute("d") != before
    expect(chart.locator(".chart-names span").last).to_have_text("1")
    page.get_by_role("switch", name="Log scale").click()
    expect(chart.locator(".chart-names span").first).to_have_text("0.016")
    chart.locator(".loss-field").hover(position={"x": 0, "y": 40})
    expect(chart.locator(".chart-bar")).to_contain_text("Step 1 ")


def point_at_the_last_cell(page: Page) -> None:
    """Move the mouse into the last cell, again if the map moved. Its very corner is round, and not the map."""
    told = page.locator(".chart-bar [aria-live]")
    for _ in range(10):
        x, y = heat_map(page).evaluate("map => [map.clientWidth, map.clientHeight]")
        # away from the bar at the bottom, which lies over what is scrolled to the edge
        heat_map(page).evaluate("map => map.scrollIntoView({block: 'center'})")
        # or a second look from the same place would be no movement
        page.mouse.move(4, 4)
        with suppress(TooLate, AssertionError):
            heat_map(page).hover(position={"x": x - 8, "y": y - 3}, timeout=2000)
            expect(told).to_contain_text("Step", timeout=1000)
            return


def test_the_heat_map_reads_every_block_by_mouse_and_keys(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Gradient norm by block, 6 columns")
    )
    told = page.locator(".chart-bar [aria-live]")
    point_at_the_last_cell(page)
    expect(told).to_have_text("Step 60 · single 37 · 0.06")
    heat_map(page).hover(position={"x": 1, "y": 1})
    expect(told).to_have_text("Step 10 · double 0 · frozen")
    heat_map(page).focus()
    for key in ("Home", *["ArrowDown"] * 6):
        page.keyboard.press(key)
    expect(told).to_have_text("Step 10 · double 6 · 0.01")
    page.get_by_role("radio", name="Learning rate").click()
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Learning rate by block, 6 columns, from 0 to 1.0e-4")
    )
    heat_map(page).focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    expect(told).to_have_text("Step 60 · double 0 · frozen")
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    expect(told).to_have_text("Step 60 · double 7 · 9.90e-5")
    page.get_by_role("radio", name="Relative update").click()
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Relative update by block, 6 columns")
    )
    heat_map(page).focus()
    for key in ("End", *["ArrowDown"] * 7):
        page.keyboard.press(key)
    expect(told).to_have_text("Step 60 · double 7 · 1.00e-4")


def test_frozen_rows_are_hatched_and_the_scale_goes_from_dark_to_light(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(re.compile("6 columns"))
    look = """(map, [x, y]) => [...map.getContext("2d").getImageData(x * (map.width - 1), y, 1, 1).data]"""
    frozen, low, high = (
        heat_map(page).evaluate(look, place) for place in ([0, 3], [0, 100], [1, 100])
    )
    assert frozen[3] == 0, "what stays clear shows the hatching behind"
    assert (low[3], high[3]) == (255, 255)
    assert sum(low[:3]) < sum(high[:3])
    expect(page.locator(".heat-field")).to_have_css(
        "background-image", re.compile("linear-gradient")
    )


def test_only_what_is_new_is_sent_and_only_to_who_looks(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(re.compile("6 columns"))
    frames: list[str] = []
    devtools = page.context.new_cdp_session(page)
    devtools.on(
        "Network.webSocketFrameReceived",
        lambda event: frames.append(event["response"]["payloadData"]),
    )
    devtools.send("Network.enable")
    made.train(10)
    expect(heat_map(page)).to_have_accessible_name(re.compile("7 columns"))
    expect(loss(page)).to_have_accessible_name(re.compile("Step 70"))
    sent = [frame for frame in frames if '"take"' in frame]
    starts = re.findall(
        r'"take","?\w*"?,?\[?"(\w+)",(\d+)', "".join(sent).replace('"args":[', "")
    )
    assert {name: int(start) for name, start in starts}.keys() <= {
        "raw",
        "validation",
        "blocks",
    }
    assert all(
        int(start) >= {"raw": 60, "validation": 3, "blocks": 6}[name]
        for name, start in starts
    )
    assert sum(map(len, sent)) < 4000
    page.get_by_role("tab", name="Data").click()
    frames.clear()
    made.train(10)
    expect(page.locator(".bottom")).to_contain_text("Step 80 of 200")
    assert [frame for frame in frames if '"take"' in frame] == []
    page.get_by_role("tab", name="Run").click()
    expect(heat_map(page)).to_have_accessible_name(re.compile("8 columns"))


def test_what_is_really_trained_is_told_from_the_optimizer(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(
        page.get_by_text(
            "51 of 57 blocks trained, 1,305,600 parameters. Double 0-5 frozen."
        )
    ).to_be_visible()
    rows = page.get_by_role("table", name="What is really trained").get_by_role("row")
    expect(rows).to_have_count(52)
    expect(rows.nth(1).get_by_role("cell")).to_have_text(
        ["double 6", "25,600", "1", "1.00e-04"]
    )
    expect(rows.last.get_by_role("cell")).to_have_text(
        ["single 37", "25,600", "0.5", "5.00e-05"]
    )

"""Two runs beside each other in a real browser."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from support.runs import Made
from support.screens import faint, nameless, sideways, small_targets

from blockrate.run.events import Rates


def names(page: Page) -> list[str]:
    return page.locator(".compared-title h3").all_inner_texts()


def test_two_runs_are_compared_and_a_reload_keeps_them(
    compared: Callable[..., Page],
) -> None:
    page = compared()
    expect(page.locator(".compared-runs li")).to_have_count(2)
    expect(page.locator(".compared-runs")).to_contain_text("1 of 57 blocks adjusted")
    assert "workspace" not in page.url, "no path in the address"
    page.reload()
    expect(page.locator(".compared-title h3").first).to_have_text("decay")
    assert names(page)[:2] == ["decay", "flat"]

    chart = page.get_by_role("img", name=re.compile("^Loss"))
    expect(chart).to_have_accessible_name(
        re.compile(r"Step 60, decay · loss 0\.\d+ · validation 0\.5, flat · loss")
    )
    for slot in "01":
        expect(page.locator(f"path.smoothed.run{slot}")).to_have_count(1)
    expect(page.locator("path.smoothed.run1")).to_have_css(
        "stroke-dasharray", "9px, 5px"
    )
    zoom_by_keys_and_mouse(page)

    maps = page.get_by_role("img", name=re.compile("learning rate by block"))
    expect(maps).to_have_count(2)
    expect(maps.first).to_have_accessible_name(re.compile("^decay: .*6 columns"))

    rows = page.get_by_role("table", name="Different settings").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_have_text(re.compile("Block learning rates.*1 of 57"))
    expect(rows.nth(3)).to_have_text(re.compile(r"LoRA rank \(Training\)168"))
    samples_by_keys(page)

    page.get_by_role("button", name="Remove decay").click()
    page.wait_for_url(re.compile(r"runs=\w{12}$"))
    expect(page.locator(".compared-runs li")).to_have_count(1)
    page.go_back()
    expect(page.locator(".compared-runs li")).to_have_count(2)


def zoom_by_keys_and_mouse(page: Page) -> None:
    """Nearer and back by keys, a part by the mouse, and all of it by the button."""
    chart = page.get_by_role("img", name=re.compile("^Loss"))
    ends = page.locator(".loss-chart .chart-steps span")
    expect(ends).to_have_text(["1", "60"])
    chart.focus()
    page.keyboard.press("Home")
    expect(chart).to_have_accessible_name(re.compile("Step 1, "))
    page.keyboard.press("+")
    expect(ends).to_have_text(["1", "31"])
    # the part follows what is looked at
    page.keyboard.press("End")
    expect(ends).to_have_text(["31", "60"])
    page.keyboard.press("0")
    expect(ends).to_have_text(["1", "60"])
    field = page.locator(".loss-field")
    field.evaluate("field => field.scrollIntoView({block: 'center'})")
    box = field.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] + 80)
    page.mouse.up()
    expect(ends.last).to_have_text("60")
    expect(ends.first).to_have_text(re.compile("3[01]"))
    page.get_by_role("button", name="All steps").click()
    expect(ends).to_have_text(["1", "60"])
    ticks = page.locator(".loss-chart .chart-names span")
    expect(ticks.last).to_have_text("1")
    page.get_by_role("switch", name="Clip outliers").click()
    expect(ticks.last).not_to_have_text("1")
    page.get_by_role("radio", name="Validation", exact=True).click()
    expect(page.locator(".loss-field path.smoothed")).to_have_count(0)


def samples_by_keys(page: Page) -> None:
    """The same step of both, and the line between them."""
    pictures = page.locator(".compare-samples img")
    expect(pictures).to_have_count(2)
    expect(pictures.first).to_have_attribute("alt", "a cat, step 60, decay")
    steps = page.get_by_role("slider", name="Step of the samples")
    steps.focus()
    page.keyboard.press("ArrowLeft")
    expect(pictures.last).to_have_attribute("alt", "a cat, step 40, flat")
    line = page.get_by_role("slider", name=re.compile("^Between .*decay and .*flat"))
    line.focus()
    page.keyboard.press("Home")
    expect(line).to_have_attribute("aria-valuetext", "0 %")
    page.get_by_role("combobox", name="Prompt").click()
    page.get_by_role("option", name="a cup of coffee · seed 8").click()
    expect(pictures.first).to_have_attribute("alt", re.compile("coffee, step 40"))


def test_the_screen_can_be_read_and_touched(compared: Callable[..., Page]) -> None:
    page = compared(width=390, touch=True, dark=True)
    expect(page.locator(".pictures-frame")).to_be_visible()
    judges = (nameless, faint, sideways, small_targets)
    assert [judge(page) for judge in judges] == [[], [], [], []]


def test_a_past_run_is_compared_with_the_one_that_is_shown(
    two_runs: list[Made], compared: Callable[..., Page]
) -> None:
    page = compared(width=1920, height=1080)
    expect(page.locator(".heat-maps > div")).to_have_count(2)
    assert sideways(page) == []
    page.get_by_role("tab", name="Run").click()
    page.get_by_role("button", name="Show: decay").click()
    page.get_by_role("button", name="Compare: flat").click()
    expect(page.locator(".compared-title h3").first).to_have_text("decay")
    two_runs[0].train(10)
    expect(page.locator(".compared-runs li").first).to_contain_text("step 70")
    two_runs[0].tell(Rates({"double_block_0": 0.5}, {"double_block_0": 0.0}, "rates-1"))
    told = "New rates from step 71 on: double_block_0 0.5 -> 0."
    expect(page.locator(".compared-runs li").first).to_contain_text(told)

"""The Run tab in a real browser: samples, the log, and what a run says."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect
from support.runs import Made

from blockrate.run.events import (
    Failed,
    Warned,
)

HOSTILE = "<img src=x onerror=alert(1)></script>${x}"


# -- samples and log ---------------------------------------------------------------------------------------------------


def test_samples_are_turned_over_by_step_and_compared_with_the_first(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    pictures = page.locator(".samples img")

    # red of the first point of each picture; a picture that is still loading has none
    read = "image => { const c = new OffscreenCanvas(1, 1).getContext('2d'); c.drawImage(image, 0, 0); "
    read += "return c.getImageData(0, 0, 1, 1).data[0] }"
    near = f"reds => [...document.querySelectorAll('.samples img')].map({read})"
    near += ".every((r, k) => Math.abs(r - reds[k]) < 5)"

    expect(pictures).to_have_count(2)
    expect(page.locator(".samples li")).to_contain_text(["a cat", "a cup of coffee"])
    slider = page.get_by_role("slider", name="Step of the samples")
    expect(slider).to_have_attribute("aria-valuetext", "Step 60")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    page.get_by_role("switch", name="Compare with the first").click()
    expect(pictures).to_have_count(4)
    page.wait_for_function(near, arg=[20, 40, 20, 40])
    made.train(20).sample("a-cat", "a-cup-of-coffee")
    expect(slider).to_have_attribute("max", "3")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "Step 80")
    page.get_by_role("link", name="a cat, step 80").click()
    view = page.get_by_role("dialog", name="Sample")
    large = view.get_by_role("img")
    expect(large).to_have_accessible_name("a cat, step 80")
    expect(view.get_by_role("button", name="Later step")).to_be_disabled()
    for key, name in (
        ("ArrowLeft", "a cat, step 60"),
        ("ArrowDown", "a cup of coffee, step 60"),
        ("ArrowDown", "a cup of coffee, step 60"),
        ("ArrowLeft", "a cup of coffee, step 40"),
        ("ArrowUp", "a cat, step 40"),
    ):
        page.keyboard.press(key)
        expect(large).to_have_accessible_name(name)
    view.get_by_role("button", name="Later step").click()
    expect(large).to_have_accessible_name("a cat, step 60")
    assert (
        large.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    )
    page.keyboard.press("Escape")
    expect(view).to_have_count(0)


def test_samples_outside_the_folders_that_may_be_seen_are_not_shown(
    tmp_path: Path, shown: Callable[..., Page]
) -> None:
    page = shown(Made(tmp_path / "elsewhere").train(20).sample("a-cat"))
    expect(page.get_by_text("The samples cannot be shown")).to_be_visible()
    expect(page.locator(".samples img")).to_have_count(0)


def test_the_log_follows_until_it_is_told_not_to(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("line 300")
    assert "line 100\n" not in log.inner_text(), "200 lines are enough"
    assert log.evaluate("box => box.scrollTop") == 0, "the end is in sight"
    with made.run.log_file.open("a") as stream:
        stream.write("\x1b[31mline 301\x1b[0m\n")
    expect(log).to_have_text(re.compile("line 301$"))
    page.get_by_role("switch", name="Follow").click()
    with made.run.log_file.open("a") as stream:
        stream.write("line 302\n")
    expect(page.get_by_role("region", name="End of the log")).to_contain_text(
        "line 302"
    )
    expect(log).not_to_contain_text("line 302")
    page.get_by_role("switch", name="Follow").click()
    expect(log).to_contain_text("line 302")


def test_what_a_run_says_is_shown_as_text(
    made: Made, shown: Callable[..., Page]
) -> None:
    made.run.log_file.write_text(f"{HOSTILE}\n")
    page = shown(made.tell(Warned("x", HOSTILE), Failed(1, HOSTILE)))
    # sentence, note, both logs
    expect(page.get_by_text(HOSTILE)).to_have_count(4)
    assert page.locator("[onerror]").count() == 0

"""The Run tab in a real browser: samples, the log, and what a run says."""

import re
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

from playwright.sync_api import Page, expect
from support.runs import Made, compare_with

from blockrate.run.events import (
    Failed,
    Warned,
)

HOSTILE = "<img src=x onerror=alert(1)></script>${x}"


# -- samples and log ---------------------------------------------------------------------------------------------------

# red of the first point of each picture; a picture that is still loading has none
RED = "image => { const c = new OffscreenCanvas(1, 1).getContext('2d'); c.drawImage(image, 0, 0); "
RED += "return c.getImageData(0, 0, 1, 1).data[0] }"


def test_samples_are_turned_over_by_step_and_compared_with_any_other(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    pictures = page.locator(".samples img")
    near = f"reds => [...document.querySelectorAll('.samples img')].map({RED})"
    near += ".every((r, k) => Math.abs(r - reds[k]) < 5)"

    expect(pictures).to_have_count(2)
    expect(page.locator(".samples li")).to_contain_text(["a cat", "a cup of coffee"])
    slider = page.get_by_role("slider", name="Step of the samples")
    expect(slider).to_have_attribute("aria-valuetext", "Step 60")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    compare_with(page, "Step 20")
    expect(pictures).to_have_count(4)
    page.wait_for_function(near, arg=[20, 40, 20, 40])
    made.train(20).sample("a-cat", "a-cup-of-coffee")
    expect(slider).to_have_attribute("max", "3")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    compare_with(page, "Step 80")
    page.wait_for_function(near, arg=[80, 40, 80, 40])
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "Step 80")
    expect(pictures).to_have_count(2)


def test_a_sample_is_seen_large_by_keys_and_beside_another(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    page.get_by_role("link", name="a cat, step 60").click()
    view = page.get_by_role("dialog", name="Sample")
    large = view.get_by_role("img")
    expect(large).to_have_accessible_name("a cat, step 60")
    expect(view.get_by_text("a cat, at dawn")).to_be_visible()
    expect(
        view.get_by_text("Step 60 · seed 40 · 20 steps · guidance 3.5")
    ).to_be_visible()
    expect(view.get_by_role("button", name="Later step")).to_be_disabled()
    for key, name in (
        ("ArrowLeft", "a cat, step 40"),
        ("ArrowDown", "a cup of coffee, step 40"),
        ("ArrowDown", "a cup of coffee, step 40"),
        ("ArrowLeft", "a cup of coffee, step 20"),
        ("ArrowUp", "a cat, step 20"),
    ):
        page.keyboard.press(key)
        expect(large).to_have_accessible_name(name)
    view.get_by_role("button", name="Later step").click()
    expect(large).to_have_accessible_name("a cat, step 40")
    whole = large.evaluate("image => image.getBoundingClientRect().width")
    page.keyboard.press("+")
    page.wait_for_function(
        "width => document.querySelector('.pictures img').offsetWidth > 1.4 * width",
        arg=whole,
    )
    view.get_by_role("button", name="Whole").click()
    compare_with(view, "Step 60")
    expect(large).to_have_count(2)
    reds = large.evaluate_all(f"async images => images.map({RED})")
    assert reds == [60, 40]
    between = view.get_by_role("slider")
    expect(between).to_have_accessible_name("Between a cat, step 60 and a cat, step 40")
    between.press("Home")
    expect(large.nth(1)).to_have_css("clip-path", "inset(0px 0px 0px 0%)")
    between.press("ArrowRight")
    # the arrow was the slider's, not the viewer's
    expect(large.nth(1)).to_have_accessible_name("a cat, step 40")
    page.keyboard.press("Escape")
    expect(view).to_have_count(0)
    expect(page.get_by_role("link", name="a cat, step 60")).to_be_focused()


def test_all_samples_come_as_one_zip_that_says_step_prompt_and_seed(
    made: Made, runs: Path, shown: Callable[..., Page]
) -> None:
    # what is no sample, or leads elsewhere, stays
    (runs / "secret.txt").write_text("canary")
    (made.run.samples / "step-00000060-7-linked.png").symlink_to(runs / "secret.txt")
    (made.run.samples / "step-00000060-8-text.png").write_text("canary")
    again = made.run.samples / "without-ema"
    again.mkdir()
    (again / "step-00000060-0-a-cat.png").write_bytes(
        (made.run.samples / "step-00000060-0-a-cat.png").read_bytes()
    )
    page = shown(made)
    link = page.get_by_role("link", name="All as zip")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "portrait-samples.zip"
    with ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == [
            *(
                f"step-{step:08d}-prompt-{number}-seed-{39 + number}-{words}.png"
                for step in (20, 40, 60)
                for number, words in ((1, "a-cat"), (2, "a-cup-of-coffee"))
            ),
            "without-ema/step-00000060-prompt-1-seed-40-a-cat.png",
        ]
        first = made.run.samples / "step-00000020-0-a-cat.png"
        assert archive.read(names[0]) == first.read_bytes()
    address = str(link.evaluate("link => link.href"))
    bare = page.context.browser
    assert bare
    with bare.new_context() as stranger:
        assert stranger.request.get(address).status == 401


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
    # a short log begins above
    log = page.get_by_role("region", name="Lines of the log")
    gap = "it => it.firstElementChild.getBoundingClientRect().y - it.getBoundingClientRect().y"
    assert log.evaluate(gap) < 20

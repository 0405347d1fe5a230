"""Photographs the app for docs/images/*.png: `python docs/make_screenshots.py`, some minutes.

A real app on a copy of the examples, a real browser, a real run of the miniature with rates that are drawn by mouse.
Needs what `python start.py test` sets up.
"""

import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = Path(__file__).with_name("images")
# bytes; a picture that has more is kept with a palette of 256 colours, a third of the bytes
LARGEST = 300_000
MINUTES = 10  # that the run may take
# The hill that is drawn: from the left edge (0) to the right (1), from the bottom (0) to the top (1).
DOUBLE = [(0.02, 0.0), (0.34, 0.0), (0.4, 0.3), (0.98, 0.78)]
SINGLE = [
    (0.02, 0.82),
    (0.15, 0.97),
    (0.3, 0.99),
    (0.45, 0.88),
    (0.6, 0.68),
    (0.75, 0.45),
    (0.9, 0.24),
    (0.98, 0.16),
]


def main() -> None:
    """Take every picture."""
    IMAGES.mkdir(exist_ok=True)
    with running_app() as address, sync_playwright() as playwright:
        path = (
            os.environ.get("BLOCKRATE_BROWSER")
            or runpy.run_path(str(ROOT / "tests/support/browsers.py"))["find_browser"]()
        )
        browser = playwright.chromium.launch(
            executable_path=path or None, args=["--no-sandbox"]
        )
        photograph_a_training(browser, address)
        photograph_other_screens(browser, address)
        browser.close()


def photograph_a_training(browser: Browser, address: str) -> None:
    """From the model to the samples of a run whose rates are drawn here."""
    page = open_page(browser, address, "/model")
    page.get_by_text("24 images").first.wait_for()
    take(page, "model")
    show(page, "Data")
    page.get_by_text("Images and captions").first.click()
    page.mouse.move(4, 400)
    page.wait_for_timeout(2000)
    take(page, "data")
    show(page, "Training")
    open_window(page)
    page.get_by_role("button", name="Reset All to 1.0").click()
    draw(page, "Double blocks 0-18", DOUBLE)
    draw(page, "Single blocks 0-37", SINGLE)
    take(page, "window")
    page.get_by_role("button", name="OK").click()
    page.mouse.move(4, 400)  # where nothing has a tooltip
    page.wait_for_timeout(1500)
    take(page, "training")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(
        "Finished", timeout=MINUTES * 60_000
    )
    show(page, "Run")
    page.mouse.move(4, 400)
    page.mouse.wheel(0, 285)  # to where both charts are seen
    page.wait_for_timeout(3000)
    take(page, "run")
    page.get_by_role("combobox", name="Compare with").click()
    page.get_by_role("option").nth(1).click()
    page.mouse.wheel(0, 600)  # to the samples
    page.wait_for_timeout(3000)
    take(page, "samples")


def photograph_other_screens(browser: Browser, address: str) -> None:
    """The window in the dark, and on a phone."""
    dark = open_page(browser, address, "/training", dark=True)
    open_window(dark)
    take(dark, "window_dark")
    phone = open_page(browser, address, "/training", width=390, height=844, touch=True)
    open_window(phone)
    take(phone, "phone")


@contextmanager
def running_app() -> Iterator[str]:
    """The address of an app of our own, in a folder of its own that goes away with it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "blockrate")
        shutil.copytree(ROOT / "examples", folder / "examples")
        environment = {
            **os.environ,
            "BLOCKRATE_HOME": str(Path(place, "home")),
            "HOME": place,
        }
        command = [
            sys.executable,
            "-m",
            "blockrate",
            "ui",
            "examples/demo.json",
            "--no-browser",
            "--root",
            str(folder),
        ]
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as app:
            assert app.stdout
            yield app.stdout.readline().partition(": ")[2].strip()
            app.terminate()


def open_page(
    browser: Browser,
    address: str,
    path: str,
    *,
    width: int = 1280,
    height: int = 800,
    dark: bool = False,
    touch: bool = False,
) -> Page:
    """A page of the app in a window of this size; a phone's has two pixels for one."""
    page = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        has_touch=touch,
        is_mobile=touch,
        device_scale_factor=2 if touch else 1,
    ).new_page()
    page.goto(urlsplit(address)._replace(path=path).geturl())
    page.wait_for_timeout(2000)
    return page


def show(page: Page, tab: str) -> None:
    """Go to a tab."""
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(1500)


def open_window(page: Page) -> None:
    """Open the Block Learning Rate window."""
    page.get_by_role("button", name="Layer Filter settings").click()
    page.get_by_role("dialog", name="Block Learning Rate").wait_for()
    page.wait_for_timeout(800)


def draw(page: Page, bank: str, places: list[tuple[float, float]]) -> None:
    """Paint a line over the faders of a bank, as a hand does."""
    faders = page.get_by_role("group", name=bank).get_by_role("slider").all()
    first = faders[0].bounding_box()
    last = faders[-1].bounding_box()
    assert first
    assert last
    wide = last["x"] + last["width"] - first["x"]
    high = first["height"]
    for number, (across, up) in enumerate(places):
        page.mouse.move(
            first["x"] + wide * across, first["y"] + high * (1 - up), steps=20
        )
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def take(page: Page, name: str) -> None:
    """Write a picture of what is seen; one that is large with few colours."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = IMAGES / f"{name}.png"
    picture.save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()

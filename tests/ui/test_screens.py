"""The judges of screens.py find what they are to find, and no more."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from support.screens import faint, nameless, sideways, small_targets

STYLE = """<style>
body { margin: 0; background: white; color: #333; font: 16px sans-serif }
button { min-width: 44px; min-height: 44px }</style>"""
GOOD = """<main><h1>Title</h1><button>Start</button>
<button aria-label="Undo" >x</button>
<label style="display: block; min-height: 44px">Name <input></label>
<button aria-disabled="true" style="color: #bbb">off</button>
<p style="background: #000a; color: #fff">on a veil</p><div style="opacity: 0"><p style="color: #eee">unseen</p></div>
<div style="overflow-x: auto; width: 300px"><div style="width: 2000px; text-align: right"><h2>far</h2></div></div>
</main>"""


@pytest.fixture
def blank(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 400, "height": 600})
    yield page
    page.close()


def test_a_good_page_has_no_offence(blank: Page) -> None:
    blank.set_content(STYLE + GOOD)
    assert [nameless(blank), faint(blank), sideways(blank), small_targets(blank)] == [
        [],
        [],
        [],
        [],
    ]


@pytest.mark.parametrize(
    "html",
    [
        "<p style='color: #999'>grey</p>",
        "<p style='opacity: .5'>pale</p>",
        "<div style='background: #222'><p style='background: #fff2'>dark</p></div>",
        "<p style='color: oklch(0.75 0.1 250)'>blue</p>",
        "<input value='written' style='color: #aaa'>",
        "<input placeholder='hint' style='background: #777'>",
        "<p style='color: #949494; font-size: 18px'>not large enough</p>",
    ],
)
def test_a_faint_text_is_found(html: str, blank: Page) -> None:
    blank.set_content(STYLE + html)
    assert len(faint(blank)) == 1


def test_a_large_text_may_be_fainter(blank: Page) -> None:
    blank.set_content(STYLE + "<p style='color: #949494; font-size: 24px'>large</p>")
    assert faint(blank) == []


@pytest.mark.parametrize(
    "html",
    ["<button></button>", "<input>", "<img src='data:,x'>", "<div role='slider'>"],
)
def test_a_control_without_a_name_is_found(html: str, blank: Page) -> None:
    blank.set_content(STYLE + html)
    assert len(nameless(blank)) == 1


def test_what_is_too_wide_is_found(blank: Page) -> None:
    blank.set_content(STYLE + "<div style='width: 500px'>wide</div>")
    assert sideways(blank) == ["the page is 500 wide"]
    blank.set_content(
        STYLE
        + "<div style='overflow: hidden'><button style='margin-left: 380px; width: 99px'>Cut"
    )
    assert sideways(blank) == ["Cut: from 380 to 479"]


def test_a_small_target_is_found(blank: Page) -> None:
    blank.set_content(
        STYLE
        + "<button style='min-width: 40px; width: 40px'>x</button><p><a href='#'>a link in a text</a></p>"
    )
    assert small_targets(blank) == ["x: 40 x 44"]

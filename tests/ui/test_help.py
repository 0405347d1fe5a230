"""Every card has its help: two sentences and a page, which the app serves, for the mouse, a finger and the keyboard."""

import re
from collections.abc import Callable

import markdown2  # type: ignore[import-untyped]
import pytest
from nicegui import ui
from playwright.sync_api import expect
from support.apps import App
from support.http_answers import ask, sign_in
from support.pages import OpenPage
from support.screens import faint, sideways

from blockrate.ui import shell
from blockrate.ui.help_pages import _EXTRAS, as_page, help_files
from blockrate.ui.page import Page
from blockrate.ui.parts.help import HELP

OnAPage = Callable[[Callable[[Page], None]], None]


def test_every_card_has_help_and_no_help_is_for_nothing(on_a_page: OnAPage) -> None:
    def look(page: Page) -> None:
        for tab in shell.TABS:
            page.show_tab(tab)
        elements = list(ui.context.client.elements.values())
        names = {str(element.props.get("aria-label")) for element in elements}
        cards = [element for element in elements if element.tag == "section"]
        labelled = {str(card.props.get("aria-labelledby")) for card in cards}
        titles = {
            re.sub(r" \d+$", "", str(element.text))  # type: ignore[attr-defined]
            for element in elements
            if element.html_id in labelled
        }
        folds = [element for element in elements if isinstance(element, ui.expansion)]
        titles |= {fold.text for fold in folds if "card" in fold.classes}
        assert titles == set(HELP)
        assert {f"? Help: {title}" for title in titles - {"Concept"}} <= names

    on_a_page(look)


def test_help_is_two_sentences() -> None:
    assert {
        title: told.text
        for title, told in HELP.items()
        if len(re.findall(r"[.:](?: |$)", told.text)) not in (2, 3)
    } == {}


def test_every_link_leads_to_a_page_and_a_heading_of_it() -> None:
    files = help_files()
    anchors = {
        name: re.findall(
            r'id="([^"]*)"',
            markdown2.markdown(as_page(file.read_text()), extras=_EXTRAS),
        )
        for name, file in files.items()
    }
    for told in HELP.values():
        name, _, anchor = told.page.partition("#")
        assert name in files
        assert any(found.startswith(anchor) for found in anchors[name]), told.page
    for name, file in files.items():
        for other, _ in re.findall(
            r"\]\(/help/(\w+)(#[\w-]*)?\)", as_page(file.read_text())
        ):
            assert other in files, f"{name}: {other}"


@pytest.mark.parametrize("name", ["", "x", "index.md", "..%2Fapp", "%2e%2e", "index/"])
def test_there_is_no_other_page(name: str, app: App) -> None:
    assert ask(app, f"/help/{name}", sign_in(app))[0] in (307, 404)


def test_help_is_reached_by_finger_and_keyboard_and_its_page_is_there(
    app: App, open_page: OpenPage
) -> None:
    phone = open_page(app, "/training", width=390, touch=True)
    phone.get_by_role("button", name="? Help: Optimisation").tap()
    told = phone.get_by_role("dialog", name="Optimisation")
    expect(told).to_contain_text("An epoch shows every image once")
    told.get_by_role("button", name="Close").tap()
    expect(told).to_have_count(0)
    page = open_page(app, "/training", dark=True)
    button = page.get_by_role("button", name="? Help: LoRA")
    button.press("Enter")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Read more").press("Enter")
    read = opened.value
    read.wait_for_function("window.did_handshake")
    expect(read.get_by_role("heading", name="LoRA", exact=True)).to_be_in_viewport()
    assert [*faint(read), *sideways(read)] == []
    read.get_by_role("link", name="All pages").click()
    expect(read.get_by_role("heading", level=1)).to_have_text(
        "blockrate's documentation"
    )
    page.keyboard.press("Escape")
    expect(button).to_be_focused()

"""Logging in to the hub from the Model tab, in a real browser."""

import re

from playwright.sync_api import expect
from support.known_token import GOOD, hub_that_knows_one
from support.pages import OpenPage, StartApp


def test_a_token_is_taken_told_of_by_name_and_left_nowhere_else(
    start_app: StartApp, open_page: OpenPage
) -> None:
    with hub_that_knows_one() as hub:
        app = start_app(HF_ENDPOINT=hub, HF_HOME="hub")
        page = open_page(app)
        page.get_by_role("button", name="Hub login").click()
        dialog = page.get_by_role("dialog", name="Hub login")
        expect(dialog.get_by_text("Nobody is logged in.")).to_be_visible()
        field = dialog.get_by_label("Token")
        expect(field).to_have_attribute("type", "password")
        field.fill("hf_wrong_token")
        field.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text(
            re.compile("is none that the hub knows")
        )
        field.fill(GOOD)
        dialog.get_by_role("button", name="Log in").click()
        expect(dialog.get_by_text("Logged in as ada.")).to_be_visible()
        expect(field).to_have_value("")
        assert GOOD not in page.content()
        holding = [
            file.relative_to(app.folder).parts[0]
            for file in app.folder.parent.rglob("*")
            if file.is_file() and GOOD in file.read_text(errors="replace")
        ]
        assert set(holding) == {"hub"}
        dialog.get_by_role("button", name="Log out").click()
        expect(dialog.get_by_text("Nobody is logged in.")).to_be_visible()

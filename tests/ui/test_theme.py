"""The theme of the page, in a real browser."""

import re

from playwright.sync_api import expect
from support.pages import OpenPage, StartApp


def test_the_theme_is_kept(start_app: StartApp, open_page: OpenPage) -> None:
    app = start_app()
    page = open_page(app)
    expect(page.locator("body")).to_have_class(re.compile("body--light"))
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    app.kill()
    page = open_page(start_app())
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    # the bar at the side of the page, too
    expect(page.locator("html")).to_have_css("color-scheme", "dark")

"""Signing out in a real browser."""

from playwright.sync_api import expect
from support.apps import App
from support.pages import OpenPage


def test_the_button_signs_every_browser_out(
    app: App, open_page: OpenPage, tolerated: list[str]
) -> None:
    tolerated += ["401", "WebSocket", "ERR_"]
    page, other = open_page(app, "/model"), open_page(app, "/run")
    beside = page.context.new_page()
    beside.goto(app.at("/data"))
    beside.wait_for_function("window.did_handshake")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    expect(beside.get_by_label("Token")).to_be_visible()
    other.goto(app.at("/run").partition("?")[0])
    expect(other.get_by_label("Token")).to_be_visible()
    other.goto(app.at("/run"))
    expect(other.get_by_role("tab", name="Run")).to_be_visible()

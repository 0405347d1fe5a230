"""The preset menu of the Block Learning Rate window without a mouse."""

from playwright.sync_api import expect
from support.faders import Faders


def test_the_preset_menu_is_walked_by_arrows(faders: Faders) -> None:
    page = faders.page
    button = faders.window.get_by_role("button", name="Preset: ")
    button.press("Enter")
    items = page.get_by_role("menu").locator("[role^=menuitem]")
    expect(page.get_by_role("menu")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(items.first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(items.last).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_contain_text("Layer-wise decay")

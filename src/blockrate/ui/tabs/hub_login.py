"""The login to the hub: a dialog that says who is logged in, takes a token, and logs out."""

from nicegui import ui
from nicegui.run import io_bound

from blockrate.core.errors import ConfigError
from blockrate.models.hub_login import log_in, log_out, logged_in_as
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog

_ASKING = "Asking the hub who is logged in."


def hub_login_button(page: Page) -> None:
    """Lay out the button that opens the dialog."""
    button = ui.button("Hub login", icon="key", color=None)
    button.on_click(lambda: HubLogin(page).open()).props("outline no-caps dense")


class HubLogin:
    """The dialog. The token is in the field until it is sent, and then with the hub's library alone."""

    def __init__(self, page: Page) -> None:
        self._page = page
        with small_dialog("Hub login") as self._dialog:
            ui.label(
                "Models whose licence is to be accepted need a token of your account at huggingface.co. "
                "It is stored on the machine that trains, where the hub's own library keeps it."
            )
            self._who = ui.label(_ASKING).props("aria-live=polite").classes("totals")
            self._token = ui.input("Token", password=True)
            self._token.props("outlined dense hide-bottom-space autocomplete=off")
            self._token.props["maxlength"] = 500
            self._token.on("keydown.enter", self._log_in)
            self._wrong = ui.label().classes("field-note is-wrong").props("role=alert")
            buttons = choice_buttons(
                {
                    "Close": self._dialog.close,
                    "Log out": self._log_out,
                    "Log in": self._log_in,
                }
            )
            buttons["Log in"].props(remove="autofocus")
            self._out = buttons["Log out"]

    async def open(self) -> None:
        """Show it, and say who is logged in once the hub has answered."""
        self._out.set_visibility(False)
        self._wrong.set_visibility(False)
        self._dialog.open()
        self._show(await io_bound(logged_in_as) or "")

    def _show(self, name: str, wrong: str = "") -> None:
        if self._dialog.is_deleted:
            return
        words = f"Logged in as {name}."
        if not name:
            words = "Nobody is logged in."
        elif name == "?":
            words = "A token is stored; the hub was not reached to say whose it is, or does not know it any more."
        self._who.set_text(words)
        self._out.set_visibility(bool(name))
        self._wrong.set_text(wrong)
        self._wrong.set_visibility(bool(wrong))

    async def _log_in(self) -> None:
        token = str(self._token.value or "")
        self._token.set_value("")
        self._who.set_text(_ASKING)
        try:
            name, wrong = await io_bound(log_in, token) or "", ""
        except ConfigError as error:
            name, wrong = await io_bound(logged_in_as) or "", f"{error}"
        self._show(name, wrong)
        self._page.tab_changed.emit()  # the check is made anew

    async def _log_out(self) -> None:
        wrong = await io_bound(log_out) or ""
        self._show(await io_bound(logged_in_as) or "", wrong)
        self._page.tab_changed.emit()

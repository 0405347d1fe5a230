"""The preset menu of the Block Learning Rate window: which preset is drawn, all that there are, and the user's own."""

from collections.abc import Callable
from functools import partial

from nicegui import ui

from blockrate.config.custom_presets import kept_only, usable_presets
from blockrate.core.errors import WriteError
from blockrate.core.profile import sparse
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.windows.rate_picture import RatePicture
from blockrate.ui.windows.rate_presets import (
    BUILT_IN,
    Origin,
    Preset,
    built_in,
    kept,
    matching,
)
from blockrate.ui.windows.rates import RatesDraft

_LOOK = "outlined dense hide-bottom-space no-error-icon"
_LONGEST_NAME = 60
_HEADINGS: dict[Origin, str] = {
    "recipe": "Recipes",
    "selection": "From the selected blocks",
    "fork": "As one public OneTrainer fork ships them, not findings",
    "own": "Your own",
    "config": "Of this config",
}
# a menu is walked by arrows; Quasar's knows the tabulator only
_ARROWS = """(event) => {
  const items = [...event.currentTarget.querySelectorAll("[role^=menuitem]")];
  const at = items.indexOf(document.activeElement);
  const last = items.length - 1;
  const to = {
    ArrowDown: at < last ? at + 1 : 0,
    ArrowUp: at > 0 ? at - 1 : last,
    Home: 0,
    End: last,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  items[to].focus();
}"""


class PresetMenu:
    """A button that shows the preset which the rates match, and opens the list of all.

    ``change``: draws, and tells what an action returns or raises. ``selection``: the text
    that says which blocks are selected.
    """

    def __init__(
        self,
        page: Page,
        rates: RatesDraft,
        *,
        change: Callable[[Callable[[], str]], None],
        selection: Callable[[], str],
    ) -> None:
        self._page = page
        self._rates = rates
        self._change = change
        self._selection = selection
        self._button = ui.button(on_click=self._open, color=None)
        self._button.props("no-caps dense icon-right=expand_more")
        self._button.classes("rates-preset")
        with self._button:
            # filled at each press: most windows are closed without a look at it
            self._menu = ui.menu().props("no-parent-event max-width=34rem")
            self._menu.classes("rates-presets").on("keydown", js_handler=_ARROWS)

    def refresh(self) -> None:
        """Show which preset the rates match now."""
        name = matching(self._rates, self._presets())
        self._button.set_text(name)
        self._button.props["aria-label"] = f"Preset: {name}"

    def _presets(self) -> list[Preset]:
        own = self._page.preferences.templates
        kept_in_config = usable_presets(self._of_config())
        named = [*built_in(self._rates)]
        named += [kept(name, own[name], self._rates, "own") for name in own]
        named += [
            kept(name, rates, self._rates, "config")
            for name, rates in kept_in_config.items()
            if name not in BUILT_IN
        ]
        return named

    def _of_config(self) -> dict[str, object]:
        return self._page.session.usable.block_learning_rate_custom_presets

    # -- the list

    def _open(self) -> None:
        self._fill()
        self._menu.open()

    def _fill(self) -> None:
        presets = self._presets()
        drawn = matching(self._rates, presets)
        self._menu.clear()
        with self._menu:
            for origin, heading in _HEADINGS.items():
                shown = [preset for preset in presets if preset.origin == origin]
                if shown or origin == "own":
                    _heading(heading)
                for preset in shown:
                    self._entry(preset, is_drawn=preset.name == drawn)
                if origin == "own":
                    _plain_entry("Save these rates under a name…", self._save_new)
            self._tell_kept_only()

    def _entry(self, preset: Preset, *, is_drawn: bool) -> None:
        use = partial(self._change, partial(self._use, preset))
        with ui.element("div").classes("rates-own"):
            item = ui.menu_item(on_click=use).props("role=menuitemradio")
            item.props["aria-checked"] = "true" if is_drawn else "false"
            with item, ui.item_section():
                ui.item_label(preset.name)
                ui.item_label(preset.text).props("caption")
                if preset.rates:
                    RatePicture().show(RatesDraft(self._rates.layout, preset.rates))
            if preset.origin == "own":
                rename = partial(self._ask_for_name, preset.name)
                _icon("edit", f"Rename {preset.name}", rename)
                delete = partial(self._delete, preset.name)
                _icon("delete", f"Delete {preset.name}", delete)

    def _tell_kept_only(self) -> None:
        """Name the presets of the config that stay in its file and cannot be drawn."""
        presets = self._of_config()
        told = kept_only(presets)
        taken = [name for name in usable_presets(presets) if name in BUILT_IN]
        told += [
            f"{name!r} (the name of one that comes with blockrate)" for name in taken
        ]
        if told:
            words = f"Kept in the config's file, and not on offer: {', '.join(told)}."
            ui.label(words).classes("rates-kept")

    def _use(self, preset: Preset) -> str:
        if preset.origin == "selection":
            self._rates.use_template(preset.name, self._selection())
            return f"{preset.name} drawn"
        names = preset.set or preset.rates
        self._rates.commit({name: preset.rates[name] for name in names})
        return f"{preset.name} drawn{preset.words}"

    # -- the user's own

    def _save_new(self) -> None:
        self._ask_for_name("")

    def _ask_for_name(self, old: str) -> None:
        """Ask for a name, in one line, and before another preset of this name is replaced.

        ``old``: of the preset that gets it; of none the rates as they are drawn.
        """
        title = f"Rename {old}" if old else "Save as preset"
        with small_dialog(title) as dialog:
            box = ui.input("Name", value=old).props(f"{_LOOK} autofocus")

            async def save() -> None:
                name = str(box.value or "").strip()
                box.error = _why_no_name(name) or None
                if not box.error and await self._may_take(name, old):
                    self._keep(name, old)
                    dialog.close()

            box.on("keydown.enter", save)
            choice_buttons({"Cancel": dialog.close, "Save": save})
        dialog.open()

    async def _may_take(self, name: str, old: str) -> bool:
        if name == old or name not in self._page.preferences.templates:
            return True
        text = f"There is a preset {name} already."
        answer = await ask("Replace the preset?", text, ["Replace", "Cancel"])
        return answer == "Replace"

    def _keep(self, name: str, old: str) -> None:
        """Keep the rates as drawn, or those of ``old``, in the place of ``old``."""
        saved = self._page.preferences.templates
        rates = saved.get(old, {}) if old else sparse(self._rates.rates)
        others = {key: saved[key] for key in saved if key not in (name, old)}
        self._keep_all({**others, name: rates})

    async def _delete(self, name: str) -> None:
        text = f"{name} is deleted for all configs."
        answer = await ask("Delete the preset?", text, ["Delete", "Cancel"])
        if answer == "Delete":
            saved = self._page.preferences.templates
            self._keep_all({key: saved[key] for key in saved if key != name})

    def _keep_all(self, templates: dict[str, dict[str, float]]) -> None:
        self._page.preferences.templates = templates
        self.refresh()
        try:
            self._page.preferences.save()
        except WriteError as error:
            self._page.show_message(str(error), kind="error")


def _heading(text: str) -> None:
    ui.item_label(text).props("header").classes("rates-heading")


def _plain_entry(text: str, action: Callable[[], object]) -> None:
    item = ui.menu_item(on_click=action).props("role=menuitem")
    with item, ui.item_section():
        ui.item_label(text)


def _icon(icon: str, name: str, action: Callable[[], object]) -> None:
    item = ui.menu_item(on_click=action).props("role=menuitem").classes("rates-bin")
    item.props["aria-label"] = name
    with item:
        ui.icon(icon).props("aria-hidden=true")


def _why_no_name(name: str) -> str:
    """Why no preset can have this name, nothing if one can."""
    if not 0 < len(name) <= _LONGEST_NAME:
        return f"A name has 1 to {_LONGEST_NAME} letters"
    if name in BUILT_IN:
        return "That is a preset that comes with blockrate. Choose another name."
    return ""

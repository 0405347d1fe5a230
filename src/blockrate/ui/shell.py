"""The frame around every tab: header, tabs with their counts of problems, what the run does, Start and Stop."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from nicegui import ui
from nicegui.element import Element

from blockrate.config.schedule_check import schedule_warnings
from blockrate.core.errors import BlockrateError
from blockrate.dataset.survey import Survey, counted, survey
from blockrate.ui.compare import screen
from blockrate.ui.compare.chosen import SCREEN, address_of, compared_in
from blockrate.ui.guard import SIGN_OUT
from blockrate.ui.live.progress import (
    NEXT_START,
    doing,
    share,
    why_not_start,
    why_not_stop,
)
from blockrate.ui.live.watch import ALIVE, Watch
from blockrate.ui.open_save import open_config, save, save_as
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, set_props
from blockrate.ui.parts.dialogs import ask, heading
from blockrate.ui.parts.follow import show_from_thread
from blockrate.ui.parts.labels import in_labels, sentence
from blockrate.ui.parts.short_view import ViewSwitch
from blockrate.ui.problems import problems_of, problems_without_control
from blockrate.ui.queueing import add_to_queue
from blockrate.ui.starting import start
from blockrate.ui.tabs import data, draw, model, run, sampling, training

_MODULES = {
    "Model": model,
    "Data": data,
    "Training": training,
    "Sampling": sampling,
    "Run": run,
    "Draw": draw,
}
TABS = tuple(_MODULES)
# what has an address and no tab of its own
_SCREENS = {**_MODULES, SCREEN: screen}
_FILE_BUTTONS = (
    ("Open", "folder_open", open_config),
    ("Save", "save", save),
    ("Save as", "save_as", save_as),
)
_STATIC = Path(__file__).parent / "static"
_SIGN_OUT = "Sign out"
_SIGN_OUT_SCRIPT = f"""
fetch('{SIGN_OUT}', {{method: 'POST'}}).finally(() => {{
  new BroadcastChannel('sign-out').postMessage('');
  location.reload();
}})
"""


class Theme(NamedTuple):
    """How the page looks. ``dark``: None as the system does. ``following``: the theme after it."""

    dark: bool | None
    icon: str
    following: Literal["auto", "light", "dark"]


_THEMES = {
    "auto": Theme(None, "brightness_auto", following="light"),
    "light": Theme(dark=False, icon="light_mode", following="dark"),
    "dark": Theme(dark=True, icon="dark_mode", following="auto"),
}


class Shell(Element, component="static/shell.js"):
    """What only the browser can do: keys, addresses, the question before unsaved work is left."""


def build(page: Page, tab: str = "Model") -> None:
    """Build the whole page of one browser tab, with ``tab`` in front."""
    page.enter()
    _add_style()
    shell = Shell()
    with ui.header(fixed=True).classes("top"):
        ui.label("blockrate").classes("brand")
        tabs = _tabs(page)
        _config_buttons(page)
        _theme_button(page)
        _sign_out_button()
    with ui.element("div").classes("content") as content:
        view = ViewSwitch(page, content)
        _next_start(page)
        _warnings(page)
        panels = {name: _panel(name) for name in _SCREENS}
    ui.skip_link("Skip to the settings", target=content)
    with ui.footer(fixed=True).classes("bottom"):
        _bottom_bar(page)

    def show(name: str) -> None:
        if name not in _SCREENS:
            return
        page.tab = name
        for other, panel in panels.items():
            panel.set_visibility(other == name)
        # before it is filled: what is new looks at everything once anyhow
        page.tab_changed.emit()
        if not panels[name].default_slot.children:
            with panels[name]:
                _fill(page, name)
        view.tell()
        tabs.set_value(name if name in TABS else None)
        shell.run_method("visit", _address(page, name))

    page.show_tab = show
    tabs.on_value_change(lambda event: page.show_another(str(event.value or "")))
    _connect(page, shell)
    show(tab.capitalize())


def _add_style() -> None:
    for sheet in sorted(_STATIC.glob("*.css")):
        ui.add_css(sheet)
    ui.colors(
        primary="#4c5be0",
        negative="#b3261e",
        positive="#0f8f80",
        dark="#151b23",
        dark_page="#0c1015",
    )


def _panel(name: str) -> Element:
    """The room of a tab; it is filled when it is in front for the first time."""
    panel = ui.element("div").classes(f"panel panel-{name.lower()}")
    panel.props["role"] = "tabpanel"
    panel.props["aria-label"] = name
    return panel


def _fill(page: Page, name: str) -> None:
    heading(name, 1).classes("sr-only")
    if name in TABS:
        problems_without_control(page, name)
    _SCREENS[name].build(page)


def _address(page: Page, name: str) -> str:
    return address_of(page.compared) if name == SCREEN else f"/{name.lower()}"


def _connect(page: Page, shell: Shell) -> None:
    def route(address: object) -> None:
        path, _, query = str(address).partition("?")
        name = path.strip("/").capitalize()
        if name == SCREEN:
            page.compared = compared_in(query, page.preferences)
            page.compared_changed.emit()
        page.show_another(name or TABS[0])

    def refresh() -> None:
        title = f"{page.session.title} · blockrate"
        if page.session.dirty:
            title = f"● {title}"
        shell.props["dirty"] = page.session.dirty
        shell.props["title"] = title

    shell.on("save", lambda: save(page))
    shell.on("open", lambda: open_config(page))
    shell.on("start", lambda: start(page))
    shell.on("route", lambda event: route(event.args))
    call_on_change(page.session.changed, refresh)


def _tabs(page: Page) -> ui.tabs:
    with ui.tabs() as tabs:
        tabs.props("dense no-caps inline-label shrink active-class=is-front")
        tabs.props["aria-label"] = "Screens"
        for name in TABS:
            with ui.tab(name):
                _problem_count(page, name)
    return tabs


def _problem_count(page: Page, tab: str) -> None:
    count = ui.label().classes("count")
    word = ui.label().classes("sr-only")

    def refresh() -> None:
        number = len(problems_of(page, tab))
        count.set_text(str(number))
        count.set_visibility(number > 0)
        word.set_text({0: "", 1: "problem"}.get(number, "problems"))

    call_on_change(page.session.changed, refresh)


def _config_buttons(page: Page) -> None:
    with ui.element("div").classes("config"):
        dot = ui.label("●").classes("dirty")
        dot.props["role"] = "img"
        dot.props["aria-label"] = "Not saved"
        title = ui.label().classes("title")

    def refresh() -> None:
        dot.set_visibility(page.session.dirty)
        title.set_text(page.session.title)
        title.props["title"] = str(page.session.path or page.session.title)

    call_on_change(page.session.changed, refresh)
    for name, icon, action in _FILE_BUTTONS:
        button = ui.button(name, icon=icon, color=None, on_click=partial(action, page))
        button.props("flat no-caps dense").classes("header-button")
        button.props["aria-label"] = name
        button.tooltip(name if name == "Save as" else f"{name} (Ctrl+{name[0]})")


def _theme_button(page: Page) -> None:
    dark = ui.dark_mode()

    def show() -> None:
        theme = _THEMES[page.preferences.theme]
        dark.value = theme.dark
        button.props["icon"] = theme.icon
        button.props["aria-label"] = f"Theme: {page.preferences.theme}"
        tip.set_text(f"Theme: {page.preferences.theme}")

    def change() -> None:
        page.preferences.theme = _THEMES[page.preferences.theme].following
        show()
        with suppress(BlockrateError):  # a wish, not worth a failure
            page.preferences.save()

    button = ui.button(icon="brightness_auto", color=None, on_click=change)
    button.props("flat dense").classes("header-button")
    with button:
        tip = ui.tooltip()
    show()


def _sign_out_button() -> None:
    async def sign_out() -> None:
        text = "Every browser has to sign in again, by the address that the app has printed. A run goes on."
        if await ask("Sign out?", text, [_SIGN_OUT, "Cancel"]) == _SIGN_OUT:
            ui.run_javascript(_SIGN_OUT_SCRIPT)

    button = ui.button(icon="logout", color=None, on_click=sign_out)
    button.props("flat dense").classes("header-button")
    button.props["aria-label"] = _SIGN_OUT
    button.tooltip(_SIGN_OUT)


def _next_start(page: Page) -> None:
    """Say while a run is at work that it does not hear of what is changed on a tab."""
    with ui.element("div").classes("banner next-start") as note:
        ui.label(NEXT_START)
        after = ui.button("Start after this one", on_click=partial(add_to_queue, page))
        after.props("no-caps flat dense")

    def refresh() -> None:
        is_at_work = page.watch.state.name in ALIVE
        note.set_visibility(is_at_work and page.tab != "Run")

    call_on_change(page.watch.changed, refresh)
    call_on_change(page.tab_changed, refresh)


def _warnings(page: Page) -> None:
    with ui.element("details").classes("warnings") as box:
        box.props('aria-label="Notes on this config"')
        with ui.element("summary"):
            words = ui.label()
        lines = ui.element("ul")

    def refresh() -> None:
        warnings = (*page.session.warnings, *_rate_warnings(page))
        box.set_visibility(bool(warnings))
        noun = "note" if len(warnings) == 1 else "notes"
        words.set_text(f"{len(warnings)} {noun} on this config")
        lines.clear()
        with lines:
            for warning in warnings:
                with ui.element("li"):
                    ui.label(sentence(in_labels(warning, page.session.encoders)))

    call_on_change(page.session.changed, refresh)
    call_on_change(page.steps_changed, refresh)


def _rate_warnings(page: Page) -> tuple[str, ...]:
    """What to know of the rate in a run of as many steps as the images make."""
    if not page.steps or page.session.config is None:
        return ()
    return schedule_warnings(page.session.config, page.steps)


def _bottom_bar(page: Page) -> None:
    state = ui.label().classes("state").props("role=status")
    with ui.element("div").classes("doing"):
        words = ui.label()
        bar = ui.element("progress").props('max=1 aria-label="Progress of the run"')
    _stop_and_start_buttons(page)
    counts = ""

    def refresh() -> None:
        name = page.watch.state.name
        state.set_text(name)
        state.classes(replace=f"state is-{name.lower().replace(' ', '-')}")
        words.set_text(doing(page.watch) or _blocked(page) or counts)
        bar.set_visibility(name in ALIVE)
        set_props(bar, {"value": share(page.watch)})

    def show_counts(result: Survey) -> None:
        nonlocal counts
        if result.steps is not None:
            counts = data.counts_in_words(result)
            refresh()
            page.steps = result.steps
            page.steps_changed.emit()

    call_on_change(page.watch.changed, refresh)
    call_on_change(page.session.changed, refresh)
    show_from_thread(
        page.session.changed,
        lambda: (page.looks, counted(page.session.usable)),
        lambda wanted: survey(wanted[1]),
        show_counts,
    )


def _stop_and_start_buttons(page: Page) -> None:
    _run_button(page, "Stop", "stop", page.watch.stop, why_not_stop)
    _run_button(
        page, "Start", "play_arrow", lambda: start(page), why_not_start, "(Ctrl+Enter)"
    )


def _run_button(
    page: Page,
    name: str,
    icon: str,
    action: Callable[[], object],
    why_not: Callable[[Watch], str],
    keys: str = "",
) -> None:
    """A button that says why it does nothing now, where it does nothing."""

    async def pressed() -> None:
        if reason := why_not(page.watch):
            return page.show_message(reason)
        answer = action()
        if isinstance(answer, Awaitable):
            await answer
        return None

    button = ui.button(name, icon=icon, color=None, on_click=pressed)
    button.props("no-caps unelevated").classes(name.lower())
    with button:
        tip = ui.tooltip()

    def refresh() -> None:
        reason = why_not(page.watch)
        tip.set_text(reason or f"{name} {keys}".strip())
        button.classes(**{"add" if reason else "remove": "is-off"})
        props = {
            "aria-disabled": "true" if reason else None,
            "aria-description": reason or None,
        }
        set_props(button, props)

    call_on_change(page.watch.changed, refresh)


def _blocked(page: Page) -> str:
    number = len(page.session.problems)
    if not number:
        return ""
    noun = "problem" if number == 1 else "problems"
    return f"{number} {noun} to correct"

"""The frame around every tab: header, tabs with their counts of problems, what the run does, Start and Stop."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from nicegui import ui
from nicegui.element import Element

from blockrate.config.fields import tab_of
from blockrate.core.errors import BlockrateError
from blockrate.dataset.survey import Survey, counted, survey
from blockrate.ui.live.watch import ALIVE, Watch
from blockrate.ui.open_save import open_config, save, save_as
from blockrate.ui.page import Page
from blockrate.ui.parts.components import set_props, watched
from blockrate.ui.parts.dialogs import heading
from blockrate.ui.parts.follow import read_aside
from blockrate.ui.parts.labels import duration, sentence
from blockrate.ui.starting import start
from blockrate.ui.tabs import data, model, run, sampling, training

_MODULES = {
    "Model": model,
    "Data": data,
    "Training": training,
    "Sampling": sampling,
    "Run": run,
}
TABS = tuple(_MODULES)
_NEXT_THEME: dict[str, Literal["auto", "light", "dark"]] = {
    "auto": "light",
    "light": "dark",
    "dark": "auto",
}
_THEMES = {
    "auto": (None, "brightness_auto"),
    "light": (False, "light_mode"),
    "dark": (True, "dark_mode"),
}
_FILE_BUTTONS = (
    ("Open", "folder_open", open_config),
    ("Save", "save", save),
    ("Save as", "save_as", save_as),
)
_STATIC = Path(__file__).parent / "static"


class Shell(Element, component="static/shell.js"):
    """What only the browser can do: keys, addresses, the question before unsaved work is left."""


def build(page: Page, tab: str = "Model") -> None:
    """Build the whole page of one browser tab, with ``tab`` in front."""
    page.enter()
    for sheet in sorted(_STATIC.glob("*.css")):
        ui.add_css(sheet)
    ui.colors(
        primary="#4c5be0",
        negative="#b3261e",
        positive="#0f8f80",
        dark="#151b23",
        dark_page="#0c1015",
    )
    shell = Shell()
    with ui.header(fixed=True).classes("top"):
        ui.label("blockrate").classes("brand")
        tabs = _tabs(page)
        _config_buttons(page)
        _theme_button(page)
    with ui.element("div").classes("content") as content:
        _warnings(page)
        panels = {name: ui.element("div").classes("panel") for name in TABS}
    ui.skip_link("Skip to the settings", target=content)
    with ui.footer(fixed=True).classes("bottom"):
        _bottom_bar(page)

    def show(name: str) -> None:
        page.tab = name
        for other, panel in panels.items():
            panel.set_visibility(other == name)
        if not panels[name].default_slot.children:
            with panels[name]:
                heading(name, 1).classes("sr-only")
                _MODULES[name].build(page)
        tabs.set_value(name)
        shell.run_method("visit", f"/{name.lower()}")
        page.turned.emit()

    for name, panel in panels.items():
        panel.props["role"] = "tabpanel"
        panel.props["aria-label"] = name
    page.show_tab = lambda name: show(name) if name in TABS else None
    tabs.on_value_change(lambda event: page.show_tab(str(event.value)))
    _connect(page, shell)
    page.show_tab(tab.capitalize())


def _connect(page: Page, shell: Shell) -> None:
    shell.on("save", lambda: save(page))
    shell.on("open", lambda: open_config(page))
    shell.on("start", lambda: start(page))
    shell.on(
        "route",
        lambda event: page.show_tab(str(event.args).strip("/").capitalize() or TABS[0]),
    )

    def refresh() -> None:
        shell.props["dirty"] = page.session.dirty
        shell.props["title"] = (
            f"{'● ' * page.session.dirty}{page.session.title} · blockrate"
        )

    watched(page.session.changed, refresh)


def _tabs(page: Page) -> ui.tabs:
    with ui.tabs().props(
        "dense no-caps inline-label shrink active-class=is-front"
    ) as tabs:
        tabs.props["aria-label"] = "Screens"
        for name in TABS:
            with ui.tab(name):
                _problem_count(page, name)
    return tabs


def _problem_count(page: Page, tab: str) -> None:
    count = ui.label().classes("count")
    word = ui.label().classes("sr-only")

    def refresh() -> None:
        found = [
            problem
            for problem in page.session.problems
            if problem.field and not problem.removable and tab_of(problem.field) == tab
        ]
        number = len(found)
        count.set_text(str(number))
        count.set_visibility(number > 0)
        word.set_text({0: "", 1: "problem"}.get(number, "problems"))

    watched(page.session.changed, refresh)


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

    watched(page.session.changed, refresh)
    for name, icon, action in _FILE_BUTTONS:
        button = ui.button(
            name, icon=icon, color=None, on_click=lambda action=action: action(page)
        )
        button.props("flat no-caps dense").classes("header-button")
        button.props["aria-label"] = name
        button.tooltip(name if name == "Save as" else f"{name} (Ctrl+{name[0]})")


def _theme_button(page: Page) -> None:
    dark = ui.dark_mode()

    def show() -> None:
        dark.value, icon = _THEMES[page.preferences.theme]
        button.props["icon"] = icon
        button.props["aria-label"] = f"Theme: {page.preferences.theme}"
        tip.set_text(f"Theme: {page.preferences.theme}")

    def turn() -> None:
        page.preferences.theme = _NEXT_THEME[page.preferences.theme]
        show()
        with suppress(BlockrateError):  # a wish, not worth a failure
            page.preferences.save()

    button = (
        ui.button(icon="brightness_auto", color=None, on_click=turn)
        .props("flat dense")
        .classes("header-button")
    )
    with button:
        tip = ui.tooltip()
    show()


def _warnings(page: Page) -> None:
    with ui.element("details").classes("warnings") as box:
        with ui.element("summary"):
            words = ui.label()
        lines = ui.element("ul")

    def refresh() -> None:
        warnings = page.session.warnings
        box.set_visibility(bool(warnings))
        words.set_text(
            f"{len(warnings)} {'note' if len(warnings) == 1 else 'notes'} on this config"
        )
        lines.clear()
        with lines:
            for warning in warnings:
                with ui.element("li"):
                    ui.label(sentence(warning))

    watched(page.session.changed, refresh)


def _bottom_bar(page: Page) -> None:
    state = ui.label().classes("state").props("role=status")
    with ui.element("div").classes("doing"):
        words = ui.label()
        bar = ui.element("progress").props('max=1 aria-label="Progress of the run"')
    ui.button("Stop", icon="stop", on_click=page.watch.stop, color=None).props(
        "no-caps unelevated"
    ).classes("stop")
    go = ui.button("Start", icon="play_arrow", on_click=lambda: start(page), color=None)
    go.props("no-caps unelevated").classes("start").tooltip("Start (Ctrl+Enter)")
    counts = [""]

    def refresh() -> None:
        name = page.watch.state.name
        state.set_text(name)
        state.classes(replace=f"state is-{name.lower().replace(' ', '-')}")
        words.set_text(_doing(page.watch) or _blocked(page) or counts[0])
        bar.set_visibility(name in ALIVE)
        set_props(bar, {"value": run.share(page.watch)})

    def count(now: Survey) -> None:
        if now.steps is not None:
            images = now.done - now.unreadable
            counts[0] = (
                f"{images:,} images · about {now.steps:,} steps"
                if images
                else "No images yet"
            )
            refresh()

    watched(page.watch.changed, refresh)
    watched(page.session.changed, refresh)
    read_aside(
        page.session.changed, lambda: counted(page.session.usable), survey, count
    )


def _blocked(page: Page) -> str:
    number = len(page.session.problems)
    return (
        f"{number} {'problem' if number == 1 else 'problems'} to put right"
        if number
        else ""
    )


def _doing(watch: Watch) -> str:
    """What is being done and for how long still, or how it ended."""
    if watch.state.name not in ALIVE:
        return "" if watch.state.name == "No run" else sentence(watch.state.sentence)
    left = watch.history.seconds_left if watch.state.name == "Running" else None
    return (
        run.headline(watch)
        if left is None
        else f"{run.headline(watch)} · {duration(left)} left"
    )

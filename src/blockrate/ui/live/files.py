"""Where everything is that a run has written, to be copied and downloaded."""

from contextlib import suppress
from functools import partial
from pathlib import Path

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.live.watch import Watch
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import icon_button
from blockrate.ui.parts.follow import rebuild_on_change

_COPY = """() => (navigator.clipboard?.writeText(document.getElementById("{}").textContent) ?? Promise.reject())
    .then(() => emit(true), () => emit(false))"""


def files_list(page: Page, changed: Event[[]]) -> None:
    """Show the files of the run, with what can be done with each."""
    with ui.element("ul").classes("run-files"):
        rebuild_on_change(changed, lambda: _files(page.watch), partial(_rows, page))


def _files(watch: Watch) -> dict[str, str]:
    """Return what each file is, by its path."""
    written = watch.history.files
    files = {
        **dict.fromkeys(written.exports, "Export"),
        **dict.fromkeys(written.outputs, "Result"),
    }
    if written.checkpoint:
        files[written.checkpoint] = "Last checkpoint"
    if watch.run:
        files[str(watch.run.path)] = "Run folder"
    return files


def _rows(page: Page, files: dict[str, str]) -> None:
    for path, kind in files.items():
        with ui.element("li"):
            ui.label(kind)
            shown = visible(str(Path(path).absolute()))
            label = ui.label(shown).classes("mono")
            with ui.element("div"):
                if kind in ("Result", "Export"):
                    _download_button(page, Path(path))
                name = visible(Path(path).name)
                if kind != "Run folder":
                    draw = partial(page.draw_with, str(Path(path).absolute()))
                    icon_button("brush", f"Draw with {name}", draw)
                copy_button(page, label, f"Copy the path of {name}")


def _download_button(page: Page, path: Path) -> None:
    """A button that brings a LoRA file to the browser's machine, if the file lies where files may be seen."""
    with suppress(ConfigError, OSError):
        address = page.media.download_url(path)
        name = visible(path.name)
        button = icon_button("download", f"Download {name}", lambda: None)
        button.props.update({"href": address, "download": name})


def copy_button(page: Page, source: Element, name: str) -> None:
    """A button that copies the text of an element; only its number enters the script."""

    def tell(copied: object) -> None:
        text = "Without https browsers do not copy. Mark the text and press Ctrl+C."
        if copied is True:
            text = "Copied"
        page.show_message(text)

    button = icon_button("content_copy", name, lambda: None)
    script = _COPY.format(source.html_id)
    button.on("click", lambda event: tell(event.args), js_handler=script)

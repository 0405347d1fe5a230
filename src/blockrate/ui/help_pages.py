"""The documentation as pages of the app: they come with blockrate, so that they are there without a network."""

import re
from functools import cache
from pathlib import Path

from nicegui import ui
from starlette.responses import PlainTextResponse, Response

from blockrate.ui.preferences import Preferences

_PACKAGE = Path(__file__).parents[1]
# of the package, else of the clone that this is
_HOMES = (_PACKAGE / "docs", _PACKAGE.parents[1] / "docs")
_STATIC = Path(__file__).parent / "static"
_DARK = {"auto": None, "light": False, "dark": True}
# a browser looks for the heading before it is drawn; the beginning of its name is enough
_ANCHOR = """
const wanted = CSS.escape(decodeURIComponent(location.hash.slice(1)));
const look = (tries) => {
  const found = document.getElementById(wanted) ?? document.querySelector(`[id^="${wanted}"]`);
  if (found) found.scrollIntoView();
  else if (tries) setTimeout(look, 50, tries - 1);
};
if (wanted) look(60);
"""


@cache
def help_files() -> dict[str, Path]:
    """Return the pages by name; none where neither package nor clone has them."""
    for home in _HOMES:
        if (home / "index.md").is_file():
            return {file.stem: file for file in sorted(home.glob("*.md"))}
    return {}


def add_help_pages(preferences: Preferences) -> None:
    """Add a route for the pages that there are, and for no other file."""

    @ui.page("/help/{name}")
    def page(name: str) -> Response | None:
        file = help_files().get(name)
        if not file:
            return PlainTextResponse("Not here.", 404)
        text = file.read_text(encoding="utf-8")
        build_help_page(text, preferences)
        return None


def build_help_page(text: str, preferences: Preferences) -> None:
    """Lay out one page of the documentation."""
    for sheet in ("app.css", "help.css"):
        ui.add_css(_STATIC / sheet)
    ui.dark_mode(value=_DARK[preferences.theme])
    ui.page_title(f"{text.partition(chr(10))[0].lstrip('# ')} · blockrate")
    with ui.element("main").classes("help-page"):
        ui.link("All pages", "/help/index")
        ui.markdown(as_page(text), extras=_EXTRAS)
    ui.run_javascript(_ANCHOR)


_EXTRAS = ["fenced-code-blocks", "tables", "header-ids"]


def as_page(text: str) -> str:
    """Return the text of a page with links to other pages as the app has them, and without pictures.

    What leads out of the documentation is left as words.
    """
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n|^<img[^>]*>\n?", "", text, flags=re.M)
    text = re.sub(r"\]\((\w+)\.md(#[\w-]*)?\)", r"](/help/\1\2)", text)
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", text)

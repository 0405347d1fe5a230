"""What will and will not be learned of a folder, as the Data tab lists it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from nicegui import Event, ui

from blockrate.config.parts import Concept
from blockrate.core.errors import ConfigError
from blockrate.dataset.findings import Finding, in_words
from blockrate.dataset.folders import partner_folders
from blockrate.ui.media import Media
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import in_labels, sentence

Lines = tuple[str, ...]


def findings_list(changed: Event[[]], lines: Callable[[], Lines]) -> None:
    """Make a list of what is to be said of a concept, or of all, anew whenever that changes."""
    with ui.element("ul").classes("findings") as rows:
        rebuild_on_change(changed, lines, _rows)
    rows.props["aria-live"] = "polite"


def lines_to_show(
    media: Media, concepts: Iterable[Concept], findings: Sequence[Finding]
) -> Lines:
    """Return findings as lines. Of folders outside the roots no names are told, and no cures, which hold names."""
    if not all(_may_be_seen(media, concept) for concept in concepts):
        findings = [replace(found, examples=(), cure="") for found in findings]
    return tuple(in_words(replace(found, concept=None)) for found in findings)


def _may_be_seen(media: Media, concept: Concept) -> bool:
    try:
        for folder in (concept.path, *partner_folders(concept)):
            media.resolve_inside(folder)
    except ConfigError:
        return False
    return True


def _rows(lines: Lines) -> None:
    for line in lines:
        with ui.element("li"):
            ui.label(sentence(in_labels(line)))

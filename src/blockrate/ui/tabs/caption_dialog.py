"""A change of all captions, looked at before it is made: a trigger word, a prefix, a suffix, find and replace."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, run, ui

from blockrate.config.parts import CaptionForm
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.dataset.caption_changes import (
    CaptionChange,
    CaptionChanges,
    Edit,
    find_changes,
    prefix,
    replacement,
    suffix,
    trigger_word,
)
from blockrate.ui.caption_steps import Wrote
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.parts.follow import show_from_thread

_TRIGGER = "Trigger word"
_REPLACE = "Find and replace"
_PLAIN = {_TRIGGER: trigger_word, "Prefix": prefix, "Suffix": suffix}
_HINTS = {
    _TRIGGER: "Put before each caption that does not have the word, with a comma behind it.",
    "Prefix": "Put before each caption as it is written here, with the blank at its end, unless it begins so.",
    "Suffix": "Put behind each caption as it is written here, unless it ends so.",
    _REPLACE: "Plain text; found with small and capital letters alike.",
}
_SAMPLES = 8
_MOST_LEFT = 10
_LONGEST_LINE = 300


class Wanted(NamedTuple):
    """What is to be done to captions."""

    kind: str = _TRIGGER
    text: str = ""
    by: str = ""
    words: bool = False
    case: bool = False
    bare: bool = True

    def edit(self) -> Edit:
        """Return what it does to one. Raises ConfigError for what cannot be done."""
        if self.kind == _REPLACE:
            return replacement(self.text, self.by, words=self.words, case=self.case)
        return _PLAIN[self.kind](self.text)

    @property
    def named(self) -> str:
        """What it is called where it is undone."""
        text = visible(self.text.strip()[:40])
        by = visible(self.by.strip()[:40])
        return f"{text} → {by}" if self.kind == _REPLACE else f"{self.kind} {text}"


class Preview(NamedTuple):
    """What would come of what is wanted, or why nothing does."""

    wanted: Wanted
    found: CaptionChanges = CaptionChanges()
    problem: str = ""


class ChangeAll:
    """The dialog for the captions of some images. ``changed``: called when some were written."""

    def __init__(
        self,
        page: Page,
        images: Sequence[Path],
        form: CaptionForm,
        changed: Callable[[], object],
        *,
        word: str = "",
    ) -> None:
        self._page = page
        self._wrote = changed
        self._preview = Preview(Wanted())
        self._changed = Event[[]]()
        with small_dialog("Change all captions", "change-captions") as self._dialog:
            self._controls(word)
            self._told = ui.label().props("aria-live=polite").classes("totals")
            self._samples = ui.element("ul").classes("caption-samples")
            # it scrolls, by keyboard too
            self._samples.props.update(
                {"aria-label": "Before and after", "tabindex": 0}
            )
            buttons = choice_buttons(
                {"Cancel": self._dialog.close, "Change": self._take}
            )
            self._button = buttons["Change"].props(remove="autofocus")
            read = partial(_look, page.media, images, form)
            show_from_thread(self._changed, self._wanted, read, self._show)

    def open(self) -> None:
        """Show it."""
        self._dialog.open()

    def _controls(self, word: str) -> None:
        tell = self._changed.emit
        kinds = [*_PLAIN, _REPLACE]
        self._kind = ui.radio(kinds, value=_TRIGGER, on_change=self._turn)
        self._kind.props("inline dense aria-label=Change")
        look = "outlined dense hide-bottom-space autocomplete=off debounce=300 maxlength=1000"
        self._text = ui.input(_TRIGGER, value=word, on_change=tell)
        self._text.props(f"{look} autofocus")
        self._by = ui.input("Replace by", on_change=tell).props(look)
        with ui.element("div").classes("chips") as self._options:
            self._words = ui.switch("Whole words", on_change=tell)
            self._case = ui.switch("Same capitals", on_change=tell)
        self._bare = ui.switch(
            "Write it for images without a caption, too", value=True, on_change=tell
        )
        self._hint = ui.label().classes("dim")
        self._turn()

    def _turn(self) -> None:
        """Another kind of change is chosen."""
        kind = str(self._kind.value)
        replaces = kind == _REPLACE
        self._text.props["label"] = "Find" if replaces else kind
        self._by.set_visibility(replaces)
        self._options.set_visibility(replaces)
        self._bare.set_visibility(not replaces)
        self._hint.set_text(_HINTS[kind])
        self._changed.emit()

    def _wanted(self) -> Wanted:
        return Wanted(
            str(self._kind.value),
            str(self._text.value or ""),
            str(self._by.value or ""),
            bool(self._words.value),
            bool(self._case.value),
            bool(self._bare.value),
        )

    def _show(self, preview: Preview) -> None:
        """Say what would change."""
        self._preview = preview
        found = preview.found
        number = len(found.changes)
        self._told.set_text(preview.problem or _in_words(found))
        self._button.set_text(f"Change {_captions(number)}")
        self._button.set_enabled(number > 0)
        self._samples.clear()
        with self._samples:
            for change in found.changes[:_SAMPLES]:
                _sample(change)
            for line in found.refused[:_MOST_LEFT]:
                with ui.element("li").classes("field-note is-wrong"):
                    ui.label(f"Stays as it is: {line}")

    async def _take(self) -> None:
        """Write what was looked at, and nothing else."""
        preview = self._preview
        if preview.wanted != self._wanted():
            return  # the preview of what was typed last is on its way
        self._button.set_enabled(False)
        captions = self._page.media.captions
        changes = preview.found.changes
        words = f"{preview.wanted.named}, {_captions(len(changes))}"
        done: list[int] = []
        with ui.timer(
            0.5, lambda: self._told.set_text(f"{len(done):,} of {len(changes):,}")
        ):
            wrote = await run.io_bound(captions.take, words, changes, done.append)
        wrote = wrote or Wrote()
        # it may have been closed meanwhile
        self._dialog.close()
        with self._dialog.client.content:
            if wrote.changes:
                self._wrote()
            told = f"{_captions(len(wrote.changes))} changed"
            await tell_of(self._page, told, wrote)


async def tell_of(page: Page, words: str, wrote: Wrote) -> None:
    """Say what was written, and what was left and why."""
    if not wrote.left:
        return page.show_message(words)
    lines = [*wrote.left[:_MOST_LEFT]]
    if len(wrote.left) > _MOST_LEFT:
        lines.append(f"and {len(wrote.left) - _MOST_LEFT:,} more")
    # not within a dialog that is closing
    with ui.context.client.content:
        await ask(words, lines, ["OK"])
    return None


def _look(
    media: Media, images: Sequence[Path], form: CaptionForm, wanted: Wanted
) -> Iterator[Preview]:
    if not wanted.text:
        yield Preview(
            wanted, problem="Nothing is written before you have seen what changes."
        )
        return
    try:
        edit = wanted.edit()
    except ConfigError as error:
        yield Preview(wanted, problem=str(error))
        return
    bare = wanted.bare and wanted.kind != _REPLACE
    found = find_changes(images, form, edit, bare=bare, inside=media.look_inside())
    yield Preview(wanted, found)


def _in_words(found: CaptionChanges) -> str:
    words = [
        f"{_captions(len(found.changes))} would change",
        f"{found.same:,} stay as they are",
    ]
    if found.refused:
        words.append(f"{len(found.refused):,} cannot be changed")
    return ", ".join(words)


def _captions(number: int) -> str:
    return "1 caption" if number == 1 else f"{number:,} captions"


def _sample(change: CaptionChange) -> None:
    """Show the first line that changes, before and after."""
    before, after = first_difference(change)
    with ui.element("li"):
        ui.label(visible(change.file.name.encode(errors="replace").decode())).classes(
            "dim"
        )
        with ui.element("del" if before else "span"):
            ui.label(before or "No caption")
        with ui.element("ins"):
            ui.label(after)


def first_difference(change: CaptionChange) -> tuple[str, str]:
    """Return the first line that a change alters, as it was and as it will be, shortened."""
    before = (change.before or "").splitlines()
    after = (change.after or "").splitlines()
    for old, new in zip(before, after, strict=False):
        if old != new:
            return old.strip()[:_LONGEST_LINE], new.strip()[:_LONGEST_LINE]
    return "", (after or [""])[0].strip()[:_LONGEST_LINE]

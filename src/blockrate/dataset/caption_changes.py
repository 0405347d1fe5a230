"""Changes of many captions at once: each as it is and as it would be, to be seen first. Nothing is written here."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from blockrate.config.parts import CaptionForm
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.dataset.captions import (
    as_read,
    caption_files,
    caption_names,
    check_captions,
    text_as_it_lies,
)

_ENDS = re.compile(r"(\r\n|\r|\n)")
_MARK = "\ufeff"  # at the start of a file, which some editors write

Edit = Callable[[str], str]
# what a file is, links followed; raises BlockrateError for one that may not be touched
Inside = Callable[[Path], Path]


@dataclass(frozen=True)
class CaptionChange:
    """A caption file, and the whole text in it, with its mark and line ends; None where no file is.

    Swapped it is the way back.
    """

    file: Path
    before: str | None
    after: str | None

    def swapped(self) -> "CaptionChange":
        """Return the change that takes this one back."""
        return CaptionChange(self.file, self.after, self.before)


@dataclass(frozen=True)
class CaptionChanges:
    """What would change, how many captions stay as they are, and which cannot be changed and why."""

    changes: tuple[CaptionChange, ...] = ()
    same: int = 0
    refused: tuple[str, ...] = ()


def trigger_word(word: str) -> Edit:
    """Return what puts a word and a comma before a caption, unless the caption has the word. Raises ConfigError."""
    told = _one_line("trigger word", word).strip()
    has_word = _pattern(told, words=True, case=False)

    def edit(caption: str) -> str:
        if has_word.search(caption):
            return caption
        return f"{told}, {caption}" if caption else told

    return edit


def prefix(text: str) -> Edit:
    """Return what puts a text before a caption as it is written, unless it begins so. Raises ConfigError."""
    # no caption begins with a blank
    told = _one_line("prefix", text).lstrip()
    # of a caption that is nothing else, the blank at its end is gone
    return lambda caption: (
        caption
        if caption.startswith(told) or caption == told.strip()
        else f"{told}{caption}"
    )


def suffix(text: str) -> Edit:
    """Return what puts a text behind a caption as it is written, unless it ends so. Raises ConfigError."""
    told = _one_line("suffix", text).rstrip()
    return lambda caption: (
        caption
        if caption.endswith(told) or caption == told.strip()
        else f"{caption}{told}"
    )


def replacement(find: str, by: str, *, words: bool = False, case: bool = False) -> Edit:
    """Return what puts ``by`` wherever a caption holds ``find``, both plain text. Raises ConfigError.

    ``words``: only as whole words. ``case``: only with the same capitals.
    """
    # blanks may be looked for, as two that stand beside each other
    told = _one_line("find", find, blank=True)
    _one_line("replace by", f"-{by}")
    pattern = _pattern(told, words=words, case=case)
    return lambda caption: pattern.sub(lambda _: by, caption)


def find_changes(
    images: Sequence[Path],
    form: CaptionForm,
    edit: Edit,
    *,
    bare: bool = False,
    inside: Inside = Path,
) -> CaptionChanges:
    """Read the captions beside images, and return what ``edit`` would make of each. It reads files: for threads.

    ``form``: each line is a caption, or the file is one. ``bare``: images that have no caption get one.
    """
    changes = []
    refused = []
    same = 0
    for file in _files(images):
        try:
            real = inside(file)
            change = _change(real, form, edit, bare=bare)
        except (BlockrateError, OSError) as error:
            refused.append(str(error))
            continue
        if change.before == change.after:
            same += 1
        else:
            changes.append(change)
    return CaptionChanges(tuple(changes), same, tuple(refused))


def _files(images: Sequence[Path]) -> Iterator[Path]:
    """Yield the file that each image's caption is read from, or would be; once where images share it."""
    names = cache(caption_names)
    seen: set[Path] = set()
    for image in images:
        found = caption_files(image, names)
        file = found[0] if found else image.with_suffix(".txt")
        if file not in seen:
            seen.add(file)
            yield file


def _change(file: Path, form: CaptionForm, edit: Edit, *, bare: bool) -> CaptionChange:
    """Raises FileError for a file that is no captions, before or after."""
    before = text_as_it_lies(file) if file.exists() else None
    text = as_read(before or "")
    check_captions(file, text, form)
    after = before
    if text.strip():
        after = edited(before or "", form, edit)
    elif made := edit("").strip() if bare else "":
        after = f"{made}\n"
    if after is not None and after != before:
        check_captions(file, as_read(after), form)
    return CaptionChange(file, before, after)


def edited(text: str, form: CaptionForm, edit: Edit) -> str:
    """Return the text of a file with its captions edited; blank lines, line ends and a mark at its start stay."""
    mark = _MARK if text.startswith(_MARK) else ""
    parts = _ENDS.split(text.removeprefix(mark))
    if form == "WHOLE":
        # what stands before goes before the first line, what stands behind after the last
        whole = "".join(parts)
        return mark + _within(whole, edit)
    parts[::2] = map(partial(_within, edit=edit), parts[::2])
    return mark + "".join(parts)


def _within(line: str, edit: Edit) -> str:
    """Edit what stands between the blanks around it."""
    bare = line.strip()
    if not bare:
        return line
    start = line.index(bare)
    return line[:start] + edit(bare).strip() + line[start + len(bare) :]


def _one_line(what: str, text: str, *, blank: bool = False) -> str:
    """Raises ConfigError for no text, or for several lines."""
    if not (text if blank else text.strip()):
        raise ConfigError(what, "is empty", "Write what it is to be.")
    if "\n" in text or "\r" in text:
        raise ConfigError(what, "has several lines", "Write it in one.")
    return text


def _pattern(text: str, *, words: bool, case: bool) -> re.Pattern[str]:
    plain = re.escape(text)
    if words:
        plain = rf"(?<!\w){plain}(?!\w)"
    return re.compile(plain, 0 if case else re.IGNORECASE)

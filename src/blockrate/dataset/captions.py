"""Captions: which file beside an image holds them, and how it is read. Engine, report and app all ask here."""

import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blockrate.config.parts import CaptionForm, Concept
from blockrate.core.errors import FileError
from blockrate.dataset.folders import open_file

# The names of caption files, the first that is there counts: OneTrainer's, then kohya's other one.
CAPTION_SUFFIXES = (".txt", ".caption")
# T5 takes 512 tokens, some 2,500 characters; what is far beyond is another file under a caption's name.
MOST_BYTES = 2**20
MOST_CHARACTERS = 2**16
# how files begin that are no captions, whatever follows
_STARTS = {
    "<?xml": "XML",
    "<!doctype": "HTML",
    "<html": "HTML",
    "{\\rtf": "RTF",
}
_BRACKETS = re.compile(r"[\[\]{},\s]+")
_KEY = re.compile(r"""[\[{,\s]*(["'])[^"']*\1\s*:""")
# an object of JSON, or of Python, that begins with a name in quotes
_OBJECT = re.compile(r"""\s*[\[{][\[{\s]*(["'])[^"']*\1\s*:""")

Read = Callable[[Path, CaptionForm], tuple[str, ...]]
# a folder -> the names of its caption files, by what they stand beside
Names = Callable[[Path], Mapping[str, Sequence[str]]]


class CaptionText(NamedTuple):
    """What a caption file holds: its lines without the blank ones, and what it is written in if not in plain text."""

    lines: tuple[str, ...]
    notation: str


def captions_of(
    concept: Concept, image: Path, read: Read, names: Names
) -> tuple[str, ...]:
    """Return an image's captions, at least one, maybe empty. Raises ``FileError`` for a bad caption file."""
    source = concept.text.prompt_source
    if source == "filename":
        return (image.stem,)
    form = concept.text.caption_form
    if source == "concept":
        path = Path(concept.text.prompt_path)
        captions = read(path, form)
        if not captions:
            raise FileError(str(path), "has no captions")
        return captions
    files = caption_files(image, names)
    captions = read(files[0], form) if files else ()
    return captions or ("",)


def caption_files(image: Path, names: Names) -> list[Path]:
    """Return the caption files beside an image; the first is the one that is read.

    ``dog.jpg`` has ``dog.txt``, ``dog.caption``, ``dog.jpg.txt`` and ``dog.jpg.caption``, in this order. Capitals make
    no difference where there is none that fits to the letter.
    """
    beside = names(image.parent)
    found = [*beside.get(_alike(image.stem), ()), *beside.get(_alike(image.name), ())]
    to_the_letter = [name for name in found if _stem(name) in (image.stem, image.name)]
    ordered = sorted(to_the_letter or found, key=partial(_rank, image))
    return [image.with_name(name) for name in ordered]


def caption_names(folder: Path) -> dict[str, list[str]]:
    """Return the names of a folder's caption files, by what they are called without the suffix, capitals aside.

    Raises ``FileError``. Keep what it returns: a folder may hold very many.
    """
    beside: dict[str, list[str]] = {}
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise FileError(str(folder), f"cannot be read: {error.strerror}") from error
    for name in names:
        if is_caption_name(name):
            beside.setdefault(_alike(_stem(name)), []).append(name)
    return beside


def is_caption_name(name: str) -> bool:
    """Whether a file is called as captions are."""
    return name.lower().endswith(CAPTION_SUFFIXES)


def read_captions(path: Path, form: CaptionForm) -> tuple[str, ...]:
    """Return the captions in a file: each line that is not blank, or all of them as one with spaces between.

    Raises ``FileError`` for what is no UTF-8 text, is far too long, or is surely no captions line by line.
    """
    return captions_in(path, read_text(path), form)


def captions_in(path: Path, text: CaptionText, form: CaptionForm) -> tuple[str, ...]:
    """Return the captions in what was read from a file; see ``read_captions``."""
    captions = text.lines
    if form == "WHOLE":
        captions = (" ".join(text.lines),) if text.lines else ()
    elif text.notation:
        raise FileError(
            str(path),
            f"holds {text.notation}, not captions line by line; write plain text, "
            "or set the concept's text.caption_form to WHOLE to learn it as it stands",
        )
    longest = max(map(len, captions), default=0)
    if longest > MOST_CHARACTERS:
        problem = (
            f"has a caption of {longest:,} characters; {MOST_CHARACTERS:,} are the most"
        )
        raise FileError(str(path), problem)
    return captions


def read_text(path: Path) -> CaptionText:
    """Return what a caption file holds. Raises ``FileError`` with the offset of a wrong byte."""
    return _caption_text(plain_text(path))


def check_captions(path: Path, text: str, form: CaptionForm) -> None:
    """Raise ``FileError`` for a text, as ``plain_text`` gives it, that a run does not take as captions."""
    captions_in(path, _caption_text(text), form)


def _caption_text(text: str) -> CaptionText:
    lines = [line.strip() for line in text.split("\n")]
    return CaptionText(tuple(line for line in lines if line), _notation(text))


def plain_text(path: Path) -> str:
    """Return a caption file's text as it stands, with line feeds between lines. Raises ``FileError``."""
    return as_read(text_as_it_lies(path))


def as_read(text: str) -> str:
    """Return the text of a caption file without the mark at its start, with line feeds between lines."""
    return re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff"))


def text_as_it_lies(path: Path) -> str:
    """Return all that a caption file holds, as text: encoded anew it is the same bytes. Raises ``FileError``."""
    with open_file(path) as file:
        data = file.read(MOST_BYTES + 1)
        size = os.fstat(file.fileno()).st_size
    if len(data) > MOST_BYTES:
        problem = f"has {size:,} bytes; a caption file has at most {MOST_BYTES:,}"
        raise FileError(str(path), problem)
    try:
        text = data.decode()  # not "utf-8-sig": it counts offsets from behind the mark
        wrong = data.find(0)  # UTF-16 without a mark is valid UTF-8 full of zeros
    except UnicodeDecodeError as error:
        text = ""
        wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise FileError(
            str(path),
            f"is not UTF-8 text: byte 0x{data[wrong]:02x} at offset {wrong}, line {line}; "
            "save it as UTF-8",
        )
    return text


def _notation(text: str) -> str:
    """Return the name of the notation that a text is surely written in, or "" for plain text."""
    start = text.lstrip()
    for mark, name in _STARTS.items():
        if start[: len(mark)].lower() == mark:
            return name
    lines = [line for line in text.split("\n") if line.strip()]
    if _is_json(text) or (lines and all(map(_is_json, lines))):
        return "JSON"
    # cut off, with a comma too many, between the fences of Markdown, or behind a sentence
    if any(map(_OBJECT.match, lines)):
        return "JSON"
    has_key = any(map(_KEY.match, lines))
    if has_key and any(map(_BRACKETS.fullmatch, lines)):
        return "JSON"
    return ""


def _is_json(text: str) -> bool:
    """Whether a text is an object or a list in JSON."""
    if text.strip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return True
    return False


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _rank(image: Path, name: str) -> tuple[bool, int, bool, str]:
    stem, suffix = os.path.splitext(name)
    order = CAPTION_SUFFIXES.index(suffix.lower())
    is_beside_the_name = _alike(stem) != _alike(image.stem)
    return is_beside_the_name, order, suffix not in CAPTION_SUFFIXES, name

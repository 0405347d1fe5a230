"""What there is to say of a concept's captions."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blockrate.core.errors import FileError
from blockrate.dataset.captions import (
    CaptionText,
    caption_files,
    caption_names,
    captions_in,
    is_caption_name,
    read_text,
)
from blockrate.dataset.findings import Finding, Level, Looked

# Files of an image's name that say something about it, in forms that are not read ...
_NOTES = {".json", ".jsonl", ".csv", ".xml", ".yaml", ".yml", ".toml"}
_NOTES |= {".md", ".text", ".cap", ".tag", ".tags", ".rtf", ".doc", ".docx"}
# ... and of any name, that may say it about all of them.
_TABLES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx"}
# the kinds of findings that all captions may lie where they are not read
ELSEWHERE = ("captions not read", "caption without image")
# by path, time of change and bytes: a screen looks again at every change of the config
_MOST_KNOWN = 200_000
_known: dict[tuple[Path, int, int], CaptionText] = {}


@dataclass
class _Told:
    """What is known of a concept's captions, image by image."""

    none: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    # more than a line; the numbers of lines
    several: dict[Path, int] = field(default_factory=dict)
    notation: list[Path] = field(default_factory=list)
    crowded: list[Path] = field(default_factory=list)
    images_of: dict[Path, list[Path]] = field(default_factory=dict)
    unused: set[Path] = field(default_factory=set)
    bad: list[FileError] = field(default_factory=list)


@dataclass(frozen=True)
class CaptionsFound:
    """How many images have no caption file, what is to be said, and what keeps a run from starting."""

    bare: int
    findings: tuple[Finding, ...]
    bad: tuple[FileError, ...]


def look_at_captions(looked: Looked) -> CaptionsFound:
    """Read the captions of a concept's images."""
    source = looked.concept.text.prompt_source
    if source == "sample":
        told = _read_all(looked)
        findings = [*_unlike_the_files(looked, told), *_left_over(looked, told)]
        return CaptionsFound(len(told.none), tuple(findings), tuple(told.bad))
    bad = []
    if source == "concept":
        try:
            _captions_for_all(looked)
        except FileError as error:
            bad.append(error)
    return CaptionsFound(0, tuple(_not_asked_for(looked)), tuple(bad))


def _captions_for_all(looked: Looked) -> None:
    """Raise ``FileError`` if there is no caption in the file for all images."""
    path = Path(looked.concept.text.prompt_path)
    if not captions_in(path, known_text(path), looked.concept.text.caption_form):
        raise FileError(str(path), "has no captions")


def _read_all(looked: Looked) -> _Told:
    names = functools.cache(caption_names)
    told = _Told()
    for image in looked.images:
        try:
            files = caption_files(image, names)
            if not files:
                told.none.append(image)
                continue
            if len(files) > 1:
                told.crowded.append(image)
                told.unused.update(files[1:])
            told.images_of.setdefault(files[0], []).append(image)
            _take(looked, told, image, files[0])
        except FileError as error:
            told.bad.append(error)
    return told


def _take(looked: Looked, told: _Told, image: Path, file: Path) -> None:
    """Note what an image's caption file is like. Raises ``FileError`` if it is bad."""
    text = known_text(file)
    captions_in(file, text, looked.concept.text.caption_form)
    if not text.lines:
        told.empty.append(image)
    if len(text.lines) > 1:
        told.several[file] = len(text.lines)
    if text.notation:
        told.notation.append(file)


def known_text(file: Path) -> CaptionText:
    """Return what a caption file holds, read only when it has changed. Raises ``FileError``."""
    try:
        now = file.stat()
    except OSError:
        return read_text(file)  # which says what is wrong
    key = file, now.st_mtime_ns, now.st_size
    if key not in _known:
        if len(_known) > _MOST_KNOWN:
            _known.clear()
        _known[key] = read_text(file)
    return _known[key]


def _unlike_the_files(looked: Looked, told: _Told) -> Iterator[Finding]:
    """Yield what is learned otherwise than the caption files say."""
    if told.several and looked.concept.text.caption_form == "LINES":
        yield _several_lines(looked, told)
    if told.notation:
        yield looked.finding(
            "warning",
            "notation",
            told.notation,
            "in JSON or another notation, whose signs and names are learned, too",
            "Write plain text if that is not meant.",
            what="captions",
            total=len(told.images_of),
        )
    without = [*told.none, *told.empty]
    if without:
        problem = "no caption in a .txt of the same name; trained without one"
        if told.empty:
            problem += f" (empty files: {len(told.empty):,})"
        cure = f"Write {looked.shown(without[0].with_suffix('.txt'))} and the like."
        yield looked.finding("warning", "no caption", without, problem, cure)
    shared = [images for images in told.images_of.values() if len(images) > 1]
    if shared:
        sharing = [image for images in shared for image in images]
        problem = "share a caption with another image of the same name"
        cure = "Rename one of them, or remove it if it is the same image."
        yield looked.finding("warning", "shared caption", sharing, problem, cure)
    if told.crowded:
        problem = "more than one caption file; .txt is read before .caption, a.txt before a.jpg.txt"
        cure = "Remove those that are not meant."
        yield looked.finding("warning", "two captions", told.crowded, problem, cure)


def _several_lines(looked: Looked, told: _Told) -> Finding:
    at = f"concepts.{looked.index}"
    used = looked.concept.text_variations
    most = max(told.several.values())
    level: Level = "note"
    problem = "several lines; each line is a caption of its own"
    cure = f"Set {at}.text.caption_form to WHOLE to read a file as one caption"
    if used < most:
        level = "warning"
        verb = "is" if used == 1 else "are"
        problem += (
            f", and with text_variations {used} only {used} of them {verb} ever used"
        )
        cure += f", or {at}.text_variations to {most} to use every line"
    return looked.finding(
        level,
        "several lines",
        list(told.several),
        problem,
        f"{cure}.",
        what="captions",
        total=len(told.images_of),
    )


def _left_over(looked: Looked, told: _Told) -> Iterator[Finding]:
    """Yield which files may have been meant as captions, and are not read."""
    read = {*told.images_of, *told.unused}
    texts = [path for path in looked.others if is_caption_name(path.name)]
    orphans = [path for path in texts if path not in read]
    without = len(told.none) + len(told.empty)
    none_is_captioned = without == len(looked.images)
    if orphans:
        level: Level = "warning" if without else "note"
        # one or two may be about the folder
        if none_is_captioned and 2 * len(orphans) >= len(looked.images):
            level = "error"
        problem = "captions, but no image has the same name; not used"
        cure = "Rename them after their images, or leave them."
        yield _elsewhere(looked, level, ELSEWHERE[1], orphans, problem, cure)
    alike = _like_captions(looked, tables=without > 0)
    if alike:
        # beside captions they mostly say where an image is from
        level = "warning" if without else "note"
        if none_is_captioned:
            level = "error"
        problem = "look like captions, and are not read"
        cure = "Captions are plain text in a .txt beside each image: write those."
        yield _elsewhere(looked, level, ELSEWHERE[0], alike, problem, cure)


def _elsewhere(
    looked: Looked, level: Level, kind: str, found: list[Path], problem: str, cure: str
) -> Finding:
    if level == "error":
        problem = f"{problem}, and no image has a caption"
        cure = (
            f"{cure} To train without captions, move these files out of the folder, "
            f"or set concepts.{looked.index}.text.prompt_source to concept or filename."
        )
    total = len(looked.others)
    return looked.finding(
        level, kind, found, problem, cure, what="other files", total=total
    )


def _like_captions(looked: Looked, *, tables: bool) -> list[Path]:
    """Return the files that say something about an image, or, if ``tables``, about all."""
    named = {path.with_suffix("") for path in looked.images} | set(looked.images)
    found = []
    for path in looked.others:
        suffix = path.suffix.lower()
        is_of_an_image = suffix in _NOTES and path.with_suffix("") in named
        if is_of_an_image or (tables and suffix in _TABLES):
            found.append(path)
    return found


def _not_asked_for(looked: Looked) -> Iterator[Finding]:
    """Yield that captions lie beside images, where they are not asked for."""
    names = functools.cache(caption_names)
    captioned = [image for image in looked.images if caption_files(image, names)]
    if captioned:
        source = looked.concept.text.prompt_source
        problem = (
            f"a caption beside them that is not used: text.prompt_source is {source}"
        )
        cure = f"Set concepts.{looked.index}.text.prompt_source to sample to use them."
        yield looked.finding("note", "captions not asked for", captioned, problem, cure)

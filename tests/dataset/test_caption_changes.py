"""Captions changed in one go: what would change is seen first, and what a file holds beside stays to the byte."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from blockrate.config.parts import CaptionForm
from blockrate.core.errors import ConfigError
from blockrate.dataset.caption_changes import (
    Edit,
    edited,
    find_changes,
    prefix,
    replacement,
    suffix,
    trigger_word,
)
from blockrate.dataset.captions import read_captions


def images(folder: Path, captions: Mapping[str, bytes | None]) -> list[Path]:
    for name, content in captions.items():
        (folder / f"{name}.png").write_bytes(b"")
        if content is not None:
            (folder / f"{name}.txt").write_bytes(content)
    return [folder / f"{name}.png" for name in captions]


@pytest.mark.parametrize(
    ("edit", "caption", "wanted"),
    [
        (trigger_word(" ohwx "), "a dog", "ohwx, a dog"),
        (trigger_word("ohwx"), "a photo of OHWX dog", "a photo of OHWX dog"),
        (trigger_word("ohwx"), "an ohwxian dog", "ohwx, an ohwxian dog"),
        (trigger_word("ohwx"), "", "ohwx"),
        (trigger_word("a+b"), "aab", "a+b, aab"),
        (prefix("photo of "), "a dog", "photo of a dog"),
        (prefix("photo of "), "photo of a dog", "photo of a dog"),
        (suffix(", 35 mm"), "a dog", "a dog, 35 mm"),
        (suffix(", 35 mm"), "a dog, 35 mm", "a dog, 35 mm"),
        (replacement("dog", "cat"), "a Dog, a hotdog", "a cat, a hotcat"),
        (replacement("dog", "cat", words=True), "a Dog, a hotdog", "a cat, a hotdog"),
        (replacement("dog", "cat", case=True), "a Dog, a hotdog", "a Dog, a hotcat"),
        (replacement(".*", r"\1"), "a.*b", r"a\1b"),
        (replacement("  ", " "), "a  dog", "a dog"),
        (replacement("dog", ""), "dog", ""),
    ],
)
def test_an_edit_makes_of_a_caption_what_it_says(
    edit: Edit, caption: str, wanted: str
) -> None:
    assert edit(caption) == wanted


@pytest.mark.parametrize("make", [trigger_word, prefix, suffix])
@pytest.mark.parametrize("text", ["", "  ", "a\nb"])
def test_what_is_put_in_is_one_line(make: Callable[[str], Edit], text: str) -> None:
    with pytest.raises(ConfigError):
        make(text)
    with pytest.raises(ConfigError):
        replacement("a", "b\nc")
    with pytest.raises(ConfigError):
        replacement("", "b")


def test_lines_are_captions_or_one_and_all_else_stays() -> None:
    text = "\ufeff  a dog \r\n\r\na cat\rboth"
    assert edited(text, "LINES", prefix("my ")) == (
        "\ufeff  my a dog \r\n\r\nmy a cat\rmy both"
    )
    assert edited(text, "WHOLE", prefix("my ")) == (
        "\ufeff  my a dog \r\n\r\na cat\rboth"
    )
    assert edited("a dog\nand more\n", "WHOLE", suffix("!")) == "a dog\nand more!\n"


@pytest.mark.parametrize("form", ["LINES", "WHOLE"])
def test_every_change_is_what_a_run_then_reads(
    tmp_path: Path, form: CaptionForm
) -> None:
    every = images(tmp_path, {"a": "\ufeffa dög\r\n".encode(), "b": b"b\nc", "c": None})
    found = find_changes(every, form, trigger_word("ohwx"), bare=True)
    assert not found.refused
    for change in found.changes:
        assert change.after is not None
        change.file.write_bytes(change.after.encode())
        assert all("ohwx" in line for line in read_captions(change.file, form))
    again = find_changes(every, form, trigger_word("ohwx"), bare=True)
    assert (again.changes, again.same) == ((), 3)
    for change in found.changes:
        back = change.swapped()
        assert (back.before, back.after) == (change.after, change.before)


@pytest.mark.parametrize("edit", [prefix("  my "), suffix(" in a park  ")])
def test_blanks_at_the_outer_end_put_nothing_in_twice(edit: Edit) -> None:
    once = edited("a dog\n", "LINES", edit)
    assert once in ("my a dog\n", "a dog in a park\n")
    assert edited(once, "LINES", edit) == once


def test_images_without_a_caption_get_one_only_when_asked(tmp_path: Path) -> None:
    every = images(tmp_path, {"a": None, "b": b"", "c": b" \n"})
    assert not find_changes(every, "LINES", trigger_word("ohwx")).changes
    found = find_changes(every, "LINES", trigger_word("ohwx"), bare=True)
    assert [change.after for change in found.changes] == ["ohwx\n"] * 3
    assert [change.before for change in found.changes] == [None, "", " \n"]


def test_a_caption_of_two_images_is_changed_once(tmp_path: Path) -> None:
    every = images(tmp_path, {"a": b"a dog"})
    found = find_changes([*every, tmp_path / "a.jpg"], "LINES", prefix("x"))
    assert [change.file.name for change in found.changes] == ["a.txt"]


def test_what_no_run_reads_is_left_and_named(tmp_path: Path) -> None:
    def inside(file: Path) -> Path:
        if file.stem == "d":
            raise ConfigError("path", "is elsewhere")
        return file

    long = b"x" * 65_535
    files = {"a": b"\xff\xfe", "b": b'{"caption": "a dog"}', "c": long, "d": b"d"}
    every = images(tmp_path, files)
    found = find_changes(every, "LINES", prefix("photo of "), inside=inside)
    assert not found.changes
    for problem, words in zip(
        found.refused, ("not UTF-8", "holds JSON", "65,5", "elsewhere"), strict=True
    ):
        assert words in problem

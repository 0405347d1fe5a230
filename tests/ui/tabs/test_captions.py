"""Captions, written only over what was read, and only when the text is another."""

from pathlib import Path

import pytest

from blockrate.core.errors import FileError
from blockrate.ui.caption_steps import CaptionSteps
from blockrate.ui.tabs.captions import Written, change_of, read_written


def save(found: Written, text: str) -> bool:
    return CaptionSteps().save(change_of(found, text))


def test_a_caption_is_written_only_over_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    nothing = read_written(file)
    assert nothing.content is None
    assert save(nothing, " a dog \n\nanother")
    found = read_written(file)
    assert (found.text, found.content) == ("a dog\n\nanother", "a dog\n\nanother\n")
    file.write_bytes(b"of another program")
    assert not save(found, "mine")
    assert not save(found, found.text)
    assert file.read_bytes() == b"of another program"


def test_paragraphs_stay_as_they_are_when_a_caption_is_edited(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    as_it_lies = "\ufeffone\r\n\r\ntwo \u2028 three\r\n"
    file.write_bytes(as_it_lies.encode())
    found = read_written(file)
    assert found.text == "one\n\ntwo \u2028 three"
    # nothing was written, so nothing is
    assert save(found, found.text)
    assert file.read_bytes() == as_it_lies.encode()
    assert save(found, f"{found.text}!")
    assert file.read_text(encoding="utf-8") == f"{found.text}!\n"
    assert save(read_written(file), " \n")
    assert file.read_bytes() == b""


def test_an_image_without_a_caption_gets_no_empty_file(tmp_path: Path) -> None:
    found = read_written(tmp_path / "a.txt")
    assert save(found, " ")
    assert list(tmp_path.iterdir()) == []


def test_a_caption_that_is_no_text_is_not_edited(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8"):
        read_written(tmp_path / "a.txt")

"""Captions, written only over what was read."""

from pathlib import Path

import pytest

from blockrate.core.errors import FileError
from blockrate.ui.tabs.captions import read_caption, save_text


def test_a_caption_is_written_only_over_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    assert read_caption(file) == ("", None)
    assert save_text(file, " a dog \n\nanother", None)
    text, was = read_caption(file)
    assert (text, was) == ("a dog\n\nanother", b"a dog\n\nanother\n")
    file.write_bytes(b"of another program")
    assert not save_text(file, "mine", was)
    assert file.read_bytes() == b"of another program"


def test_paragraphs_stay_as_they_are_when_a_caption_is_edited(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\r\n\r\ntwo \u2028 three\r\n".encode())
    text, was = read_caption(file)
    assert text == "one\n\ntwo \u2028 three"
    assert save_text(file, text, was)
    assert file.read_text(encoding="utf-8") == f"{text}\n"
    assert save_text(file, " \n", file.read_bytes())
    assert file.read_bytes() == b""


def test_a_caption_that_is_no_text_is_not_edited(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8"):
        read_caption(tmp_path / "a.txt")

"""Which file holds an image's captions, and how it is read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.parts import Concept
from blockrate.core.errors import FileError
from blockrate.dataset import captions as module
from blockrate.dataset.captions import (
    caption_files,
    caption_names,
    captions_of,
    read_captions,
    read_text,
)

PARAGRAPHS = "A man stands in an alley.\n\nThe light is golden,\r\nlate.\n"


def read(folder: Path, image: str, **text: Any) -> tuple[str, ...]:
    concept = Concept(path=str(folder), text=text)
    return captions_of(concept, folder / image, read_captions, caption_names)


def names(folder: Path, image: str) -> list[str]:
    return [file.name for file in caption_files(folder / image, caption_names)]


def written(folder: Path, text: str) -> Path:
    file = folder / "a.txt"
    file.write_bytes(text.encode())
    return file


def test_captions_come_from_where_the_concept_says(tmp_path: Path) -> None:
    every = tmp_path / "every.txt"
    (tmp_path / "a.txt").write_text("a dog\n\nanother\n")
    every.write_text("one for all")
    assert read(tmp_path, "a.png") == ("a dog", "another")
    assert read(tmp_path, "a.png", prompt_source="filename") == ("a",)
    one = {"prompt_source": "concept", "prompt_path": str(every)}
    assert read(tmp_path, "a.png", **one) == ("one for all",)
    assert read(tmp_path, "b.png") == ("",)


@pytest.mark.parametrize(
    "name",
    [
        "dog.txt",
        "dog.TXT",
        "dog.Txt",
        "dog.caption",
        "dog.CAPTION",
        "dog.jpg.txt",
        "dog.jpg.TXT",
        "dog.jpg.caption",
        "Dog.txt",
        "DOG.JPG.txt",
    ],
)
def test_captions_have_these_names_in_any_capitals(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a dog")
    assert read(tmp_path, "dog.jpg") == ("a dog",)


def test_of_several_caption_files_the_first_of_a_fixed_order_is_read(
    tmp_path: Path,
) -> None:
    order = ["dog.txt", "dog.TXT", "dog.caption", "dog.jpg.txt", "dog.jpg.caption"]
    for name in order:
        (tmp_path / name).write_text(name)
    if len(os.listdir(tmp_path)) == len(order):  # capitals are told apart here
        assert names(tmp_path, "dog.jpg") == order
    assert read(tmp_path, "dog.jpg") == ("dog.txt",)


def test_a_name_to_the_letter_comes_before_one_in_other_capitals(
    tmp_path: Path,
) -> None:
    (tmp_path / "dog.caption").write_text("mine")
    (tmp_path / "DOG.txt").write_text("another's")
    assert names(tmp_path, "dog.jpg") == ["dog.caption"]


def test_a_longer_name_is_another_image_s(tmp_path: Path) -> None:
    (tmp_path / "dog 2.txt").write_text("no")
    (tmp_path / "dog.2.txt").write_text("no")
    (tmp_path / "dog.json").write_text("no")
    assert names(tmp_path, "dog.jpg") == []
    assert names(tmp_path, "dog.2.jpg") == ["dog.2.txt"]


def test_lines_are_captions_or_a_file_is_one(tmp_path: Path) -> None:
    file = written(tmp_path, PARAGRAPHS)
    lines = ("A man stands in an alley.", "The light is golden,", "late.")
    assert read_captions(file, "LINES") == lines
    assert read_captions(file, "WHOLE") == (" ".join(lines),)
    assert read_captions(written(tmp_path, " \n\n"), "WHOLE") == ()
    assert read(tmp_path, "a.png", caption_form="WHOLE") == ("",)


PRETTY = json.dumps({"subjects": ["a man"], "light": {"hour": "late"}}, indent=2)


@pytest.mark.parametrize(
    ("text", "notation"),
    [
        (PRETTY, "JSON"),
        ('{"caption": "a dog"}', "JSON"),
        ('["a dog", "a cat"]', "JSON"),
        ('\ufeff  \n{"caption": "a dog"}\n', "JSON"),
        ('{"text": "a dog"}\n{"text": "a cat"}\n', "JSON"),
        (f"```json\n{PRETTY}\n```", "JSON"),
        (PRETTY[:-1], "JSON"),
        (PRETTY.replace('"late"', '"late",'), "JSON"),
        (PRETTY.replace('"', "'"), "JSON"),
        ("{'caption': 'a dog', 'tags': ['dog']}", "JSON"),
        ('{"caption": "a dog", "tags": [dog]}', "JSON"),
        ('[{ "caption": "a dog', "JSON"),
        ('Here it is:\n{"caption": "a dog"}', "JSON"),
        ('```json\n{"caption": "a dog"}\n```', "JSON"),
        ('<?xml version="1.0"?>\n<a>dog</a>', "XML"),
        ("<!DOCTYPE html>\n<p>dog", "HTML"),
        ("{\\rtf1\\ansi a dog}", "RTF"),
    ],
)
def test_what_is_surely_no_captions_is_refused_line_by_line(
    tmp_path: Path, text: str, notation: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(FileError, match=f"holds {notation}") as error:
        read_captions(file, "LINES")
    assert "caption_form to WHOLE" in error.value.problem
    (whole,) = read_captions(file, "WHOLE")
    assert whole.split() == text.removeprefix("\ufeff").split()


@pytest.mark.parametrize(
    "text",
    [
        "{red|blue} car, [trigger], (masterpiece:1.2)",
        "[ohwx] man\n{a|b}",
        "{'red'|\"blue\"} car: parked, [cat:dog:0.5], {tag}",
        '"Quoted": a title\na dog',
        "name: dog\nbreed: collie",
        "<lora:x:1> a dog",
        "[a, b]",
        "5 dogs",
        '"a dog"',
        "null",
    ],
)
def test_what_people_write_is_no_other_notation(tmp_path: Path, text: str) -> None:
    assert read_captions(written(tmp_path, text), "LINES") == tuple(text.split("\n"))


def test_a_file_of_megabytes_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "word " * 4_000_000)
    with pytest.raises(FileError, match=r"has 20,000,000 bytes; .* at most 1,048,576"):
        read_captions(file, "LINES")
    monkeypatch.setattr(module, "MOST_BYTES", 4)
    assert read_captions(written(tmp_path, "four"), "LINES") == ("four",)


@pytest.mark.parametrize("form", ["LINES", "WHOLE"])
def test_no_caption_is_longer_than_any_encoder_takes(tmp_path: Path, form: Any) -> None:
    file = written(tmp_path, "short\n" + "x" * 65_536)
    if form == "LINES":
        assert len(read_captions(file, form)) == 2
        file = written(tmp_path, "short\n" + "x" * 65_537)
    with pytest.raises(FileError, match="characters; 65,536 are the most"):
        read_captions(file, form)


def test_nesting_without_end_is_text(tmp_path: Path) -> None:
    text = "[" * 60_000
    assert read_captions(written(tmp_path, text), "LINES") == (text,)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_captions_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(content)
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        with pytest.raises(FileError, match="is not UTF-8 text: byte 0x"):
            read_captions(file, "WHOLE")
        return
    whole = " ".join(read_captions(file, "WHOLE"))
    assert whole.split() == text.split()
    if read_text(file).notation:
        with pytest.raises(FileError, match="holds"):
            read_captions(file, "LINES")
        return
    lines = read_captions(file, "LINES")
    assert all(
        line.strip() == line != "" and not {"\n", "\r"} & set(line) for line in lines
    )
    assert " ".join(lines) == whole

"""What is no config is refused in a sentence that says what it is, within limits, and without waiting."""

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blockrate.config.files import load_config, parse_config
from blockrate.config.reading import LARGEST, MOST_NAMES, read_object
from blockrate.core.errors import ConfigError

posix = pytest.mark.skipif(os.name == "nt", reason="files of other kinds")


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) < 500 + len(str(path))
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty", "Write {"]),
        (" \n\t\n", ["is empty"]),
        ("\0\0\0\0", ["is empty"]),
        ("\ufeff", ["is empty"]),
        ("learning_rate: 1e-3\nepochs: 1\n", ["YAML", "JSON", "docs/from_kohya.md"]),
        ("# ai-toolkit\n---\njob: extension\n", ["YAML"]),
        ("- path: x\n", ["YAML"]),
        ("learning_rate = 1e-3\n[[concepts]]\n", ["TOML", "docs/from_kohya.md"]),
        ("# kohya\n[general]\nenable_bucket = true\n", ["TOML"]),
        ("[[datasets]]\nresolution = 512\n", ["TOML"]),
        ("#!/bin/bash\naccelerate launch x", ["script"]),
        ("<!DOCTYPE html>", ["web page"]),
        ("just words", ["line 1 column 1", "docs/first_lora.md"]),
        ('// mine\n{"epochs": 1}', ["line 1", "JSON has no comments"]),
        ('{\n"epochs": 1, // short\n"seed": 1}', ["line 2", "JSON has no comments"]),
        ('{"epochs": 1 # short\n}', ["JSON has no comments"]),
        ('/* mine */ {"epochs": 1}', ["JSON has no comments"]),
        ('{\n"epochs": 1,\n}', ["line 2: a comma too many"]),
        ('{"samples": [1, ], "epochs": 1}', ["a comma too many"]),
        ('{"epochs": 1,, "seed": 1}', ["a comma too many"]),
        ('{"epochs": 1\n"seed": 2}', ["line 1: a comma is missing"]),
        ('{"epochs": }', ["a value is missing"]),
        ("{'epochs': 1}", ["double quotes"]),
        ("{“epochs”: 1}", ["double quotes"]),
        ('{"train": True}', ["Write true."]),
        ('{"train": yes}', ["Write true."]),
        ('{"train": off}', ["Write false."]),
        ('{"seed": None}', ["Write null."]),
        ('{"scheduler": COSINE}', ['Write "COSINE".']),
        ("{epochs: 1}", ['Write "epochs".']),
        ('{"epochs" = 1}', ["= stands where : should"]),
        ('{"epochs": 1; "seed": 2}', ["; stands where , should"]),
        ('{"rate": 0,5}', ["Write 0.5."]),
        ('{"rate": 0,5, "seed": 1}', ["Write 0.5."]),
        ('{"rate": 50%}', ["Write 0.5."]),
        ('{"rate": 1e-4f}', ["Write 0.0001."]),
        ('{"rate": .5}', ["Write 0.5."]),
        ('{"seed": +1}', ["Write 1."]),
        ('{"seed": 007}', ["Write 7."]),
        ('{"seed": 1_000}', ["Write 1000."]),
        (r'{"path": "C:\Users\me"}', [r"Write \\ or /"]),
        (r'{"path": "C:\users\me"}', [r"Write \\ or /"]),
        (r'{"path": "C:\temp\new"}', [r"Write \\ or /"]),
        (r'{"path": "C:\\data\new"}', [r"Write \\ or /"]),
        ('{"name": "a\nb"}', ["line 1", r"\n"]),
        ('{"name": "a', ["never ends"]),
        ('{"epochs": 1, "seed"', ["cut off"]),
        ('{"transformer": {"train": true}', ["cut off"]),
        ('{"epochs": 1}\n{"epochs": 2}', ["line 2", "a second object"]),
        ('{"epochs": 1}}', ["more after the end"]),
        ('{"samples": [1}', ["} closes what another bracket opened"]),
        ('[{"path": "x"}]', ["a list", "concept_file_name"]),
        ('[{"prompt": "x"}]', ["a list", "sample_definition_file_name"]),
        ("5", ["does not hold a JSON object"]),
    ],
)
def test_what_is_no_json_is_told_as_what_it_is(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode())
    text = refusal(path)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x10\0\0\0\0\0\0\0{}", ["a safetensors file", "blockrate inspect"]),
        (b"GGUF\x03", ["GGUF"]),
        (b"PK\x03\x04", ["zip archive"]),
        (b"\x1f\x8b\x08", ["gzip archive"]),
        (b"\x89PNG\r\n\x1a\n", ["an image"]),
        (b"\xff\xd8\xff\xe0", ["an image"]),
        (b"%PDF-1.7", ["a PDF"]),
        (b"\x80\x02}q", ["a pickle"]),
        ('{"epochs": 1}'.encode("utf-16"), ["UTF-16", "Save it as UTF-8."]),
        ('{"name": "é"}'.encode("latin-1"), ["is not UTF-8 text (byte 10)"]),
    ],
)
def test_a_file_that_is_no_text_is_told_as_what_it_is(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    text = refusal(path)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    "text",
    [r'{"path": "C:\\photos"}', '{"prompt": "a:\\nthe sea"}', '{"prompt": "x\\ty"}'],
)
def test_a_path_and_a_prompt_that_are_meant_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    assert read_object(path) == json.loads(text)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ({}, "a folder of images is named in it: concepts.0.path"),
        ({"config.json": "{}"}, "Did you mean {folder}/config.json?"),
        ({"model_index.json": "{}"}, "Did you mean base_model_name: {folder}?"),
        ({"b.json": "{}", "a.json": "{}"}, "{folder}/a.json, {folder}/b.json."),
    ],
)
def test_for_a_folder_what_is_in_it_is_offered(
    tmp_path: Path, inside: dict[str, str], words: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in inside.items():
        (folder / name).write_text(content)
    text = refusal(folder).replace(os.sep, "/")
    assert "is a folder. " in text
    assert words.replace("{folder}", folder.as_posix()) in text


@pytest.mark.parametrize(
    "content",
    [
        "a" + " " * 5_000_000 + "b",
        '{"epochs": 1 + ' + "1" * 5_000_000 + "x}",
        '{"name": ' + "x" * 5_000_000 + "}",
        "[" + "1 " * 2_000_000 + "]",
        "#" * 5_000_000,
        "/*" * 2_000_000,
        "\n" * 5_000_000 + "{",
    ],
    ids=range(7),
)
def test_a_long_text_that_is_no_json_is_told_as_soon_as_a_short_one(
    tmp_path: Path, content: str
) -> None:
    # one that is gone through again for each of its signs would take for ever
    path = tmp_path / "config.json"
    path.write_text(content)
    assert "JSON" in refusal(path)


def too_much() -> dict[str, tuple[str, str]]:
    many = MOST_NAMES + 1
    names = ", ".join(f'"name{index}": 1' for index in range(many))
    entries = ", ".join(['{"path": "x"}'] * many)
    several = ", ".join(f"[{','.join('1' * MOST_NAMES)}]" for _ in range(21))
    return {
        "names": (f"{{{names}}}", "more than 10,000 names or entries"),
        "concepts": (f'{{"concepts": [{entries}]}}', "more than 10,000 names"),
        "in all": (f'{{"x": [{several}]}}', "more than 200,000 names"),
        "a text": (f'{{"prompt": "{"x" * 200_000}"}}', "a text of 200,000 letters"),
        "a name": (f'{{"{"x" * 5_000}": 1}}', "a name of 5,000 letters"),
        "digits": (f'{{"seed": {"9" * 5000}}}', "a number of 5,000 digits"),
        "bytes": (f'{{"x": "{"x" * LARGEST}"}}', "larger than 10.0 MiB"),
        "the last twice": (f'{{{names}, "name7": 1}}', "'name7' is given twice"),
    }


@pytest.mark.parametrize("what", too_much())
def test_more_than_a_config_ever_holds_is_refused(tmp_path: Path, what: str) -> None:
    content, words = too_much()[what]
    path = tmp_path / "config.json"
    path.write_text(content)
    assert words in refusal(path)
    list_file = {"concept_file_name": str(path)}
    with pytest.raises(ConfigError, match="concept_file_name: ") as caught:
        parse_config(list_file)
    assert words in str(caught.value)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    # a longer path would not fit
    here = Path.cwd()
    os.chdir(path.parent)
    server.bind(path.name)
    os.chdir(here)
    server.close()


@posix
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_pipe, "is a named pipe"),
        (a_device, "is a device"),
        (a_socket, "is a socket"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_what_is_no_plain_file_is_never_waited_for(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "config.json"
    make(path)
    assert words in refusal(path)
    for setting in ("concept_file_name", "sample_definition_file_name"):
        with pytest.raises(ConfigError, match=f"{setting}: .*{words}"):
            parse_config({setting: str(path)})


@posix
def test_a_pipe_that_the_shell_has_opened_is_read_where_that_is_asked_for() -> None:
    reader, writer = os.pipe()
    threading.Thread(target=lambda: os.write(writer, b'{"epochs": 1}')).start()
    path = Path(f"/dev/fd/{reader}")
    with pytest.raises(ConfigError, match="is a named pipe"):
        read_object(path)

    def close_soon() -> None:
        os.close(writer)

    threading.Timer(0.2, close_soon).start()
    assert read_object(path, pipes=True) == {"epochs": 1}
    os.close(reader)

"""What a folder of images becomes: items, or one list of everything that is wrong."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.image_zoo import GRADIENT, encoded, put_bad_things, with_orientation

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError, WriteError
from blockrate.engine.data import concepts as module
from blockrate.engine.data.concepts import Item, find_items

PNG = encoded(GRADIENT, "PNG")


class Found:
    """The items of a folder, and what was said while finding them."""

    def __init__(self, *concepts: dict[str, Any], cache: Path, **settings: Any) -> None:
        config = TrainConfig(concepts=list(concepts), cache_dir=str(cache), **settings)
        self.progress: list[tuple[int, int]] = []
        self.items = find_items(
            config,
            lambda done, total: self.progress.append((done, total)),
        )

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dogs"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def found(folder: Path, **concept: Any) -> Found:
    return Found({"path": str(folder), **concept}, cache=folder.parent / "cache")


def captions(folder: Path, sidecar: bytes | None, **concept: Any) -> tuple[str, ...]:
    put(folder, "a.png")
    if sidecar is not None:
        put(folder, "a.txt", content=sidecar)
    (item,) = found(folder, **concept).items
    return item.captions


def test_an_item_tells_what_its_file_is(folder: Path) -> None:
    put(folder, "a.jpg", content=with_orientation(GRADIENT, "JPEG", 6))
    put(folder, "a.txt", content=b"a dog\n")
    result = found(folder, loss_weight=0.5)
    (item,) = result.items
    assert (item.path, item.name, item.width, item.height) == (
        folder / "a.jpg",
        "dogs/a.jpg",
        48,
        64,
    )
    assert (item.captions, item.loss_weight, item.validation, item.concept) == (
        ("a dog",),
        0.5,
        False,
        0,
    )
    assert result.progress == [(1, 1)]


def test_the_order_is_by_name_and_the_same_everywhere(folder: Path) -> None:
    put(folder, "b.png", "a.png", "B.png", "ä.png", "a b's %d.png", "-x.png")
    assert found(folder).names == sorted(f"dogs/{name}" for name in os.listdir(folder))
    put(folder.parent / "elsewhere" / "dogs", *os.listdir(folder))
    assert found(folder.parent / "elsewhere" / "dogs").names == found(folder).names


def test_what_is_hidden_or_a_mask_is_no_image(folder: Path) -> None:
    put(
        folder,
        "a.png",
        ".hidden.png",
        "._a.png",
        "a-masklabel.png",
        "a-condlabel.png",
        "notes.md",
        ".git/b.png",
    )
    assert found(folder, include_subdirectories=True).names == ["dogs/a.png"]


def test_subfolders_count_only_when_asked_for(folder: Path) -> None:
    put(folder, "a.png", "one/a.png", "one/two/a.png")
    assert found(folder).names == ["dogs/a.png"]
    assert found(folder, include_subdirectories=True).names == [
        "dogs/a.png",
        "dogs/one/a.png",
        "dogs/one/two/a.png",
    ]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_a_circle_end(folder: Path) -> None:
    put(folder, "a.png", "one/b.png")
    (folder / "one" / "up").symlink_to(folder)
    (folder.parent / "outside").mkdir()
    put(folder.parent / "outside", "c.png")
    (folder / "linked").symlink_to(folder.parent / "outside")
    names = ["dogs/a.png", "dogs/linked/c.png", "dogs/one/b.png"]
    assert found(folder, include_subdirectories=True).names == names


def test_images_with_one_stem_stay_two_items(folder: Path) -> None:
    put(folder, "a.png", "A.PNG")
    put(folder, "a.jpg", content=encoded(GRADIENT, "JPEG"))
    put(folder, "a.txt", content=b"a dog")
    items = [item for item in found(folder).items if item.path.stem == "a"]
    assert [item.path.name for item in items] == ["a.jpg", "a.png"]
    assert [item.captions for item in items] == [("a dog",), ("a dog",)]


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_two_spellings_of_one_name_stay_two_items(folder: Path) -> None:
    for form in ("NFC", "NFD"):
        put(folder, unicodedata.normalize(form, "é.png"))
    assert len({item.path for item in found(folder).items}) == len(os.listdir(folder))


def test_disabled_concepts_are_not_even_read(folder: Path) -> None:
    put(folder, "a.png")
    result = Found(
        {"path": "/nowhere", "enabled": False},
        {"path": str(folder)},
        cache=folder.parent / "cache",
    )
    assert [item.concept for item in result.items] == [1]


def test_validation_concepts_give_validation_items_if_validation_is_on(
    folder: Path,
) -> None:
    put(folder, "a.png")
    put(folder.parent / "held", "b.png")
    pair = (
        {"path": str(folder)},
        {"path": str(folder.parent / "held"), "type": "VALIDATION"},
    )
    on = Found(*pair, cache=folder.parent / "cache", validation=True)
    assert [(item.name, item.validation) for item in on.items] == [
        ("dogs/a.png", False),
        ("held/b.png", True),
    ]
    off = Found(*pair, cache=folder.parent / "cache")
    assert off.names == ["dogs/a.png"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("",)),
        (b"", ("",)),
        (b" \r\n \n", ("",)),
        (b"a dog", ("a dog",)),
        (b"\xef\xbb\xbfa dog\r\n", ("a dog",)),
        (b" one \r\n\r\ntwo\rthree\n", ("one", "two", "three")),
        ("ein Hündchen, שלום 🐶\u2028 x".encode(), ("ein Hündchen, שלום 🐶\u2028 x",)),
        (b"word " * 13_000, (("word " * 13_000).strip(),)),
    ],
)
def test_sidecars_give_a_caption_a_line(
    folder: Path, text: bytes | None, expected: tuple[str, ...]
) -> None:
    assert captions(folder, text) == expected


def test_a_file_is_one_caption_where_the_config_says_so(folder: Path) -> None:
    text = {"caption_form": "WHOLE"}
    assert captions(folder, b"one\n\ntwo\n", text=text) == ("one two",)
    json_text = b'{\n  "caption": "a dog"\n}'
    assert captions(folder, json_text, text=text) == ('{ "caption": "a dog" }',)
    with pytest.raises(FileError, match="holds JSON"):
        captions(folder, json_text)


@pytest.mark.parametrize("name", ["a.TXT", "a.caption", "a.png.txt"])
def test_captions_under_other_names_are_learned(folder: Path, name: str) -> None:
    put(folder, name, content=b"a dog")
    assert captions(folder, None) == ("a dog",)


def test_file_names_and_one_file_for_all_are_sources_too(folder: Path) -> None:
    assert captions(folder, b"unused", text={"prompt_source": "filename"}) == ("a",)
    put(folder.parent, "all.txt", content=b"one\ntwo\n")
    source = {"prompt_source": "concept", "prompt_path": str(folder.parent / "all.txt")}
    assert captions(folder, None, text=source) == ("one", "two")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"it\x92s a dog", "byte 0x92 at offset 2, line 1"),
        (b"\xef\xbb\xbfa\ndog \xe9", "byte 0xe9 at offset 9, line 2"),
        ("a dog".encode("utf-16"), "byte 0xff at offset 0, line 1"),
        ("a dog".encode("utf-16-le"), "byte 0x00 at offset 1, line 1"),
    ],
)
def test_a_caption_that_is_not_utf8_names_file_and_byte(
    folder: Path, text: bytes, where: str
) -> None:
    with pytest.raises(FileError) as error:
        captions(folder, text)
    assert f"{folder / 'a.txt'}: is not UTF-8 text: {where}" in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="no pipes there")
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_a_sidecar_that_is_no_text_file_is_a_bad_file(folder: Path, kind: str) -> None:
    sidecar = folder / "a.txt"
    match kind:
        case "pipe":
            os.mkfifo(sidecar)
        case "folder":
            sidecar.mkdir()
        case "loop":
            sidecar.symlink_to(sidecar)
    with pytest.raises(FileError, match=r"a\.txt"):
        captions(folder, None)


def test_every_bad_file_is_listed_at_once(folder: Path) -> None:
    bad = put_bad_things(folder)
    put(folder, "good.png", "worded.png")
    put(folder, "worded.txt", content=b"it\x92s")
    with pytest.raises(FileError) as error:
        found(folder)
    message = str(error.value)
    assert (
        f"{len(bad) + 1} bad files among {len(bad) + 2} images and their captions"
        in message
    )
    assert all(f"\n  {folder / name}: " in message for name in [*bad, "worded.txt"])
    assert "good.png" not in message
    assert error.value.exit_code == 65


def test_of_very_many_bad_files_twenty_are_named_and_all_counted(folder: Path) -> None:
    put(folder, *(f"{number:03}.png" for number in range(50)), content=b"no")
    with pytest.raises(FileError) as error:
        found(folder)
    assert "50 bad files among 50 images" in str(error.value)
    assert str(error.value).count(".png: ") == 20
    assert str(error.value).endswith("\n  and 30 more")


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_a_name_that_is_not_utf8_is_a_bad_file(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xe9.png")).write_bytes(PNG)
    with pytest.raises(FileError, match=r"1 bad files") as error:
        found(folder)
    str(error.value).encode()


@pytest.mark.parametrize(
    ("concept", "where", "problem"),
    [
        (
            {"path": "/no/such/folder"},
            "concepts.0.path",
            "'/no/such/folder' is not a folder",
        ),
        ({"path": ""}, "concepts.0.path", "'' is not a folder"),
        ({"path": "{folder}/a.txt"}, "concepts.0.path", "is not a folder"),
        ({"path": "{folder}/empty"}, "concepts.0.path", "has no images"),
        (
            {"path": "{folder}", "text": {"prompt_source": "concept"}},
            "concepts.0.text.prompt_path",
            "is not a file",
        ),
        (
            {"path": "{folder}", "enabled": False},
            "concepts",
            "there is no concept to train on",
        ),
        (
            {"path": "{folder}", "type": "VALIDATION"},
            "concepts",
            "there is no concept to train on",
        ),
    ],
)
def test_a_concept_without_images_is_a_config_error(
    folder: Path, concept: dict[str, Any], where: str, problem: str
) -> None:
    put(folder, "a.png", "a.txt")
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=problem) as error:
        found(
            folder,
            **{**concept, "path": concept["path"].replace("{folder}", str(folder))},
        )
    assert error.value.where == where


def test_an_empty_concept_file_is_a_file_error(folder: Path) -> None:
    put(folder.parent, "all.txt", content=b" \n")
    with pytest.raises(FileError, match="has no captions"):
        captions(
            folder,
            None,
            text={
                "prompt_source": "concept",
                "prompt_path": str(folder.parent / "all.txt"),
            },
        )


def test_an_image_is_decoded_once_for_all_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "a.png")
    before = found(folder).items

    def none_may_come(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr("blockrate.engine.data.images._decode", none_may_come)
        assert found(folder).items == before
        put(folder, "a.png", content=encoded(GRADIENT.rotate(90), "PNG"))
        with pytest.raises(FileError):
            found(folder)
    assert found(folder).items != before


@pytest.mark.parametrize(
    "damage", [b"", b"[", b"{}", b'[["x"]]', b"[1]", b"\xff", b'{"a": 1}']
)
def test_a_damaged_record_is_made_anew(folder: Path, damage: bytes) -> None:
    put(folder, "a.png")
    before = found(folder).items
    record = folder.parent / "cache" / module._CHECKED
    record.write_bytes(damage)
    assert found(folder).items == before
    assert json.loads(record.read_bytes())


def test_a_cache_folder_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    put(folder, "a.png")
    put(folder.parent, "cache")
    with pytest.raises(WriteError, match="cache"):
        found(folder)


def test_an_edited_image_of_the_same_size_and_time_is_another(folder: Path) -> None:
    def item_with(content: bytes) -> Item:
        put(folder, "a.bmp", content=content)
        os.utime(folder / "a.bmp", (1, 1))
        return found(folder).items[0]

    first, second = (
        encoded(Image.new("RGB", (8, 8), colour), "BMP") for colour in ("red", "blue")
    )
    assert len(first) == len(second)
    assert item_with(first).sha256 != item_with(second).sha256

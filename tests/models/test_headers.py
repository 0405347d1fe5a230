"""Headers of safetensors files: what safetensors refuses is refused, what could not be borne too, in one sentence."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.headers import read_header
from blockrate.models.lora_norms import inspect_lora

MODULE = "transformer.transformer_blocks.0.attn.to_q"
DOWN = f"{MODULE}.lora_A.weight"
UP = f"{MODULE}.lora_B.weight"
GOOD: dict[str, Any] = {
    DOWN: {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    UP: {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
}


def written(folder: Path, header: bytes | str, weights: int = 64) -> Path:
    text = header.encode() if isinstance(header, str) else header
    path = folder / "lora.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(weights))
    return path


def changed(**facts: Any) -> str:
    """The good header with other facts of its second tensor."""
    return json.dumps({**GOOD, UP: {**GOOD[UP], **facts}})


def start(path: Path) -> object:
    return read_lora(path, "FLUX.1")


def check(path: Path) -> object:
    return read_header(path, whole=True)


def refusal(path: Path, *readers: Callable[[Path], object]) -> str:
    """The one sentence with which all readers refuse a file."""
    texts = set()
    for read in readers or (inspect_lora, start, check):
        with pytest.raises(FileError) as caught:
            read(path)
        texts.add(str(caught.value))
    (text,) = texts
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < len(str(path)) + 350
    return text


BAD: dict[str, tuple[str | bytes, str]] = {
    "float offsets": (changed(data_offsets=[32.0, 64.0]), "has the data_offsets"),
    "negative offsets": (changed(data_offsets=[-32, 64]), "has the data_offsets"),
    "offsets as text": (changed(data_offsets=["32", "64"]), "has the data_offsets"),
    "true as an offset": (changed(data_offsets=[True, 64]), "has the data_offsets"),
    "reversed offsets": (changed(data_offsets=[64, 32]), "has the data_offsets"),
    "one offset": (changed(data_offsets=[32]), "has the data_offsets"),
    "three offsets": (changed(data_offsets=[32, 64, 64]), "has the data_offsets"),
    "huge offsets": (changed(data_offsets=[32, 2**63]), "has the data_offsets"),
    "offsets beyond the file": (
        changed(shape=[4, 4], data_offsets=[32, 96]),
        "96 bytes of weights are listed, 64 there",
    ),
    "shape as text": (changed(shape="4x2"), "has the shape 4x2"),
    "a side as text": (changed(shape=["4", 2]), "has the shape"),
    "a float side": (changed(shape=[4.0, 2]), "has the shape"),
    "a negative side": (changed(shape=[-4, -2]), "has the shape"),
    "a huge side": (changed(shape=[2**63, 2]), "has the shape"),
    "a million sides": (changed(shape=[2] * 1_000_000), "has the shape"),
    "no shape": (changed(shape=None), "has the shape None"),
    "dtype as a list": (changed(dtype=["F32"]), "unknown type"),
    "dtype as null": (changed(dtype=None), "unknown type None"),
    "an unknown dtype": (changed(dtype="Q4_K"), "unknown type Q4_K"),
    "a dtype of another size": (changed(dtype="F16"), "32 bytes for F16 [4, 2]"),
    "a shape of another size": (changed(shape=[4, 3]), "32 bytes for F32 [4, 3]"),
    "overlap": (changed(data_offsets=[0, 32]), "overlaps another"),
    "half an overlap": (changed(data_offsets=[16, 48]), "overlaps another"),
    "a gap": (changed(shape=[1, 2], data_offsets=[56, 64]), "lies behind a gap"),
    "a tensor as a list": (json.dumps({**GOOD, UP: []}), "does not have dtype"),
    "a tensor without dtype": (
        json.dumps({**GOOD, UP: {"shape": [4, 2], "data_offsets": [32, 64]}}),
        "does not have dtype",
    ),
    "duplicate keys": (
        json.dumps(GOOD)[:-1] + "," + json.dumps({UP: GOOD[UP]})[1:],
        "twice",
    ),
    "duplicate facts": (json.dumps(GOOD)[:-2] + ', "dtype": "F32"}}', "dtype twice"),
    "duplicate metadata": (
        '{"__metadata__": {"a": "1", "a": "2"}, ' + json.dumps(GOOD)[1:],
        "a twice",
    ),
    "metadata as a list": (json.dumps({"__metadata__": ["a"], **GOOD}), "metadata"),
    "metadata that nests": (
        json.dumps({"__metadata__": {"a": {"b": "c"}}, **GOOD}),
        "metadata is not text",
    ),
    "metadata of numbers": (json.dumps({"__metadata__": {"a": 1}, **GOOD}), "not text"),
    "nested": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
    "nested lists": ('{"a":' + "[" * 100_000, "nested too deep"),
    "NaN": (changed(shape=[float("nan")]), "holds NaN"),
    "an integer of 5,000 digits": (changed().replace("64", "9" * 5000), "not valid"),
    "a list": (json.dumps([GOOD]), "not a JSON object"),
    "not JSON": ('{"a": ', "not valid JSON"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16-le"), "not valid JSON"),
    "Latin-1": (json.dumps(GOOD).replace("attn", "ättn").encode("latin-1"), "UTF-8"),
    "half a surrogate pair": (
        json.dumps(GOOD).replace("attn", "\\ud800"),
        "not Unicode text",
    ),
    "a name without end": (
        json.dumps({**GOOD, "a" * 20_000: GOOD[UP]}),
        "20,000 signs",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_header_that_safetensors_would_refuse_is_refused_in_one_sentence(
    tmp_path: Path, kind: str
) -> None:
    header, found = BAD[kind]
    assert found in refusal(written(tmp_path, header))


def test_what_is_cut_off_or_has_too_much_is_refused(tmp_path: Path) -> None:
    assert "64 bytes of weights" in refusal(written(tmp_path, json.dumps(GOOD), 63))
    assert "64 bytes of weights" in refusal(written(tmp_path, json.dumps(GOOD), 65))
    assert "64 bytes of weights" in refusal(written(tmp_path, json.dumps(GOOD), 0))
    path = written(tmp_path, json.dumps(GOOD))
    path.write_bytes(path.read_bytes()[:100])
    assert "cut off" in refusal(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert "cut off" in refusal(path)


def test_a_header_without_weights_tells_sizes_alone(tmp_path: Path) -> None:
    header = json.dumps(
        {"a": {"dtype": "BF16", "shape": [3, 3], "data_offsets": [0, 0]}}
    )
    assert read_header(written(tmp_path, header, 0))[1] == {"a": ("BF16", (3, 3))}
    refusal(written(tmp_path, header, 0))


def test_too_many_tensors_and_too_long_headers_are_refused(tmp_path: Path) -> None:
    facts = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = {f"{index}.lora_A.weight": facts for index in range(300_000)}
    assert "300,000 tensors; 20,000 are the most" in refusal(
        written(tmp_path, json.dumps(many), 0)
    )
    no_facts = json.dumps(dict.fromkeys(map(str, range(30_000)), 1))
    assert "30,000 tensors; 20,000 are the most" in refusal(
        written(tmp_path, no_facts, 0)
    )
    # what metadata quotes is no tensor
    quoted = json.dumps({"__metadata__": {"a": '"data_offsets"' * 30_000}, **GOOD})
    assert len(read_header(written(tmp_path, quoted), whole=True)[1]) == 2
    long = json.dumps({"__metadata__": {"a": "b" * 33 * 2**20}, **GOOD})
    assert "a header of 33.0 MiB; 32.0 MiB are the most" in refusal(
        written(tmp_path, long)
    )


def test_a_file_that_is_much_shorter_than_it_seems_takes_no_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write((10 * 2**30).to_bytes(8, "little") + b"{")
        file.truncate(12 * 2**30)
    assert "a header of 10.0 GiB" in refusal(path)


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices")
def test_pipes_devices_and_folders_are_refused_and_not_waited_for(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is a named pipe" in refusal(tmp_path / "pipe.safetensors")
    (tmp_path / "link.safetensors").symlink_to("pipe.safetensors")
    assert "is a named pipe" in refusal(tmp_path / "link.safetensors")
    assert "is a device" in refusal(Path("/dev/zero"))
    (tmp_path / "folder.safetensors").mkdir()
    for readers in ([inspect_lora], [start, check]):
        assert "is a folder" in refusal(tmp_path / "folder.safetensors", *readers)
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in refusal(tmp_path / "loop")


def test_a_name_that_no_file_has_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "missing.safetensors")
    assert "cannot be read" in refusal(tmp_path / ("a" * 5000))
    with pytest.raises(FileError, match="not the name of a file"):
        inspect_lora(Path("a\0b"))


def test_metadata_of_twenty_megabytes_is_read(tmp_path: Path) -> None:
    metadata = {"ss_tag_frequency": "x" * 20 * 10**6}
    text = json.dumps({"__metadata__": metadata, **GOOD})
    report = inspect_lora(written(tmp_path, text))
    assert report.blocks == {"double_block_0": 0.0}


@pytest.mark.parametrize(
    "name", ["blockrate.multipliers", "lora_adapter_metadata", "transformer.lora_alpha"]
)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "NaN", "1e999", "null", "\x1b"],
)
def test_any_metadata_is_read_or_refused_in_one_sentence(
    tmp_path: Path, name: str, text: str
) -> None:
    path = written(tmp_path, json.dumps({"__metadata__": {name: text}, **GOOD}))
    is_good = text == "null" or name == "blockrate.multipliers"
    if is_good:
        assert inspect_lora(path).multipliers is None
    else:
        text = refusal(path, inspect_lora, start)
        assert "its header says" in text or "is not JSON" in text


tensors = st.dictionaries(
    st.text(max_size=5),
    st.sampled_from(
        [
            np.zeros((2, 3), np.float32),
            np.zeros((), np.int64),
            np.zeros((0, 4), np.uint8),
        ]
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(tensors, st.data())
def test_safetensors_and_we_agree_on_changed_headers(
    tmp_path_factory: pytest.TempPathFactory, found: Any, data: st.DataObject
) -> None:
    """The oracle is the library: what it refuses is refused; what it reads is read alike."""
    content = bytearray(save(found))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(8, len(content) - 1))
        content[place] = data.draw(st.sampled_from(b'0123456789[]{}",: -AFU'))
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    path.write_bytes(content)
    try:
        with safe_open(path, "numpy") as file:
            expected = {
                name: tuple(file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118
            }
    except SafetensorError:
        with pytest.raises(FileError):
            read_header(path, whole=True)
        return
    header = read_header(path, whole=True)[1]
    assert {name: facts.shape for name, facts in header.items()} == expected

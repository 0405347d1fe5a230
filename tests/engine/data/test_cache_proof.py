"""An entry of the cache is used only if it is proven to be what was asked for; else it is made anew, with a word."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.cached_images import Setup, never
from support.lives import Small, events

from blockrate.core.errors import BlockrateError, FileError
from blockrate.engine import steps
from blockrate.engine.data.cache import CacheError
from blockrate.engine.data.entries import Entry, write_entry
from blockrate.run.checkpoints import checkpoints, step_of

KINDS = ["latents", "prompts"]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def fill(setup: Setup) -> tuple[int, list[str]]:
    """Return how many entries were made anew, and what was said."""
    told: list[str] = []
    images, texts = setup.fill(warn=told.append)
    return images + len(texts), told


def stated(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata() or {})


def rewrite(file: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Other values, with the proof of the old ones."""
    tensors = {name: change(tensor) for name, tensor in load_file(file).items()}
    save_file(tensors, file, stated(file))


def flip_bit(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def in_place_of_it(file: Path, other: Path) -> None:
    shutil.copy(other, file)


def another_dtype(file: Path) -> None:
    """Of the same size, so that everything else still fits."""
    content = file.read_bytes()
    assert b'"BF16"' in content or b'"F32"' in content
    changed = content.replace(b'"BF16"', b'"F16" ').replace(b'"F32"', b'"I32"')
    file.write_bytes(changed)


def another_shape(file: Path) -> None:
    tensors = {}
    for name, tensor in load_file(file).items():
        tensors[name] = tensor.transpose(0, -1).contiguous()
    save_file(tensors, file, stated(file))


def link_to(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def larger(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"x")


def changes(file: Path, other: Path) -> Iterator[Callable[[], object]]:
    size = file.stat().st_size
    for place in (-1, -(size // 4), 9, size // 3):
        yield partial(flip_bit, file, place)
    yield partial(in_place_of_it, file, other)
    yield partial(rewrite, file, torch.zeros_like)
    yield partial(rewrite, file, lambda tensor: torch.full_like(tensor, 1e30))
    yield partial(rewrite, file, lambda tensor: tensor[:4].contiguous())
    yield partial(rewrite, file, lambda tensor: tensor * 2)
    yield partial(another_dtype, file)
    yield partial(another_shape, file)
    yield partial(larger, file)
    yield partial(os.truncate, file, size // 2)
    yield partial(link_to, file, "/dev/zero")
    yield partial(link_to, file, "nowhere/at/all")
    yield partial(link_to, file, file.name)
    yield partial(pipe, file)


@pytest.mark.cases(1)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_befell_an_entry_it_is_made_anew_and_said_once(
    setup: Setup, kind: str
) -> None:
    setup.fill()
    file, other = setup.entries(kind)[:2]
    whole = file.read_bytes()
    for change in changes(file, other):
        change()
        made, told = fill(setup)
        assert made == 1, change
        assert file.read_bytes() == whole
        assert len(told) == 1, change
    assert fill(setup) == (0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_exchanged_entries_are_both_made_anew(setup: Setup, kind: str) -> None:
    setup.fill()
    one, other = setup.entries(kind)[:2]
    before = one.read_bytes(), other.read_bytes()
    one.write_bytes(before[1])
    other.write_bytes(before[0])
    made, [told] = fill(setup)
    assert made == 2
    assert "2 entries are made anew, damaged or in another's place" in told
    assert (one.read_bytes(), other.read_bytes()) == before


def test_a_flaw_is_told_with_the_folder_the_count_and_the_first_sources(
    setup: Setup,
) -> None:
    setup.fill()
    for file in setup.entries("latents"):
        flip_bit(file, -1)
    _, [told] = fill(setup)
    assert told.startswith(f"{setup.folder / 'cache'}: 3 entries are made anew")
    assert f"{setup.images / '0.bmp'}, {setup.images / '1.bmp'} and 1 more" in told


def test_entries_of_an_earlier_version_are_made_anew_and_said_in_one_line(
    setup: Setup,
) -> None:
    """They hold neither key nor checksum, so nothing can prove them."""
    setup.fill()
    for kind in KINDS:
        for file in setup.entries(kind):
            save_file(load_file(file), file)
    made, [told] = fill(setup)
    assert made == 6
    assert "6 entries are made anew, without a checksum" in told
    assert fill(setup) == (0, [])


def test_what_is_only_missing_is_made_without_a_word(setup: Setup) -> None:
    assert fill(setup) == (6, [])
    for file in setup.entries("latents"):
        file.unlink()
    assert fill(setup) == (3, [])


def test_a_folder_in_place_of_an_entry_is_one_sentence(setup: Setup) -> None:
    setup.fill()
    file = setup.entries("latents")[0]
    file.unlink()
    (file / "inside").mkdir(parents=True)
    with pytest.raises(BlockrateError) as caught:
        setup.fill()
    assert file.name in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_while_training_is_noticed(setup: Setup, kind: str) -> None:
    setup.fill()
    samples = setup.order().step_batches(0)[0]
    for file in setup.entries(kind):
        flip_bit(file, -1)
    with pytest.raises(CacheError, match="Start again: it is made anew") as caught:
        setup.cache.batch(samples)
    assert isinstance(caught.value, FileError)
    assert caught.value.exit_code == 65
    assert fill(setup)[0] == 3
    assert setup.cache.batch(samples).files
    setup.fill(load_image_encoder=never, load_prompt_encoder=never)


@pytest.mark.usefixtures("no_sync")
def test_a_cache_lost_in_mid_run_costs_no_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrate.engine.data.kept.ROOM", 0)
    cache = tmp_path / "cache"
    settings: dict[str, Any] = {
        "backup_after_unit": "NEVER",
        "cache_dir": str(cache),
    }
    unbroken = small.live(small.config(tmp_path / "unbroken", **settings))
    config = small.config(tmp_path / "broken", **settings)
    taken = []

    def take_step(*given: Any, **named: Any) -> Any:
        result = steps.take_step(*given, **named)
        taken.append(named["step"])
        if named["step"] == 4:
            shutil.rmtree(cache)
        return result

    monkeypatch.setattr("blockrate.engine.train.take_step", take_step)
    with pytest.raises(CacheError, match="goes on"):
        small.live(config)
    run = tmp_path / "broken"
    finished = taken[-1] + 1
    assert [step_of(folder) for folder in checkpoints(run / "checkpoints")] == [
        finished
    ]
    monkeypatch.undo()
    again = small.live(config)
    assert [event["from_step"] for event in events(again, "resumed")] == [finished]
    expected, found = (
        load_file(r.path / "result.safetensors") for r in (unbroken, again)
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_proven_entry_of_another_size_is_made_anew_and_then_used(
    setup: Setup,
) -> None:
    cache = setup.cache
    example = setup.order().every_example()[0]
    wrong = {"latents": torch.zeros(16, 2, 2)}
    key = cache._key(example.picture)
    write_entry(Entry(cache._file(example.picture), key, "image", wrong))
    told: list[str] = []
    cache.fill(
        [example],
        load_image_encoder=lambda: lambda images: torch.ones(1, 16, 8, 8),
        load_prompt_encoder=lambda: (
            lambda texts: {
                "prompt_embeds": torch.ones(1, 3, 4),
                "pooled_prompt_embeds": torch.ones(1, 4),
            }
        ),
        progress=lambda done, total: None,
        should_stop=lambda: False,
        warn=told.append,
    )
    assert "1 entry is made anew" in told[0]
    assert cache.batch([example]).latents.shape == (1, 16, 8, 8)

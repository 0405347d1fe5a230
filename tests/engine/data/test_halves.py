"""Which pictures, crops and times a probe measures by."""

from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.data.batches import StepOrder, validation_batches
from blockrate.engine.data.concepts import Item
from blockrate.engine.data.halves import (
    Group,
    has_halves,
    probe_groups,
    radical_inverse,
    split,
)


def config(*concepts: dict[str, Any], **settings: Any) -> TrainConfig:
    named = [{"path": f"folder{number}"} | one for number, one in enumerate(concepts)]
    values = {"concepts": named, "resolution": "64", "batch_size": 2, **settings}
    return TrainConfig.model_validate(values)


def items(*counts: int, size: tuple[int, int] = (64, 64)) -> list[Item]:
    return [
        Item(
            Path(f"{concept}-{number}.png"),
            f"folder{concept}/{number}.png",
            f"{concept}{number}",
            *size,
            concept,
            ("words",),
            "",
            1.0,
            validation=False,
        )
        for concept, count in enumerate(counts)
        for number in range(count)
    ]


def names(groups: list[Group], part: int) -> list[set[str]]:
    """The pictures of a part, by group."""
    return [
        {example.item.name for batch in group[part] for example in batch.examples}
        for group in groups
    ]


def test_halves_have_no_picture_in_common_and_all_of_every_concept() -> None:
    there = items(6, 5)
    asked = config({}, {})
    groups = probe_groups(asked, there, [], 64)
    first = set.union(*names(groups, 1))
    second = set.union(*names(groups, 2))
    assert not first & second
    assert first | second == {item.name for item in there}
    assert {name.partition("/")[0] for name in first} == {"folder0", "folder1"}
    assert {name.partition("/")[0] for name in second} == {"folder0", "folder1"}


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(sum))
def test_halves_are_of_equal_size(counts: list[int]) -> None:
    there = items(*counts)
    first, second = split(config(*({} for _ in counts)), there)
    assert abs(len(first) - len(second)) <= 1
    assert len(first) + len(second) == len(there)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pictures_are_in_both_halves(count: int) -> None:
    asked = config({})
    there = items(count)
    assert not has_halves(asked, there)
    groups = probe_groups(asked, there, [], 16)
    for part in (1, 2):
        assert set.union(*names(groups, part)) <= {item.name for item in there}
    assert all(len(group.first) == len(group.second) == 2 for group in groups)


def test_no_batch_has_the_noise_of_another() -> None:
    groups = probe_groups(config({}), items(5), [], 32)
    keys = [
        (batch.part, batch.number)
        for group in groups
        for batch in chain.from_iterable(group)
    ]
    assert len(set(keys)) == len(keys) == 32


def test_times_are_spread_evenly_over_each_half() -> None:
    groups = probe_groups(config({}), items(8), [], 64)
    for part in (1, 2):
        batches = [batch for group in groups for batch in group[part]]
        times = sorted(time for batch in batches for time in batch.uniform)
        assert len(times) == 64
        gaps = [after - before for before, after in pairwise(times)]
        assert max(gaps) == pytest.approx(1 / 64)


def test_shares_of_a_group_add_up_though_batches_are_of_different_size() -> None:
    groups = probe_groups(config({}, batch_size=3), items(8), [], 16)
    for group in groups:
        for part in (group.first, group.second):
            assert sum(batch.share for batch in part) == pytest.approx(1.0)
            for batch in part:
                assert len(batch.uniform) == len(batch.examples)


def test_a_concept_that_never_comes_is_in_no_half() -> None:
    asked = config({}, {"balancing": 0.0})
    groups = probe_groups(asked, items(4, 3), [], 16)
    assert all(
        "folder1" not in name for part in (1, 2) for name in sum_of(groups, part)
    )


def sum_of(groups: list[Group], part: int) -> set[str]:
    return set.union(*names(groups, part))


def test_pictures_that_never_come_are_refused() -> None:
    with pytest.raises(ConfigError, match="balancing leaves no image"):
        probe_groups(config({"balancing": 0.0}), items(5), [], 16)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_what_is_held_out_is_measured_behind_the_first_group(count: int) -> None:
    asked = config({}, {"type": "VALIDATION"})
    elsewhere = [replace(item, validation=True) for item in items(0, count)]
    batches = validation_batches(asked, elsewhere)
    groups = probe_groups(asked, items(5), batches, 16)
    assert [len(group.held_out) for group in groups] == [0, 4, 4, 4]
    seen = sum_of(groups, 0)
    assert seen
    assert all(name.startswith("folder1") for name in seen)
    assert len(seen) == min(count, 24)


def test_every_example_is_one_that_the_runs_cache_holds() -> None:
    asked = config({"image_variations": 3}, {"image_variations": 2}, epochs=1)
    there = items(3, 4, size=(80, 64))
    filled = {example.picture for example in StepOrder(asked, there).every_example()}
    for group in probe_groups(asked, there, [], 64):
        for batch in chain.from_iterable(group):
            assert {example.picture for example in batch.examples} <= filled


def test_the_radical_inverse_fills_the_largest_gap() -> None:
    assert [radical_inverse(index) for index in range(8)] == [
        0.0,
        0.5,
        0.25,
        0.75,
        0.125,
        0.625,
        0.375,
        0.875,
    ]

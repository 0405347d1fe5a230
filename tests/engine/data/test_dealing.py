"""Which images of a step each rank works on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockrate.engine.data.dealing import share

# a micro-batch is a list of whatever; here each sample is its name
STEPS = st.lists(st.integers(1, 5), min_size=1, max_size=6)
SIZES = st.integers(1, 9)


def step_of(sizes: list[int]) -> Any:
    return [
        [f"{number}-{place}" for place in range(size)]
        for number, size in enumerate(sizes)
    ]


def dealt(batches: Any, size: int) -> list[list[Any]]:
    return [share(batches, rank, size) for rank in range(size)]


@given(STEPS)
def test_one_rank_gets_the_micro_batches_as_they_are(sizes: list[int]) -> None:
    batches = step_of(sizes)
    pieces: list[Any] = list(share(batches))
    assert [piece.examples for piece in pieces] == batches
    assert [piece.micro_batch for piece in pieces] == list(range(len(sizes)))
    assert [piece.share for piece in pieces] == [size / sum(sizes) for size in sizes]


@given(STEPS, SIZES)
def test_every_image_counts_once_and_keeps_its_place(
    sizes: list[int], size: int
) -> None:
    batches = step_of(sizes)
    counted = []
    for piece in (piece for pieces in dealt(batches, size) for piece in pieces):
        assert piece.of == sum(sizes)
        for index, name in enumerate(piece.examples):
            assert batches[piece.micro_batch][piece.first + index] == name
            place = sum(sizes[: piece.micro_batch]) + piece.first
            assert piece.place == place
        if piece.counts:
            counted += piece.examples
    assert counted == [name for batch in batches for name in batch]


@given(STEPS, SIZES)
def test_all_ranks_take_as_many_passes_and_share_the_step(
    sizes: list[int], size: int
) -> None:
    every = dealt(step_of(sizes), size)
    assert len({len(pieces) for pieces in every}) == 1
    shares = [piece.share for pieces in every for piece in pieces]
    assert abs(sum(shares) - 1) < 1e-9
    assert sum(piece.counted for pieces in every for piece in pieces) == sum(sizes)


@given(STEPS, SIZES)
def test_nobody_has_more_than_one_image_above_another_where_batches_are_split(
    sizes: list[int], size: int
) -> None:
    images = [
        sum(piece.counted for piece in pieces) for pieces in dealt(step_of(sizes), size)
    ]
    if len(sizes) % size:
        assert max(images) - min(images) <= 1


def test_whole_micro_batches_are_dealt_where_they_come_out_even() -> None:
    first, second = dealt(step_of([2, 1, 3, 2]), 2)
    assert [piece.examples for piece in first] == [["0-0", "0-1"], ["1-0"]]
    assert [piece.examples for piece in second] == [
        ["2-0", "2-1", "2-2"],
        ["3-0", "3-1"],
    ]


def test_a_batch_is_split_and_a_rank_with_less_repeats_what_does_not_count() -> None:
    pieces = dealt(step_of([2, 1, 1]), 2)
    assert [piece.examples for piece in pieces[0]] == [["0-0", "0-1"], ["0-1"]]
    assert [piece.counts for piece in pieces[0]] == [True, False]
    assert pieces[0][1].share == 0.0
    assert pieces[0][1].first == 1
    assert [piece.examples for piece in pieces[1]] == [["1-0"], ["2-0"]]


def test_a_rank_without_an_image_repeats_one_of_the_step() -> None:
    pieces = dealt(step_of([2]), 3)
    assert [piece.counted for rank in pieces for piece in rank] == [0, 1, 1]
    assert [piece.examples for rank in pieces for piece in rank] == [
        ["0-1"],
        ["0-0"],
        ["0-1"],
    ]

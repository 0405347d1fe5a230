"""What gains come to: shares, rates, costs by first block, levels, verdicts."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core import advice
from blockrate.core.advice import (
    BlockGain,
    FirstBlock,
    Probe,
    Total,
    by_first_block,
    fastest,
    flat_mean,
    from_block,
    in_proportion,
    levels,
    proposals,
    shares,
    transfer,
    verdict,
)
from blockrate.core.advice_words import sentences
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.profile import check_multipliers

LAYOUT = BlockLayout(2, 3)
NAMES = LAYOUT.names
finite = st.floats(-1e6, 1e6)
some_gains = st.fixed_dictionaries(dict.fromkeys((*NAMES, OTHER), finite))
COSTS = dict(zip(NAMES, (1.0, 0.9, 0.7, 0.5, 0.4), strict=True))


def gains_of(*values: float) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


def test_a_rate_is_the_gain_by_the_largest_and_no_learning_is_no_rate() -> None:
    gains = gains_of(2.0, 1.0, 0.0, -3.0, 2.0)
    assert list(in_proportion(gains).values()) == [1.0, 0.5, 0.0, 0.0, 1.0]
    assert list(shares(gains).values()) == [0.4, 0.2, 0.0, 0.0, 0.4]


def test_a_gain_that_is_tiny_freezes_no_block() -> None:
    assert in_proportion(gains_of(1.0, 1e-9, 1, 1, 1))["double_block_1"] == 0.0001


def test_where_no_block_lowers_the_loss_nothing_is_proposed() -> None:
    gains = gains_of(-1.0, 0.0, -2.0, 0.0, -1.0)
    made = proposals(gains, by_first_block(gains, COSTS))
    assert made == advice.Proposals()
    assert set(shares(gains).values()) == {0.0}


@given(some_gains)
def test_rates_are_multipliers_and_rise_with_the_gain(gains: dict[str, float]) -> None:
    rates = in_proportion(gains)
    check_multipliers(rates, LAYOUT)
    ordered = sorted(rates, key=lambda name: gains[name])
    for lower, higher in itertools.pairwise(ordered):
        assert rates[lower] <= rates[higher]
        if gains[lower] == gains[higher]:
            assert rates[lower] == rates[higher]
    if rates:
        assert max(rates.values()) == 1.0


@given(some_gains)
def test_shares_are_parts_of_a_whole(gains: dict[str, float]) -> None:
    parts = shares(gains)
    assert all(0 <= part <= 1 for part in parts.values())
    positive = math.fsum(max(gain, 0.0) for gain in gains.values())
    assert sum(parts.values()) == pytest.approx(1.0 if positive > 0 else 0.0)


@given(some_gains)
def test_a_later_first_block_never_keeps_more(gains: dict[str, float]) -> None:
    rows = by_first_block(gains, COSTS)
    assert [row.block for row in rows] == list(NAMES)
    kept = [row.kept for row in rows]
    assert kept == sorted(kept, reverse=True)
    assert all(0 <= one <= 1 for one in kept)
    best = fastest(rows)
    if best:
        check_multipliers(from_block(best.block, list(gains)), LAYOUT)
        assert all(
            best.kept / best.step_cost >= row.kept / row.step_cost for row in rows
        )


def test_faster_begins_where_most_is_kept_for_its_cost() -> None:
    rows = by_first_block(gains_of(0.05, 0.05, 0.1, 0.4, 0.4), COSTS)
    assert [round(row.kept, 6) for row in rows] == [1.0, 0.95, 0.9, 0.8, 0.4]
    best = fastest(rows)
    assert isinstance(best, FirstBlock)
    assert (best.block, best.step_cost) == ("single_block_1", 0.5)
    assert from_block("single_block_1", [*NAMES, OTHER]) == {
        "double_block_0": 0.0,
        "double_block_1": 0.0,
        "single_block_0": 0.0,
        OTHER: 0.0,
    }


def test_nothing_is_faster_where_early_blocks_have_most() -> None:
    assert fastest(by_first_block(gains_of(1, 1, 0.1, 0.1, 0.1), COSTS)) is None
    assert fastest([]) is None


def test_the_flat_control_is_the_mean_over_blocks_zeros_counted() -> None:
    assert flat_mean({"double_block_0": 0.0, "single_block_0": 0.5, OTHER: 1.0}) == 0.25
    assert flat_mean({OTHER: 1.0}) is None


def test_blocks_closer_than_their_errors_are_one_level() -> None:
    gains = gains_of(10.0, 9.9, 5.0, 4.8, 1.0)
    near = dict.fromkeys(NAMES, 0.2)
    assert list(levels(gains, near).values()) == pytest.approx(
        [9.95, 9.95, 4.9, 4.9, 1.0]
    )
    assert levels(gains, dict.fromkeys(NAMES, 0.0)) == gains
    one = levels(gains, dict.fromkeys(NAMES, 100.0))
    assert list(one.values()) == pytest.approx([6.14] * 5)


@given(some_gains, st.floats(0, 1e6))
def test_a_level_never_turns_the_order_around(
    gains: dict[str, float], error: float
) -> None:
    drawn = levels(gains, dict.fromkeys(gains, error))
    ordered = sorted(gains, key=lambda name: gains[name])
    heights = [drawn[name] for name in ordered]
    for lower, higher in itertools.pairwise(heights):
        assert lower <= higher or lower == pytest.approx(higher)


@pytest.mark.parametrize(
    ("total", "told"),
    [
        (Total(10, 1), ""),
        (Total(1.9, 1), advice.NOTHING),
        (Total(0, 0), advice.NOTHING),
        (Total(10, 1, 0.31, "halves"), ""),
        (Total(10, 1, 0.29, "halves"), advice.MEMORISING["halves"]),
        (Total(0, 1, 0.0, "validation"), advice.MEMORISING["validation"]),
    ],
)
def test_a_warning_follows_fixed_rules(total: Total, told: str) -> None:
    assert verdict(total) == told


def test_what_carries_over_is_told_where_there_is_anything_to_carry() -> None:
    assert transfer([1.0, 1.2, 0.8], [2.0, 2.1, 1.9]) == pytest.approx(0.5)
    assert transfer([1.0, 1.2, 0.8], [2.0, -2.1, 0.4]) is None
    assert transfer([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]) is None


def probed(total: Total, gains: dict[str, float]) -> Probe:
    rows = by_first_block(gains, COSTS)
    return Probe(
        config_hash="0" * 16,
        model="miniature",
        images=24,
        held_out_images=0,
        batch_size=4,
        rank=16,
        seed=1,
        learning_rate=1e-4,
        blocks={name: BlockGain(gain, 0.1, 1.0) for name, gain in gains.items()},
        total=total,
        verdict=verdict(total),
        by_first_block=rows,
        proposals=proposals(gains, rows),
    )


def test_a_measurement_is_told_with_its_error_and_its_control() -> None:
    gains = gains_of(0.05, 0.05, 0.1, 0.4, 0.4)
    told = list(sentences(probed(Total(1.0, 0.1, 0.66, "halves"), gains)))
    assert told == [
        "Predicted from the first step, on your 24 pictures: to first order the loss falls by 0.0001 ± 1e-05 "
        "at the rate 0.0001 (gain 1 ± 0.1).",
        "Of what a step gains on the pictures it is taken on, 66% is gained on the other half of your pictures, too.",
        "Faster: train from single_block_1 on (keeps 80% of the predicted fall, a step costs 0.50).",
        "In proportion (experimental; compare with flat 0.5): "
        "the rates follow where a step of the same size lowers the loss most.",
    ]


def test_where_there_is_nothing_to_learn_nothing_is_offered() -> None:
    told = list(sentences(probed(Total(0.1, 0.1), gains_of(0.1, 0.1, 0.1, 0.1, 0.1))))
    assert len(told) == 2
    assert told[1] == advice.NOTHING


def test_no_more_is_said_than_was_measured() -> None:
    total = Total(1.0, 0.1, 0.2, "validation")
    told = " ".join(sentences(probed(total, gains_of(0.05, 0.05, 0.1, 0.4, 0.4))))
    for claim in ("important", "optimal", "quality", "style", "face", "forget"):
        assert claim not in told

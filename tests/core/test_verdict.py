"""When runs differ by more than chance."""

import math
import random

import pytest

from blockrate.core.verdict import FEWEST, t_limit, verdict


@pytest.mark.parametrize(
    ("freedom", "level", "limit"),
    [
        # the table of Student's t, two sides
        (1, 0.05, 12.706),
        (2, 0.05, 4.303),
        (4, 0.05, 2.776),
        (9, 0.05, 2.262),
        (30, 0.05, 2.042),
        (2, 0.01, 9.925),
        (9, 0.001, 4.781),
    ],
)
def test_limits_are_those_of_the_table(
    freedom: int, level: float, limit: float
) -> None:
    assert t_limit(freedom, level) == pytest.approx(limit, abs=6e-4)


def test_chance_is_called_a_difference_as_often_as_the_level_says() -> None:
    chance = random.Random(0)
    for pairs in (3, 5):
        called = 0
        for _ in range(4000):
            found = verdict([chance.gauss(0, 1) for _ in range(pairs)])
            called += bool(found.differs)
        assert 0.04 < called / 4000 < 0.06


def test_an_effect_that_is_larger_than_its_spread_is_found() -> None:
    found = verdict([1.0, 1.1, 0.9])
    assert found.differs
    assert found.mean == pytest.approx(1.0)
    assert found.error == pytest.approx(0.1 / math.sqrt(3))


def test_several_questions_at_once_are_answered_with_more_care() -> None:
    differences = [1.0, 1.3, 0.7]
    assert verdict(differences).differs
    assert verdict(differences, comparisons=3).differs is False


@pytest.mark.parametrize("pairs", range(FEWEST))
def test_too_few_pairs_give_no_verdict(pairs: int) -> None:
    found = verdict([5.0] * pairs)
    assert found.differs is None
    assert found.pairs == pairs


def test_equal_runs_do_not_differ() -> None:
    assert verdict([0.0, 0.0, 0.0]).differs is False

"""Where a curve first comes as far as a value."""

import pytest

from blockrate.core.curves import first_at

CURVE = [(0.0, 1.0), (0.2, 0.8), (0.1, 0.75), (0.4, 0.6)]


@pytest.mark.parametrize(
    ("across", "high"),
    [
        (0.0, 1.0),
        (0.1, 0.9),
        (0.2, 0.8),
        # past the turn: from 0.1 to 0.4
        (0.25, 0.675),
        (0.4, 0.6),
        (0.41, None),
        (-0.1, None),
    ],
)
def test_the_first_place_counts_and_between_points_it_is_straight(
    across: float, high: float | None
) -> None:
    assert first_at(CURVE, across) == (None if high is None else pytest.approx(high))


def test_a_curve_that_begins_beyond_says_nothing() -> None:
    assert first_at([(0.3, 1.0), (0.5, 0.9)], 0.2) is None
    assert first_at([], 0.2) is None

"""The benchmark of streaming on a CPU tells what it is there to tell."""

from dataclasses import replace
from pathlib import Path

import pytest
from common import make_toy
from streaming import compared
from support.lives import SPEC

from blockrate import BlockLayout

pytestmark = pytest.mark.engine

SEVEN = replace(SPEC, layout=BlockLayout(3, 4))


def test_streamed_and_resident_steps_are_compared_on_what_they_learn(
    tmp_path: Path,
) -> None:
    make_toy(tmp_path, spec=SEVEN, images=2)
    first_two = dict.fromkeys(SEVEN.layout.names[:2], 0.0)
    same, loads, wall, processor = compared(
        tmp_path, SEVEN.layout.names, first_two, rounds=1
    )
    assert same == "yes"
    # two come once, five twice, less two at the turn
    assert loads == str(2 + 2 * 5 - 2)
    assert "(" in wall
    assert "(" in processor

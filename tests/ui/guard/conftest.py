"""A guard before an app that remembers what reaches it."""

import pytest
from support.guarded import Inside, make

from blockrate.ui.guard import Guard


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def guard(inside: Inside) -> Guard:
    return make(inside)

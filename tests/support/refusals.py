"""A refusal that leaves ways on."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blockrate.core.errors import BlockrateError, ConfigError, WayOn


@contextmanager
def refusal(
    match: str, *ways_on: WayOn, kind: type[BlockrateError] = ConfigError
) -> Iterator[pytest.ExceptionInfo[BlockrateError]]:
    """Expect an error with these ways on, none of which its text tells."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.value.ways_on == ways_on
    assert " --" not in str(caught.value)

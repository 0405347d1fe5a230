"""Sizes in words."""

import pytest

from blockrate.core.units import share_text, size_text

MIB = 2**20
GIB = 2**30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 MiB"),
        (1, "0.0 MiB"),
        (MIB // 2, "0.5 MiB"),
        (650 * MIB + MIB // 4, "650.2 MiB"),
        (GIB - MIB, "1,023.0 MiB"),
        # what is rounded to 1024 MiB is not called so
        (GIB - 1, "1.0 GiB"),
        (GIB, "1.0 GiB"),
        (24 * GIB + GIB // 2, "24.5 GiB"),
        (1500 * GIB, "1,500.0 GiB"),
    ],
)
def test_a_size_is_told_in_gib_or_below_one_in_mib(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (16 * GIB, 24 * GIB, "16.0 of 24.0 GiB"),
        (97 * MIB, 110 * MIB, "97.0 of 110.0 MiB"),
        (500 * MIB, 24 * GIB, "500.0 MiB of 24.0 GiB"),
    ],
)
def test_a_share_names_the_unit_once_where_it_is_the_same(
    part: int, whole: int, text: str
) -> None:
    assert share_text(part, whole) == text

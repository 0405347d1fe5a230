"""Aspect-ratio buckets: sizes of one area, and the nearest one for every image."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.buckets import Bucket, buckets, nearest_bucket
from blockrate.core.errors import ConfigError


def test_a_resolution_begins_with_its_square() -> None:
    for text in ("64", "512", "768", "1024"):
        assert buckets(text)[0][0] == Bucket(int(text), int(text))


def test_a_list_gives_one_tuple_each_and_a_fixed_size_one_bucket() -> None:
    small, large, fixed = buckets("512, 768,832x1216")
    assert small == buckets("512")[0]
    assert large == buckets("768")[0]
    assert fixed == (Bucket(832, 1216),)


@pytest.mark.parametrize(
    ("side", "step"), [(64, 16), (128, 16), (240, 16), (256, 64), (768, 64), (1024, 64)]
)
def test_sides_are_multiples_and_areas_nearly_equal(side: int, step: int) -> None:
    (sizes,) = buckets(str(side))
    assert len(sizes) == len(set(sizes)) >= 5
    for bucket in sizes:
        assert bucket.width % step == bucket.height % step == 0
        assert Bucket(bucket.height, bucket.width) in sizes
        assert 0.7 < bucket.width * bucket.height / side**2 < 1.45


def test_the_sizes_of_768_are_these() -> None:
    landscape = [
        (size.width, size.height)
        for size in buckets("768")[0]
        if size.width >= size.height
    ]
    assert landscape[:5] == [
        (768, 768),
        (832, 704),
        (960, 640),
        (1024, 576),
        (1088, 512),
    ]
    assert landscape[5:] == [(1216, 512), (1344, 448), (1408, 384), (1536, 384)]


def test_tokens_are_patches_of_16_pixels() -> None:
    assert Bucket(768, 512).tokens == 48 * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "512,",
        "512x",
        "15",
        "9000",
        "-512",
        "512.5",
        "830x1216",
        "8x8",
        "512;768",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"resolution: .*832x1216"):
        buckets(text)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_nearest_bucket_has_the_nearest_shape(width: int, height: int) -> None:
    (sizes,) = buckets("512")
    found = nearest_bucket(width, height, sizes)
    distance = abs(math.log(found.width / found.height) - math.log(width / height))
    assert all(
        distance <= abs(math.log(size.width / size.height) - math.log(width / height))
        for size in sizes
    )


def test_of_two_equal_shapes_the_larger_wins() -> None:
    sizes = [bucket for resolution in buckets("512,1024") for bucket in resolution]
    assert nearest_bucket(300, 300, sizes) == Bucket(1024, 1024)

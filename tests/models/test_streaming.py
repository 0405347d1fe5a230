"""Which blocks stream: what is cheap to bring first, and what the turn from forward to backward needs never."""

from hypothesis import given
from hypothesis import strategies as st

from blockrate.models.families import FAMILIES
from blockrate.models.streaming import PLACES, streamed_sizes, streaming

SPEC = FAMILIES["flux1-dev"].spec
NAMES = SPEC.layout.names


@given(st.floats(0, 1), st.integers(0, 56), st.integers(0, 3))
def test_as_much_streams_as_is_asked_for_or_all_that_may(
    fraction: float, first: int, every: int
) -> None:
    chain = NAMES[first:]
    trained = chain[:: every + 1]
    found = streaming(SPEC, fraction, chain=chain, trained=trained, weight_bytes=1.0)
    sizes = streamed_sizes(SPEC)
    wanted = fraction * sum(sizes.values())
    stay = {*NAMES[-2:], chain[0]}
    assert not stay & set(found.blocks)
    may = set(NAMES) - stay
    assert found.bytes >= wanted or set(found.blocks) == may
    assert set(found.once) <= set(NAMES[:first])
    assert set(found.twice) <= set(chain)
    if found.blocks:
        # not a block more than is needed
        assert found.bytes - max(sizes.values()) < wanted
        assert found.places_bytes == PLACES * max(sizes[name] for name in found.blocks)


def test_blocks_before_the_first_trained_one_come_first_then_frozen_ones() -> None:
    half = streaming(
        SPEC,
        0.3,
        chain=NAMES[20:],
        trained=[*NAMES[20:30], *NAMES[45:]],
        weight_bytes=2.0,
    )
    assert not half.twice
    more = streaming(
        SPEC,
        0.65,
        chain=NAMES[20:],
        trained=[*NAMES[20:30], *NAMES[45:]],
        weight_bytes=2.0,
    )
    # the double blocks and the first single one are 20 blocks and more than half of all
    assert more.once == NAMES[:20]
    assert more.twice
    assert set(more.twice) <= set(NAMES[30:45])


def test_of_trained_blocks_those_in_the_middle_come() -> None:
    found = streaming(SPEC, 0.1, chain=NAMES, trained=NAMES, weight_bytes=1.0)
    places = [NAMES.index(name) for name in found.blocks]
    assert places == list(range(min(places), max(places) + 1))
    assert abs((min(places) + max(places)) / 2 - 28) < 2


def test_what_has_to_stay_stays() -> None:
    found = streaming(
        SPEC, 1.0, chain=NAMES[28:], trained=NAMES[28:], fixed=NAMES[28:], weight_bytes=1.0
    )  # fmt: skip
    assert found.blocks == NAMES[:28]


def test_nothing_streams_unasked() -> None:
    found = streaming(SPEC, 0.0, chain=NAMES, trained=NAMES, weight_bytes=1.0)
    assert (found.blocks, found.bytes, found.places_bytes) == ((), 0, 0)

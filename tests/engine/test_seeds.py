"""Numbers drawn from a key: runs that were begun long ago hang on every one of them."""

import torch

from blockrate.engine.seeds import generator, uniform_from


def test_generators_are_those_that_older_runs_drew_from() -> None:
    assert generator(42, "flip", 7).initial_seed() == 7667641759638926396
    name = "transformer_blocks.0.attn.to_q"
    assert generator(name).initial_seed() == 4728727078047497454


def test_numbers_are_those_that_older_runs_drew() -> None:
    assert uniform_from(42, "flip", 7) == 0.3185552563591604
    assert uniform_from(0) == 0.6718808525527004
    assert uniform_from(7, "é") == 0.98291205239911


def test_neighbouring_seeds_share_nothing() -> None:
    first = torch.rand(100, generator=generator(1, 2))
    second = torch.rand(100, generator=generator(2, 1))
    third = torch.rand(100, generator=generator(1, 3))
    both = set(second.tolist()) | set(third.tolist())
    assert not set(first.tolist()) & both


def test_numbers_are_spread_evenly() -> None:
    values = [uniform_from(1, "x", number) for number in range(4000)]
    assert min(values) >= 0
    assert max(values) < 1
    for low in range(10):
        share = sum(low / 10 <= value < (low + 1) / 10 for value in values) / 4000
        assert 0.08 < share < 0.12

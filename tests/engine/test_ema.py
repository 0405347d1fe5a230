"""The moving average: its arithmetic, its swap, where it lies."""

import pytest
import torch
from torch import nn

from blockrate.engine.ema import Ema


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {
        "a": nn.Parameter(torch.zeros(3, dtype=dtype)),
        "b": nn.Parameter(torch.ones(2, 2, dtype=dtype)),
    }


def test_the_average_is_the_textbook_one() -> None:
    values = parameters()
    ema = Ema(values, decay=0.9)
    expected = 0.0
    for step in range(1, 200):
        values["a"].data.fill_(step)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert ema.average["a"][0].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(ema.average["b"], torch.ones(2, 2))


def test_it_is_updated_every_interval_only() -> None:
    values = parameters()
    ema = Ema(values, decay=0.9, interval=5)
    values["a"].data.fill_(1.0)
    for step in (1, 2, 3, 4):
        ema.update(step)
        assert not ema.average["a"].any()
    ema.update(5)
    assert ema.average["a"].all()


def test_swapping_shows_the_average_and_gives_the_exact_weights_back() -> None:
    values = parameters(torch.bfloat16)
    ema = Ema(values, decay=0.9, device="cpu")
    values["a"].data.fill_(1 / 3)
    ema.update(1)
    trained = values["a"].detach().clone()
    average = ema.average["a"].clone()

    def sample() -> None:
        with ema.swapped():
            assert torch.equal(values["a"], average.bfloat16())
            raise MemoryError

    with pytest.raises(MemoryError):
        sample()
    assert torch.equal(values["a"], trained)
    assert torch.equal(ema.average["a"], average)
    assert values["a"].requires_grad


def test_bf16_weights_are_averaged_in_fp32() -> None:
    values = parameters(torch.bfloat16)
    ema = Ema(values, decay=0.999)
    values["b"].data.fill_(1.0078125)
    for step in range(10_000, 10_500):
        ema.update(step)
    assert ema.average["b"][0, 0].item() == pytest.approx(
        1 + 0.0078125 * (1 - 0.999**500), rel=1e-4
    )

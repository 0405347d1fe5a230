"""The moving average: its arithmetic, its swap, where it lies, and what it asks of a device."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from blockrate.engine import ema as ema_module
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


def many(*dtypes: torch.dtype) -> dict[str, nn.Parameter]:
    """Adapters of two shapes, and some that are frozen."""
    made = {}
    for number in range(60):
        dtype = dtypes[number % len(dtypes)]
        shape = (4, 33) if number % 2 else (33, 4)
        values = torch.randn(shape, dtype=torch.float32).to(dtype)
        made[str(number)] = nn.Parameter(values, requires_grad=number % 5 > 0)
    return made


@pytest.mark.parametrize("device", ["cpu", None])
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32,),
        (torch.bfloat16,),
        (torch.bfloat16, torch.bfloat16, torch.float32),
    ],
)
@pytest.mark.parametrize("room", [2**20, 4000, 1])
def test_it_is_to_the_bit_that_of_one_weight_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    dtypes: tuple[torch.dtype, ...],
    room: int,
) -> None:
    monkeypatch.setattr(ema_module, "_PIECE_BYTES", room // 2)
    monkeypatch.setattr(ema_module, "ON_THE_WAY_BYTES", room)
    torch.manual_seed(0)
    values = many(*dtypes)
    ema = Ema(values, decay=0.9, device=device)
    expected = {name: value.detach().float().clone() for name, value in values.items()}
    for step in range(1, 8):
        for name, value in values.items():
            value.data.add_(torch.randn(value.shape).to(value.dtype))
            if value.requires_grad:
                decay = min(0.9, (1 + step) / (10 + step))
                expected[name].lerp_(value.detach().float(), 1.0 - decay)
        ema.update(step)
        # what is read now and then is what is read at the end
        if step in (3, 7):
            assert all(
                torch.equal(average, expected[name])
                for name, average in ema.average.items()
            )


def test_what_a_weight_was_at_the_update_counts_whenever_it_is_read() -> None:
    values = parameters()
    ema = Ema(values, decay=0.5, device="cpu")
    values["a"].data.fill_(1.0)
    ema.update(1)
    values["a"].data.fill_(float("nan"))
    decay = 2 / 11
    assert torch.equal(ema.average["a"], torch.zeros(3).lerp_(torch.ones(3), 1 - decay))


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a device is asked to compute or to copy."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_view = any(
            row.alias_info and not row.alias_info.is_write
            for row in func._schema.returns
        )
        self.count += not is_view and "empty" not in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("device", "dtype", "asked"),
    [
        (None, torch.float32, 1),
        (None, torch.bfloat16, 2),  # as fp32, and the move
        ("cpu", torch.float32, 1),  # the copy
        ("cpu", torch.bfloat16, 1),
    ],
)
def test_an_update_is_a_launch_or_two_for_all_weights(
    device: str | None, dtype: torch.dtype, asked: int
) -> None:
    ema = Ema(many(dtype), decay=0.9, device=device)
    with Asked() as counted:
        ema.update(1)
    assert counted.count == asked


def test_no_more_is_on_its_way_than_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    values = many(torch.float32)
    largest = max(value.nbytes for value in values.values())
    monkeypatch.setattr(ema_module, "_PIECE_BYTES", 2 * largest)
    monkeypatch.setattr(ema_module, "ON_THE_WAY_BYTES", 5 * largest)
    ema = Ema(values, decay=0.9, device="cpu")
    ema.update(1)
    assert [piece.size for piece in ema._on_the_way] == [2 * largest] * 2
    assert ema.average
    assert not ema._on_the_way

"""Weights that stream: nothing of the result changes, and nothing is used while it is not on the card."""

import gc
import platform
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from support import toy_models
from torch import Tensor, nn

from blockrate.engine import streaming as streaming_module
from blockrate.engine.streaming import BlockStream, Transfers, _host_bytes, at_home

CPU = torch.device("cpu")
DOUBLE = 19
BLOCKS = 57


@dataclass
class Trained:
    """A model after some steps."""

    weights: list[Tensor]
    losses: list[float]
    stream: BlockStream | None


def blocks_of(model: Any) -> list[nn.Module]:
    return [*model.transformer_blocks, *model.single_transformer_blocks]


def add_adapters(model: Any, frozen: Collection[int], double: int) -> None:
    names = []
    for name, module in model.named_modules():
        parts = name.split(".")
        if not isinstance(module, nn.Linear) or not parts[0].endswith("blocks"):
            continue
        number = int(parts[1]) + (double if parts[0].startswith("single") else 0)
        if number not in frozen:
            names.append(name)
    torch.manual_seed(1)
    pattern = "|".join(map(re.escape, names))
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=pattern))


def streaming(
    model: Any, streamed: Collection[int], transfers: Transfers | None = None
) -> BlockStream | None:
    if not streamed:
        return None
    stream = BlockStream(CPU, transfers)
    for number, block in enumerate(blocks_of(model)):
        if number in streamed:
            stream.take(block)
    stream.start()
    model.block_stream = stream
    return stream


def train(
    streamed: Collection[int],
    frozen: Collection[int] = (),
    *,
    double: int = 2,
    single: int = 3,
    steps: int = 2,
    transfers: Transfers | None = None,
) -> Trained:
    model = toy_models.flux1(double, single)
    model.requires_grad_(False)
    stream = streaming(model, streamed, transfers)
    model.enable_gradient_checkpointing()
    add_adapters(model, frozen, double)
    model.train()
    learning = [row for row in model.parameters() if row.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        losses.append(float(toy_models.backward(model, step)))
        optimizer.step()
        # as a validation between two steps
        with torch.no_grad():
            losses.append(float(model(**toy_models.inputs(step))[0].sum()))
    with at_home(model):
        weights = [row.detach().clone() for row in model.parameters()]
    return Trained(weights, losses, stream)


def assert_same(one: Trained, other: Trained) -> None:
    assert one.losses == other.losses
    assert len(one.weights) == len(other.weights)
    assert all(map(torch.equal, one.weights, other.weights))


numbers = st.sets(st.integers(0, 4))


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(streamed=numbers, frozen=numbers.filter(lambda found: len(found) < 5))
def test_whatever_streams_and_whatever_is_frozen_each_bit_is_that_without(
    streamed: set[int], frozen: set[int]
) -> None:
    found = train(streamed, frozen)
    assert_same(found, train((), frozen))
    if found.stream:
        assert len(found.stream.on_card) <= 2


def test_a_weight_that_is_not_on_the_card_is_no_number() -> None:
    model = toy_models.flux1()
    model.requires_grad_(False)
    streaming(model, range(5))
    for block in blocks_of(model):
        for row in block.parameters():
            assert bool(row.isnan().all()) == (row.ndim > 1)
    with at_home(model):
        same = toy_models.flux1().parameters()
        assert all(map(torch.equal, model.parameters(), same))
    assert model.transformer_blocks[0].ff.net[2].weight.isnan().all()


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("streamed", "frozen", "loads"),
    [
        (range(57), (), 110),  # twice each, less two at both turns
        (range(57), range(28), 84),  # 28 once, 29 twice, less two at the turn
        (range(28), range(28), 28),
    ],
)
def test_blocks_before_the_first_trained_one_come_once_a_step(
    streamed: Sequence[int],
    frozen: Sequence[int],
    loads: int,
) -> None:
    model = toy_models.flux1(DOUBLE, BLOCKS - DOUBLE)
    model.requires_grad_(False)
    stream = streaming(model, streamed)
    assert stream
    model.enable_gradient_checkpointing()
    add_adapters(model, frozen, DOUBLE)
    model.train()
    counts = []
    for step in range(3):
        before = stream.loads
        toy_models.backward(model, step)
        counts.append(stream.loads - before)
    assert counts[-1] == loads
    # the first step does not know yet what follows
    assert max(counts) <= loads + 2


@dataclass
class Recorded:
    """A device whose copies come as late as they may: only when something waits for them."""

    log: list[tuple[str, int]] = field(default_factory=list)
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    done: int = 0

    def load(self, target: Tensor, source: Tensor) -> object:
        """Take note of a copy."""
        # until it is here, its place holds nothing that may be used
        target.fill_(255)
        self.copies.append((target, source))
        self.log.append(("load", len(self.copies)))
        return len(self.copies)

    def wait(self, loaded: Any) -> None:
        """Let a copy be done, and those before it, for a stream keeps its order."""
        for target, source in self.copies[self.done : loaded]:
            target.copy_(source)
        self.done = max(self.done, loaded)
        self.log.append(("wait", loaded))

    def finish(self) -> None:
        """Let all be done."""
        self.wait(len(self.copies))


def test_nothing_is_used_before_its_copy_is_waited_for() -> None:
    device = Recorded()
    found = train(range(5), range(2), transfers=device)
    assert_same(found, train((), range(2)))


def test_a_block_comes_while_the_one_before_it_computes() -> None:
    device = Recorded()
    train(range(5), transfers=device, steps=1)
    # at the first block: its copy, the wait for it, and the copy of the next before anything waits for that
    assert device.log[:5] == [
        ("load", 1),
        ("wait", 1),
        ("load", 2),
        ("wait", 2),
        ("load", 3),
    ]


def test_blocks_of_one_kind_share_two_places_of_the_largest() -> None:
    model = toy_models.flux1()
    model.requires_grad_(False)
    streaming(model, range(5))
    model(**toy_models.inputs())
    places = {
        row.untyped_storage().data_ptr()
        for block in blocks_of(model)
        for row in block.parameters()
        if row.ndim > 1 and not row.isnan().any()
    }
    assert len(places) == 2


class Runtime:
    """CUDA's list of pinned memory. ``code``: what it answers; a piece that is in the list is refused."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.sizes: dict[int, int] = {}

    def calls(self) -> SimpleNamespace:
        """Return what torch has of CUDA's own functions."""
        return SimpleNamespace(
            cudaHostRegister=self.register, cudaHostUnregister=self.unregister
        )

    def register(self, address: int, size: int, flags: int) -> int:
        """Pin memory, or say with a number why not."""
        if self.code or address in self.sizes:
            return self.code or 712
        self.sizes[address] = size
        return 0

    def unregister(self, address: int) -> int:
        """Let memory be ordinary again."""
        del self.sizes[address]
        return 0


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """What is told of memory that is not pinned, by a program that has told nothing yet; on no WSL."""
    monkeypatch.setattr(streaming_module, "_told", [])
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-generic")
    return caplog


def test_memory_is_pinned_for_as_long_as_its_model_is_there(
    monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", runtime.calls)

    def for_a_card(size: int, _: torch.device) -> Tensor:
        return _host_bytes(size, torch.device("cuda"))

    monkeypatch.setattr(streaming_module, "_host_bytes", for_a_card)
    for _ in range(3):
        model = toy_models.flux1()
        model.requires_grad_(False)
        stream = streaming(model, range(5))
        assert stream
        hosts = [block.host for block in stream._blocks]
        expected = {host.data_ptr(): host.numel() for host in hosts}
        assert runtime.sizes == expected
        with at_home(model):
            same = toy_models.flux1().parameters()
            assert all(map(torch.equal, model.parameters(), same))
        del model, stream, hosts
        gc.collect()
        assert not runtime.sizes
    assert not told.messages


@pytest.mark.parametrize(
    ("release", "code", "why"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", 0, "WSL pins next to none"),
        ("6.8.0-generic", 2, "CUDA error 2"),
    ],
)
def test_where_nothing_can_be_pinned_weights_stream_all_the_same_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    told: pytest.LogCaptureFixture,
    release: str,
    code: int,
    why: str,
) -> None:
    runtime = Runtime(code)
    cleared = []

    def zeros(*_: object, device: torch.device) -> None:
        # the next call of a card tells of the error before it
        cleared.append(device)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(torch.cuda, "cudart", runtime.calls)
    monkeypatch.setattr(torch, "zeros", zeros)
    card = torch.device("cuda")
    for _ in range(2):
        host = _host_bytes(100, card)
        assert (host.shape, host.dtype, host.device) == ((100,), torch.uint8, CPU)
    assert cleared == ([card] * 2 if code else [])
    assert told.messages == [
        f"weights stream from memory that is not pinned, which is slower: {why}"
    ]
    del host
    gc.collect()
    assert not runtime.sizes

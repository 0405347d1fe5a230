"""What a step is compared with: a loop on plain Linears computes what the trainer's model computes."""

from pathlib import Path

import pytest
import torch
from bare_loop import bare_loop
from bare_model import without_wrappers
from peft.tuners.lora import LoraLayer
from support.lives import Small

from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import flow_loss

pytestmark = pytest.mark.engine


def test_a_model_without_wrappers_learns_the_same(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.config(tmp_path, epochs=1, layer_filter="")
    seen: list[tuple[TrainingState, NoisedBatch]] = []
    real = flow_loss

    def loss(state: TrainingState, batch: NoisedBatch, given: object) -> torch.Tensor:
        seen.append((state, batch))
        return real(state, batch, config)

    monkeypatch.setattr("blockrate.engine.steps.flow_loss", loss)
    small.live(config)
    state, batch = seen[0]
    plain = without_wrappers(state)
    assert not any(isinstance(one, LoraLayer) for one in plain.transformer.modules())
    assert len(plain.trained) == len(state.trained)
    losses = []
    gradients = []
    for one in (state, plain):
        found = real(one, batch, config)
        found.backward()  # type: ignore[no-untyped-call]
        losses.append(found.detach())
        gradients.append([weights.grad for weights in one.trained.values()])
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    pairs = list(zip(*gradients, strict=True))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in pairs)
    optimizer = torch.optim.AdamW(plain.trained.values(), lr=1e-3)
    before = [weights.detach().clone() for weights in plain.trained.values()]
    bare_loop(plain, batch, optimizer)()
    moved = zip(plain.trained.values(), before, strict=True)
    assert all(not torch.equal(now, then) for now, then in moved)

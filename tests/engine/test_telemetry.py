"""The telemetry of a step against what can be computed from the whole model."""

import math
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given
from hypothesis import strategies as st
from support import toy_models as toy
from torch import nn

from blockrate import BlockLayout, parameter_groups
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.telemetry import SAMPLE, BlockTelemetry, _sample, _stride
from blockrate.run.events import Blocks

PROFILE = {"double_block_0": 0.5, "single_block_2": 0.0}
BLOCKS = [*BlockLayout(2, 3).names]


def measured(
    model: FluxTransformer2DModel, multipliers: dict[str, Any], *, clip: float = 1.0
) -> tuple[Blocks, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """One training step as the trainer takes it, and what the telemetry says of it."""
    optimizer = torch.optim.AdamW(
        parameter_groups(model, learning_rate=1e-2, multipliers=multipliers)
    )
    telemetry = BlockTelemetry(model, optimizer)
    toy.backward(model)
    telemetry.before_step()
    gradients = {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }
    before = toy.weights(model)
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return telemetry.after_step(), gradients, before


def rms_by_block(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """The root of the mean of all squares, by block."""
    blocks: dict[str, list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        blocks.setdefault(block_of(name) or OTHER, []).append(tensor.flatten())
    return {
        block: torch.cat(parts).square().mean().sqrt().item()
        for block, parts in blocks.items()
    }


@pytest.mark.parametrize("multipliers", [{}, PROFILE])
def test_norms_and_ratios_of_adapters_are_those_of_the_whole_block(
    multipliers: dict[str, Any],
) -> None:
    model = toy.flux1()
    config = TrainConfig(
        lora_rank=2,
        layer_filter_preset="blocks",
        block_learning_rate_multiplier=multipliers,
    )
    add_adapters(model, config)
    toy.teach(model)
    report, gradients, before = measured(model, multipliers)
    trained = BLOCKS[:-1] if multipliers else BLOCKS
    assert list(report.grad_norms) == list(report.update_ratios) == trained
    for block in trained:
        norm = nn.utils.get_total_norm(
            [g for name, g in gradients.items() if block_of(name) == block]
        )
        assert report.grad_norms[block] == pytest.approx(norm.item(), rel=1e-5)
    # Every adapter is smaller than the sample here, so the ratio is exact, A and B together.
    moves = rms_by_block(
        {n: p.detach() - before[n] for n, p in model.named_parameters() if "lora_" in n}
    )
    sizes = rms_by_block({n: value for n, value in before.items() if "lora_" in n})
    for block in trained:
        assert report.update_ratios[block] == pytest.approx(
            moves[block] / sizes[block], rel=1e-4
        )


def test_the_ratio_of_a_sample_is_close_to_that_of_the_whole_block() -> None:
    model = toy.flux1()
    report, _, before = measured(model, PROFILE)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    moves = rms_by_block(
        {n: p.detach() - before[n] for n, p in model.named_parameters() if n in trained}
    )
    sizes = rms_by_block({n: value for n, value in before.items() if n in trained})
    assert list(report.update_ratios) == [OTHER, *BLOCKS[:-1]]
    for block, ratio in report.update_ratios.items():
        assert ratio == pytest.approx(moves[block] / sizes[block], rel=0.05)


def test_rates_come_from_the_optimizer() -> None:
    model = toy.flux1()
    optimizer = torch.optim.SGD(
        parameter_groups(model, learning_rate=1e-2, multipliers=PROFILE)
    )
    telemetry = BlockTelemetry(model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.125
    assert telemetry.learning_rates() == {
        "double_block_0": 0.125,
        **dict.fromkeys([*BLOCKS[1:-1], OTHER], 1e-2),
    }


def test_one_group_is_still_told_by_block() -> None:
    report, _, _ = measured(toy.flux1(), {})
    assert report.learning_rates == dict.fromkeys(["transformer", OTHER, *BLOCKS], 1e-2)
    assert set(report.grad_norms) == set(report.update_ratios) == {OTHER, *BLOCKS}


def test_zero_weights_have_no_ratio_and_not_a_number_is_none() -> None:
    modules = {
        "transformer_blocks.0.a": nn.Linear(4, 4, bias=False),
        "transformer_blocks.1.a": nn.Linear(4, 4, bias=False),
    }
    first, second = (module.weight for module in modules.values())
    with torch.no_grad():
        first.zero_()
    optimizer = torch.optim.SGD(
        parameter_groups(modules, learning_rate=1.0, multipliers={"other": 0.5})
    )
    telemetry = BlockTelemetry(modules, optimizer)
    second.grad = torch.full((4, 4), math.nan)
    telemetry.before_step()
    optimizer.step()
    report = telemetry.after_step()
    assert report.grad_norms == {"double_block_0": 0.0, "double_block_1": None}
    assert report.update_ratios == {"double_block_0": None, "double_block_1": None}


def test_a_step_that_moves_nothing_has_ratio_zero() -> None:
    model = toy.flux1()
    telemetry = BlockTelemetry(
        model,
        torch.optim.SGD(parameter_groups(model, learning_rate=1.0, multipliers={})),
    )
    telemetry.before_step()
    report = telemetry.after_step()
    assert (
        set(report.update_ratios.values()) == set(report.grad_norms.values()) == {0.0}
    )


def test_only_a_sample_is_copied() -> None:
    modules = {
        "transformer_blocks.0.a": nn.Linear(1000, 1000),
        "transformer_blocks.0.b": nn.Linear(30, 40),
    }
    telemetry = BlockTelemetry(
        modules,
        torch.optim.SGD(parameter_groups(modules, learning_rate=1.0, multipliers={})),
    )
    telemetry.before_step()
    assert (
        sum(sample.numel() for sample in telemetry._weights.values())
        <= SAMPLE + 1000 + 30 * 40 + 40
    )


@given(st.lists(st.integers(1, 4000), max_size=2))
def test_a_sample_is_small_and_meets_every_column(shape: list[Any]) -> None:
    stride = _stride(shape)
    count = math.prod(shape)
    sampled = range(0, count, stride)
    assert len(sampled) <= SAMPLE
    assert stride <= count / SAMPLE + 1000
    if shape and len(sampled) >= shape[-1]:
        assert {index % shape[-1] for index in sampled[: shape[-1]]} == set(
            range(shape[-1])
        )


@pytest.mark.parametrize("shape", [(0,), (0, 1), (0, 64), ()])
def test_of_nothing_and_of_one_number_a_sample_is_what_there_is(
    shape: tuple[int, ...],
) -> None:
    """A rank may hold nothing of a bias that is shorter than the ranks are many."""
    tensor = torch.ones(shape)
    assert len(_sample([tensor])) == tensor.numel()

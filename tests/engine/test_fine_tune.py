"""What a full fine-tune trains."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from support import toy_models as toy

from blockrate import ConfigError, block_of, parameter_groups
from blockrate.config.train_config import TrainConfig
from blockrate.engine.fine_tune import choose_weights


def trained(
    **options: dict[str, Any] | str,
) -> tuple[FluxTransformer2DModel, set[str]]:
    model = toy.flux1()
    choose_weights(model, TrainConfig(training_method="FINE_TUNE", **options))
    return model, {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def test_everything_trains_by_default() -> None:
    model, names = trained()
    assert names == {name for name, _ in model.named_parameters()}
    assert model.training


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"layer_filter_preset": "blocks"}, lambda name: block_of(name) is not None),
        (
            {"layer_filter": "norm_q,proj_mlp"},
            lambda name: "norm_q" in name or "proj_mlp" in name,
        ),
        # The filter sees the module's name: what it is called, not whether it is its weight or its bias.
        ({"layer_filter": "bias"}, lambda name: False),
        (
            {"block_learning_rate_multiplier": {"other": 0.0}},
            lambda name: block_of(name) is not None,
        ),
        (
            {
                "layer_filter": "attn",
                "block_learning_rate_multiplier": {"single_block_0": 0.0},
            },
            lambda name: "attn" in name and block_of(name) != "single_block_0",
        ),
        ({"transformer": {"train": False}}, lambda name: False),
    ],
)
def test_filter_multipliers_and_the_train_switch_choose(
    options: Any, chosen: Callable[..., Any]
) -> None:
    model, names = trained(**options)
    assert names == {name for name, _ in model.named_parameters() if chosen(name)}


def test_a_frozen_block_keeps_every_byte() -> None:
    multipliers = {"double_block_1": 0.0, "single_block_0": 0.5}
    model, _ = trained(block_learning_rate_multiplier=multipliers)
    before = toy.weights(model)
    toy.train(
        model,
        torch.optim.AdamW(
            parameter_groups(model, learning_rate=1e-3, multipliers=multipliers)
        ),
        2,
    )
    changed = {block_of(name) for name in toy.changed(model, before)}
    assert changed == {
        "double_block_0",
        "single_block_0",
        "single_block_1",
        "single_block_2",
        None,
    }


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="double_block_0 to double_block_1"):
        trained(block_learning_rate_multiplier={"double_block_2": 0.5})

"""What a LoRA run trains: the chosen modules and no other, the same start for each, on every kind of base."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft.tuners.lora import LoraLayer
from support import toy_models as toy
from torch import nn

from blockrate import ConfigError, block_of, parameter_groups
from blockrate.config.parts import OptimizerSettings
from blockrate.config.train_config import TrainConfig
from blockrate.engine.adapters.file import LoraWeights, lora_weights
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.memory import dtype_of
from blockrate.engine.optimizers import make_optimizer

PROFILE = {"double_block_0": 0.5, "single_block_1": 0.0}


def config(**options: Any) -> TrainConfig:
    return TrainConfig(**({"lora_rank": 4, "lora_alpha": 2.0} | options))


def adapted(
    multipliers: dict[str, float] | None = None,
    *,
    start: dict[str, LoraWeights] | None = None,
    **options: Any,
) -> FluxTransformer2DModel:
    model = toy.flux1()
    add_adapters(
        model,
        config(block_learning_rate_multiplier=multipliers or {}, **options),
        start=start,
    )
    return model


def linears(model: FluxTransformer2DModel) -> list[str]:
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    ]


def learned(
    rank: int = 4,
    scale: float = 0.5,
    names: tuple[str, str] | tuple[str] = (
        "transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.1.proj_mlp",
    ),
) -> dict[str, LoraWeights]:
    """What a LoRA file holds."""
    stream = torch.Generator().manual_seed(3)
    base = toy.flux1()
    return {
        name: LoraWeights(
            torch.randn(rank, base.get_submodule(name).in_features, generator=stream),
            torch.randn(base.get_submodule(name).out_features, rank, generator=stream),
            scale,
        )
        for name in names
    }


def output(model: FluxTransformer2DModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        predicted: torch.Tensor = model(**toy.inputs())[0]
        return predicted


def test_every_linear_is_adapted_and_nothing_else_trains() -> None:
    model = toy.flux1()
    expected = linears(model)
    before = output(model)
    assert add_adapters(model, config()) == expected
    assert {
        name.rpartition(".lora_")[0]
        for name, p in model.named_parameters()
        if p.requires_grad
    } == set(expected)
    assert torch.equal(output(model), before)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"layer_filter_preset": "blocks"}, lambda name: "transformer_block" in name),
        ({"layer_filter_preset": "attn-only"}, lambda name: "attn" in name),
        (
            {"layer_filter": "^proj_out$", "layer_filter_regex": True},
            lambda name: name == "proj_out",
        ),
        (
            {"layer_filter": "norm_out,s.1.proj"},
            lambda name: "norm_out" in name or "s.1.proj_" in name,
        ),
        (
            {
                "layer_filter": r"^transformer_blocks\.[0,1]\.attn",
                "layer_filter_regex": True,
            },
            lambda name: name.startswith("transformer_blocks") and "attn" in name,
        ),
        (
            {"block_learning_rate_multiplier": {"other": 0.0, "double_block_1": 0.0}},
            lambda name: block_of(name) not in (None, "double_block_1"),
        ),
    ],
)
def test_the_filter_and_the_multipliers_choose_modules_by_full_name(
    options: dict[str, Any], chosen: Callable[..., Any]
) -> None:
    model = toy.flux1()
    expected = [name for name in linears(model) if chosen(name)]
    assert expected
    assert add_adapters(model, config(**options)) == expected
    assert [
        name for name, module in model.named_modules() if isinstance(module, LoraLayer)
    ] == expected


def test_a_frozen_block_has_no_adapter_and_not_a_byte_of_it_changes() -> None:
    model = adapted(PROFILE)
    before = toy.weights(model)
    assert not any(
        block_of(name) == "single_block_1" for name in before if "lora_" in name
    )
    groups = parameter_groups(model, learning_rate=1e-2, multipliers=PROFILE)
    toy.train(model, torch.optim.AdamW(groups), 2)
    changed = toy.changed(model, before)
    assert changed == {name for name in before if "lora_" in name}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_an_adapter_starts_the_same_whichever_others_there_are() -> None:
    everything = toy.weights(adapted())
    for model in (
        adapted(PROFILE),
        adapted(layer_filter="attn.to_q"),
        adapted({"double_block_0": 0.0, "other": 0.0}),
    ):
        weights = {
            name: value for name, value in toy.weights(model).items() if "lora_" in name
        }
        assert weights
        assert all(
            torch.equal(value, everything[name]) for name, value in weights.items()
        )
    other_seed = toy.weights(adapted(seed=7))
    assert not torch.equal(
        *(w["proj_out.lora_A.default.weight"] for w in (everything, other_seed))
    )


def test_first_values_are_pefts_kaiming_uniform_and_zero() -> None:
    for weights in lora_weights(adapted()).values():
        bound = weights.down.shape[1] ** -0.5
        assert weights.down.abs().max() <= bound
        assert weights.down.abs().max() > 0.8 * bound
        assert not weights.up.any()
        assert weights.scale == 0.5
    downs = {
        tuple(weights.down.flatten()[:2].tolist())
        for weights in lora_weights(adapted()).values()
    }
    assert len(downs) == len(linears(toy.flux1()))


def test_a_start_gives_the_output_it_had() -> None:
    merged = toy.flux1()
    start = learned(rank=3, scale=0.7)
    with torch.no_grad():
        for name, weights in start.items():
            merged.get_submodule(name).weight += (
                weights.scale * weights.up @ weights.down
            )
    model = adapted(start=start)
    torch.testing.assert_close(output(model), output(merged))
    assert not torch.allclose(output(model), output(toy.flux1()))


def test_a_start_in_a_frozen_block_is_kept_applied_and_frozen() -> None:
    start = learned()
    model = adapted(PROFILE, start=start)
    kept = model.get_submodule("single_transformer_blocks.1.proj_mlp")
    assert not any(p.requires_grad for p in kept.parameters())
    assert torch.equal(
        kept.lora_A["default"].weight,
        start["single_transformer_blocks.1.proj_mlp"].down,
    )
    torch.testing.assert_close(output(model), output(adapted(start=start)))
    before = toy.weights(model)
    toy.train(
        model,
        torch.optim.AdamW(
            parameter_groups(model, learning_rate=1e-2, multipliers=PROFILE)
        ),
        2,
    )
    changed = toy.changed(model, before)
    assert any("transformer_blocks.0.attn.to_q" in name for name in changed)
    assert "single_block_1" not in {block_of(name) for name in changed}
    assert "single_transformer_blocks.1.proj_mlp" in lora_weights(model)


@pytest.mark.parametrize("form", ["FLOAT_32", "BFLOAT_16"])
def test_a_run_gets_its_own_weights_back_bit_for_bit(form: str) -> None:
    options: dict[str, Any] = {
        "lora_rank": 3,
        "lora_alpha": 1.7,
        "lora_weight_dtype": form,
    }
    model = adapted(**options)
    toy.teach(model)
    again = adapted(**options, start=lora_weights(model))
    assert not toy.changed(again, toy.weights(model))
    # A block that is frozen from now on keeps what it learned, and the module set stays.
    frozen = adapted(PROFILE, **options, start=lora_weights(model))
    assert not toy.changed(frozen, toy.weights(model))


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (learned(rank=8), "lora_rank: 4 is too small.*rank 8"),
        (
            {
                "transformer_blocks.9.attn.to_q": learned()[
                    "transformer_blocks.0.attn.to_q"
                ]
            },
            "lora_model_name.*does not have",
        ),
        (
            {"proj_out": learned()["transformer_blocks.0.attn.to_q"]},
            "lora_model_name.*shape",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    start: dict[str, LoraWeights], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        adapted(start=start)


def test_a_start_outside_the_blocks_is_refused_for_the_kohya_form() -> None:
    start = learned(names=("x_embedder",))
    with pytest.raises(ConfigError, match=r"output_model_format.*x_embedder"):
        adapted(
            start=start, layer_filter_preset="blocks", output_model_format="KOHYA_LORA"
        )
    assert adapted(
        start=learned(), layer_filter_preset="blocks", output_model_format="KOHYA_LORA"
    )


@pytest.mark.parametrize(
    "options", [{"transformer": {"train": False}}, {"layer_filter": "nothing_like_it"}]
)
def test_nothing_left_to_train_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no module is left to train"):
        adapted(**options)


def test_lora_dropout_is_on_in_training() -> None:
    model = adapted(dropout_probability=0.5)
    assert model.training
    layer = model.get_submodule("proj_out")
    nn.init.ones_(layer.lora_B["default"].weight)
    assert not torch.equal(layer(torch.ones(1, 32)), layer(torch.ones(1, 32)))


@pytest.mark.parametrize(
    "base", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8]
)
@pytest.mark.parametrize("form", ["FLOAT_32", "BFLOAT_16"])
def test_adapters_and_their_gradients_have_the_chosen_type_on_every_base(
    base: torch.dtype, form: str
) -> None:
    model = toy.flux1(
        dtype=torch.bfloat16 if base == torch.float8_e4m3fn else torch.float32
    )
    model.requires_grad_(False)
    if base == torch.float8_e4m3fn:
        model.enable_layerwise_casting(base, torch.bfloat16)
    elif base == torch.uint8:
        model = in_4_bits(model)
    elif base == torch.bfloat16:
        model = toy.flux1(dtype=base)
    assert base in {p.dtype for p in model.parameters()}
    add_adapters(model, config(lora_weight_dtype=form))
    toy.teach(model)
    computed = (
        torch.bfloat16
        if base in (torch.bfloat16, torch.float8_e4m3fn)
        else torch.float32
    )
    assert toy.backward(model, dtype=computed).isfinite()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert (
        {p.dtype for p in trained}
        == {p.grad.dtype for p in trained}
        == {dtype_of(form)}
    )
    assert all(p.grad.any() for p in trained)


def test_a_start_of_another_type_is_rounded_to_nearest() -> None:
    start = learned()
    for form in ("FLOAT_32", "BFLOAT_16"):
        weights = lora_weights(adapted(start=start, lora_weight_dtype=form))
        for name, expected in start.items():
            assert torch.equal(weights[name].down, expected.down.to(dtype_of(form)))
            assert torch.equal(weights[name].up, expected.up.to(dtype_of(form)))
    # of a run in bf16, gone on from in fp32: exactly the same
    again = lora_weights(adapted(start=weights))
    assert all(
        torch.equal(again[name].up, weights[name].up.float()) for name in weights
    )


def test_a_step_in_bf16_is_that_in_fp32_rounded_by_chance() -> None:
    models = [
        adapted(lora_weight_dtype=form, layer_filter="attn.to_q")
        for form in ("BFLOAT_16", "FLOAT_32")
    ]
    toy.teach(models[0])
    with torch.no_grad():
        for ours, exact in zip(*(model.parameters() for model in models), strict=True):
            exact.copy_(ours)
    before = toy.weights(models[0])
    for model in models:
        toy.backward(model)
        groups = parameter_groups(model, learning_rate=1e-4, multipliers={})
        make_optimizer(groups, OptimizerSettings(), seed=0).step()
    ours, exact = (dict(model.named_parameters()) for model in models)
    chosen = [name for name, parameter in ours.items() if parameter.requires_grad]
    gradients = [
        torch.cat([of[name].grad.float().flatten() for name in chosen])
        for of in (ours, exact)
    ]
    torch.testing.assert_close(
        *gradients, rtol=0, atol=0.02 * gradients[1].abs().max().item()
    )
    moved = [
        torch.cat([(of[name] - before[name].float()).flatten() for name in chosen])
        for of in (ours, exact)
    ]
    values = torch.cat([before[name].float().flatten() for name in chosen])
    # at most to the next bf16 number
    assert ((moved[0] - moved[1]).abs() <= values.abs() * 2**-7 + 2e-4).all()
    lost = (moved[0] == 0.0).float().mean().item()
    assert 0.1 < lost < 0.99  # a step too small for most weights ...
    size = (moved[0] * moved[1].sign()).mean() / moved[1].abs().mean()
    # ... which all the same is taken on average
    assert size.item() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_on_an_fp8_base_learn_as_on_the_same_weights_in_bf16(
    checkpointing: bool,
) -> None:
    fp8 = toy.flux1(dtype=torch.bfloat16)
    bf16 = toy.flux1(dtype=torch.bfloat16)
    fp8.requires_grad_(False)
    fp8.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    for model in (fp8, bf16):
        if checkpointing:
            model.enable_gradient_checkpointing()
        add_adapters(model, config(block_learning_rate_multiplier=PROFILE))
        toy.teach(model)
    values = {
        name: parameter.detach().bfloat16()
        for name, parameter in fp8.named_parameters()
    }
    with torch.no_grad():
        for name, parameter in bf16.named_parameters():
            parameter.copy_(values[name] if "lora_" not in name else parameter)
    before = toy.weights(fp8)
    assert {value.dtype for value in before.values()} == {
        torch.float8_e4m3fn,
        torch.bfloat16,
        torch.float32,
    }
    losses = [toy.backward(model, dtype=torch.bfloat16) for model in (fp8, bf16)]
    assert torch.equal(*losses)
    for ours, theirs in zip(fp8.parameters(), bf16.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None) == (not ours.requires_grad)
        if ours.requires_grad:
            assert ours.dtype == ours.grad.dtype == torch.float32
            assert torch.equal(ours.grad, theirs.grad)
    assert not toy.changed(fp8, before)


def in_4_bits(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """What diffusers' loading with bitsandbytes gives, which wants a graphics card to do it."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name in linears(model):
        old = model.get_submodule(name)
        new = Linear4bit(
            old.in_features,
            old.out_features,
            quant_type="nf4",
            compute_dtype=torch.float32,
        )
        new.weight = Params4bit(
            old.weight.detach(), requires_grad=False, quant_type="nf4"
        )
        new.bias = old.bias
        model.set_submodule(name, new)
    model.is_loaded_in_4bit = True
    return model.to("cpu")


def test_adapters_on_a_4_bit_base_learn() -> None:
    model = in_4_bits(toy.flux1())
    names = add_adapters(model, config(block_learning_rate_multiplier=PROFILE))
    toy.teach(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(names)
    assert {p.dtype for p in trained} == {torch.float32}
    assert torch.uint8 in {p.dtype for p in model.parameters()}
    toy.backward(model)
    assert all(p.grad is not None and p.grad.any() for p in trained)

"""Parameter groups against hand-made ones and plain AdamW, and their coverage of every model."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from support import toy_models as toy
from torch import nn

from blockrate import (
    BlockLayout,
    ConfigError,
    block_layout,
    parameter_groups,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.core.layer_filter import PRESETS
from blockrate.core.profile import complete
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.fine_tune import choose_weights

LAYOUT = BlockLayout(2, 3)
PROFILE = {"double_block_0": 0.3, "single_block_1": 0.5, "single_block_2": 0.0}


@pytest.fixture
def model() -> FluxTransformer2DModel:
    return toy.flux1()


@pytest.fixture
def adapted() -> FluxTransformer2DModel:
    model = toy.flux1()
    add_adapters(model, TrainConfig(lora_rank=2))
    return model


def adamw(groups: list[Any]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, weight_decay=0.01)


def test_multipliers_of_one_train_exactly_like_one_plain_group(
    model: FluxTransformer2DModel, adapted: FluxTransformer2DModel
) -> None:
    for start in (model, adapted):
        ours = copy.deepcopy(start)
        plain = copy.deepcopy(start)
        groups = parameter_groups(
            ours, learning_rate=1e-2, multipliers=dict.fromkeys(LAYOUT.names, 1.0)
        )
        assert [group["name"] for group in groups] == ["transformer"]
        toy.train(ours, adamw(groups), 5)
        toy.train(
            plain,
            torch.optim.AdamW(
                [p for p in plain.parameters() if p.requires_grad], lr=1e-2
            ),
            5,
        )
        assert not toy.changed(ours, toy.weights(plain))
        assert toy.changed(ours, toy.weights(start))


def test_groups_train_exactly_like_hand_made_ones(
    model: FluxTransformer2DModel, adapted: FluxTransformer2DModel
) -> None:
    multipliers = {"double_block_0": 0.3, "single_block_1": 0.5, "other": 0.25}
    for start in (model, adapted):
        ours = copy.deepcopy(start)
        theirs = copy.deepcopy(start)
        made = []
        for name, rate in complete(multipliers, LAYOUT).items():
            kind, _, index = name.partition("_block_")
            path = (
                f"{'single_' if kind == 'single' else ''}transformer_blocks.{index}."
                if index
                else "-"
            )
            named = [
                p
                for n, p in theirs.named_parameters()
                if p.requires_grad
                and (n.startswith(path) if index else "transformer_blocks" not in n)
            ]
            made.append({"params": named, "lr": 1e-2 * rate})
        toy.train(
            ours,
            adamw(parameter_groups(ours, learning_rate=1e-2, multipliers=multipliers)),
            5,
        )
        toy.train(theirs, adamw(made), 5)
        assert not toy.changed(ours, toy.weights(theirs))
        assert toy.changed(ours, toy.weights(start))


def test_zero_leaves_every_byte_of_a_block_unchanged(
    model: FluxTransformer2DModel,
) -> None:
    before = toy.weights(model)
    groups = parameter_groups(model, learning_rate=1e-2, multipliers=PROFILE)
    toy.train(model, adamw(groups), 3)
    changed = {block_of(name) for name in toy.changed(model, before)}
    assert changed == {*LAYOUT.names, None} - {"single_block_2"}
    frozen = [
        p for name, p in model.named_parameters() if block_of(name) == "single_block_2"
    ]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_frozen_blocks_do_not_count_in_clipping(model: FluxTransformer2DModel) -> None:
    toy.backward(model)
    everything = nn.utils.get_total_norm(
        [p.grad for p in model.parameters() if p.grad is not None]
    )
    # drops the gradients it had, too
    groups = parameter_groups(model, learning_rate=1.0, multipliers={"other": 0.0})
    trained = nn.utils.get_total_norm(
        [p.grad for group in groups for p in group["params"] if p.grad is not None]
    )
    assert nn.utils.clip_grad_norm_(model.parameters(), 1e9) == trained < everything


def test_a_group_has_name_parameters_their_names_and_rate(
    model: FluxTransformer2DModel,
) -> None:
    groups = parameter_groups(model, learning_rate=1e-3, multipliers=PROFILE)
    assert [group["name"] for group in groups] == [*LAYOUT.names[:-1], OTHER]
    assert all(
        set(group) == {"name", "params", "param_names", "lr"} for group in groups
    )
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["double_block_0"] == 1e-3 * 0.3
    assert rates["double_block_1"] == rates[OTHER] == 1e-3
    named = dict(model.named_parameters())
    assert all(
        named[n] is p
        for group in groups
        for n, p in zip(group["param_names"], group["params"], strict=True)
    )


def test_other_alone_counts_as_used(model: FluxTransformer2DModel) -> None:
    groups = parameter_groups(model, learning_rate=1.0, multipliers={"other": 0.5})
    assert [group["name"] for group in groups] == [*LAYOUT.names, OTHER]
    assert groups[-1]["lr"] == 0.5


@st.composite
def runs(draw: Callable[..., Any]) -> tuple[BlockLayout, TrainConfig]:
    layout = BlockLayout(draw(st.integers(0, 3)), draw(st.integers(1, 4)))
    values = st.sampled_from([0.0, 0.0, 1e-4, 0.5, 1.0]) | st.floats(0.0, 1.0)
    names = st.sampled_from([*layout.names, OTHER])
    multipliers = draw(st.dictionaries(names, values, max_size=8))
    custom = st.sampled_from(
        ["attn.to_q", "proj", "norm1.linear,x_embedder", "blocks.1", "norm_q"]
    )
    options = draw(
        st.fixed_dictionaries({"layer_filter_preset": st.sampled_from(list(PRESETS))})
        | st.fixed_dictionaries(
            {"layer_filter_preset": st.just("custom"), "layer_filter": custom}
        )
    )
    return layout, TrainConfig(
        block_learning_rate_multiplier=multipliers, lora_rank=2, **options
    )


@settings(max_examples=40, deadline=None)
@given(runs(), st.booleans())
def test_every_trainable_parameter_is_in_exactly_one_group_of_its_block(
    run: tuple[BlockLayout, TrainConfig], lora: bool
) -> None:
    layout, config = run
    multipliers = config.block_learning_rate_multiplier
    model = toy.flux1(layout.double, layout.single, device="meta")
    passes = config.layer_filter_in_effect().matches
    linears = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    expected: dict[str, set[str]] = {}
    for name, _ in model.named_parameters():
        module = name.rpartition(".")[0]
        block = block_of(name) or OTHER
        if (
            passes(module)
            and multipliers.get(block, 1.0) > 0
            and (module in linears or not lora)
        ):
            expected.setdefault(block, set()).add(module if lora else name)
    if lora and not expected:
        with pytest.raises(ConfigError):
            add_adapters(model, config)
        return
    add_adapters(model, config) if lora else choose_weights(model, config)
    if not expected:
        with pytest.raises(ConfigError, match="nothing is left to train"):
            parameter_groups(model, learning_rate=2.0, multipliers=multipliers)
        return
    groups = parameter_groups(model, learning_rate=2.0, multipliers=multipliers)
    found = {
        group["name"]: {name.partition(".lora_")[0] for name in group["param_names"]}
        if lora
        else {*group["param_names"]}
        for group in groups
    }
    if any(value != 1.0 for value in multipliers.values()):
        assert found == expected
        assert list(found) == [
            name for name in (*layout.names, OTHER) if name in expected
        ]
        assert all(
            group["lr"] == 2.0 * multipliers.get(group["name"], 1.0) for group in groups
        )
    else:
        assert found == {"transformer": set().union(*expected.values())}
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("make", [toy.flux2, toy.chroma])
def test_flux2_and_chroma_have_the_same_block_names(make: Callable[..., Any]) -> None:
    model = make()
    assert block_layout(model) == LAYOUT
    groups = parameter_groups(model, learning_rate=1.0, multipliers=PROFILE)
    assert [group["name"] for group in groups] == [*LAYOUT.names[:-1], OTHER]
    for group in groups:
        assert {block_of(name) or OTHER for name in group["param_names"]} == {
            group["name"]
        }
    with pytest.raises(ConfigError, match="double_block_0 to double_block_1"):
        parameter_groups(model, learning_rate=1.0, multipliers={"double_block_2": 0.5})


def test_grouping_never_unfreezes(model: FluxTransformer2DModel) -> None:
    model.requires_grad_(False)
    model.single_transformer_blocks[0].requires_grad_(True)
    groups = parameter_groups(
        model, learning_rate=1.0, multipliers={"double_block_0": 0.5}
    )
    assert [group["name"] for group in groups] == ["single_block_0"]
    assert not any(p.requires_grad for p in model.transformer_blocks.parameters())


@pytest.mark.parametrize(
    ("multipliers", "words"),
    [
        (
            {"double_block_2": 0.5},
            "double_block_2: this model has double_block_0 to double_block_1",
        ),
        ({"dubble_block_1": 0.5}, "did you mean double_block_1"),
        ({"double_block_0": 1.5}, "1.5 is not a number from 0.0 to 1.0"),
        ({"double_block_0": float("nan")}, "nan is not"),
        ({"double_block_0": "high"}, "'high' is not"),
        (dict.fromkeys((*LAYOUT.names, OTHER), 0.0), "nothing is left to train"),
    ],
)
def test_bad_multipliers_are_one_error(
    model: FluxTransformer2DModel, multipliers: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        parameter_groups(model, learning_rate=1.0, multipliers=multipliers)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no transformer blocks"):
        parameter_groups(nn.Linear(2, 2), learning_rate=1.0, multipliers={})


def test_somebody_elses_script_gets_block_rates_by_three_lines() -> None:
    # What diffusers' Flux LoRA script does, with its list of parameters replaced by the README's lines.
    transformer = toy.flux1()
    transformer.requires_grad_(False)
    transformer.enable_gradient_checkpointing()
    transformer.add_adapter(
        LoraConfig(
            r=2,
            lora_alpha=2,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    optimizer = torch.optim.AdamW(
        parameter_groups(
            transformer,
            learning_rate=1e-4,
            multipliers={"double_block_0": 0.3, "single_block_2": 0.0},
        ),
        betas=(0.9, 0.999),
        weight_decay=1e-4,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 / (1 + step)
    )
    before = toy.weights(transformer)
    for step in range(3):
        toy.backward(transformer, step)
        nn.utils.clip_grad_norm_(
            [p for p in transformer.parameters() if p.requires_grad], 1.0
        )
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    changed = toy.changed(transformer, before)
    assert {block_of(name) for name in changed} == {
        "double_block_0",
        "double_block_1",
        "single_block_0",
        "single_block_1",
    }
    assert all("lora_" in name for name in changed)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["double_block_0"] == pytest.approx(0.3 * rates["double_block_1"])


# --- models of which only some blocks are seen ---


def partly(names: Sequence[str], width: int) -> dict[str, nn.Module]:
    """Linears of a model of this width; those whose name says so are as wide as FLUX.2 makes them."""
    wide = {"linear_in": 6, "to_qkv_mlp_proj": 9}
    linears: dict[str, nn.Module] = {}
    for name in names:
        out = wide.get(name.rpartition(".")[2], 1) * width
        with torch.device("meta"):
            linears[name] = nn.Linear(width, out, bias=False)
    return linears


KLEIN = (
    "transformer.transformer_blocks.2.ff.linear_in",
    "transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj",
)


@pytest.mark.parametrize(
    ("width", "double", "single"), [(3072, 5, 20), (4096, 8, 24), (6144, 8, 48)]
)
def test_a_part_of_another_family_has_the_blocks_of_that_family(
    width: int, double: int, single: int
) -> None:
    model = partly(KLEIN, width)
    assert block_layout(model) == BlockLayout(double, single)
    last = {f"double_block_{double - 1}": 0.5, f"single_block_{single - 1}": 0.5}
    parameter_groups(model, learning_rate=1.0, multipliers=last)
    for wrong in (
        f"double_block_{double}",
        "double_block_18",
        f"single_block_{single}",
    ):
        with pytest.raises(ConfigError, match=wrong):
            parameter_groups(model, learning_rate=1.0, multipliers={wrong: 0.5})


def test_a_part_of_a_flux1_still_may_be_any_block_of_it() -> None:
    names = ("transformer_blocks.3.attn.to_q", "single_transformer_blocks.9.attn.to_k")
    model = partly(names, 3072)
    assert block_layout(model) == BlockLayout(19, 38)
    parameter_groups(model, learning_rate=1.0, multipliers={"double_block_18": 0.5})


def test_kohya_names_of_the_two_families_are_told_apart_by_their_sizes() -> None:
    name = "lora_unet_single_blocks_7_linear1"
    for rows, layout in ((7, BlockLayout(19, 38)), (9, BlockLayout(5, 20))):
        with torch.device("meta"):
            lora = nn.ModuleDict(
                {
                    "lora_down": nn.Linear(3072, 4, bias=False),
                    "lora_up": nn.Linear(4, rows * 3072, bias=False),
                }
            )
        assert block_layout({name: lora}) == layout


def test_a_model_of_no_known_family_has_the_blocks_that_are_seen() -> None:
    """FLUX.3 has single blocks like the others, and double ones of another make."""
    model = nn.Module()
    model.mode_blocks = nn.ModuleDict({"image": nn.ModuleList([nn.Linear(2, 2)])})
    model.single_transformer_blocks = nn.ModuleList(
        nn.ModuleDict({"mixer": nn.Linear(2, 2)}) for _ in range(3)
    )
    assert block_layout(model) == BlockLayout(0, 3)
    with pytest.raises(ConfigError, match="double_block_18: this model has no double"):
        parameter_groups(model, learning_rate=1.0, multipliers={"double_block_18": 0.5})
    groups = parameter_groups(
        model, learning_rate=1.0, multipliers={"single_block_1": 0.5}
    )
    assert [group["name"] for group in groups][1] == "single_block_1"

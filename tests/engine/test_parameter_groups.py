"""Parameter groups against hand-made ones and plain AdamW, and their coverage of every model and wrapper."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from support import toy_models as toy
from torch import nn

from blockrate import (
    BlockLayout,
    ConfigError,
    block_layout,
    freeze_blocks,
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
def model():
    return toy.flux1()


@pytest.fixture
def adapted():
    model = toy.flux1()
    add_adapters(model, TrainConfig(lora_rank=2))
    return model


def adamw(groups):
    return torch.optim.AdamW(groups, weight_decay=0.01)


def test_multipliers_of_one_train_exactly_like_one_plain_group(model, adapted):
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


def test_groups_train_exactly_like_hand_made_ones(model, adapted):
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


def test_zero_leaves_every_byte_of_a_block_unchanged(model):
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


def test_frozen_blocks_do_not_count_in_clipping(model):
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


def test_a_group_has_name_parameters_their_names_and_rate(model):
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


def test_other_alone_counts_as_used(model):
    groups = parameter_groups(model, learning_rate=1.0, multipliers={"other": 0.5})
    assert [group["name"] for group in groups] == [*LAYOUT.names, OTHER]
    assert groups[-1]["lr"] == 0.5


@st.composite
def runs(draw):
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
def test_every_trainable_parameter_is_in_exactly_one_group_of_its_block(run, lora):
    layout, config = run
    multipliers = config.block_learning_rate_multiplier
    model = toy.flux1(layout.double, layout.single, device="meta")
    passes = config.layer_filter_in_effect().matches
    linears = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    expected = {}
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


# diffusers' Chroma warns of diffusers
@pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [toy.flux2, toy.chroma])
def test_flux2_and_chroma_have_the_same_block_names(make):
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


def blocks_of_groups(groups):
    return {group["name"]: [id(p) for p in group["params"]] for group in groups}


def compiled(model):
    # importing the default backend warns and takes seconds
    return torch.compile(model, backend="eager")


def compiled_blocks(model):
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        for index, block in enumerate(blocks):
            blocks[index] = compiled(block)
    return model


def checkpointed_blocks(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        checkpoint_wrapper,
    )

    for index, block in enumerate(model.single_transformer_blocks):
        model.single_transformer_blocks[index] = checkpoint_wrapper(block)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        compiled_blocks,
        checkpointed_blocks,
        lambda model: nn.ModuleDict({"inner": compiled(model)}),
    ],
)
def test_wrappers_do_not_change_the_groups(model, wrap):
    expected = blocks_of_groups(
        parameter_groups(model, learning_rate=1.0, multipliers=PROFILE)
    )
    wrapped = wrap(model)
    assert block_layout(wrapped) == LAYOUT
    assert (
        blocks_of_groups(
            parameter_groups(wrapped, learning_rate=1.0, multipliers=PROFILE)
        )
        == expected
    )


def test_adapters_of_get_peft_model_fall_into_their_blocks(model):
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    groups = parameter_groups(compiled(wrapped), learning_rate=1.0, multipliers=PROFILE)
    assert [group["name"] for group in groups] == [*LAYOUT.names[:-1], OTHER]
    assert all("lora_" in name for group in groups for name in group["param_names"])


@pytest.fixture
def process_group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_ddp_model_must_be_frozen_before_it_is_wrapped(model, process_group):
    late = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
    for call in (
        lambda: parameter_groups(late, learning_rate=1.0, multipliers=PROFILE),
        lambda: freeze_blocks(late, PROFILE),
    ):
        with pytest.raises(
            ConfigError, match=r"single_block_2.*DistributedDataParallel.*freeze_blocks"
        ):
            call()
    assert all(p.requires_grad for p in late.parameters())
    assert freeze_blocks(model, PROFILE) == ["single_block_2"]
    expected = blocks_of_groups(
        parameter_groups(model, learning_rate=1.0, multipliers=PROFILE)
    )
    wrapped = compiled(nn.parallel.DistributedDataParallel(model))
    assert (
        blocks_of_groups(
            parameter_groups(wrapped, learning_rate=1.0, multipliers=PROFILE)
        )
        == expected
    )


def test_an_fsdp2_model_must_be_frozen_before_it_is_wrapped(model, process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    freeze_blocks(model, {"double_block_1": 0.0})
    for block in [*model.transformer_blocks, *model.single_transformer_blocks, model]:
        fully_shard(block, mesh=mesh)
    groups = parameter_groups(
        model,
        learning_rate=1.0,
        multipliers={"double_block_1": 0.0, "single_block_0": 0.5},
    )
    assert [group["name"] for group in groups] == [
        "double_block_0",
        *LAYOUT.names[2:],
        OTHER,
    ]
    with pytest.raises(ConfigError, match="FSDPModule"):
        parameter_groups(model, learning_rate=1.0, multipliers=PROFILE)


def test_a_model_with_bfl_names_is_grouped_by_its_lists_or_its_names():
    def linears(count):
        return nn.ModuleList(nn.Linear(4, 4) for _ in range(count))

    listed = nn.Module()
    listed.img_in = nn.Linear(4, 4)
    listed.double_blocks = linears(12)
    listed.single_blocks = linears(2)
    flat = nn.ModuleDict(
        {
            name.replace(".", "$$"): module
            for name, module in listed.named_modules()
            if name
        }
    )
    del flat["double_blocks"], flat["single_blocks"]
    for model in (listed, flat):
        assert block_layout(model) == BlockLayout(12, 2)
        groups = {
            g["name"]: g["params"]
            for g in parameter_groups(
                model, learning_rate=1.0, multipliers={"other": 0.1}
            )
        }
        assert groups["double_block_1"] == [*listed.double_blocks[1].parameters()]
        assert groups["double_block_10"] == [*listed.double_blocks[10].parameters()]
        assert groups[OTHER] == [*listed.img_in.parameters()]


class LoraModule(nn.Module):
    """What OneTrainer and kohya keep for one Linear: two small Linears, and a base out of reach."""

    def __init__(self, base=None):
        super().__init__()
        self.lora_down = nn.Linear(4, 2, bias=False)
        self.lora_up = nn.Linear(2, 4, bias=False)
        self._base = [base or nn.Linear(4, 4)]
        self.register_buffer("alpha", torch.tensor(1.0))


NAMINGS = {
    "onetrainer": [
        "transformer_blocks.{}.attn.to_q",
        "single_transformer_blocks.{}.proj_mlp",
        "norm_out.linear",
    ],
    "onetrainer legacy": [
        "lora_transformer_transformer_blocks_{}_attn_to_q",
        "lora_transformer_single_transformer_blocks_{}_proj_mlp",
        "lora_transformer_norm_out_linear",
    ],
    "kohya": [
        "lora_unet_double_blocks_{}_img_attn_qkv",
        "lora_unet_single_blocks_{}_linear1",
        "lora_unet_final_layer_linear",
    ],
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("network", [dict, nn.ModuleDict])
def test_a_mapping_from_name_to_lora_module_is_grouped_by_names(naming, network):
    double, single, other = NAMINGS[naming]
    names = [
        other,
        *(double.format(i) for i in (10, 1, 0)),
        *(single.format(i) for i in (37, 1)),
    ]
    modules = {name: LoraModule() for name in names}
    for parameter in modules[double.format(0)].parameters():
        parameter.requires_grad_(False)
    model = (
        network(modules)
        if network is dict or "." not in double
        else network({n.replace(".", "$$"): m for n, m in modules.items()})
    )
    multipliers = {
        "double_block_1": 0.5,
        "double_block_18": 0.1,
        "single_block_37": 0.0,
        "other": 0.2,
    }
    groups = {
        group["name"]: group
        for group in parameter_groups(model, learning_rate=1.0, multipliers=multipliers)
    }
    assert list(groups) == [
        "double_block_1",
        "double_block_10",
        "single_block_1",
        OTHER,
    ]
    assert groups["double_block_10"]["params"] == [
        *modules[double.format(10)].parameters()
    ]
    assert groups[OTHER]["lr"] == 0.2
    assert not any(p.requires_grad for p in modules[single.format(37)].parameters())
    with pytest.raises(ConfigError, match="single_block_38"):
        parameter_groups(model, learning_rate=1.0, multipliers={"single_block_38": 0.5})


def test_a_mapping_that_holds_every_block_gives_the_layout():
    names = [f"lora_unet_double_blocks_{i}_img_attn_qkv" for i in range(4)] + [
        f"lora_unet_single_blocks_{i}_linear1" for i in range(8)
    ]
    assert block_layout({name: LoraModule() for name in names}) == BlockLayout(4, 8)
    assert block_layout({name: LoraModule() for name in names[5:]}) == BlockLayout(
        19, 38
    )


def test_a_shared_parameter_is_grouped_once(model):
    first, second = model.transformer_blocks
    second.norm1.linear.weight = first.norm1.linear.weight
    modules = {
        "transformer_blocks.0.a": first.norm1,
        "transformer_blocks.1.a": first.norm1,
        "x": first.norm1.linear,
    }
    for shared in (model, modules):
        groups = parameter_groups(
            shared, learning_rate=1.0, multipliers={"double_block_0": 0.5}
        )
        owners = [
            group["name"]
            for group in groups
            for p in group["params"]
            if p is first.norm1.linear.weight
        ]
        assert owners == ["double_block_0"]


def test_grouping_never_unfreezes(model):
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
def test_bad_multipliers_are_one_error(model, multipliers, words):
    with pytest.raises(ConfigError, match=words):
        parameter_groups(model, learning_rate=1.0, multipliers=multipliers)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="no transformer blocks"):
        parameter_groups(nn.Linear(2, 2), learning_rate=1.0, multipliers={})


def test_somebody_elses_script_gets_block_rates_by_three_lines():
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

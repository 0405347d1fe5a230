"""Parameter groups of models that others wrapped, renamed or gave adapters: the same as of the plain model."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig, get_peft_model
from support import toy_models as toy
from torch import nn
from torch._C._distributed_c10d import HashStore

from blockrate import (
    BlockLayout,
    ConfigError,
    block_layout,
    freeze_blocks,
    parameter_groups,
)
from blockrate.core.blocks import OTHER

LAYOUT = BlockLayout(2, 3)
PROFILE = {"double_block_0": 0.3, "single_block_1": 0.5, "single_block_2": 0.0}


@pytest.fixture
def model() -> FluxTransformer2DModel:
    return toy.flux1()


def blocks_of_groups(groups: list[dict[str, Any]]) -> dict[str, list[int]]:
    return {group["name"]: [id(p) for p in group["params"]] for group in groups}


def compiled(model: Any) -> Any:
    # importing the default backend warns and takes seconds
    return torch.compile(model, backend="eager")


def compiled_blocks(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        for index, block in enumerate(blocks):
            blocks[index] = compiled(block)
    return model


def checkpointed_blocks(model: FluxTransformer2DModel) -> FluxTransformer2DModel:
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
def test_wrappers_do_not_change_the_groups(
    model: FluxTransformer2DModel, wrap: Callable[..., Any]
) -> None:
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


def test_adapters_of_get_peft_model_fall_into_their_blocks(
    model: FluxTransformer2DModel,
) -> None:
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    groups = parameter_groups(compiled(wrapped), learning_rate=1.0, multipliers=PROFILE)
    assert [group["name"] for group in groups] == [*LAYOUT.names[:-1], OTHER]
    assert all("lora_" in name for group in groups for name in group["param_names"])


@pytest.fixture
def process_group() -> Iterator[None]:
    store = HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_ddp_model_must_be_frozen_before_it_is_wrapped(
    model: FluxTransformer2DModel, process_group: None
) -> None:
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


def test_an_fsdp2_model_must_be_frozen_before_it_is_wrapped(
    model: FluxTransformer2DModel, process_group: None
) -> None:
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


def test_a_model_with_bfl_names_is_grouped_by_its_lists_or_its_names() -> None:
    def linears(count: int) -> nn.ModuleList:
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

    def __init__(self, base: None = None) -> None:
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
def test_a_mapping_from_name_to_lora_module_is_grouped_by_names(
    naming: str, network: type
) -> None:
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


def test_a_mapping_that_holds_every_block_gives_the_layout() -> None:
    names = [f"lora_unet_double_blocks_{i}_img_attn_qkv" for i in range(4)] + [
        f"lora_unet_single_blocks_{i}_linear1" for i in range(8)
    ]
    assert block_layout({name: LoraModule() for name in names}) == BlockLayout(4, 8)
    assert block_layout({name: LoraModule() for name in names[5:]}) == BlockLayout(
        19, 38
    )


def test_a_shared_parameter_is_grouped_once(model: FluxTransformer2DModel) -> None:
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


class FusedGroup:
    """What OneTrainer keeps for q, k and v that train as one: a plain object, the module is inside."""

    def __init__(self) -> None:
        self.module = LoraModule()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.parameters()

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        return self.module.named_parameters(prefix=prefix, recurse=recurse)

    def modules(self) -> Iterator[nn.Module]:
        return self.module.modules()

    def requires_grad_(self, requires_grad: bool) -> None:
        self.module.requires_grad_(requires_grad)


class Bare:
    """The least that trains: something with ``parameters()``."""

    def __init__(self) -> None:
        self.module = LoraModule()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.module.parameters()


def fused_network(kind: type) -> dict[str, Any]:
    """A network as OneTrainer builds it for COMFY and KOHYA output: fused groups beside modules."""
    modules: dict[str, Any] = {"norm_out.linear": LoraModule()}
    for index in range(19):
        modules[f"transformer_blocks.{index}.attn.to_qkv"] = kind()
        modules[f"transformer_blocks.{index}.attn.to_out.0"] = LoraModule()
    for index in range(38):
        modules[f"single_transformer_blocks.{index}.linear1"] = kind()
    return modules


@pytest.mark.parametrize("kind", [FusedGroup, Bare])
def test_values_that_are_no_modules_train_at_their_own_rates(kind: type) -> None:
    network = fused_network(kind)
    learned = {
        name: list(getattr(value, "module", value).parameters())
        for name, value in network.items()
    }
    before = {
        name: [weight.detach().clone() for weight in weights]
        for name, weights in learned.items()
    }
    profile = {"double_block_0": 0.0, "double_block_3": 0.3, "single_block_37": 0.5}
    groups = parameter_groups(network, learning_rate=1e-2, multipliers=profile)
    grouped = [id(weight) for group in groups for weight in group["params"]]
    trained = [
        id(weight)
        for name, weights in learned.items()
        for weight in weights
        if ".0.attn" not in name
    ]
    assert sorted(grouped) == sorted(trained)
    # plain gradient descent moves a weight by rate times gradient, which is 1
    for group in groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    torch.optim.SGD(groups).step()
    moved = {
        name: [
            float((was - weight.detach()).mean())
            for was, weight in zip(before[name], weights, strict=True)
        ]
        for name, weights in learned.items()
    }
    for name, steps in moved.items():
        rate = 1e-2
        if name.startswith("transformer_blocks.0."):
            rate = 0.0
        elif name.startswith("transformer_blocks.3."):
            rate = 3e-3
        elif name.startswith("single_transformer_blocks.37."):
            rate = 5e-3
        assert steps == pytest.approx([rate] * len(steps), rel=1e-4, abs=1e-12), name


def test_names_of_parameters_in_plain_objects_are_those_of_modules() -> None:
    plain = {"transformer_blocks.0.attn.to_qkv": FusedGroup()}
    modules = {"transformer_blocks.0.attn.to_qkv": LoraModule()}
    names = [
        parameter_groups(network, learning_rate=1.0, multipliers={"other": 0.5})[0][
            "param_names"
        ]
        for network in (plain, modules)
    ]
    assert names[0] == names[1] != []


def test_a_mapping_to_parameters_themselves_is_grouped(
    model: FluxTransformer2DModel,
) -> None:
    expected = parameter_groups(model, learning_rate=1.0, multipliers=PROFILE)
    weights = dict(model.named_parameters())
    groups = parameter_groups(weights, learning_rate=1.0, multipliers=PROFILE)
    assert blocks_of_groups(groups) == blocks_of_groups(expected)
    assert [group["param_names"] for group in groups] == [
        group["param_names"] for group in expected
    ]


def test_a_value_without_parameters_is_named() -> None:
    network: Any = {"transformer_blocks.0.attn.to_q": 7}
    with pytest.raises(ConfigError, match="to_q is of int, which has no parameters"):
        parameter_groups(network, learning_rate=1.0, multipliers={})


class Wrapper:
    """What OneTrainer keeps its network in: no module, and no mapping itself."""

    def __init__(self) -> None:
        self.lora_modules = {"transformer_blocks.0.attn.to_q": LoraModule()}

    def parameters(self) -> list[nn.Parameter]:
        return [*self.lora_modules["transformer_blocks.0.attn.to_q"].parameters()]


@pytest.mark.parametrize(
    "network", [Wrapper(), [LoraModule()], {3: LoraModule()}, None]
)
def test_what_is_neither_model_nor_mapping_is_told_with_what_to_pass(
    network: Any,
) -> None:
    for call in (
        lambda: parameter_groups(network, learning_rate=1.0, multipliers={}),
        lambda: freeze_blocks(network, {}),
        lambda: block_layout(network),
    ):
        with pytest.raises(ConfigError, match="neither a model nor a mapping"):
            call()


def test_a_fused_group_that_is_spread_over_processes_is_frozen_before(
    process_group: None,
) -> None:
    group = FusedGroup()
    wrapped: Any = nn.parallel.DistributedDataParallel(group.module)
    group.module = wrapped
    network = {"transformer_blocks.0.attn.to_qkv": group}
    with pytest.raises(ConfigError, match=r"double_block_0.*DistributedDataParallel"):
        parameter_groups(network, learning_rate=1.0, multipliers={"double_block_0": 0})


class Network(nn.Module):
    """A network as kohya keeps it: one flat list of adapters, each under its own name."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, LoraModule())


@pytest.mark.parametrize("blocks", [range(4), range(2, 4), [0], [3]])
@pytest.mark.parametrize(
    "network", [Network, lambda names: {n: LoraModule() for n in names}]
)
def test_a_network_of_some_blocks_takes_a_profile_of_the_whole_model(
    network: Callable[[list[str]], Any], blocks: Any
) -> None:
    names = [f"lora_unet_double_blocks_{index}_img_attn_qkv" for index in blocks]
    profile = {f"double_block_{index}": (index + 1) / 100 for index in range(19)}
    profile |= {f"single_block_{index}": 0.0 for index in range(38)}
    groups = parameter_groups(network(names), learning_rate=1.0, multipliers=profile)
    assert {group["name"]: group["lr"] for group in groups} == {
        f"double_block_{index}": (index + 1) / 100 for index in blocks
    }
    with pytest.raises(ConfigError, match="double_block_19: this model has"):
        parameter_groups(
            network(names), learning_rate=1.0, multipliers={"double_block_19": 0.5}
        )


def test_a_model_that_lists_its_blocks_refuses_others(
    model: FluxTransformer2DModel,
) -> None:
    for call in (
        lambda: parameter_groups(
            model, learning_rate=1.0, multipliers={"double_block_2": 0.5}
        ),
        lambda: freeze_blocks(model, {"double_block_2": 0.0}),
    ):
        with pytest.raises(ConfigError, match="double_block_0 to double_block_1"):
            call()

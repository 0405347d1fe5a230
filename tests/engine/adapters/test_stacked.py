"""Adapters in few kernels: the numbers of PEFT's own layers, with nothing of the model changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from device.kohya.contestant import OperatorCount
from peft.tuners.lora import LoraLayer
from support import toy_models as toy
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.adapters.file import LoraWeights, lora_weights
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.adapters.stacked import compute_in_few_kernels
from blockrate.engine.models.few_bits import to_eight_bits

FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "blocks": {"layer_filter_preset": "blocks"},
    "attention": {"layer_filter": "attn.to_"},
    "queries alone": {"layer_filter": "attn.to_q"},
    "a frozen block": {"block_learning_rate_multiplier": {"double_block_0": 0.0}},
}


def with_weights(model: Any) -> Any:
    """A model like one of the meta device, with random weights."""
    model = type(model).from_config(model.config)
    stream = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=stream) * 0.2
        parameter.data = values + 1 if "norm" in name and values.ndim == 1 else values
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "FLUX.1": toy.flux1,
    "FLUX.2": lambda: with_weights(toy.flux2()),
    "Chroma": lambda: with_weights(toy.chroma()),
}


def adapted(model: Any, **options: Any) -> Any:
    start = options.pop("start", None)
    values = {"lora_rank": 4, "lora_alpha": 3.0, **options}
    add_adapters(model, TrainConfig.model_validate(values), start=start)
    toy.teach(model)
    return model


def inputs_of(model: Any) -> dict[str, Any]:
    """What the model's kind takes of a FLUX.1's inputs; position ids of its axes."""
    given = toy.inputs(0, next(model.parameters()).dtype)
    name = type(model).__name__
    if name != "FluxTransformer2DModel":
        del given["pooled_projections"]
    if name == "ChromaTransformer2DModel":
        del given["guidance"]
    if name == "Flux2Transformer2DModel":
        given["img_ids"] = torch.zeros(16, 4)
        given["txt_ids"] = torch.zeros(5, 4)
    return given


def learn(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The prediction, and every gradient by name."""
    predicted = model(**inputs_of(model))[0]
    (predicted.float() - 1.0).square().mean().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return predicted.detach(), gradients


def assert_same(found: Any, expected: Any) -> None:
    """Equal to 1e-6 of the largest number, everywhere."""
    assert found[1].keys() == expected[1].keys()
    assert (found[0] - expected[0]).abs().max() <= 1e-6 * expected[0].abs().max()
    largest = max(float(gradient.abs().max()) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        assert found[1][name].shape == gradient.shape
        assert (found[1][name] - gradient).abs().max() <= 1e-6 * largest


@pytest.mark.cases(7)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chosen", FILTERS)
@pytest.mark.parametrize("kind", MODELS)
def test_numbers_are_those_of_pefts_layers(
    kind: str, chosen: str, checkpointing: bool
) -> None:
    results = []
    for few in (False, True):
        # in numbers so exact that nothing but a mistake can differ
        model = adapted(MODELS[kind](), **FILTERS[chosen]).double()
        if few:
            compute_in_few_kernels(model, torch.float64)
        if checkpointing:
            model.enable_gradient_checkpointing()
        results.append(learn(model))
    assert len(results[0][1]) > 4
    assert_same(results[1], results[0])


@pytest.mark.parametrize("kind", MODELS)
def test_names_and_weights_of_the_model_stay_what_they_were(kind: str) -> None:
    model = adapted(MODELS[kind]())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters = list(lora_weights(model))
    compute_in_few_kernels(model, torch.float32)
    learn(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert list(lora_weights(model)) == adapters


def joined(model: nn.Module) -> int:
    return sum(hasattr(module, "to_qkv") for module in model.modules())


def test_attentions_that_train_alike_take_one_product() -> None:
    model = adapted(toy.flux1(2, 3), layer_filter="attn.")
    compute_in_few_kernels(model, torch.float32)
    assert joined(model) == 5
    attention = model.transformer_blocks[0].attn
    places = [
        layer.base_layer.weight.data_ptr()
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    ]
    size = attention.to_q.base_layer.weight.nbytes
    assert places == [places[0], places[0] + size, places[0] + 2 * size]


def learned_queries(scale: float = 0.75) -> dict[str, LoraWeights]:
    """What a file holds that has learned in one place."""
    name = "single_transformer_blocks.0.attn.to_q"
    return {name: LoraWeights(torch.ones(4, 32) / 9, torch.ones(32, 4) / 9, scale)}


@pytest.mark.parametrize(
    "options",
    [
        {"layer_filter": "attn.to_q,attn.to_k"},
        {"layer_filter": "attn.to_", "dropout_probability": 0.5},
        # of the text's three one is missing
        {"layer_filter": "attn.to_q,attn.to_k,attn.to_v,attn.add_q"},
    ],
)
def test_where_not_all_are_alike_nothing_is_joined(options: dict[str, Any]) -> None:
    model = adapted(toy.flux1(2, 0), **options)
    compute_in_few_kernels(model, torch.float32)
    assert joined(model) == 0
    assert not any(
        module.fused_projections
        for module in model.modules()
        if hasattr(module, "fused_projections")
    )


def test_dropout_is_left_to_peft() -> None:
    model = adapted(toy.flux1(), dropout_probability=0.5)
    compute_in_few_kernels(model, torch.float32)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert layers
    assert not any("forward" in vars(layer) for layer in layers)


def test_what_is_frozen_beside_what_trains_is_applied_and_gets_no_gradient() -> None:
    results = []
    for few in (False, True):
        model = adapted(
            toy.flux1(),
            start=learned_queries(),
            block_learning_rate_multiplier={"single_block_0": 0.0},
        )
        if few:
            compute_in_few_kernels(model, torch.float32)
        results.append(learn(model))
    assert_same(results[1], results[0])
    assert not [name for name in results[1][1] if "single_transformer_blocks.0" in name]


def test_what_a_pass_leaves_out_gets_no_gradient() -> None:
    results = []
    for few in (False, True):
        model = adapted(toy.flux1())
        if few:
            compute_in_few_kernels(model, torch.float32)
        skipped = model.single_transformer_blocks[0]
        skipped.forward = lambda hidden_states, encoder_hidden_states, **_: (
            encoder_hidden_states,
            hidden_states,
        )
        results.append(learn(model))
    assert_same(results[1], results[0])
    assert not [name for name in results[1][1] if "single_transformer_blocks.0" in name]


def test_weights_that_are_moved_apart_are_multiplied_one_by_one() -> None:
    model = adapted(toy.flux1())
    compute_in_few_kernels(model, torch.float32)
    expected = learn(model)
    model.zero_grad()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.clone()
    assert_same(learn(model), expected)


@pytest.mark.parametrize(
    ("form", "dtype"), [("FLOAT_8", torch.float8_e4m3fn), ("INT_8", torch.int8)]
)
def test_eight_bits_stay_eight_bits(form: str, dtype: torch.dtype) -> None:
    results = []
    for few in (False, True):
        model = toy.flux1()
        model.requires_grad_(False)
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            to_eight_bits(block, torch.float32, form)
        adapted(model)
        if few:
            compute_in_few_kernels(model, torch.float32)
            assert joined(model) == 5
        kept: list[torch.dtype] = []

        def pack(tensor: Tensor, kept: list[torch.dtype] = kept) -> Tensor:
            if tensor.ndim == 2 and not tensor.requires_grad:
                kept.append(tensor.dtype)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            results.append(learn(model))
        assert dtype in kept
    assert_same(results[1], results[0])


def test_adapters_are_taken_as_they_are_now() -> None:
    model = adapted(toy.flux1())
    compute_in_few_kernels(model, torch.float32)
    with torch.no_grad():
        before = model(**toy.inputs())[0]
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                # as loading and averages write it, unseen by torch's counts
                parameter.data.mul_(2.0)
        after = model(**toy.inputs())[0]
    other = adapted(toy.flux1())
    toy.teach(other, 0.1)
    with torch.no_grad():
        expected = other(**toy.inputs())[0]
    assert not torch.equal(before, after)
    assert torch.allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_bf16_they_are_no_further_from_the_truth_than_pefts(
    checkpointing: bool,
) -> None:
    truth = learn(adapted(toy.flux1()))
    distances = []
    for few in (False, True):
        model = adapted(toy.flux1(dtype=torch.bfloat16))
        if few:
            compute_in_few_kernels(model, torch.bfloat16)
        if checkpointing:
            model.enable_gradient_checkpointing()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = model(**toy.inputs(0, torch.bfloat16))[0]
        (predicted.float() - 1.0).square().mean().backward()
        found = {name: one.grad for name, one in model.named_parameters()}
        squares = [
            float((found[name] - truth[1][name]).square().sum()) for name in truth[1]
        ]
        assert all(found[name].dtype == torch.float32 for name in truth[1])
        distances.append(sum(squares))
    assert distances[1] <= 1.1 * distances[0]


def test_a_step_takes_a_seventh_less_of_kernels() -> None:
    counts = []
    for few in (False, True):
        model = adapted(toy.flux1(), layer_filter_preset="blocks")
        if few:
            compute_in_few_kernels(model, torch.float32)
        model.enable_gradient_checkpointing()
        count = OperatorCount()
        with count:
            learn(model)
        counts.append(count.kernels)
    assert counts[1] <= 0.85 * counts[0]


@pytest.mark.engine
def test_a_step_of_57_blocks_starts_less_work_than_kohyas() -> None:
    model = adapted(toy.flux1(19, 38), layer_filter_preset="blocks")
    compute_in_few_kernels(model, torch.float32)
    model.enable_gradient_checkpointing()
    count = OperatorCount()
    with count:
        learn(model)
    # what kohya's model and adapters start in a step, see benchmarks/README.md
    assert 10_000 < count.kernels <= 15_840

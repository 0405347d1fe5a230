"""The Linear in 8 bits, beside diffusers' own casting around each use, and beside weights that were written out."""

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from blockrate.engine.models.few_bits import (
    PackedLinear,
    in_whole_numbers,
    to_eight_bits,
)

FP8 = torch.float8_e4m3fn
WIDTH = 64


def chain(kind: str, dtype: torch.dtype, *, bias: bool = True) -> nn.Module:
    """Three Linears with an adapter each, the frozen weights as ``kind`` says."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3)]
    block = nn.Sequential(*layers).to(dtype).requires_grad_(False)
    if kind in ("ours", "INT_8"):
        to_eight_bits(block, dtype, "FLOAT_8" if kind == "ours" else kind)
    elif kind == "written out":
        for layer in layers:
            whole, scale = in_whole_numbers(layer.weight.data, dtype)
            layer.weight.data = (whole.float() * scale.float()[:, None]).to(dtype)
    elif kind == "hooks":
        apply_layerwise_casting(block, FP8, dtype)
    lora = LoraConfig(r=2, target_modules=["0", "1", "2"], init_lora_weights=False)
    model: nn.Module = inject_adapter_in_model(lora, block)
    stream = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        if ".lora_" in name and isinstance(module, nn.Linear):
            values = torch.randn(module.weight.shape, generator=stream) / 8
            module.weight = nn.Parameter(values)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            module.requires_grad_(False)
    return model


def learned(model: nn.Module, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of input and adapters, under the autocast of training."""
    values = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    values.requires_grad_()
    bf16 = dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(values.to(dtype))
    output.float().square().sum().backward()
    trained = [values, *(p for p in model.parameters() if p.requires_grad)]
    return output, [p.grad for p in trained if p.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_it_learns_as_diffusers_casting_does_bit_for_bit(
    dtype: torch.dtype, bias: bool
) -> None:
    found, expected = (
        learned(chain(kind, dtype, bias=bias), dtype) for kind in ("ours", "hooks")
    )
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1]) == 7
    assert all(map(torch.equal, found[1], expected[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_whole_numbers_learn_as_the_same_weights_written_out(
    dtype: torch.dtype, bias: bool
) -> None:
    found, expected = (
        learned(chain(kind, dtype, bias=bias), dtype)
        for kind in ("INT_8", "written out")
    )
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1]) == 7
    assert all(map(torch.equal, found[1], expected[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_weight_is_further_from_its_whole_number_than_half_a_step(
    dtype: torch.dtype,
) -> None:
    stream = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(48, 40, generator=stream) * 10.0 ** torch.arange(-24, 24)[:, None]
    )
    weight[7] = 0
    weight = weight.to(dtype)
    before = weight.clone()
    whole, scale = in_whole_numbers(weight, dtype)
    assert (whole.dtype, scale.dtype) == (torch.int8, dtype)
    assert torch.equal(weight, before)
    assert whole.abs().amax(dim=1)[weight.abs().amax(dim=1) > 0].min() >= 126
    step = scale.float()[:, None]
    error = (whole.float() * step - weight.float()).abs()
    # where the step was rounded down, the largest of a row are beyond 127 of them
    assert (error <= step * (0.5 + 127 * torch.finfo(dtype).eps)).all()
    assert not whole[7].any()


def test_whole_numbers_are_more_exact_than_eight_bit_floats() -> None:
    exact = learned(chain("", torch.float32), torch.float32)[1]
    errors = {}
    for kind in ("ours", "INT_8"):
        found = learned(chain(kind, torch.float32), torch.float32)[1]
        pairs = zip(found, exact, strict=True)
        errors[kind] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    assert errors["INT_8"] < 0.01
    assert errors["INT_8"] < errors["ours"] / 3


def test_another_weight_comes_to_the_same_bits_as_if_it_were_the_first() -> None:
    first, other = (nn.Linear(24, 16) for _ in range(2))
    for form in ("FLOAT_8", "INT_8"):
        small, expected = (
            PackedLinear.of(linear, torch.float32, form) for linear in (first, other)
        )
        small.fill(other.weight.data)
        assert torch.equal(
            small.weight.view(torch.uint8), expected.weight.view(torch.uint8)
        )
        if small.scale is not None and expected.scale is not None:
            assert torch.equal(small.scale, expected.scale)


def kept_of_the_base(model: nn.Module) -> int:
    """Bytes of weight's shape that the forward keeps and that are no parameters: what was written out for it."""
    # held, for the place of one that has gone may be taken by another
    held = [parameter.untyped_storage() for parameter in model.parameters()]
    known = {storage._cdata for storage in held}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if sorted(tensor.shape) == [WIDTH, WIDTH] and storage._cdata not in known:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        learned(model, torch.bfloat16)
    return sum(kept.values())


def test_it_keeps_8_bits_for_the_backward() -> None:
    assert kept_of_the_base(chain("ours", torch.bfloat16)) == 0
    assert kept_of_the_base(chain("INT_8", torch.bfloat16)) == 0
    # what it is for: each weight a second time, in bf16
    assert kept_of_the_base(chain("hooks", torch.bfloat16)) == 3 * 2 * WIDTH * WIDTH


def test_its_weights_lie_in_8_bits_before_and_after() -> None:
    model = chain("ours", torch.bfloat16)
    before = {n: p.clone() for n, p in model.named_parameters() if p.dtype == FP8}
    assert len(before) == 6
    learned(model, torch.bfloat16)
    after = dict(model.named_parameters())
    assert all(
        torch.equal(after[name].view(torch.uint8), value.view(torch.uint8))
        for name, value in before.items()
    )

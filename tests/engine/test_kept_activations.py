"""What a block of full size keeps for the backward, counted, beside what the plan says of it.

No card and no memory is needed: tensors are fake, and what CUDA's autocast and its flash attention do is done by hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_chroma import (
    ChromaSingleTransformerBlock,
    ChromaTransformerBlock,
)
from diffusers.models.transformers.transformer_flux import (
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from diffusers.models.transformers.transformer_flux2 import (
    Flux2SingleTransformerBlock,
    Flux2TransformerBlock,
)
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from blockrate.engine.adapters import side_by_side
from blockrate.engine.adapters.stacked import compute_in_few_kernels
from blockrate.models.activations import Precision, Work, block_elements
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.module_table import modules

FLUX1 = FAMILIES["flux1-dev"].spec
KLEIN = next(row.spec for row in FAMILIES.values() if row.spec.architecture == "FLUX.2")
CHROMA = FAMILIES["chroma1-hd"].spec
WORK = Work(4096, 512, checkpointing=False)
DOUBLE = ("double_block_3", "transformer_blocks.3.")
SINGLE = ("single_block_5", "single_transformer_blocks.5.")
BLOCKS = {
    "FLUX.1 double": (FLUX1, *DOUBLE, FluxTransformerBlock),
    "FLUX.1 single": (FLUX1, *SINGLE, FluxSingleTransformerBlock),
    "FLUX.2 double": (KLEIN, *DOUBLE, Flux2TransformerBlock),
    "FLUX.2 single": (KLEIN, *SINGLE, Flux2SingleTransformerBlock),
    "Chroma double": (CHROMA, *DOUBLE, ChromaTransformerBlock),
    "Chroma single": (CHROMA, *SINGLE, ChromaSingleTransformerBlock),
}
ATTENTION = functional.scaled_dot_product_attention
TO_BF16 = (functional.linear, ATTENTION)
TO_FP32 = (functional.layer_norm, functional.rms_norm)


class Flash(torch.autograd.Function):
    """Keeps what flash attention keeps, and with a mask what is added for it: numbers like those of the query."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attend."""
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:3], dtype=torch.float32)
        added = () if mask is None else (mask.to(query.dtype),)
        ctx.save_for_backward(query, key, value, out, sums, *added)
        return out


class Card(TorchFunctionMode):
    """Attention as on a card and, if asked for, CUDA's autocast to bf16, which casts other functions than a CPU's."""

    def __init__(self, *, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.autocast and func in TO_BF16 + TO_FP32:
            dtype = torch.bfloat16 if func in TO_BF16 else torch.float32

            def cast(value: Any) -> Any:
                if not isinstance(value, Tensor) or value.dtype == torch.bool:
                    return value
                return value.to(dtype)

            args = tuple(map(cast, args))
            kwargs = {name: cast(value) for name, value in kwargs.items()}
        if func is ATTENTION:
            query, key, value = args[:3] or [
                kwargs[name] for name in ("query", "key", "value")
            ]
            mask = kwargs.get("attn_mask")
            return Flash.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


@dataclass
class Kept:
    """Bytes that are kept, each storage once."""

    known: set[int]
    sizes: dict[int, int] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)

    def pack(self, tensor: Tensor) -> Tensor:
        """Take note of a tensor that is kept."""
        self.alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.sizes[storage._cdata] = storage.nbytes()
        return tensor


def inputs_of(
    make: Callable[..., nn.Module], width: int, dtype: torch.dtype
) -> dict[str, Any]:
    """What a block is called with: image and text, in the chain of gradients, and the modulation, which is not."""
    text, image = WORK.text_tokens, WORK.image_tokens

    def states(tokens: int) -> Tensor:
        return torch.empty(1, tokens, width, dtype=dtype, requires_grad=True)

    def modulation(parts: int) -> Tensor:
        return torch.empty(1, 1, parts * width, dtype=dtype)

    if make in (ChromaTransformerBlock, ChromaSingleTransformerBlock):
        mask = torch.ones(1, text + image, dtype=torch.bool)
        masked = {"attention_mask": mask}
        if make is ChromaSingleTransformerBlock:
            temb = torch.empty(1, 3, width, dtype=dtype)
            return {"hidden_states": states(image + text), "temb": temb} | masked
        temb = torch.empty(1, 12, width, dtype=dtype)
        both = {"hidden_states": states(image), "encoder_hidden_states": states(text)}
        return both | masked | {"temb": temb}
    if make is Flux2SingleTransformerBlock:
        return {
            "hidden_states": states(image + text),
            "encoder_hidden_states": None,
            "temb_mod": modulation(3),
        }
    given = {"hidden_states": states(image), "encoder_hidden_states": states(text)}
    if make is Flux2TransformerBlock:
        both = {"temb_mod_img": modulation(6), "temb_mod_txt": modulation(6)}
        return given | both
    return given | {"temb": torch.empty(1, width, dtype=dtype)}


def kept_bytes(
    spec: TransformerSpec,
    make: Callable[..., nn.Module],
    dtype: torch.dtype,
    *,
    autocast: bool,
    adapted: list[str],
    weights: bool,
    joins: bool,
) -> int:
    """What the forward of a block keeps, in bytes."""
    width = spec.hidden
    with torch.device("meta"):
        block = make(width, spec.heads, width // spec.heads)
        if adapted:
            lora = LoraConfig(r=16, target_modules=adapted, init_lora_weights=False)
            block = inject_adapter_in_model(lora, block)
    with FakeTensorMode():
        for name, module in block.named_modules():
            # as the engine has it, see engine/adapters/lora.py
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = not autocast
            is_adapter = ".lora_" in name
            for key, value in module._parameters.items():
                if value is not None:
                    kind = torch.float32 if is_adapter else dtype
                    new = torch.empty(value.shape, dtype=kind)
                    trains = is_adapter or weights
                    module._parameters[key] = nn.Parameter(new, requires_grad=trains)
        if joins:
            compute_in_few_kernels(block, torch.bfloat16 if autocast else dtype)
        tokens = WORK.rows("joint")
        positions = torch.empty(tokens, width // spec.heads)
        known = [*block.parameters(), positions]
        kept = Kept({tensor.untyped_storage()._cdata for tensor in known})
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda kept: kept)
        with Card(autocast=autocast), hooks:
            block(
                **inputs_of(make, width, dtype),
                image_rotary_emb=(positions, positions),
            )
    return sum(kept.sizes.values())


def as_they_were_laid(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0].detach()
    size = (len(tensors) * len(first), *first.shape[1:])
    return first.as_strided(size, first.stride())


@pytest.mark.cases(24)
@pytest.mark.engine
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("precision", "dtype", "size"),
    [
        ("mixed", torch.bfloat16, 2),
        ("mixed on fp32", torch.float32, 2),
        ("bf16", torch.bfloat16, 2),
        ("fp32", torch.float32, 4),
    ],
)
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize(
    "what", ["nothing", "weights", "every Linear", "attention", "feed forward"]
)
def test_the_plan_knows_what_a_block_keeps(
    block: str,
    precision: Precision,
    dtype: torch.dtype,
    size: int,
    what: str,
    joins: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # fake tensors lie nowhere, so that nobody can see that they lie side by side
    monkeypatch.setattr(side_by_side, "_beside", as_they_were_laid)
    spec, name, prefix, make = BLOCKS[block]
    linears = [
        module.name.removeprefix(prefix)
        for module in modules(spec)
        if module.name.startswith(prefix) and module.linear
    ]
    adapted = {
        "every Linear": linears,
        "attention": [name for name in linears if name.startswith("attn.")],
        "feed forward": [
            name
            for name in linears
            if "ff" in name or "proj_" in name or name == "attn.to_out"
        ],
    }.get(what, [])
    counted = kept_bytes(
        spec,
        make,
        dtype,
        autocast=precision.startswith("mixed"),
        adapted=adapted,
        weights=what == "weights",
        joins=joins,
    )
    trained = {prefix + name for name in (linears if what == "weights" else adapted)}
    rank = None if what == "weights" else 16
    work = replace(WORK, rank=rank, joins=joins)
    planned = size * block_elements(spec, name, trained, work, precision)
    assert planned == pytest.approx(counted, rel=0.1)

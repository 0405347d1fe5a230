"""Every module of a FLUX.1 transformer that owns parameters, so that plan and window need neither torch nor weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from blockrate.core.blocks import block_of, block_path, split_block
from blockrate.models.families import FLUX1, TransformerSpec

Tokens = Literal["image", "text", "joint", "one"]

_SINUSOIDAL = 256  # channels of the timestep and guidance embedding


@dataclass(frozen=True)
class Module:
    """A module with parameters, by its diffusers name. ``tokens``: the rows it sees, ``one`` a sample.

    ``shape`` is the weight's: (out, in) of a Linear, (head_dim,) of a norm.
    """

    name: str
    shape: tuple[int, ...]
    bias: bool
    tokens: Tokens
    linear: bool

    @property
    def parameters(self) -> int:
        """Number of parameters, bias included."""
        return (
            self.shape[0] * (self.shape[1] if self.linear else 1)
            + self.shape[0] * self.bias
        )

    @cached_property
    def block(self) -> str | None:
        """The block it lies in, ``None`` for embedders, final norm and output projection."""
        return block_of(self.name)

    def adapter_parameters(self, rank: int) -> int:
        """Number of parameters of a LoRA of this rank on it."""
        return rank * sum(self.shape)


@cache
def modules(spec: TransformerSpec) -> tuple[Module, ...]:
    """Return every module that owns parameters, in the order of diffusers' ``FluxTransformer2DModel``."""
    return tuple(_modules(spec))


def _modules(spec: TransformerSpec) -> Iterator[Module]:
    width = spec.hidden
    embedders = [
        ("timestep_embedder", _SINUSOIDAL),
        ("guidance_embedder", _SINUSOIDAL),
    ][: 1 + spec.guidance_embeds]
    for name, inputs in [*embedders, ("text_embedder", spec.pooled_projection_dim)]:
        yield Module(
            f"time_text_embed.{name}.linear_1", (width, inputs), True, "one", True
        )
        yield Module(
            f"time_text_embed.{name}.linear_2", (width, width), True, "one", True
        )
    yield Module(
        "context_embedder", (width, spec.joint_attention_dim), True, "text", True
    )
    yield Module("x_embedder", (width, spec.in_channels), True, "image", True)
    for block in spec.layout.names:
        for name, out, inputs, tokens in FLUX1[split_block(block)[0]]["modules"]:
            shape = (out * width, inputs * width) if inputs else (spec.head_dim,)
            yield Module(
                f"{block_path(block)}.{name}", shape, bool(inputs), tokens, bool(inputs)
            )
    yield Module("norm_out.linear", (2 * width, width), True, "one", True)
    yield Module("proj_out", (spec.in_channels, width), True, "image", True)

"""Blocks under ``compile``: each is one graph, with adapters and without, and no size after the second waits."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from support import toy_models

from blockrate.engine.compiling import compile_blocks
from blockrate.engine.models.few_bits import to_eight_bits

# torch's own, while it imports its compiler and while it looks at tensors
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor"
)


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torch's counters, of a compiler that ends at a graph break; the graphs are computed as they are."""
    from torch import _dynamo
    from torch._dynamo.utils import counters

    compile_them = FluxTransformer2DModel.compile_repeated_blocks

    def whole(model: Any) -> None:
        compile_them(model, fullgraph=True, backend="eager")

    monkeypatch.setattr(FluxTransformer2DModel, "compile_repeated_blocks", whole)
    # which would write down each graph
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    _dynamo.reset()
    counters.clear()
    with _dynamo.config.patch(disable=False, recompile_limit=8):
        yield counters
    _dynamo.reset()


def test_a_block_is_one_graph_and_a_third_size_needs_no_other(counters: Any) -> None:
    model: Any = toy_models.flux1(0, 3)
    model.requires_grad_(False)
    for block in model.single_transformer_blocks:
        # Linears of our own, beside those of adapters
        to_eight_bits(block, torch.float32, "INT_8", "(?!)")
    # a frozen block, and two with different adapters
    trained = r"single_transformer_blocks\.(1\.attn\.to_q|2\.proj_mlp)"
    model.add_adapter(LoraConfig(r=2, target_modules=trained))
    model.enable_gradient_checkpointing()
    compile_blocks(model)
    graphs = []
    for tokens in (16, 24, 32):
        given = toy_models.inputs()
        given["hidden_states"] = torch.randn(2, tokens, toy_models.LATENTS)
        given["img_ids"] = torch.zeros(tokens, 3)
        model.train()(**given)[0].sum().backward()
        with torch.no_grad():
            model.eval()(**given)
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    # more than torch makes by itself
    assert graphs[1] > 8
    assert graphs[2] == graphs[1]

"""What the plan counts for weights in few bits, beside the bytes of a model in that form."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blockrate.core.blocks import BlockLayout
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.common import place
from blockrate.models.activations import Work
from blockrate.models.families import FAMILIES
from blockrate.models.savings import memory


@pytest.mark.parametrize("name", ["tiny-flux1", "tiny-flux2"])
@pytest.mark.parametrize("form", ["FLOAT_8", "INT_8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_few_bits_are_counted_for_the_linears_of_blocks_alone(
    name: str, dtype: torch.dtype, form: str
) -> None:
    spec = FAMILIES[name].spec
    # so wide that scales by row and biases weigh as little as in a model
    spec = replace(spec, heads=8 * spec.heads, layout=BlockLayout(1, 1))
    family: Any = FAMILY_MODULES[spec.architecture]
    model = family.random_transformer(spec).to(dtype)
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    place(model, blocks, form, dtype, torch.device("cpu"), where=Path("here"))
    found = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    planned = memory(
        spec,
        [],
        Work(image_tokens=16, text_tokens=16, batch=1, rank=None, checkpointing=True),
        weight_dtype=form,
        trained_dtype="FLOAT_32",
        state_bytes=8,
        precision="mixed" if dtype == torch.bfloat16 else "fp32",
    )
    assert planned.weights == pytest.approx(found, rel=0.02)

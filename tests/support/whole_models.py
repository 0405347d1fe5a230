"""Loading all of a model, and what is told of one that is not whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blockrate.core.errors import FileError
from blockrate.engine.models import flux1
from blockrate.engine.models.locate import locate
from support.model_folders import Tensors, config_of

CPU = torch.device("cpu")
# a tensor of each part, in the middle of it
SOME = {
    "transformer": "transformer_blocks.0.attn.to_k.weight",
    "vae": "decoder.mid_block.attentions.0.to_q.weight",
    "text_encoder": "encoder.layers.1.mlp.fc1.weight",
    "text_encoder_2": "encoder.block.1.layer.0.SelfAttention.q.weight",
}
PARTS = list(SOME)


def load(folder: Path, **changes: Any) -> tuple[Any, Any, Any]:
    """Everything that a run loads of a model."""
    chosen = config_of(folder, **changes)
    files = locate(chosen)
    vae = flux1.load_vae(
        files.parts["vae"], weight_dtype=chosen.vae.weight_dtype, device=CPU
    )
    encoders = flux1.load_text_encoders(files, chosen, CPU)
    return vae, encoders, flux1.load_transformer(files, chosen, CPU)


def refusal(folder: Path, part: str, **changes: Any) -> str:
    with pytest.raises(FileError) as caught:
        load(folder, **changes)
    assert caught.value.exit_code == 65
    assert f"/{part}" in caught.value.where
    assert caught.value.cure
    assert len(str(caught.value)) < 700
    return caught.value.problem


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


def put(name: str, value: float) -> Callable[[Tensors], object]:
    return lambda tensors: tensors[name].view(-1)[-1:].fill_(value)

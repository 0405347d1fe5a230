"""A LoRA file of two blocks, for tests of what is shown of one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def lora_file(path: Path, stray: dict[str, Any] | None = None) -> dict[str, float]:
    """A LoRA of two blocks in diffusers' form with a profile; gives the norm that each block must show."""
    tensors: dict[str, Any] = dict(stray or {})
    norms = {"double_block_2": 3.0, "single_block_37": 1.5}
    for module, norm in (
        ("transformer_blocks.2", 3.0),
        ("single_transformer_blocks.37", 1.5),
    ):
        name = f"transformer.{module}.attn.to_q"
        tensors[f"{name}.lora_A.weight"] = np.eye(1, 4, dtype=np.float32)
        tensors[f"{name}.lora_B.weight"] = norm * np.eye(4, 1, dtype=np.float32)
    save_file(
        tensors,
        path,
        {"blockrate.multipliers": json.dumps({"single_block_37": 0.5}), "format": "pt"},
    )
    return norms

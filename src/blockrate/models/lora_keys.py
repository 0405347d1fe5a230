"""The parts of a LoRA file's keys, in every spelling, and the scale that its header may hold. No tensors."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockrate.core.errors import FileError


def _factor(role: str, letter: str) -> str:
    """Return the pattern of a factor's key, after the module: PEFT's, kohya's, diffusers' and XLabs' spelling."""
    spellings = (
        f"lora_{letter}",
        f"lora_{role}",
        rf"lora\.{role}",
        rf"lora_linear_layer\.{role}",
        rf"(?:(?<=_lora\.)|(?<=_lora[12]\.)){role}",
    )
    return rf"(?P<{role}>(?:{'|'.join(spellings)})(?:\.default)?\.weight)"


# What follows the module in a key: one group for each role.
_ROLES = (
    _factor("down", "A"),
    _factor("up", "B"),
    r"(?P<alpha>alpha)",
    r"(?P<dora>dora_scale|lora_magnitude_vector(?:\.\w+)*)",
    r"(?P<bias>(?:lora_B|lora_up)\.bias|diff_b)",
    r"(?P<named>(?:lokr|hada|oft|boft|glora)_\w+|diff)(?:\.default)?(?:\.weight)?",
)
_KEY = re.compile(rf"^(?P<module>.+?)\.(?:{'|'.join(_ROLES)})$")
_METHODS = {
    "lokr": "LoKr",
    "hada": "LoHa",
    "oft": "OFT",
    "boft": "BOFT",
    "glora": "GLoRA",
    "dora": "DoRA",
}


def split_key(key: str) -> tuple[str, str] | None:
    """Return module and role of a key, ``None`` when it is not part of a LoRA.

    Roles: ``down``, ``up``, ``alpha``, ``dora``, ``bias``, and others by name: ``lokr_w1``, ``hada_w2_a``, ``diff`` ...
    """
    parts = _KEY.match(key)
    if not parts:
        return None
    for role in ("down", "up", "alpha", "dora", "bias"):
        if parts[role]:
            return parts["module"], role
    return parts["module"], parts["named"]


def method_of(role: str) -> str:
    """Return the name of the method that a role belongs to, empty for plain LoRA: ``lokr_w1`` gives ``LoKr``."""
    return _METHODS.get(role.partition("_")[0], "")


def is_text_encoder(key: str) -> bool:
    """Whether a key belongs to a text encoder."""
    starts = ("lora_te", "text_encoder", "base_model.model.text_encoder", "bundle_emb")
    return key.startswith(starts)


def adapter_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the transformer's PEFT LoraConfig that diffusers writes into the header of ``path``, empty without one."""
    of_transformer = {}
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        for key, value in config.items():
            if key.startswith("trans"):
                of_transformer[key.removeprefix("transformer.")] = value
    except (ValueError, AttributeError) as error:
        problem = "its lora_adapter_metadata is not JSON"
        raise FileError(str(path), problem, "Export the LoRA again.") from error
    return of_transformer


def adapter_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return alpha / rank of a diffusers module by an ``adapter_config``, 1.0 when that is empty."""
    alpha = config.get("lora_alpha", config.get("alpha", rank))
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # PEFT's rule; the first that fits counts
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    # rank-stabilized LoRA (Kalajdzievski 2023)
    if config.get("use_rslora"):
        return float(alpha) / math.sqrt(rank)
    return float(alpha) / rank

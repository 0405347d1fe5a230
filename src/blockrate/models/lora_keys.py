"""The parts of a LoRA file's keys, in every spelling, and the scale that its header may hold. No tensors."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockrate.core.errors import FileError

_FACTORS = "|".join(
    rf"(?P<{role}>(?:lora_{letter}|lora_{role}|lora\.{role}|lora_linear_layer\.{role}"
    # the last one is XLabs
    rf"|(?:(?<=_lora\.)|(?<=_lora[12]\.)){role})(?:\.default)?\.weight)"
    for role, letter in (("down", "A"), ("up", "B"))
)
_KEY = re.compile(
    rf"^(?P<module>.+?)\.(?:{_FACTORS}|(?P<alpha>alpha)|(?P<dora>dora_scale|lora_magnitude_vector(?:\.\w+)*)"
    r"|(?P<bias>(?:lora_B|lora_up)\.bias|diff_b)"
    r"|(?P<named>(?:lokr|hada|oft|boft|glora)_\w+|diff)(?:\.default)?(?:\.weight)?)$"
)
_METHODS = {
    "lokr": "LoKr",
    "hada": "LoHa",
    "oft": "OFT",
    "boft": "BOFT",
    "glora": "GLoRA",
    "dora": "DoRA",
}


def split_key(key: str) -> tuple[str, str] | None:
    """Return module and role of a key, ``None`` when it is no part of a LoRA.

    Roles: ``down``, ``up``, ``alpha``, ``dora``, ``bias``, or the own name of ``lokr_w1``, ``hada_w2_a``, ``diff`` ...
    """
    found = _KEY.match(key)
    if not found:
        return None
    role = next(
        role for role in ("down", "up", "alpha", "dora", "bias", "named") if found[role]
    )
    return found["module"], found["named"] or role


def method_of(role: str) -> str:
    """Return the name of the method that a role belongs to, empty for plain LoRA: ``lokr_w1`` gives ``LoKr``."""
    return _METHODS.get(role.partition("_")[0], "")


def is_text_encoder(key: str) -> bool:
    """Whether a key belongs to a text encoder."""
    return key.startswith(
        ("lora_te", "text_encoder", "base_model.model.text_encoder", "bundle_emb")
    )


def adapter_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the transformer's PEFT LoraConfig that diffusers writes into the header of ``path``, empty without one."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        return {
            key.removeprefix("transformer."): value
            for key, value in config.items()
            if key.startswith("trans")
        }
    except (ValueError, AttributeError) as error:
        raise FileError(
            str(path), "its lora_adapter_metadata is not JSON", "Export the LoRA again."
        ) from error


def adapter_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return alpha / rank of a diffusers module by an ``adapter_config``, 1.0 when that is empty."""
    alpha = config.get("lora_alpha", config.get("alpha", rank))
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # PEFT's rule; the first that fits counts
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

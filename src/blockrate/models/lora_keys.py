"""The parts of a LoRA file's keys, in every spelling. No tensors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from blockrate.core.errors import FileError

# PEFT gives an adapter a name, which may stand in the key: any but those of a Linear's own two tensors
_NAME = r"(?:\.(?!(?:weight|bias)$)[^.]+)?"


def _factor(role: str, letter: str) -> str:
    """Return the pattern of a factor's key, after the module: PEFT's, kohya's, diffusers' and XLabs' spelling."""
    spellings = (
        f"lora_{letter}",
        f"lora_{role}",
        rf"lora\.{role}",
        rf"lora_linear_layer\.{role}",
        rf"(?:(?<=_lora\.)|(?<=_lora[12]\.)){role}",
    )
    return rf"(?P<{role}>(?:{'|'.join(spellings)}){_NAME}(?:\.weight)?)"


# What follows the module in a key: one group for each role.
_ROLES = (
    _factor("down", "A"),
    _factor("up", "B"),
    r"(?P<mid>lora_mid(?:\.weight)?)",
    r"(?P<alpha>alpha)",
    r"(?P<scalar>scalar)",
    r"(?P<dora>dora_scale|lora_magnitude_vector(?:\.[^.]+)*)",
    rf"(?P<bias>(?:lora_B|lora_up){_NAME}\.bias|diff_b|b_norm)",
    rf"(?P<named>(?:lokr|hada|oft|boft)_\w+|diff|w_norm|rescale){_NAME}(?:\.weight)?",
    # LyCORIS' GLoRA gives its four factors no name of their own
    r"(?P<glora>(?:glora_)?[ab][12]\.weight)",
)
_KEY = re.compile(rf"^(?P<module>.+?)_?\.(?:{'|'.join(_ROLES)})$")
_OF_A_GROUP = ("down", "up", "mid", "alpha", "scalar", "dora", "bias", "glora")
_METHODS = {
    "lokr": "LoKr",
    "hada": "LoHa",
    "oft": "OFT",
    "rescale": "OFT",
    "boft": "BOFT",
    "glora": "GLoRA",
    "dora": "DoRA",
}
# what tells nothing of how much a module changes without the factors beside it
_SCALES = {"alpha", "scalar"}
_TEXT_ENCODERS = (
    "lora_te",
    "lycoris_te",
    "text_encoder",
    "base_model.model.text_encoder",
)


@dataclass
class SortedKeys:
    """The keys of a file: those of the transformer's LoRA by module and role, and the rest by what it is."""

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    text_encoder: list[str] = field(default_factory=list)
    embedding: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def sort_keys(path: Path, keys: Iterable[str]) -> SortedKeys:
    """Return the keys of a file in order. FileError where two of them are the same part of a module."""
    found = SortedKeys()
    for key in keys:
        split = split_key(key)
        if is_text_encoder(key):
            found.text_encoder.append(key)
        elif is_embedding(key):
            found.embedding.append(key)
        elif split is None:
            found.unknown.append(key)
        else:
            module, role = split
            roles = found.modules.setdefault(module, {})
            if role in roles:
                problem = f"holds two adapters for {module}: {roles[role]} and {key}"
                cure = "Save each as a file of its own."
                raise FileError(str(path), problem, cure)
            roles[role] = key
    for module, roles in list(found.modules.items()):
        if not roles.keys() - _SCALES:
            found.unknown += roles.values()
            del found.modules[module]
    return found


def split_key(key: str) -> tuple[str, str] | None:
    """Return module and role of a key, ``None`` when it is not part of a LoRA.

    Roles: ``down``, ``up``, ``mid`` (Tucker), ``alpha``, ``scalar`` (a second factor), ``dora``, ``bias``, ``glora``,
    and others by name: ``lokr_w1``, ``hada_w2_a``, ``diff``, ``w_norm`` ...
    """
    parts = _KEY.match(key)
    if not parts:
        return None
    for role in _OF_A_GROUP:
        if parts[role]:
            is_glora = role == "glora"
            return parts["module"], f"{role}_{parts[role]}" if is_glora else role
    return parts["module"], parts["named"]


def method_of(role: str) -> str:
    """Return the name of the method that a role belongs to, empty for plain LoRA: ``lokr_w1`` gives ``LoKr``."""
    return _METHODS.get(role.partition("_")[0], "")


def is_text_encoder(key: str) -> bool:
    """Whether a key belongs to a text encoder."""
    return key.startswith(_TEXT_ENCODERS)


def is_embedding(key: str) -> bool:
    """Whether a key is one of the learned embeddings that OneTrainer bundles with a LoRA."""
    return key.startswith("bundle_emb")

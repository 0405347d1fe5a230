"""The models blockrate knows, rows of ``flux1.json``, and the sizes that make a FLUX.1 transformer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError

ARCHITECTURE = "FluxTransformer2DModel"
# The variants, and the modules of each kind of block, their names in BFL's files, the steps they are used in.
FLUX1: dict[str, Any] = json.loads(
    Path(__file__).with_name("flux1.json").read_text("utf-8")
)


@dataclass(frozen=True)
class TransformerSpec:
    """Everything that decides the shapes of a FLUX.1 transformer. ``axes_dims_rope`` sums to ``head_dim``."""

    layout: BlockLayout
    heads: int
    head_dim: int
    in_channels: int
    joint_attention_dim: int
    pooled_projection_dim: int
    guidance_embeds: bool
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    @property
    def hidden(self) -> int:
        """Width of the transformer."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Family:
    """One model variant. ``title`` is for people, ``architecture`` what it shares with its siblings."""

    name: str
    title: str
    model_type: str
    repo: str
    spec: TransformerSpec
    architecture: str = "FLUX.1"


def family_of(model_type: str, base_model_name: str) -> Family:
    """Return the row for a config's ``model_type``; a base model that is called schnell is schnell.

    The toy is never guessed: its folder says its sizes, see ``spec_from_config``.
    """
    published = {
        family.model_type: family for family in FAMILIES.values() if family.repo
    }
    if model_type not in published:
        raise ConfigError(
            "model_type",
            f"{model_type!r} is not supported",
            f"Use one of {', '.join(published)}.",
        )
    return (
        FAMILIES["flux1-schnell"]
        if "schnell" in base_model_name.lower()
        else published[model_type]
    )


def spec_from_config(
    config: Mapping[str, Any], where: str = "transformer/config.json"
) -> TransformerSpec:
    """Return the sizes that a diffusers ``transformer/config.json`` states; missing keys mean diffusers' defaults.

    Raises ``FileError`` for another architecture, a FLUX.1 with extra input channels, and sizes that are no numbers.
    """
    found = config.get("_class_name")
    if found != ARCHITECTURE:
        problem = f"holds a {found or 'model of unknown class'}, not a {ARCHITECTURE}"
        raise FileError(where, problem, "Use a FLUX.1 model.")
    sizes = {key: config.get(key, usual) for key, usual in FLUX1["sizes"].items()}
    for key, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise FileError(
                where,
                f"{key} is {size!r}, not a count",
                "Use the model's own, unchanged config.json.",
            )
    if config.get("patch_size", 1) != 1 or config.get("out_channels") not in (
        None,
        sizes["in_channels"],
    ):
        problem = "takes more input channels than it gives back, as FLUX.1 Fill, Depth and Canny do"
        raise FileError(
            where, problem, "Use FLUX.1-dev, FLUX.1-schnell or a fine-tune of them."
        )
    axes = config.get("axes_dims_rope", (16, 56, 56))
    if not isinstance(axes, list | tuple) or not all(
        isinstance(axis, int) for axis in axes
    ):
        raise FileError(
            where,
            f"axes_dims_rope is {axes!r}, not a list of integers",
            "Use an unchanged config.json.",
        )
    return TransformerSpec(
        layout=BlockLayout(sizes["num_layers"], sizes["num_single_layers"]),
        heads=sizes["num_attention_heads"],
        head_dim=sizes["attention_head_dim"],
        in_channels=sizes["in_channels"],
        joint_attention_dim=sizes["joint_attention_dim"],
        pooled_projection_dim=sizes["pooled_projection_dim"],
        guidance_embeds=bool(config.get("guidance_embeds", False)),
        axes_dims_rope=tuple(axes),
    )


def _family(
    name: str, title: str, model_type: str, repo: str, config: Mapping[str, Any]
) -> Family:
    return Family(
        name,
        title,
        model_type,
        repo,
        spec_from_config({"_class_name": ARCHITECTURE, **config}),
    )


FAMILIES: dict[str, Family] = {row["name"]: _family(**row) for row in FLUX1["families"]}

"""The models blockrate knows, as rows of data, and the sizes that make a FLUX.1 transformer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError

ARCHITECTURE = "FluxTransformer2DModel"


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


# Sizes: the config.json of each repository; black-forest-labs/flux, src/flux/util.py.
_DEV = TransformerSpec(BlockLayout(19, 38), 24, 128, 64, 4096, 768, guidance_embeds=True)
_SCHNELL = replace(_DEV, guidance_embeds=False)
_TINY = TransformerSpec(BlockLayout(19, 38), 4, 16, 64, 32, 32, guidance_embeds=True, axes_dims_rope=(4, 6, 6))
_ROWS = (
    Family("flux1-dev", "FLUX.1-dev", "FLUX_DEV_1", "black-forest-labs/FLUX.1-dev", _DEV),
    Family("flux1-schnell", "FLUX.1-schnell", "FLUX_SCHNELL_1", "black-forest-labs/FLUX.1-schnell", _SCHNELL),
    Family("tiny-flux1", "FLUX.1 of toy width", "FLUX_DEV_1", "", _TINY),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}


def family_of(model_type: str, base_model_name: str) -> Family:
    """Return the row for a config's ``model_type``; a base model that is called schnell is schnell.

    The toy is never guessed: its folder says its sizes, see ``spec_from_config``.
    """
    published = {family.model_type: family for family in _ROWS if family.repo}
    if model_type not in published:
        raise ConfigError("model_type", f"{model_type!r} is not supported", f"Use one of {', '.join(published)}.")
    return FAMILIES["flux1-schnell"] if "schnell" in base_model_name.lower() else published[model_type]


def spec_from_config(config: Mapping[str, object], where: str = "transformer/config.json") -> TransformerSpec:
    """Return the sizes that a diffusers ``transformer/config.json`` states; missing keys mean diffusers' defaults.

    Raises ``FileError`` for another architecture, a FLUX.1 with extra input channels, and sizes that are no numbers.
    """
    found = config.get("_class_name")
    if found != ARCHITECTURE:
        problem = f"holds a {found or 'model of unknown class'}, not a {ARCHITECTURE}"
        raise FileError(where, problem, "Use a FLUX.1 model.")
    in_channels = _size(config, "in_channels", 64, where)
    if config.get("patch_size", 1) != 1 or config.get("out_channels") not in (None, in_channels):
        problem = "takes more input channels than it gives back, as FLUX.1 Fill, Depth and Canny do"
        raise FileError(where, problem, "Use FLUX.1-dev, FLUX.1-schnell or a fine-tune of them.")
    axes = config.get("axes_dims_rope", (16, 56, 56))
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        raise FileError(where, f"axes_dims_rope is {axes!r}, not a list of integers", "Use an unchanged config.json.")
    return TransformerSpec(
        layout=BlockLayout(_size(config, "num_layers", 19, where), _size(config, "num_single_layers", 38, where)),
        heads=_size(config, "num_attention_heads", 24, where),
        head_dim=_size(config, "attention_head_dim", 128, where),
        in_channels=in_channels,
        joint_attention_dim=_size(config, "joint_attention_dim", 4096, where),
        pooled_projection_dim=_size(config, "pooled_projection_dim", 768, where),
        guidance_embeds=bool(config.get("guidance_embeds", False)),
        axes_dims_rope=tuple(axes),
    )


def _size(config: Mapping[str, object], key: str, default: int, where: str) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FileError(where, f"{key} is {value!r}, not a count", "Use the model's own, unchanged config.json.")
    return value

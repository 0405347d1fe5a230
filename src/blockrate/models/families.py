"""The models blockrate knows, and the sizes that make a transformer.

An architecture is one JSON file of facts; its variants are rows in there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.models.part_files import UNCHANGED
from blockrate.models.stated_sizes import stated_axes, stated_guidance, stated_sizes

FACTS_FILES = ("flux1.json", "flux2.json", "chroma.json")
_APPROXIMATOR = (
    "approximator_num_channels",
    "approximator_hidden_dim",
    "approximator_layers",
)


def _read_facts(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(
        Path(__file__).with_name(name).read_text("utf-8")
    )
    return facts


# By the architecture's name: what its file says of it. The file explains itself.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    facts["architecture"]: facts for facts in map(_read_facts, FACTS_FILES)
}


@dataclass(frozen=True)
class TransformerSpec:
    """Everything that decides the shapes of a transformer.

    ``axes_dims_rope`` sums to ``head_dim``. ``pooled_projection_dim``: 0 without a pooled caption.
    ``architecture``: a key of ``ARCHITECTURES``. The approximator's are 0 where there is none.
    ``extra_channels``: those of ``in_channels`` that are not noisy latents.
    """

    layout: BlockLayout
    heads: int
    head_dim: int
    in_channels: int
    joint_attention_dim: int
    pooled_projection_dim: int
    guidance_embeds: bool
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    architecture: str = field(kw_only=True)
    approximator_num_channels: int = field(default=0, kw_only=True)
    approximator_hidden_dim: int = field(default=0, kw_only=True)
    approximator_layers: int = field(default=0, kw_only=True)
    extra_channels: int = field(default=0, kw_only=True)

    @property
    def out_channels(self) -> int:
        """Channels of a token that it gives back: those of the latents."""
        return self.in_channels - self.extra_channels

    @property
    def hidden(self) -> int:
        """Width of the transformer."""
        return self.heads * self.head_dim

    @property
    def facts(self) -> dict[str, Any]:
        """What the file of its architecture says."""
        return ARCHITECTURES[self.architecture]


class Conditioned(NamedTuple):
    """A tensor that a caption becomes."""

    encoder: str  # the text encoder whose caption it is, by its name in a config
    dimensions: int  # of one caption's, without the batch


def conditioning_of(architecture: str) -> dict[str, Conditioned]:
    """Return what the transformer is conditioned on beside time and guidance, by name."""
    rows = ARCHITECTURES[architecture]["conditioning"]
    return {name: Conditioned(*row) for name, row in rows.items()}


@dataclass(frozen=True)
class Family:
    """One model variant.

    ``title`` and ``about`` are for people. ``repo``: where the hub has it. One that comes
    with blockrate has a ``folder`` of the package instead, and a toy neither. ``called``: the
    word in a base model's name that means this variant, and ``words`` expressions that hint
    at it. ``variant``: what the setting model_variant calls it, where sizes do not tell it
    from another one; ``index``: by key the values of its model_index.json that tell it.
    ``gated``: only for those who accepted its licence. ``distilled``: made to draw in a few
    steps, which training spoils. ``warns``: what is to be known before it is trained.
    ``lora_architecture``: what the header of a LoRA calls it.
    ``encoders``: what its text encoders are, in the order of the model's parts.
    ``pixels`` and ``text_tokens``: the side of the pictures and the length of the captions
    that it has learned alone, 0 if it has learned many.
    ``references``: the most reference images that it sees. ``cfg``: the guidance that it is
    made to draw with, 0 where that is what many are made for.
    """

    name: str
    title: str
    model_type: str
    spec: TransformerSpec
    lora_architecture: str
    encoders: tuple[str, ...]
    repo: str = ""
    folder: str = ""
    about: str = ""
    called: str = ""
    words: Sequence[str] = field(default=(), hash=False)
    variant: str = ""
    index: Mapping[str, Sequence[Any]] = field(default_factory=dict, hash=False)
    warns: str = ""
    gated: bool = False
    distilled: bool = False
    pixels: int = 0
    text_tokens: int = 0
    references: int = 0
    cfg: float = 0.0

    @property
    def architecture(self) -> str:
        """What it shares with its siblings."""
        return self.spec.architecture


def family_of(model_type: str, base_model_name: str) -> Family:
    """Return the row for a config's ``model_type``; a base model that is called schnell is schnell.

    A repository of the hub that is known is that row, whatever the type. The toy is never guessed: its folder says its
    sizes, see ``spec_from_config``.
    """
    published = [family for family in FAMILIES.values() if family.repo]
    for family in published:
        if family.repo.lower() == base_model_name.lower():
            return family
    of_type = [family for family in published if family.model_type == model_type]
    if not of_type:
        types = dict.fromkeys(family.model_type for family in published)
        cure = f"Use one of {', '.join(types)}."
        raise ConfigError("model_type", f"{model_type!r} is not supported", cure)
    return _called(of_type[0].architecture, base_model_name) or of_type[0]


def published_of(spec: TransformerSpec, model_type: str, name: str) -> Family:
    """Return the row of the hub's model that a transformer of these sizes is, or is a fine-tune of.

    ``name``: of its file, which may tell more.
    """
    family = family_of(model_type, name)
    if is_same_kind(family.spec, spec):
        return family
    for row in FAMILIES.values():
        if row.repo and is_same_kind(row.spec, spec):
            return row
    return family


def is_same_kind(one: TransformerSpec, other: TransformerSpec) -> bool:
    """Whether two transformers are of one architecture, as wide, and see the same beside the noisy latents."""
    return (one.architecture, one.hidden, one.extra_channels) == (
        other.architecture,
        other.hidden,
        other.extra_channels,
    )


def facts_of_type(model_type: str) -> dict[str, Any]:
    """Return what the file of the architecture says whose models have this type; nothing for an unknown type."""
    for family in FAMILIES.values():
        if family.model_type == model_type:
            return family.spec.facts
    return {}


def lora_forms(model_type: str) -> list[str]:
    """Return the forms that a LoRA of a model of this type can be written in; none for an unknown type."""
    return list(facts_of_type(model_type).get("lora_forms", ()))


def encoder_names(family: Family) -> dict[str, str]:
    """Return what each text encoder of a model is, by the part of the model."""
    parts = [part for part in family.spec.facts["parts"] if "encoder" in part]
    return dict(zip(parts, family.encoders, strict=True))


def known_as(name: str) -> Family | None:
    """Return the model that a config names by its hub id, in any capitals, or by its own name, if it is known."""
    for family in FAMILIES.values():
        if name == family.name or (family.repo and name.lower() == family.repo.lower()):
            return family
    return None


def variant_of(
    architecture: str, base_model_name: str, hidden: int = 0, variant: str = ""
) -> Family:
    """Return the row that a base model's name tells, else the first of its width, else of the architecture.

    ``hidden``: the width of the transformer, 0 if nobody knows. ``variant``: what it is known to be, if it is.
    """
    siblings = [row for row in FAMILIES.values() if row.architecture == architecture]
    for row in siblings:
        if row.name == base_model_name:
            return row
    called = _called(architecture, base_model_name)
    if called and variant in ("", called.variant):
        return called
    if variant:
        siblings = [row for row in siblings if row.variant == variant] or siblings
    as_wide = [row for row in siblings if row.spec.hidden == hidden]
    return (as_wide or siblings)[0]


def architecture_of_class(name: str) -> str | None:
    """Return the architecture whose transformer is diffusers' class of this name, if there is one."""
    for architecture, facts in ARCHITECTURES.items():
        if facts["class"] == name:
            return architecture
    return None


def is_own(name: str) -> bool:
    """Whether this is the name of a model of blockrate's own; no file or folder of the name is meant by it."""
    return name in FAMILIES and not FAMILIES[name].repo


def is_toy(name: str) -> bool:
    """Whether a model of this name is made on the spot."""
    return is_own(name) and not is_shipped(name)


def is_shipped(name: str) -> bool:
    """Whether a model of this name comes with blockrate, in a folder of the package."""
    return is_own(name) and bool(FAMILIES[name].folder)


def _called(architecture: str, name: str) -> Family | None:
    for family in FAMILIES.values():
        if family.architecture != architecture:
            continue
        if family.called and family.called in name.lower():
            return family
    return None


def spec_from_config(
    config: Mapping[str, Any], where: str = "transformer/config.json"
) -> TransformerSpec:
    """Return the sizes that a diffusers ``transformer/config.json`` states; missing keys mean diffusers' defaults.

    Raises ``FileError`` for another architecture, one with extra input channels, and sizes that are not numbers.
    """
    architecture = _stated_architecture(config, where)
    facts = ARCHITECTURES[architecture]
    sizes = stated_sizes(config, facts["sizes"], where)
    config = {**facts["defaults"], **config}
    out_channels = config.get("out_channels") or sizes["in_channels"]
    if config.get("patch_size", 1) != 1 or not isinstance(out_channels, int):
        problem = "makes tokens of its input channels otherwise than published ones do (patch_size, out_channels)"
        raise FileError(where, problem, UNCHANGED)
    extra_channels = sizes["in_channels"] - out_channels
    refuse_extra_channels(architecture, sizes["in_channels"], extra_channels, where)
    return TransformerSpec(
        layout=BlockLayout(sizes["num_layers"], sizes["num_single_layers"]),
        heads=sizes["num_attention_heads"],
        head_dim=sizes["attention_head_dim"],
        in_channels=sizes["in_channels"],
        joint_attention_dim=sizes["joint_attention_dim"],
        pooled_projection_dim=sizes.get("pooled_projection_dim", 0),
        # a real config.json may keep such keys of the model that it was made from
        guidance_embeds="guidance_embeds" in facts["defaults"]
        and stated_guidance(config, where),
        axes_dims_rope=stated_axes(config, sizes["attention_head_dim"], where),
        architecture=architecture,
        **{name: sizes.get(name, 0) for name in _APPROXIMATOR},
        extra_channels=extra_channels,
    )


def refuse_extra_channels(
    architecture: str, in_channels: int, extra: int, where: str
) -> None:
    """Raise FileError for input channels beside the latents' that nothing is known to fill, or that is not trained."""
    facts = ARCHITECTURES[architecture]
    if str(extra) in facts["extra_channels"]:
        return
    problem = f"takes {in_channels} input channels and gives back {in_channels - extra}"
    if who := facts["control_channels"].get(str(extra)):
        problem += f", as {who} do, which are not trained here"
    titles = [row["title"] for row in facts["families"] if "repo" in row]
    raise FileError(where, problem, f"Use {' or '.join(titles)}.")


def config_from_spec(spec: TransformerSpec) -> dict[str, Any]:
    """Return the sizes as diffusers' class takes them: undoes ``spec_from_config``."""
    config: dict[str, Any] = {
        "num_layers": spec.layout.double,
        "num_single_layers": spec.layout.single,
        "num_attention_heads": spec.heads,
        "attention_head_dim": spec.head_dim,
        "in_channels": spec.in_channels,
        "joint_attention_dim": spec.joint_attention_dim,
        "axes_dims_rope": spec.axes_dims_rope,
    }
    if "guidance_embeds" in spec.facts["defaults"]:
        config["guidance_embeds"] = spec.guidance_embeds
    for name in ("pooled_projection_dim", *_APPROXIMATOR):
        if getattr(spec, name):
            config[name] = getattr(spec, name)
    if spec.extra_channels:
        config["out_channels"] = spec.out_channels
    return config


def _stated_architecture(config: Mapping[str, Any], where: str) -> str:
    """Return the architecture that a config.json states by diffusers' class."""
    stated = config.get("_class_name")
    architecture = architecture_of_class(stated) if stated else None
    if architecture is None:
        wanted = " or ".join(facts["class"] for facts in ARCHITECTURES.values())
        problem = f"holds a {stated or 'model of unknown class'}, not a {wanted}"
        raise FileError(where, problem, f"Use a {' or '.join(ARCHITECTURES)} model.")
    return architecture


def _families() -> dict[str, Family]:
    families = {}
    for facts in ARCHITECTURES.values():
        for row in facts["families"]:
            values = dict(row)
            config = {"_class_name": facts["class"], **values.pop("config")}
            encoders = tuple(values.pop("encoders", facts["encoders"]))
            spec = spec_from_config(config)
            family = Family(**values, encoders=encoders, spec=spec)
            families[family.name] = family
    return families


FAMILIES = _families()
# What a config trains that says nothing of its model, and whose sizes stand in where no
# model can be asked.
DEFAULT_FAMILY = next(iter(FAMILIES.values()))

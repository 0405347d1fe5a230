"""The base model that a config names: its sizes, and where its parts lie."""

from collections.abc import Callable
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.depth import layout_text
from blockrate.core.errors import ConfigError
from blockrate.models.families import (
    TransformerSpec,
    base_of,
    encoder_names,
    is_shipped,
    known_as,
    may_be_distilled,
    says_distilled,
    variant_of,
)
from blockrate.models.files import part_paths, says_distilled_inside, spec_of
from blockrate.models.shipped import check_shipped

# the parts that may have a name of their own
NAMED_PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def model_spec(config: TrainConfig) -> TransformerSpec:
    """Return the sizes of the transformer to train.

    Raises ``FileError`` for what is missing, damaged, unsafe to read or of no architecture
    that blockrate trains; of models that come with blockrate every part is looked at.
    """
    for name in sorted(filter(is_shipped, names_of_models(config))):
        check_shipped(name)
    name = config.transformer.model_name or config.base_model_name
    return spec_of(name, config.model_type)


def model_title(config: TrainConfig, spec: TransformerSpec) -> str:
    """Return what the transformer to train is called, with its blocks."""
    known = known_as(_trained(config))
    guidance = "with" if spec.guidance_embeds else "without"
    title = known.title if known else f"{spec.architecture} {guidance} guidance"
    return f"{title}: {layout_text(spec.layout)}"


def text_encoders(config: TrainConfig, spec: TransformerSpec) -> dict[str, str]:
    """Return what each text encoder of the model is, by its part."""
    known = variant_of(spec.architecture, _trained(config), spec.hidden)
    return encoder_names(known)


def caption_tokens(config: TrainConfig, spec: TransformerSpec) -> int:
    """Return how many tokens of a caption the transformer gets: as many as it was made for, or as a setting says."""
    length = spec.facts["caption_tokens"]
    return length if isinstance(length, int) else int(getattr(config, length))


def refuse_variant(config: TrainConfig, spec: TransformerSpec) -> None:
    """Raise ConfigError for a distilled model that training would spoil, and where nothing tells whether it is one."""
    if _is_distilled(config, spec) is None:
        problem = f"is empty, and nothing says whether {_trained(config)} is a base model or a distilled one"
        cure = "Set it to BASE or to DISTILLED, as the page of the model says."
        raise ConfigError("model_variant", problem, cure)
    if _is_distilled(config, spec) and config.model_variant != "DISTILLED":
        base = base_of(spec).repo
        problem = f"{_trained(config)} is distilled to draw in a few steps, which training on pictures spoils"
        cure = f"Train {base} and draw with the distilled one and your LoRA, or set model_variant to DISTILLED."
        raise ConfigError("base_model_name", problem, cure)


def draws_against_nothing(config: TrainConfig, spec: TransformerSpec) -> bool:
    """Whether samples move away from what the model draws for an empty caption: it has no guidance of its own."""
    own_guidance = spec.guidance_embeds or not spec.facts["real_cfg"]
    return not own_guidance and not _is_distilled(config, spec)


def _is_distilled(config: TrainConfig, spec: TransformerSpec) -> bool | None:
    """Return whether the model to train is a distilled one; None if nothing tells."""
    if not may_be_distilled(spec):
        return False
    if config.model_variant:
        return config.model_variant == "DISTILLED"
    for name in (config.transformer.model_name, config.base_model_name):
        for said in (says_distilled_inside(name), says_distilled(name)):
            if name and said is not None:
                return said
    return None


def _trained(config: TrainConfig) -> str:
    return config.transformer.model_name or config.base_model_name


def names_of_models(config: TrainConfig) -> set[str]:
    """Return the names of the models that a config takes parts from."""
    return {config.base_model_name, *_own_names(config).values()} - {""}


def model_paths(
    config: TrainConfig,
    spec: TransformerSpec,
    folder_of: Callable[[str, list[str]], Path],
) -> dict[str, Path]:
    """Return where each part lies: a folder; the transformer may be a file.

    ``spec``: what ``model_spec`` says, which decides what parts there are.
    ``folder_of`` gives the folder of a model, by a name that is not a file's; it is to hold these parts.
    """
    return part_paths(
        config.base_model_name,
        _own_names(config),
        spec,
        config.model_type,
        folder_of,
    )


def _own_names(config: TrainConfig) -> dict[str, str]:
    return {part: getattr(config, part).model_name for part in NAMED_PARTS}

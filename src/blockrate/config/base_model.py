"""The base model that a config names: its sizes, and where its parts lie."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.depth import layout_text
from blockrate.core.errors import ConfigError
from blockrate.models.families import (
    FAMILIES,
    Family,
    TransformerSpec,
    encoder_names,
    is_own,
    is_shipped,
    known_as,
    published_of,
    variant_of,
)
from blockrate.models.files import is_hub_id, part_paths, spec_of
from blockrate.models.hub import snapshot_folder
from blockrate.models.shipped import check_shipped
from blockrate.models.variants import said_by_files, said_by_name, variants_of

# the parts that may have a name of their own
NAMED_PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def model_spec(config: TrainConfig) -> TransformerSpec:
    """Return the sizes of the transformer to train.

    Raises ``FileError`` for what is missing, damaged, unsafe to read or of no architecture
    that blockrate trains; of models that come with blockrate every part is looked at.
    """
    for name in sorted(filter(is_shipped, names_of_models(config))):
        check_shipped(name)
    return spec_of(trained_name(config), config.model_type)


def trains_own_model(config: TrainConfig) -> bool:
    """Whether the model to train is a small one that comes with blockrate, or is made on the spot."""
    return is_own(trained_name(config))


def trained_name(config: TrainConfig) -> str:
    """Return the name of the model whose transformer trains."""
    return config.transformer.model_name or config.base_model_name


def model_title(config: TrainConfig, spec: TransformerSpec) -> str:
    """Return what the transformer to train is called, with its blocks."""
    known = known_as(trained_name(config))
    guidance = "with" if spec.guidance_embeds else "without"
    title = known.title if known else f"{spec.architecture} {guidance} guidance"
    return f"{title}: {layout_text(spec.layout)}"


def text_encoders(config: TrainConfig, spec: TransformerSpec) -> dict[str, str]:
    """Return what each text encoder of the model is, by its part."""
    known = variant_of(spec.architecture, trained_name(config), spec.hidden)
    return encoder_names(known)


def caption_tokens(config: TrainConfig, spec: TransformerSpec) -> int:
    """Return how many tokens of a caption the transformer gets: as many as it was made for, or as a setting says."""
    length = spec.facts["caption_tokens"]
    return length if isinstance(length, int) else int(getattr(config, length))


def refuse_another_type(config: TrainConfig, spec: TransformerSpec) -> None:
    """Raise ConfigError for a model_type of another architecture than the model's."""
    types = dict.fromkeys(
        family.model_type
        for family in FAMILIES.values()
        if family.architecture == spec.architecture
        and family.spec.extra_channels == spec.extra_channels
    )
    if config.model_type not in types:
        kind = spec.architecture
        if spec.extra_channels:
            kind = published_of(spec, next(iter(types)), trained_name(config)).title
        problem = f"is {config.model_type}, and {trained_name(config)} is a {kind}"
        raise ConfigError("model_type", problem, f"Set it to {' or '.join(types)}.")


def refuse_variant(config: TrainConfig, spec: TransformerSpec) -> None:
    """Raise ConfigError where nothing tells which of several models it is, for a model_variant that its kind does not
    have, and for a distilled model, which training would spoil, that is not asked for.
    """
    choices = variants_of(spec)
    _refuse_unknown_variant(config, choices)
    variant = told_variant(config, spec)
    if variant is None and _may_come_yet(trained_name(config)):
        # the index comes with its files, and then this is asked again
        return
    if variant is None:
        titles = " or ".join(row.title for row in choices.values())
        problem = (
            f"is empty, and nothing says whether {trained_name(config)} is {titles}"
        )
        values = " or to ".join(choices)
        cure = f"Set it to {values}, as the page of the model says."
        raise ConfigError("model_variant", problem, cure, choices=list(choices))
    if not variant or not choices[variant].distilled:
        return
    if config.model_variant != variant:
        bases = [row.repo for row in choices.values() if not row.distilled]
        problem = f"{trained_name(config)} is distilled to draw in a few steps, which training on pictures spoils"
        cure = f"Train {bases[0]} and draw with the distilled one and your LoRA, or set model_variant to {variant}."
        raise ConfigError("base_model_name", problem, cure)


def told_variant(config: TrainConfig, spec: TransformerSpec) -> str | None:
    """Return which of the models with the same sizes it is, as model_variant calls it; None if nothing tells.

    Nothing, "", where its sizes tell all. The setting counts, without it what its files say, then names.
    """
    choices = variants_of(spec)
    if not choices:
        return ""
    if config.model_variant in choices:
        return config.model_variant
    for name in (config.transformer.model_name, config.base_model_name):
        said = said_of(name, choices)
        if said:
            return said
    return None


def said_of(name: str, choices: Mapping[str, Family]) -> str:
    """Return the variant that a model's files tell, as far as they are here, else its name; nothing if neither does."""
    return said_by_files(_here(name), choices) or said_by_name(name, choices)


def model_of(config: TrainConfig, spec: TransformerSpec) -> Family | None:
    """Return the published model that it is, or is a fine-tune of, if that had to be told beside its sizes."""
    return variants_of(spec).get(told_variant(config, spec) or "")


def draws_against_nothing(config: TrainConfig, spec: TransformerSpec) -> bool:
    """Whether samples move away from what the model draws for an empty caption: it has no guidance of its own."""
    own_guidance = spec.guidance_embeds or not spec.facts["real_cfg"]
    model = model_of(config, spec)
    return not own_guidance and not (model and model.distilled)


def denied_by_files(config: TrainConfig, spec: TransformerSpec) -> str:
    """Return the variant that the model's own files tell, where model_variant is another one."""
    said = said_by_files(_here(trained_name(config)), variants_of(spec))
    return said if config.model_variant not in ("", said) else ""


def _refuse_unknown_variant(config: TrainConfig, choices: Mapping[str, Family]) -> None:
    variant = config.model_variant
    if not variant or not choices:
        return
    name = trained_name(config)
    if variant not in choices:
        problem = f"is {variant}, and of {name} there is no such variant"
        cure = f"Set it to {' or to '.join(choices)}, or leave it empty."
        raise ConfigError("model_variant", problem, cure, choices=list(choices))


def _here(name: str) -> str:
    """Return where the files of a model are: those of the hub's cache for a hub id that was downloaded."""
    snapshot = snapshot_folder(name) if _is_of_hub(name) else Path(name)
    return str(snapshot) if snapshot.is_dir() else name


def _may_come_yet(name: str) -> bool:
    """Whether a model is one of the hub of which nothing is on this computer."""
    return _is_of_hub(name) and not snapshot_folder(name).is_dir()


def _is_of_hub(name: str) -> bool:
    return not os.path.exists(name) and is_hub_id(name)


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

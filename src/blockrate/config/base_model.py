"""The base model that a config names: its sizes, and where its parts lie."""

from collections.abc import Callable
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.models.families import TransformerSpec, is_shipped
from blockrate.models.files import part_paths, spec_of
from blockrate.models.shipped import check_shipped

# the parts that may have a name of their own
_NAMED_PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def model_spec(config: TrainConfig) -> TransformerSpec:
    """Return the sizes of the transformer to train.

    Raises ``FileError`` for what is missing, damaged, unsafe to read or of no architecture
    that blockrate trains; of models that come with blockrate every part is looked at.
    """
    for name in sorted(filter(is_shipped, names_of_models(config))):
        check_shipped(name)
    name = config.transformer.model_name or config.base_model_name
    return spec_of(name, config.model_type)


def names_of_models(config: TrainConfig) -> set[str]:
    """Return the names of the models that a config takes parts from."""
    return {config.base_model_name, *_own_names(config).values()} - {""}


def model_paths(
    config: TrainConfig, architecture: str, folder_of: Callable[[str, list[str]], Path]
) -> dict[str, Path]:
    """Return where each part lies: a folder; the transformer may be a file.

    ``architecture``: what ``model_spec`` says, which decides what parts there are.
    ``folder_of`` gives the folder of a model, by a name that is not a file's; it is to hold these parts.
    """
    return part_paths(
        config.base_model_name,
        _own_names(config),
        architecture,
        config.model_type,
        folder_of,
    )


def _own_names(config: TrainConfig) -> dict[str, str]:
    return {part: getattr(config, part).model_name for part in _NAMED_PARTS}

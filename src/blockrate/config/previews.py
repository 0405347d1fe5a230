"""Samples that the distilled twin of a model draws with what a LoRA has learned: what cannot be, before a run."""

import os
from collections.abc import Mapping
from types import MappingProxyType

from blockrate.config.base_model import said_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.models.families import TransformerSpec
from blockrate.models.files import is_counted_as_another, spec_of
from blockrate.models.variants import variants_of

_DISTILLED = "DISTILLED"


def twin_config(config: TrainConfig, name: str) -> TrainConfig:
    """Return the config with the transformer of a twin in place of its own."""
    part = config.transformer.model_copy(update={"model_name": name})
    return config.model_copy(update={"transformer": part, "model_variant": _DISTILLED})


def twins_of(config: TrainConfig) -> list[str]:
    """Return the names of the twins that samples are drawn by, each once."""
    drawn = [sample for sample in config.samples if sample.enabled]
    return list(dict.fromkeys(sample.preview for sample in drawn if sample.preview))


def refuse_previews(
    config: TrainConfig,
    spec: TransformerSpec,
    found: Mapping[str, TransformerSpec] = MappingProxyType({}),
) -> None:
    """Raise ConfigError for a sample whose twin cannot draw it.

    The twin's weights take the place of the frozen ones: of the same sizes, in one process, and not in 4 bits.
    ``found``: the sizes of twins, by name, whose files have been looked at; those of an unknown one of the hub are not
    told before.
    """
    for index, sample in enumerate(config.samples):
        if sample.enabled and sample.preview:
            where = f"samples.{index}.preview"
            _refuse_settings(config, where)
            twin = found.get(sample.preview)
            _refuse_model(config, spec, where, sample.preview, twin)


def _refuse_settings(config: TrainConfig, where: str) -> None:
    part = config.transformer
    problem = ""
    if config.training_method != "LORA":
        problem = "what a FINE_TUNE learns cannot be put onto another model"
    elif config.multi_gpu or config.sharding != "NONE":
        problem = "several GPUs cannot draw by another model in between"
    elif part.layer_offload_fraction:
        problem = (
            "weights that stream from main memory stay those of the model that trains"
        )
    elif part.weight_dtype == "NFLOAT_4":
        problem = "weights in 4 bits cannot be exchanged"
    elif part.weight_dtype == "GGUF":
        problem = "weights of a GGUF file cannot be exchanged"
    if problem:
        cure = "Leave it empty, and draw with the distilled model and the LoRA file elsewhere."
        raise ConfigError(where, problem, cure)


def _refuse_model(
    config: TrainConfig,
    spec: TransformerSpec,
    where: str,
    name: str,
    found: TransformerSpec | None,
) -> None:
    choices = variants_of(spec)
    if _DISTILLED not in choices:
        problem = f"is {name}, and this model has no distilled twin"
        raise ConfigError(where, problem, "Leave it empty.")
    use_it = f"Use {choices[_DISTILLED].repo} or a fine-tune of it."
    if not found and not is_counted_as_another(name):
        try:
            found = spec_of(name, config.model_type)
        except FileError as error:
            problem = f"{error.where}: {error.problem}"
            cure = error.cure if os.path.exists(name) else use_it
            raise ConfigError(where, problem, cure) from None
    if found and found != spec:
        problem = f"{name} has other sizes than the model that trains"
        raise ConfigError(where, problem, use_it)
    said = said_of(name, choices)
    if said and said != _DISTILLED:
        problem = f"{name} is not distilled, but {said}"
        raise ConfigError(where, problem, use_it)

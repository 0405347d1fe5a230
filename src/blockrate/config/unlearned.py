"""What a config asks of a model that has learned little: other sizes of pictures, captions of another length."""

from collections.abc import Iterator, Mapping

from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket, buckets
from blockrate.core.errors import ConfigError
from blockrate.models.families import FAMILIES, Family

_SIZE = "resolution"
_TOKENS = "text_encoder_2_sequence_length"
_TOLD = 3  # settings in one sentence


def unlearned(config: TrainConfig) -> Iterator[str]:
    """Yield what the base model has not learned; nothing of a model that has learned much."""
    family = FAMILIES.get(config.base_model_name)
    if not family:
        return
    pixels = family.pixels
    others = [
        f"{where} {size}"
        for where, size in _sizes(config).items()
        if pixels and _squares(size) - {Bucket(pixels, pixels)}
    ]
    if others:
        more = f" and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
        yield (
            f"{', '.join(others[:_TOLD])}{more}: {family.name} has learned pictures of {pixels} pixels, "
            f"and draws other sizes badly. Use {pixels}."
        )
    tokens = getattr(config, _TOKENS)
    if family.text_tokens not in (0, tokens):
        yield (
            f"{_TOKENS} {tokens}: {family.name} has learned captions of {family.text_tokens} tokens, "
            f"and knows hardly a word in others. Use {family.text_tokens}."
        )


def learned_settings(family: Family | None) -> Mapping[str, str | int]:
    """Return the settings that a model has learned with; none of a model that has learned much."""
    settings: dict[str, str | int] = {}
    if family is None:
        return settings
    if family.pixels:
        settings[_SIZE] = str(family.pixels)
    if family.text_tokens:
        settings[_TOKENS] = family.text_tokens
    return settings


def resolutions(config: TrainConfig) -> dict[str, str]:
    """Return the sizes that pictures are trained at, by their settings."""
    sizes = {_SIZE: config.resolution}
    for index, concept in enumerate(config.concepts):
        image = concept.image
        if image.enable_resolution_override:
            where = f"concepts.{index}.image.resolution_override"
            sizes[where] = image.resolution_override
    return sizes


def _sizes(config: TrainConfig) -> dict[str, str]:
    """Return the sizes that pictures are trained and drawn at, by their settings."""
    sizes = resolutions(config)
    for index, sample in enumerate(config.samples):
        if sample.enabled:
            sizes[f"samples.{index}"] = f"{sample.width}x{sample.height}"
    return sizes


def _squares(size: str) -> set[Bucket]:
    """Return the square of each resolution that is named; none if that is wrong, which is told elsewhere."""
    try:
        return {row[0] for row in buckets(size)}
    except ConfigError:
        return set()

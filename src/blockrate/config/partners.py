"""What an image is learned with beside its caption: reference images and masks, as far as the model takes them."""

from collections.abc import Iterator

from blockrate.config.base_model import model_of, told_variant, trained_name
from blockrate.config.parts import Concept, Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.models.families import FAMILIES, Family, TransformerSpec, published_of


def asks_for_masks(config: TrainConfig) -> bool:
    """Whether models of the config's type are told which part of an image to draw anew."""
    rows = FAMILIES.values()
    return any(
        row.model_type == config.model_type and takes_masks(row.spec) for row in rows
    )


def takes_masks(spec: TransformerSpec) -> bool:
    """Whether the transformer is told which part of an image to draw anew."""
    return spec.extra_channels > 0


def most_references(config: TrainConfig, spec: TransformerSpec) -> int | None:
    """Return how many reference images the model to train sees at most; None if nothing tells which model it is."""
    if told_variant(config, spec) is None:
        return None
    return _row(config, spec).references


def references_used(config: TrainConfig) -> int:
    """Return how many reference images the image has that has most of them."""
    return max((len(concept.references) for concept in _used(config)), default=0)


def partner_problems(config: TrainConfig, spec: TransformerSpec) -> list[ConfigError]:
    """Return which references and masks the model does not take, and which it lacks.

    Nothing where nothing tells which model it is: that is told first.
    """
    most = most_references(config, spec)
    if most is None:
        return []
    problems = [
        _too_many(config, where, count, most)
        for where, count in _references(config)
        if count > most
    ]
    return [*problems, *_masks(config, spec)]


def refuse_partners(config: TrainConfig, spec: TransformerSpec) -> None:
    """Raise ConfigError for the first of what ``partner_problems`` returns."""
    for problem in partner_problems(config, spec):
        raise problem


def partner_warnings(config: TrainConfig, spec: TransformerSpec) -> Iterator[str]:
    """Yield which samples are drawn far from the guidance that the model was made for, or into no image."""
    row = _row(config, spec)
    for index, sample in _samples(config):
        if not takes_masks(spec) and (sample.base_image_path or sample.mask_image_path):
            image = f"samples.{index}: its image to draw into has no effect"
            yield f"{image}; {row.title} draws into none."
        if sample.cfg_scale < row.cfg / 2:
            scale = f"samples.{index}.cfg_scale is {sample.cfg_scale:g}"
            yield f"{scale}; {row.title} is made to draw with {row.cfg:g}."


def _references(config: TrainConfig) -> Iterator[tuple[str, int]]:
    """Yield where there are reference images, and how many for an image."""
    for index, concept in enumerate(config.concepts):
        if concept.enabled and concept.references:
            yield f"concepts.{index}.references", len(concept.references)
    for index, sample in _samples(config):
        if sample.references:
            yield f"samples.{index}.references", len(sample.references)


def _masks(config: TrainConfig, spec: TransformerSpec) -> Iterator[ConfigError]:
    """Yield where a mask is set for nothing, or is needed and not set."""
    title = _row(config, spec).title
    if takes_masks(spec):
        for index, sample in _samples(config):
            yield from _lacking(f"samples.{index}", sample, title)
        return
    problem = f"is set, and {title} takes no masks"
    cure = f"Leave it empty, or train {' or '.join(_with_masks())}."
    for index, concept in enumerate(config.concepts):
        if concept.enabled and concept.masks:
            yield ConfigError(f"concepts.{index}.masks", problem, cure)


def _lacking(where: str, sample: Sample, title: str) -> Iterator[ConfigError]:
    if not sample.base_image_path:
        problem = f"is empty, and {title} draws into an image"
        yield ConfigError(f"{where}.base_image_path", problem, "Name an image.")
    if not sample.mask_image_path:
        problem = f"is empty, and {title} draws where a mask is white"
        yield ConfigError(f"{where}.mask_image_path", problem, "Name a mask.")


def _too_many(config: TrainConfig, where: str, count: int, most: int) -> ConfigError:
    name = trained_name(config)
    if most:
        problem = f"has {count}, and {name} takes {most}"
        return ConfigError(where, problem, f"Leave {most}.")
    takers = [
        row.title
        for row in FAMILIES.values()
        if row.repo and row.references and not row.distilled
    ]
    problem = f"is set, and {name} takes no reference images"
    cure = f"Leave it empty, or train {', '.join(takers[:-1])} or {takers[-1]}."
    return ConfigError(where, problem, cure)


def _row(config: TrainConfig, spec: TransformerSpec) -> Family:
    """Return the published model that it is, or is a fine-tune of."""
    return model_of(config, spec) or published_of(
        spec, config.model_type, trained_name(config)
    )


def _with_masks() -> list[str]:
    rows = FAMILIES.values()
    return [row.title for row in rows if row.repo and takes_masks(row.spec)]


def _used(config: TrainConfig) -> list[Concept]:
    return [concept for concept in config.concepts if concept.enabled]


def _samples(config: TrainConfig) -> Iterator[tuple[int, Sample]]:
    for index, sample in enumerate(config.samples):
        if sample.enabled:
            yield index, sample

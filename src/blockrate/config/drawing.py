"""A picture to draw from what was trained: what is asked for, and what of a config the model that draws hangs on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from blockrate.config.base_model import draws_against_nothing, model_spec
from blockrate.config.partners import partner_problems
from blockrate.config.parts import Sample
from blockrate.config.setting import LoraFile, setting
from blockrate.config.train_config import TrainConfig
from blockrate.config.value_errors import explain
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.profile import check_multipliers
from blockrate.models.headers import read_header
from blockrate.models.lora_keys import sort_keys
from blockrate.models.lora_kinds import refuse_others
from blockrate.models.single_file import transformer_names

MOST_SCALE = 2.0
MOST_STRENGTH = 4.0
Scale = Annotated[float, Strict(), Field(ge=0.0, le=MOST_SCALE)]
Strength = Annotated[float, Strict(), Field(ge=0.0, le=MOST_STRENGTH)]


class Drawing(Sample, title="A picture to draw"):
    """A prompt, what was learned, and how much of it each block is to have."""

    negative_prompt: str = setting(
        "", "What the image moves away from, for models with guidance of that kind"
    )
    lora: LoraFile = setting(
        "", "What was learned: a LoRA file, or a checkpoint of a run; empty for none"
    )
    strength: Strength = setting(1.0, "How much of the LoRA is added; 1 as trained")
    block_scale: dict[str, Scale] = setting(
        dict, "By block, and other: how much of the strength it has; 0 switches it off"
    )


class Drawn(BaseModel):
    """What became of a picture. ``file``: the name of the PNG, empty where there is none for ``problem``'s reason.

    ``model``: what it was drawn by. ``time``: UTC seconds; ``seconds``: how long it took.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    drawing: Drawing
    file: str = ""
    problem: str = ""
    model: str = ""
    time: float = 0.0
    seconds: float = 0.0


def read_drawing(values: Mapping[str, Any]) -> Drawing:
    """Return what these values ask for. Raises ConfigError with all that is wrong."""
    try:
        return Drawing.model_validate(values)
    except ValidationError as error:
        first, *others = explain(error)
        more = "; ".join(f"{other.where}: {other.problem}" for other in others)
        first.problem += f"; {more}" if more else ""
        raise first from None


def check_drawing(drawing: Drawing, config: TrainConfig) -> None:
    """Raise ConfigError for blocks and images that the model does not take, and for what it cannot move away from."""
    spec = model_spec(config)
    _check_blocks(drawing.block_scale, spec.layout)
    for error in partner_problems(config_of(drawing, config), spec):
        where = error.where.removeprefix("samples.0.")
        raise ConfigError(where, error.problem, error.cure)
    if drawing.negative_prompt and not draws_against_nothing(config, spec):
        problem = "this model takes no negative prompt: its guidance is of another kind"
        raise ConfigError("negative_prompt", problem, "Leave it empty.")


def _check_blocks(scales: Mapping[str, float], layout: BlockLayout) -> None:
    try:
        check_multipliers(dict.fromkeys(scales, 1.0), layout)
    except ConfigError as error:
        cure = f"Give blocks of the model, or other, a number from 0.0 (off) to {MOST_SCALE}."
        raise ConfigError("block_scale", error.problem, cure) from None


def takes_negative_prompt(config: TrainConfig) -> bool:
    """Whether the model of a config moves away from words. Raises as ``model_spec``."""
    return draws_against_nothing(config, model_spec(config))


def drawing_config(config: TrainConfig) -> TrainConfig:
    """Return what of a config the model that draws hangs on: nothing trains, on one device."""
    fresh = TrainConfig()
    kept = {
        *("base_model_name", "model_type", "model_variant", "transformer", "vae"),
        *(name for name in TrainConfig.model_fields if name.startswith("text_encoder")),
        *("train_device", "train_dtype", "enable_autocast", "deterministic"),
        *("lora_weight_dtype", "dropout_probability", "cache_dir"),
    }
    values = {name: getattr(config, name) for name in kept}
    return fresh.model_copy(update=values)


def config_of(drawing: Drawing, config: TrainConfig) -> TrainConfig:
    """Return the config of a model that draws with a drawing as its one sample."""
    sample = drawing.model_copy(update={"enabled": True})
    return drawing_config(config).model_copy(update={"samples": [sample]})


def of_file(path: Path, config: TrainConfig) -> tuple[TrainConfig, str]:
    """Return the config to draw with from a file or folder, and the LoRA to put onto its model, if it is one.

    ``config``: what it was trained on. Raises FileError for what is neither a LoRA nor a transformer.
    """
    if path.is_dir():
        return with_transformer(config, path), ""
    _, tensors = read_header(path)
    keys = sort_keys(path, tensors)
    if not keys.modules and transformer_names(tensors):
        return with_transformer(config, path), ""
    refuse_others(path, keys, tensors)
    return config, str(path)


def with_transformer(config: TrainConfig, path: Path) -> TrainConfig:
    """Return a config whose transformer is a whole one that was trained."""
    part = config.transformer.model_copy(update={"model_name": str(path)})
    return config.model_copy(update={"transformer": part})

"""Every setting that a config can hold, and another value for each."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from blockrate.config.fields import fields, models_in
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.paths import put
from blockrate.config.train_config import TrainConfig

Data = dict[str, Any]
# one after the other, until one is of the right type and within the limits
_VALUES: tuple[Any, ...] = (
    True,
    False,
    2,
    1,
    0.5,
    32,
    -0.5,
    "other",
    {"double_block_0": 0.5},
    {"mine": {}},
    ["other"],
    [{"from": 0, "block_learning_rate_multiplier": {"double_block_0": 0.5}}],
)


def all_paths(model: type[BaseModel] = TrainConfig, before: str = "") -> list[str]:
    """Every setting there is; an entry of a list has the number N: ``concepts.N.path``."""
    paths = []
    for name, info in model.model_fields.items():
        inner = models_in(info.annotation)
        is_list = get_origin(info.annotation) is list
        here = f"{before}{name}.N" if inner and is_list else f"{before}{name}"
        paths += all_paths(inner[0], f"{here}.") if inner else [here]
    return paths


def two_values(path: str) -> tuple[Data, Data]:
    """Two configs that differ in what stands at a path, where that has an effect; paths have 0 for N."""
    usual: Any = None
    before: Data = {"concepts": [{"path": "photos"}], "samples": [{"prompt": "a cat"}]}
    if path == "layer_filter_regex":
        before["layer_filter"] = "attn"
    if path.startswith("optimizer.") and path != "optimizer.optimizer":
        name = path.removeprefix("optimizer.")
        takes = [row.name for row in OPTIMIZERS.values() if name in row.parameters]
        before["optimizer"] = {"optimizer": takes[0]}
        usual = OPTIMIZERS[takes[0]].parameters[name]
    unchanged = TrainConfig.model_validate(before).model_dump()
    for value in _candidates(path):
        now = TrainConfig.model_validate(before).model_dump()
        put(now, path, value, replace=True)
        try:
            valid = TrainConfig.model_validate(now).model_dump()
        except ValidationError:
            continue
        if valid != unchanged and value != usual:
            return unchanged, valid
    raise AssertionError(f"no other value is known for {path}")


def _candidates(path: str) -> Iterator[Any]:
    annotation = fields()[path.replace(".0", ".N")].info.annotation
    yield from _options(annotation)
    yield from _VALUES


def _options(annotation: Any) -> list[str]:
    """The values of a choice, also of one that may be empty."""
    found = []
    for argument in get_args(annotation):
        found += [argument] if isinstance(argument, str) else _options(argument)
    return found

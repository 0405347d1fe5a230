"""Every setting that a config can hold."""

from typing import get_origin

from pydantic import BaseModel

from blockrate.config.train_config import TrainConfig
from blockrate.ui.parts.field_types import models_in


def all_paths(model: type[BaseModel] = TrainConfig, before: str = "") -> list[str]:
    """Every setting there is; an entry of a list has the number N: ``concepts.N.path``."""
    paths = []
    for name, info in model.model_fields.items():
        inner = models_in(info.annotation)
        here = f"{before}{name}" + (
            ".N" if inner and get_origin(info.annotation) is list else ""
        )
        paths += all_paths(inner[0], f"{here}.") if inner else [here]
    return paths

"""The models that people train, as gallery.json lists them: what each costs to get, and the preset that suits it."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from blockrate.config.paths import put
from blockrate.config.reading import Json
from blockrate.models.families import Family, known_as

_FACTS: Json = json.loads(Path(__file__).with_name("gallery.json").read_text("utf-8"))
PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class Offered:
    """A model of the gallery. ``preset``: the name of the config that suits it.

    ``download_gb``: in 10^9 bytes, 0 for one that comes with blockrate. ``preview``: the
    distilled twin that draws in few steps. ``steps``, ``guidance``: of a sample.
    """

    family: Family
    preset: str
    licence: str
    download_gb: float
    steps: int
    guidance: float
    preview: Family | None = None

    @property
    def name(self) -> str:
        """What ``base_model_name`` says of it."""
        return self.family.repo or self.family.name


@cache
def gallery() -> tuple[Offered, ...]:
    """Return the models whose family and preset are there, the first choice first."""
    offered = []
    for row in _FACTS["models"]:
        values = dict(row)
        family = known_as(values.pop("model"))
        preview = known_as(values.pop("preview", ""))
        if family and (PRESETS / f"{row['preset']}.json").is_file():
            offered.append(Offered(family, **values, preview=preview))
    return tuple(offered)


def offered_as(name: str) -> Offered | None:
    """Return the model of the gallery that a config names, if it is one."""
    family = known_as(name)
    return next((row for row in gallery() if row.family == family), None)


def preset_order() -> list[str]:
    """Return the names of the presets of models, in the order of the gallery."""
    return [row.preset for row in gallery()]


def settings_of(offered: Offered | None, method: str) -> dict[str, Any]:
    """Return by path what suits a model that is trained by a method; nothing without a model."""
    if offered is None:
        return {}
    preset: Json = json.loads(
        (PRESETS / f"{offered.preset}.json").read_text(encoding="utf-8")
    )
    left = set(_FACTS["left"])
    if method != "LORA":
        left.update(_FACTS["of_lora"])
    return {path: value for path, value in _flat(preset).items() if path not in left}


def sample_of(name: str) -> dict[str, Any]:
    """Return how the makers of a model draw, as the settings of a sample; nothing of a model that nobody knows."""
    row = offered_as(name)
    if row is None:
        return {}
    sample: dict[str, Any] = {"diffusion_steps": row.steps, "cfg_scale": row.guidance}
    if row.family.pixels:
        sample |= {"width": row.family.pixels, "height": row.family.pixels}
    return sample


def first_config() -> Json:
    """Return what a new config of the app begins with: the first model of the gallery, and what suits it."""
    config: Json = {}
    for path, value in settings_of(gallery()[0], "LORA").items():
        put(config, path, value)
    return config


def _flat(config: Json) -> dict[str, Any]:
    """Return the settings of a config by path; a list is one."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            for inner, what in value.items():
                flat[f"{name}.{inner}"] = what
        else:
            flat[name] = value
    return flat

"""Each architecture in models/ has its module here, and the two agree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from blockrate.config.train_config import TrainConfig
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.common import FamilyModule
from blockrate.engine.models.locate import locate
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    conditioning_of,
    config_from_spec,
    is_toy,
    spec_from_config,
)
from blockrate.models.files import parts_of

FUNCTIONS = [name for name in vars(FamilyModule) if not name.startswith("_")]


def test_every_architecture_has_a_module() -> None:
    assert FAMILY_MODULES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("architecture", FAMILY_MODULES)
def test_every_module_has_the_same_functions(architecture: str) -> None:
    assert len(FUNCTIONS) == 11
    module = vars(FAMILY_MODULES[architecture])
    assert [name for name in FUNCTIONS if name not in module] == []


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_sizes_go_to_diffusers_and_come_back(family: Any) -> None:
    config = config_from_spec(family.spec)
    stated = {"_class_name": family.spec.facts["class"], **config}
    assert spec_from_config(stated) == family.spec


@pytest.mark.parametrize("name", [name for name in FAMILIES if is_toy(name)])
def test_prompts_of_a_toy_become_what_the_facts_say(name: str, tmp_path: Path) -> None:
    config = TrainConfig(base_model_name=name, cache_dir=str(tmp_path))
    files = locate(config)
    assert files.spec == FAMILIES[name].spec
    assert list(files.parts) == parts_of(files.spec.architecture)
    encoders = files.family.load_text_encoders(files, config, torch.device("cpu"))
    found = files.family.encode_prompts(encoders, ["a cat", ""])
    rows = conditioning_of(files.spec.architecture)
    assert found.keys() == rows.keys()
    for key, tensor in found.items():
        assert tensor.dim() == rows[key].dimensions + 1
        assert len(tensor) == 2

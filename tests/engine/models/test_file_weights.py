"""Loading a transformer a block at a time: what the files hold, and never more than one block in main memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.bfl_files import bfl_tensors
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.file_weights import Filling
from blockrate.models.families import FAMILIES

SPEC = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(2, 3))
FAMILY: Any = FAMILY_MODULES[SPEC.architecture]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model as a folder in float32, and as a file with BFL's names in bf16."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    model = FAMILY.random_transformer(SPEC)
    model.save_pretrained(folder / "folder")
    halves = {name: one.bfloat16() for name, one in model.state_dict().items()}
    save_file(bfl_tensors(halves, SPEC), folder / "one.safetensors")
    return {"folder": folder / "folder", "file": folder / "one.safetensors"}


def loaded(source: Path, form: str, device: str = "cpu") -> Any:
    files = ModelFiles(FAMILY, SPEC, {"transformer": source})
    config = TrainConfig.model_validate({"transformer": {"weight_dtype": form}})
    return FAMILY.load_transformer(files, config, torch.device(device))


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("form", ["FLOAT_32", "BFLOAT_16", "FLOAT_16"])
def test_all_ways_lead_to_the_same_weights(
    sources: dict[str, Path], kind: str, form: str
) -> None:
    whole = type(FAMILY.random_transformer(SPEC)).from_pretrained(sources["folder"])
    model = loaded(sources[kind], form)
    assert not model.training
    dtype = {"FLOAT_32": torch.float32, "BFLOAT_16": torch.bfloat16}
    wished = dtype.get(form, torch.float16)
    for name, parameter in model.named_parameters():
        expected = whole.get_parameter(name)
        if kind == "file":
            expected = expected.bfloat16()
        assert torch.equal(parameter, expected.to(wished)), name
        assert not parameter.requires_grad


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("form", ["BFLOAT_16", "FLOAT_16", "INT_8"])
def test_main_memory_holds_one_block_at_a_time(
    sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, form: str
) -> None:
    """On a device that is not main memory."""
    held: list[list[str]] = []
    models: list[nn.Module] = []
    build, fill = Filling.__init__, Filling.fill

    def made(self: Filling, model: nn.Module, *given: Any, **named: Any) -> None:
        models.append(model)
        build(self, model, *given, **named)

    def filled(self: Filling, part: nn.Module) -> None:
        fill(self, part)
        rows = models[-1].named_parameters()
        held.append([name for name, one in rows if not one.is_meta])

    monkeypatch.setattr(Filling, "__init__", made)
    monkeypatch.setattr(Filling, "fill", filled)
    loaded(sources[kind], form, "meta")
    blocks = [
        {name.partition("_blocks.")[2].partition(".")[0] for name in row}
        for row in held
    ]
    assert len(held) == 2 + 3 + 1
    for names, numbers in zip(held[:-1], blocks[:-1], strict=True):
        assert names
        assert len(numbers) == 1
    assert not any("_blocks." in name for name in held[-1])

"""What a run hands over: loads back as it was, and a new one replaces an old one safely."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from peft import LoraConfig
from safetensors import safe_open
from support.lora_files import read_lora

import blockrate
from blockrate.config.files import config_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError, WriteError
from blockrate.engine import export as export_module
from blockrate.engine.export import export_name, file_metadata
from blockrate.engine.memory import dtype_of
from blockrate.models.lora_norms import inspect_lora
from blockrate.run import durable
from blockrate.run.durable import verify_folder
from blockrate.run.results import Results, check_destination

LORA = TrainConfig(
    block_learning_rate_multiplier={"double_block_1": 0.3}, base_model_name="some/flux"
)
FINE_TUNE = TrainConfig(training_method="FINE_TUNE", output_model_format="DIFFUSERS")
DTYPES = {
    "FLOAT_32": torch.float32,
    "BFLOAT_16": torch.bfloat16,
    "FLOAT_16": torch.float16,
}


PAGE = Path(__file__).resolve().parents[2] / "docs" / "run_folder.md"


def toy_flux(seed: int = 0) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        axes_dims_rope=(4, 6, 6),
        in_channels=16,
        joint_attention_dim=12,
        pooled_projection_dim=8,
    )


def with_adapters(
    model: FluxTransformer2DModel,
    names: list[str] | tuple[str, str] = (
        "transformer_blocks.1.attn.to_q",
        "single_transformer_blocks.2.proj_mlp",
    ),
) -> FluxTransformer2DModel:
    model.add_adapter(
        LoraConfig(
            r=4, lora_alpha=8, target_modules=list(names), init_lora_weights=False
        )
    )
    return model


def export(
    path: Path, model: Any, config: TrainConfig, *, metadata: dict[str, Any]
) -> None:
    """What a run with this config hands over."""
    export_module.export(
        path,
        model,
        training_method=config.training_method,
        file_format=config.output_model_format,
        dtype=dtype_of(config.output_dtype),
        metadata=metadata,
    )


def assert_equal_weights(
    folder: Path, model: FluxTransformer2DModel, dtype: torch.dtype
) -> None:
    loaded = FluxTransformer2DModel.from_pretrained(
        folder, torch_dtype=dtype
    ).state_dict()
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name].to(dtype)) for name in loaded)


# --- LoRA ---


@pytest.mark.parametrize("file_format", ["DIFFUSERS_LORA", "KOHYA_LORA"])
@pytest.mark.parametrize("precision", DTYPES)
def test_lora_is_written_in_the_format_and_precision_of_the_config(
    tmp_path: Path, file_format: str, precision: str
) -> None:
    path = tmp_path / "models" / "flower.safetensors"
    config = LORA.model_copy(
        update={"output_model_format": file_format, "output_dtype": precision}
    )
    export(path, with_adapters(toy_flux()), config, metadata=file_metadata(config))
    with safe_open(path, "pt") as file:
        weights = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
        assert {weight.dtype for weight in weights if weight.ndim} == {
            DTYPES[precision]
        }
        assert (
            file.metadata().items()
            >= {
                "blockrate.multipliers": '{"double_block_1": 0.3}',
                "blockrate.base_model": "some/flux",
                "blockrate.config_hash": config_hash(config),
                "blockrate.version": blockrate.__version__,
            }.items()
        )
    report = inspect_lora(path)
    assert report.format == ("kohya" if file_format == "KOHYA_LORA" else "diffusers")
    assert list(report.blocks) == ["double_block_1", "single_block_2"]
    assert (report.multipliers, report.base_model) == (
        {"double_block_1": 0.3},
        "some/flux",
    )
    module = read_lora(path)["single_transformer_blocks.2.proj_mlp"]
    norm = (module.scale * module.up @ module.down).norm().item()
    assert report.blocks["single_block_2"] == pytest.approx(norm, rel=1e-5)


def test_new_lora_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "flower.safetensors"
    for names in (
        ["transformer_blocks.0.attn.to_k"],
        ["transformer_blocks.1.attn.to_v"],
    ):
        export(path, with_adapters(toy_flux(), names), LORA, metadata={})
        assert list(read_lora(path)) == names
    assert list(tmp_path.iterdir()) == [path]


# --- fine-tune ---


@pytest.mark.parametrize("precision", DTYPES)
def test_fine_tune_loads_back_bit_equal(tmp_path: Path, precision: str) -> None:
    model = toy_flux()
    config = FINE_TUNE.model_copy(update={"output_dtype": precision})
    export(tmp_path / "flower", model, config, metadata=file_metadata(config))
    assert_equal_weights(tmp_path / "flower", model, DTYPES[precision])
    with safe_open(
        tmp_path / "flower" / "diffusion_pytorch_model.safetensors", "pt"
    ) as file:
        assert file.metadata() == {"format": "pt", **file_metadata(config)}
    assert next(model.parameters()).dtype == torch.float32, (
        "the model that trains must stay as it is"
    )
    assert verify_folder(tmp_path / "flower") == []


def test_large_fine_tune_is_written_in_shards_that_load_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_SHARD_SIZE", "30KB")
    model = toy_flux()
    export(tmp_path / "flower", model, FINE_TUNE, metadata={})
    assert len(list((tmp_path / "flower").glob("*-of-*.safetensors"))) > 2
    assert_equal_weights(tmp_path / "flower", model, torch.float32)
    index = json.loads(
        (
            tmp_path / "flower" / "diffusion_pytorch_model.safetensors.index.json"
        ).read_text()
    )
    assert index["metadata"]["total_size"] == 4 * sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_compiled_transformer_is_written_with_plain_names(tmp_path: Path) -> None:
    model = toy_flux()
    model.transformer_blocks[0] = torch.compile(
        model.transformer_blocks[0], backend="eager"
    )
    export(
        tmp_path / "flower",
        torch.compile(model, backend="eager"),
        FINE_TUNE,
        metadata={},
    )
    assert_equal_weights(tmp_path / "flower", toy_flux(), torch.float32)


def test_new_fine_tune_replaces_the_old_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        export(tmp_path / "flower", toy_flux(seed), FINE_TUNE, metadata={})
    assert_equal_weights(tmp_path / "flower", toy_flux(1), torch.float32)
    assert list(tmp_path.iterdir()) == [tmp_path / "flower"]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_fine_tune_that_is_not_a_number_keeps_the_old_one(
    tmp_path: Path, bad: float
) -> None:
    export(tmp_path / "flower", toy_flux(), FINE_TUNE, metadata={})
    broken = toy_flux(1)
    broken.proj_out.weight.data[0, 0] = bad
    with pytest.raises(NotANumberError, match=r"proj_out\.weight is not a number"):
        export(tmp_path / "flower", broken, FINE_TUNE, metadata={})
    assert_equal_weights(tmp_path / "flower", toy_flux(), torch.float32)
    assert list(tmp_path.iterdir()) == [tmp_path / "flower"]


def test_full_disk_is_told_and_keeps_the_old_fine_tune(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of this kind are POSIX's")
    export(tmp_path / "flower", toy_flux(), FINE_TUNE, metadata={})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
        with pytest.raises(WriteError, match="flower"):
            export(tmp_path / "flower", toy_flux(1), FINE_TUNE, metadata={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal_weights(tmp_path / "flower", toy_flux(), torch.float32)
    assert list(tmp_path.iterdir()) == [tmp_path / "flower"]


# --- the same bytes every time ---


def export_all(folder: Path) -> None:
    """A LoRA of each format and a fine-tune in shards, by everything that could be in another order."""
    export_module._SHARD_SIZE = "100KB"
    metadata = {"format": "pt", "blockrate.base_model": 'a/b "\u00e9" \\ \n\x01'}
    metadata |= {f"blockrate.{number}": str(number) for number in range(20)}
    for file_format in ("DIFFUSERS_LORA", "KOHYA_LORA"):
        config = LORA.model_copy(update={"output_model_format": file_format})
        path = folder / f"{file_format}.safetensors"
        export(path, with_adapters(toy_flux()), config, metadata=metadata)
    export(folder / "fine-tune", toy_flux(), FINE_TUNE, metadata=metadata)


@pytest.mark.engine
def test_another_process_exports_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_SHARD_SIZE", "100KB")  # and put back after it
    export_all(tmp_path / "here")
    code = (
        "from test_export import Path, export_all, sys; export_all(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "there")]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    changed = {"PYTHONPATH": path, "PYTHONHASHSEED": "1"}
    subprocess.run(command, check=True, env=os.environ | changed)
    here, there = (
        {
            file.relative_to(tmp_path / side): file.read_bytes()
            for file in (tmp_path / side).rglob("*.*")
        }
        for side in ("here", "there")
    )
    assert len(here) > 5, "the shards were not written"
    assert here == there
    with safe_open(tmp_path / "there" / "KOHYA_LORA.safetensors", "pt") as lora:
        assert lora.metadata()["blockrate.base_model"] == 'a/b "\u00e9" \\ \n\x01'
    assert_equal_weights(tmp_path / "there" / "fine-tune", toy_flux(), torch.float32)


# --- where to ---


@pytest.mark.parametrize(
    ("destination", "prefix", "name"),
    [
        ("models/flower.safetensors", "", "models/flower-step-00000100.safetensors"),
        (
            "models/flower.safetensors",
            "try-",
            "models/try-flower-step-00000100.safetensors",
        ),
        ("models/flux-v1.5", "", "models/flux-v1.5-step-00000100"),
    ],
)
def test_exports_on_the_way_are_named_by_their_step(
    destination: str, prefix: str, name: str
) -> None:
    assert export_name(Path(destination), 100, prefix=prefix) == Path(name)


def test_destination_is_checked_without_leaving_a_trace(tmp_path: Path) -> None:
    check(tmp_path / "new" / "flower.safetensors")
    check(tmp_path / "new" / "flower", folder=True)
    assert list((tmp_path / "new").iterdir()) == []


def check(path: Path, *, folder: bool = False) -> None:
    results = Results(path.parent / "events.jsonl")
    check_destination(str(path), results, folder=folder, probe=True)


def test_a_full_disk_is_told_of_the_destination_not_of_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int | Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_open", full)
    with pytest.raises(WriteError, match=r"flower\.safetensors: the disk is full"):
        check(tmp_path / "flower.safetensors")


def header_keys(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as opened:
        return set(opened.metadata())


def keys_of_table(text: str) -> set[str]:
    """The names in the first column of the first table of a text."""
    rows = re.findall(r"^\|(.+?)\|", text, re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", " ".join(rows)))


def test_the_page_of_the_run_folder_lists_what_the_headers_hold(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## File metadata")[2]
    every, heading, kohya = text.partition("the kohya form also has")
    assert heading

    written = {}
    for form in ("DIFFUSERS_LORA", "KOHYA_LORA"):
        config = LORA.model_copy(update={"output_model_format": form})
        file = tmp_path / f"{form}.safetensors"
        export(file, with_adapters(toy_flux()), config, metadata=file_metadata(config))
        written[form] = header_keys(file)
    folder = tmp_path / "model"
    export(folder, toy_flux(), FINE_TUNE, metadata=file_metadata(FINE_TUNE))
    [weights] = folder.glob("*.safetensors")

    assert keys_of_table(every) == written["DIFFUSERS_LORA"]
    assert keys_of_table(every) == header_keys(weights)
    assert keys_of_table(kohya) == written["KOHYA_LORA"] - keys_of_table(every)

"""Real runs through the command line: LoRA, FLOAT_8 LoRA, fine-tune, stop and go on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.commands import EXAMPLES, Command, Result

RATES = {
    "double_block_0": 0.3,
    "double_block_1": 0.4,
    "double_block_2": 0.5,
    "single_block_0": 0.7,
    "single_block_1": 0.8,
}


@pytest.fixture(scope="module")
def lora(small_run: Command, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run of examples/block_rates.json."""
    return small_run(EXAMPLES / "block_rates.json", tmp_path_factory.mktemp("lora"))


def test_lora_run_ends_well_and_prints_its_file_only(lora: Result) -> None:
    assert lora.code == 0, lora.err
    assert lora.out.split() == [str(lora.run.parent / "result.safetensors")]


def test_lora_run_trains_with_the_rates_of_the_config(lora: Result) -> None:
    started = lora.events("started")[0]
    rates = {group["name"]: group["learning_rate"] for group in started["groups"]}
    assert len(rates) == 57
    assert all(
        rates[name] == pytest.approx(3e-4 * RATES.get(name, 1.0), rel=1e-9)
        for name in rates
    )
    measured = lora.events("blocks")[-1]
    assert measured["learning_rates"] == pytest.approx(rates)
    assert all(ratio > 0 for ratio in measured["update_ratios"].values())


def test_lora_file_carries_its_profile_and_loads_in_diffusers(
    lora: Result, tiny_flux: Path
) -> None:
    from diffusers import FluxPipeline

    file = lora.run.parent / "result.safetensors"
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["blockrate.multipliers"]) == RATES
    pipeline = FluxPipeline.from_pretrained(tiny_flux, dtype=torch.float32)
    pipeline.load_lora_weights(str(file))
    assert "default_0" in pipeline.get_list_adapters()["transformer"]


def test_float_8_lora_run_computes_with_rounded_weights_and_trains_fp32_adapters(
    small_run: Command, lora: Result, tmp_path: Path
) -> None:
    done = small_run(
        EXAMPLES / "block_rates.json",
        tmp_path,
        "transformer.weight_dtype=FLOAT_8",
        "epochs=1",
    )
    assert done.code == 0, done.err
    assert all(
        tensor.dtype == torch.float32
        for tensor in load_file(tmp_path / "result.safetensors").values()
    )
    assert all(
        ratio > 0 for ratio in done.events("blocks")[-1]["update_ratios"].values()
    )
    rounded, exact = (run.events("step")[0]["loss"] for run in (done, lora))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.1)


def test_fine_tune_changes_what_trains_and_not_one_byte_of_what_is_frozen(
    small_run: Command, tmp_path: Path, tiny_flux: Path
) -> None:
    rates = {f"double_block_{index}": 0.0 for index in range(19)} | {
        "single_block_3": 0.0,
        "other": 0.0,
    }
    done = small_run(
        EXAMPLES / "fine_tune.json",
        tmp_path,
        "output_model_destination=" + str(tmp_path / "tuned"),
        "optimizer.optimizer=ADAMW",
        "output_dtype=FLOAT_32",
        f"block_learning_rate_multiplier={json.dumps(rates)}",
    )
    assert done.code == 0, done.err
    before = load_file(
        tiny_flux / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    after = load_file(tmp_path / "tuned" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        name
        for name in before
        if name.startswith("single_transformer_blocks.")
        and not name.startswith("single_transformer_blocks.3.")
    }
    # A query and key norm of toy width may stand still; nothing outside the trained blocks may move.
    assert changed <= expected
    assert {name.split(".")[1] for name in changed} == {
        str(index) for index in range(38) if index != 3
    }

"""Whole runs whose weights stream: bit for bit those whose weights lie on the card."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.gguf_files import write_gguf
from support.lives import KEY, Small, events, make_small, saved_bytes
from support.lives import SPEC as SMALL_SPEC
from torch import equal

from blockrate.config.plan import make_plan
from blockrate.core.blocks import BlockLayout
from blockrate.run.checkpoints import checkpoint_name, newest_valid
from blockrate.run.folder import RunFolder

SPEC = replace(SMALL_SPEC, layout=BlockLayout(3, 4))
FROZEN = {"double_block_0": 0.0, "double_block_1": 0.5}
METHODS: dict[str, dict[str, Any]] = {
    "LORA": {"ema": "CPU"},
    "FLOAT_8": {"transformer": {"weight_dtype": "FLOAT_8"}},
    "INT_8": {"transformer": {"weight_dtype": "INT_8"}},
    "NFLOAT_4": {"transformer": {"weight_dtype": "NFLOAT_4"}},
    "GGUF": {"transformer": {"weight_dtype": "GGUF"}},
    "FINE_TUNE": {
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
    },
}


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model with enough blocks for some to come once, some twice, and some to stay."""
    small = make_small(tmp_path_factory.mktemp("seven"), SPEC)
    own = small.folder / "model/transformer/diffusion_pytorch_model.safetensors"
    write_gguf(small.folder / "seven.gguf", load_file(own), SPEC)
    return small


def config(small: Small, run: Path, *, fraction: float, method: str) -> Any:
    """A run of 4 steps with validation and a sample, whose first block is frozen."""
    settings = dict(METHODS[method])
    part: dict[str, Any] = {
        "gradient_checkpointing": True,
        "layer_offload_fraction": fraction,
    }
    if method == "GGUF":
        part["model_name"] = str(small.folder / "seven.gguf")
    settings["transformer"] = settings.get("transformer", {}) | part
    photos = {"path": str(small.folder / "photos")}
    return small.config(
        run,
        epochs=2,
        gradient_accumulation_steps=1,
        concepts=[photos, {**photos, "type": "VALIDATION"}],
        validation=True,
        samples=[{"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}],
        sample_after=2,
        sample_after_unit="STEP",
        **{KEY: FROZEN},
        **settings,
    )


def result(run: RunFolder) -> dict[str, Any]:
    """Everything a run has learned and shown."""
    newest = newest_valid(run.checkpoints)
    assert newest
    saved = saved_bytes(newest)
    del saved["state.json"]
    tensors: dict[str, Any] = {}
    for file in sorted(run.path.glob("result*/**/*.safetensors")):
        tensors |= load_file(file)
    samples = {}
    shown = []
    for file in run.samples.rglob("*.png"):
        if not file.name.startswith("step-00000002"):
            samples[file.name] = file.read_bytes()
    assert samples, sorted(run.samples.rglob("*"))
    for event in events(run, "step", "validated"):
        if event["step"] > 2:
            shown.append(event["loss"])
    return {"saved": saved, "tensors": tensors, "samples": samples, "shown": shown}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("saved", "samples", "shown"):
        assert one[part] == other[part], part
    assert one["tensors"].keys() == other["tensors"].keys()
    for name, tensor in one["tensors"].items():
        assert equal(tensor, other["tensors"][name]), name


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_streams_and_is_cut_learns_what_one_does_that_does_neither(
    seven: Small, tmp_path: Path, method: str
) -> None:
    still = seven.live(config(seven, tmp_path / "still", fraction=0.0, method=method))
    cut = RunFolder(tmp_path / "streams")
    shutil.copytree(
        still.checkpoints / checkpoint_name(2), cut.checkpoints / checkpoint_name(2)
    )
    streams = make_plan(config(seven, cut.path, fraction=1.0, method=method)).streaming
    trains_all = method == "FINE_TUNE"
    assert (len(streams.once), len(streams.twice)) == (1, 0 if trains_all else 3)
    assert_same(
        result(seven.live(config(seven, cut.path, fraction=1.0, method=method))),
        result(still),
    )
    if method == "LORA":
        whole = config(seven, tmp_path / "whole", fraction=0.3, method=method)
        assert_same(result(seven.live(whole)), result(still))

"""FLUX.2 and Chroma whose weights stream, or are changed in the backward: to the bits of runs that do neither."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.lives import KEY, Small, events, make_small, saved_bytes
from torch import equal

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.models.families import FAMILIES
from blockrate.run.checkpoints import checkpoint_name

pytestmark = pytest.mark.engine
STEPS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "tiny-flux2": {"model_type": "FLUX_2", "model_variant": "BASE"},
    "tiny-chroma": {"model_type": "CHROMA_1"},
}
FINE_TUNE = {
    "training_method": "FINE_TUNE",
    "output_model_format": "DIFFUSERS",
    "layer_filter": "",
    # what modulates all blocks trains, too
    KEY: {"double_block_0": 0.0, "other": 0.5},
}
LORA = {
    "layer_filter": "",
    "layer_filter_preset": "blocks",
    KEY: {"double_block_0": 0.0, "single_block_0": 0.5},
}


@dataclass(frozen=True)
class Made(Small):
    """A model of a family, images and a cache that runs share."""

    settings: dict[str, Any]

    def short(
        self, run: Path, *, fraction: float, fused: bool, **settings: Any
    ) -> TrainConfig:
        """A run of 3 steps."""
        part = {"gradient_checkpointing": True, "layer_offload_fraction": fraction}
        return self.config(
            run,
            epochs=1,
            gradient_accumulation_steps=1,
            clip_grad_norm=None,
            transformer=part,
            optimizer={"fused_back_pass": fused},
            **self.settings,
            **settings,
        )


@pytest.fixture(scope="module", params=SETTINGS)
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    # enough blocks for some to come once, some twice, and some to stay
    spec = replace(FAMILIES[request.param].spec, layout=BlockLayout(2, 3))
    made = make_small(tmp_path_factory.mktemp(request.param), spec)
    return Made(made.folder, SETTINGS[request.param])


def learned(small: Made, config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run has in its last checkpoint, and what it has written."""
    run = small.live(config)
    assert not events(run, "failed", "skipped")
    saved = saved_bytes(run.checkpoints / checkpoint_name(STEPS))
    del saved["state.json"]
    tensors: dict[str, Any] = {}
    for place in ("result.safetensors", "result/*.safetensors"):
        for file in run.path.glob(place):
            tensors |= load_file(file)
    return saved, tensors


def assert_same(
    one: tuple[dict[str, Any], dict[str, Any]],
    other: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert one[1]
    for name, tensor in one[1].items():
        assert equal(tensor, other[1][name]), name


def test_a_lora_on_weights_that_stream_learns_what_one_on_those_that_lie_does(
    small: Made, tmp_path: Path
) -> None:
    still = small.short(tmp_path / "still", fraction=0.0, fused=False, **LORA)
    streams = small.short(tmp_path / "streams", fraction=1.0, fused=False, **LORA)
    planned = make_plan(streams).streaming
    assert (planned.once, planned.twice) == (("double_block_0",), ("single_block_0",))
    assert_same(learned(small, streams), learned(small, still))


def test_blocks_changed_in_the_backward_that_stream_are_those_changed_after_it(
    small: Made, tmp_path: Path
) -> None:
    plain = small.short(tmp_path / "plain", fraction=0.0, fused=False, **FINE_TUNE)
    fused = small.short(tmp_path / "fused", fraction=1.0, fused=True, **FINE_TUNE)
    planned = make_plan(fused).streaming
    assert "single_block_0" in planned.twice
    assert planned.written_bytes > 0
    assert_same(learned(small, fused), learned(small, plain))

"""Blocks that are changed in the backward: to the same bits as after it, streamed or not, and gone on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import KEY, Small, events, make_small, saved_bytes
from support.lives import SPEC as SMALL_SPEC

from blockrate.config.plan import make_plan
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.engine.rounding import rounding_by_chance
from blockrate.engine.steps import flow_loss
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.folder import RunFolder

SPEC = replace(SMALL_SPEC, layout=BlockLayout(3, 4))
RATES = {"double_block_0": 0.0, "double_block_1": 0.5, "single_block_1": 0.0}
STEPS = 6
FINE_TUNE = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}
BFLOAT_16 = {"weight_dtype": "BFLOAT_16"}
CASES: dict[str, dict[str, Any]] = {
    "fp32": {**FINE_TUNE},
    "one group": {**FINE_TUNE, KEY: {}},
    "LoRA": {},
    "bf16 AdamW": {**FINE_TUNE, "transformer": BFLOAT_16},
    "bf16 Adafactor": {
        **FINE_TUNE,
        "transformer": BFLOAT_16,
        "optimizer": {"optimizer": "ADAFACTOR", "stochastic_rounding": True},
    },
    "bf16 in 8 bits": {
        **FINE_TUNE,
        "transformer": BFLOAT_16,
        "optimizer": {
            "optimizer": "ADAMW_8BIT",
            "stochastic_rounding": True,
            "min_8bit_size": 16,
        },
    },
}


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model with enough blocks for some that train to stream."""
    return make_small(tmp_path_factory.mktemp("seven"), SPEC)


def config(
    small: Small, run: Path, case: str, *, fused: bool, fraction: float = 0.0
) -> Any:
    settings: dict[str, Any] = {KEY: RATES, **CASES[case]}
    part = {"gradient_checkpointing": True, "layer_offload_fraction": fraction}
    settings["transformer"] = settings.get("transformer", {}) | part
    settings["optimizer"] = settings.get("optimizer", {}) | {"fused_back_pass": fused}
    return small.config(
        run,
        epochs=2,
        gradient_accumulation_steps=1,
        clip_grad_norm=None,
        layer_filter="attn,ff,proj_mlp",
        **settings,
    )


def result(run: RunFolder, step: int = 0) -> dict[str, Any]:
    """What a run has learned, its moments, and what it told behind a step."""
    saved = saved_bytes(run.checkpoints / checkpoint_name(STEPS))
    del saved["state.json"]
    tensors: dict[str, Any] = {}
    for file in sorted(run.path.glob("result*/**/*.safetensors")):
        tensors |= {name: t.tolist() for name, t in load_file(file).items()}
    told = []
    for event in events(run, "step", "blocks"):
        if event["step"] > step:
            told.append({**event, "time": 0, "seconds": 0})
    assert told
    return {"saved": saved, "tensors": tensors, "told": json.dumps(told)}


@pytest.mark.cases(2)
@pytest.mark.parametrize("case", CASES)
def test_blocks_changed_in_the_backward_are_those_changed_after_it(
    seven: Small, tmp_path: Path, case: str
) -> None:
    plain = seven.live(config(seven, tmp_path / "plain", case, fused=False))
    expected = result(plain)
    fused = seven.live(config(seven, tmp_path / "fused", case, fused=True))
    assert result(fused) == expected
    if "training_method" not in CASES[case]:
        return
    # weights that train stream, come home, and are gone on with
    cut = RunFolder(tmp_path / "cut")
    name = checkpoint_name(2)
    shutil.copytree(plain.checkpoints / name, cut.checkpoints / name)
    streams = config(seven, cut.path, case, fused=True, fraction=1.0)
    assert len(make_plan(streams).streaming.twice) >= 3
    assert result(seven.live(streams), 2) == result(plain, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip_grad_norm": 1.0}, "clip_grad_norm 1 needs the gradients of all"),
        ({"gradient_accumulation_steps": 2}, "2 gradient_accumulation_steps keep"),
        ({"multi_gpu": True}, "several GPUs add up"),
    ],
)
def test_what_needs_all_gradients_is_refused(
    small: Small, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    fused = {"optimizer": {"fused_back_pass": True}, "clip_grad_norm": None}
    one = {"gradient_accumulation_steps": 1}
    with pytest.raises(ConfigError, match=words) as caught:
        small.config(tmp_path, **{**one, **fused, **settings})
    assert caught.value.where == "optimizer.fused_back_pass"


def test_a_block_whose_gradient_is_no_number_stays_as_it_is(
    seven: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt_loss(state: Any, batch: Any, config: Any) -> Any:
        weight = state.trained["transformer_blocks.1.attn.to_q.weight"]
        return flow_loss(state, batch, config) + weight.sum() * float("inf") * 0

    monkeypatch.setattr("blockrate.engine.fused_back_pass.flow_loss", spoilt_loss)
    run = config(seven, tmp_path / "bad", "fp32", fused=True)
    with pytest.raises(Exception, match="5 steps in a row"):
        seven.live(run)
    skipped = events(RunFolder(tmp_path / "bad"), "skipped")
    assert {event["block"] for event in skipped} == {"double_block_1"}


@pytest.mark.parametrize("fused", [True, False])
def test_bad_steps_that_the_device_leaves_out_are_those_that_are_waited_for(
    seven: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    place = "fused_back_pass" if fused else "steps"

    def spoilt_loss(state: Any, batch: Any, config: Any) -> Any:
        # the first step, whose moments are new, and the fourth
        loss = flow_loss(state, batch, config)
        if next(calls) in (0, 3):
            weight = state.trained["transformer_blocks.1.attn.to_q.weight"]
            loss = loss + weight.sum() * float("inf") * 0
        return loss

    def slow(kind: Any, seed: int, *, waits: bool) -> Any:
        assert not waits
        return rounding_by_chance(kind, seed, waits=True)

    results = []
    for waits in (True, False):
        calls = iter(range(STEPS))
        with monkeypatch.context() as patch:
            patch.setattr(f"blockrate.engine.{place}.flow_loss", spoilt_loss)
            if waits:
                patch.setattr("blockrate.engine.optimizers.rounding_by_chance", slow)
            run = config(seven, tmp_path / f"{waits}", "bf16 Adafactor", fused=fused)
            results.append(seven.live(run))
    for run in results:
        skipped = events(run, "skipped")
        assert [event["step"] for event in skipped] == [1, 4]
        assert {event["block"] for event in skipped} == {"double_block_1"}
    assert result(results[0]) == result(results[1])


def test_small_changes_of_bf16_weights_are_kept_on_average() -> None:
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    kind = rounding_by_chance(torch.optim.Adam, seed=1)
    optimizer = kind([{"params": [weight], "param_names": ["w"]}], lr=1e-5)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.dtype == torch.bfloat16
    assert float(weight.detach().float().mean()) == pytest.approx(1 - 5e-4, rel=1e-4)
    assert optimizer.state[weight]["exp_avg"].dtype == torch.float32

"""A whole run with bf16 adapters: every number that trains, what is saved and handed over, what the plan told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import Small
from torch import nn

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.plan import make_plan
from blockrate.engine import steps, train
from blockrate.engine.memory import dtype_of
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.run.checkpoints import checkpoints

pytestmark = pytest.mark.usefixtures("no_sync")


class Seen:
    """What a run had in memory: its state, and the gradients of its last step."""

    state: TrainingState
    gradients: list[torch.Tensor]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    made = make_training_state
    clipped = nn.utils.clip_grads_with_norm_

    def make(*arguments: Any, **options: Any) -> TrainingState:
        seen.state = made(*arguments, **options)
        return seen.state

    def clip(parameters: list[torch.nn.Parameter], *rest: Any) -> None:
        seen.gradients = [
            parameter.grad.clone()
            for parameter in parameters
            if parameter.grad is not None
        ]
        clipped(parameters, *rest)

    monkeypatch.setattr(train, "make_training_state", make)
    monkeypatch.setattr(steps, "clip_grads_with_norm_", clip)
    return seen


def optimizer_tensors(state: TrainingState) -> list[torch.Tensor]:
    """The optimizer's state, without its counts of steps."""
    found = [value for of in state.optimizer.state.values() for value in of.values()]
    return [value for value in found if isinstance(value, torch.Tensor) and value.ndim]


@pytest.mark.parametrize("form", ["FLOAT_32", "BFLOAT_16"])
@pytest.mark.parametrize("optimizer", ["ADAMW", "LION"])
def test_a_run_has_the_types_and_the_bytes_that_the_plan_tells(
    small: Small, tmp_path: Path, seen: Seen, optimizer: str, form: str
) -> None:
    config = small.config(
        tmp_path,
        epochs=1,
        lora_weight_dtype=form,
        optimizer={"optimizer": optimizer},
        ema="GPU",
    )
    told = make_plan(config).memory_bytes
    small.live(config)
    trained = list(seen.state.trained.values())
    assert {parameter.dtype for parameter in trained} == {dtype_of(form)}
    assert {gradient.dtype for gradient in seen.gradients} == {dtype_of(form)}
    rounded = optimizer == "ADAMW"  # by chance, which wants its sums in fp32
    assert {value.dtype for value in optimizer_tensors(seen.state)} == {
        torch.float32 if rounded else dtype_of(form)
    }
    assert told.weights == sum(
        parameter.nbytes for parameter in seen.state.transformer.parameters()
    )
    assert told.gradients == sum(gradient.nbytes for gradient in seen.gradients)
    assert told.optimizer == sum(
        value.nbytes for value in optimizer_tensors(seen.state)
    )
    assert seen.state.ema
    assert told.average == sum(
        value.nbytes for value in seen.state.ema.average.values()
    )


def test_saved_weights_are_bf16_the_average_fp32_and_the_file_as_output_dtype_says(
    small: Small, tmp_path: Path, seen: Seen
) -> None:
    for kind in ("FLOAT_32", "BFLOAT_16", "FLOAT_16"):
        run = tmp_path / kind
        config = small.config(
            run, epochs=1, lora_weight_dtype="BFLOAT_16", output_dtype=kind, ema="CPU"
        )
        last = checkpoints(small.live(config).checkpoints)[-1]
        weights, average = (
            load_file(last / f"{part}.safetensors") for part in ("weights", "average")
        )
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        assert {tensor.dtype for tensor in average.values()} == {torch.float32}
        file = load_file(run / "result.safetensors")
        assert {tensor.dtype for tensor in file.values()} == {dtype_of(kind)}
        name = next(name for name in average if ".lora_A." in name)
        exported = file[f"transformer.{name.replace('.default', '')}"]
        assert torch.equal(exported, average[name].bfloat16().to(dtype_of(kind)))


@pytest.mark.parametrize(
    ("first", "second"), [("FLOAT_32", "BFLOAT_16"), ("BFLOAT_16", "FLOAT_32")]
)
def test_a_run_goes_on_from_a_lora_of_another_type(
    small: Small, tmp_path: Path, first: str, second: str
) -> None:
    small.live(small.config(tmp_path / "first", epochs=1, lora_weight_dtype=first))
    file = tmp_path / "first" / "result.safetensors"
    settings = {
        "lora_model_name": str(file),
        "lora_weight_dtype": second,
        "learning_rate": 1e-12,
    }
    small.live(small.config(tmp_path / "second", epochs=1, **settings))
    start = load_file(file)
    end = load_file(tmp_path / "second" / "result.safetensors")
    assert start.keys() == end.keys()
    for name, weights in end.items():
        torch.testing.assert_close(
            weights,
            start[name],
            rtol=2**-8 if second == "BFLOAT_16" else 1e-6,
            atol=1e-9,
        )


@pytest.mark.parametrize(
    "name", [name for name, row in OPTIMIZERS.items() if row.per_block_rates]
)
def test_every_optimizer_with_block_rates_trains_bf16_adapters(
    small: Small, tmp_path: Path, name: str
) -> None:
    run = small.live(
        small.config(
            tmp_path,
            epochs=2,
            lora_weight_dtype="BFLOAT_16",
            optimizer={"optimizer": name},
            learning_rate=1e-2,
        )
    )
    first, last = (
        load_file(path / "weights.safetensors")
        for path in (checkpoints(run.checkpoints)[i] for i in (0, -1))
    )
    assert all(tensor.dtype == torch.bfloat16 for tensor in last.values())
    assert any(not torch.equal(first[key], last[key]) for key in last)
    assert not any("single_transformer_blocks.0." in key for key in last)  # at 0.0

"""A config on random weights, measured: seconds and memory of a step, beside what the plan says of it."""

import math
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from bare_loop import bare_loop
from random_flux import Scale, loading_gives, random_batch

from blockrate.config.filtered import matching_layers
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.engine.data.cache import Batch
from blockrate.engine.data.noised import NoisedBatch, noised
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.engine.steps import TakenStep, take_step
from blockrate.models.activations import Work
from blockrate.models.savings import step_flops
from device.card import CUDA, GIB, clear, seconds_of, wait
from device.report import Row
from device.shared import Check, Size

ATTENTION = "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0"


@dataclass(frozen=True)
class Case:
    """What is measured, at each of its sizes, in a row of its own."""

    name: str
    changes: dict[str, Any]  # of the config
    sizes: tuple[int, ...]
    seconds: float  # it may take
    samples: int = 1
    group: str = ""  # of cases whose steps may be compared
    # trains everything: the first such one is what its group is compared with
    is_whole_step: bool = False
    beside_bare_loop: bool = False
    # is given what trains, to try a cure
    change: Callable[[TrainingState], None] | None = None


class Peak(NamedTuple):
    """The most bytes on the card so far."""

    allocated: int
    reserved: int


class Prediction(NamedTuple):
    """What the plan says of a step."""

    memory: int  # bytes
    flops: float
    cost: float  # of a step that trains everything


def measure(check: Check, kind: str, case: Case) -> None:
    """Say a row for each size. A case that fails says why, and the next one may do."""
    if not check.report.has_time(case.name, case.seconds):
        return
    state = None
    try:
        begun = time.perf_counter()
        state = make(check, case)
        if case.change:
            case.change(state)
        loading = time.perf_counter() - begun
        for size in case.sizes:
            row = figures(check, case, state, size)
            row["load s"] = round(loading, 1)
            check.report.say(kind, row)
    except torch.OutOfMemoryError:
        check.report.say(kind, {"what": case.name, "note": "out of memory"})
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
        check.report.say(kind, {"what": case.name, "note": f"failed: {told}"})
        traceback.print_exc()
    finally:
        del state
        clear()


def make(check: Check, case: Case) -> TrainingState:
    """Return what trains: everything but the weights by the trainer's own code."""
    config = config_of(check.scale, case, case.sizes[0])
    is_lora = config.training_method == "LORA"
    keep = is_lora and config.transformer.weight_dtype == "BFLOAT_16"
    if not keep:
        check.weights.drop()
    clear()
    with loading_gives(lambda dtype: check.weights.transformer(keep=keep)):
        return make_training_state(check.scale.files, config, check.scale.device)


def config_of(scale: Scale, case: Case, size: int) -> TrainConfig:
    """Return the config of a case at a size."""
    values = {
        "base_model_name": scale.family.repo or scale.family.name,
        "resolution": str(size),
        "aspect_ratio_bucketing": False,
        "batch_size": case.samples,
        "text_encoder_2_sequence_length": scale.text_tokens,
        "lora_alpha": 16.0,
    }
    return TrainConfig.model_validate(values | case.changes)


def figures(check: Check, case: Case, state: TrainingState, size: int) -> Row:
    """Return the row of a size."""
    config = config_of(check.scale, case, size)
    batch = random_batch(check.scale, size, case.samples)
    # as the prefetch thread has them ready
    ready = [
        drawn_batch(batch, config, state, number) for number in range(2 + check.steps)
    ]
    taken: list[TakenStep] = []

    def step() -> None:
        number = len(taken)
        taken.append(
            take_step(state, [ready[number]], config, step=number, telemetry=None)
        )

    peak = peak_of_two(step)
    seconds = seconds_of(step, check.steps, warm_up=0)
    losses = [one.result().loss for one in taken]
    notes = [loss_note(losses)]
    row: Row = {"what": case.name, "px": size}
    row |= speed_and_memory(check, predict(check.scale, config), seconds, peak)
    row |= cost(check, case, size, seconds, is_good=not notes[0])
    if case.beside_bare_loop:
        bare, went_wrong = beside_bare_loop(check, state, batch)
        row["of bare loop"] = round(seconds / bare, 3)
        notes.append(went_wrong)
    note = "; ".join(filter(None, notes))
    return row | ({"note": note} if note else {})


def drawn_batch(
    batch: Batch, config: TrainConfig, state: TrainingState, number: int
) -> NoisedBatch:
    """Return a batch with the noise of a step, where the card copies from by itself."""
    drawn = noised(batch, config, state.family, step=number, index=0)
    return drawn.pinned() if CUDA else drawn


def peak_of_two(step: Callable[[], None]) -> Peak:
    """Take two steps, the second of which has the optimizer's state too."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    step()
    step()
    wait()
    if not CUDA:
        return Peak(0, 0)
    return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())


def cost(check: Check, case: Case, size: int, seconds: float, *, is_good: bool) -> Row:
    """Return what the step costs of one that trains everything, if there was a good one."""
    comparable = Size(size, case.samples, case.group)
    if case.is_whole_step and is_good:
        check.whole_steps.setdefault(comparable, seconds)
    whole = check.whole_steps.get(comparable)
    if not case.group or whole is None:
        return {}
    return {"cost measured": round(seconds / whole, 3)}


def beside_bare_loop(
    check: Check, state: TrainingState, batch: Batch
) -> tuple[float, str]:
    """Return the seconds of a step of the bare loop, and whether it went wrong. What it learned is taken back."""
    before = {name: weights.detach().clone() for name, weights in state.trained.items()}
    loop = bare_loop(state, batch, state.optimizer)
    seconds = seconds_of(loop, check.steps, warm_up=1)
    note = ""
    if not all_finite(state.trained.values()):
        note = "weights not a number after the bare loop"
    with torch.no_grad():
        for name, weights in state.trained.items():
            weights.copy_(before[name])
    state.optimizer.state.clear()
    return seconds, note


def speed_and_memory(
    check: Check, predicted: Prediction, seconds: float, peak: Peak
) -> Row:
    """Return the figures that need no other row."""
    rate = predicted.flops / seconds
    return {
        "s/step": round(seconds, 3),
        "steps/s": round(1 / seconds, 2),
        "TFLOP/step": round(predicted.flops / 1e12, 1),
        "% of matmul rate": round(100 * rate / check.matmul_rate, 1),
        "peak GiB": round(peak.allocated / GIB, 2),
        "reserved GiB": round(peak.reserved / GIB, 2),
        "predicted GiB": round(predicted.memory / GIB, 2),
        "cost predicted": round(predicted.cost, 3),
    }


def predict(scale: Scale, config: TrainConfig) -> Prediction:
    """Return what the plan says of a step of this config, whose resolution is one size."""
    plan = make_plan(config)
    memory = plan.memory_bytes
    is_lora = config.training_method == "LORA"
    work = Work(
        image_tokens=(int(config.resolution) // 16) ** 2,
        text_tokens=config.text_encoder_2_sequence_length,
        batch=config.batch_size,
        rank=config.lora_rank if is_lora else None,
        checkpointing=config.transformer.gradient_checkpointing,
    )
    everything = step_flops(scale.spec, matching_layers(config)[0], work)
    return Prediction(
        memory=memory.weights
        + memory.gradients
        + memory.optimizer
        + memory.activations,
        flops=everything * plan.step_cost,
        cost=plan.step_cost,
    )


def loss_note(losses: list[float]) -> str:
    """Return what is wrong with the losses; the timings count all the same, though bad steps change no weights."""
    bad = [loss for loss in losses if not math.isfinite(loss)]
    if not bad:
        return ""
    return f"loss not a number in {len(bad)} of {len(losses)} steps"


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)

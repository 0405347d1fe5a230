"""A config on random weights, measured: seconds and memory of the trainer's own steps, beside what the plan says."""

import math
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from bare_loop import bare_loop
from bare_model import without_wrappers
from common import ratios

from blockrate.config.plan import make_plan
from blockrate.config.step_time import predicted_and_flops
from blockrate.config.train_config import TrainConfig
from blockrate.engine.state import TrainingState
from blockrate.engine.streaming import stream_of
from blockrate.models.cards import Card
from blockrate.models.savings import CONTEXT_BYTES
from blockrate.models.streaming import Streaming
from device.card import CUDA, GIB, clear, seconds_of, wait
from device.idle import idle_share
from device.kohya.contestant import Contestant
from device.report import Row
from device.shared import Check, Size
from device.trainer import trainer_of

ATTENTION = "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0"
BARE = "of bare loop"
BARE_WITH_OURS = "of bare loop, our adapters"


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
    # look at what the card does in the steps, which takes some more of them
    idle: bool = False
    # is given what trains, to try a cure
    change: Callable[[TrainingState], None] | None = None


class Peak(NamedTuple):
    """The most bytes on the card so far."""

    allocated: int
    reserved: int


class Prediction(NamedTuple):
    """What the plan says of a step."""

    memory: int  # bytes that torch asks for
    flops: float
    cost: float  # of a step that trains everything
    seconds: float  # on a card with the measured rate of products
    streaming: Streaming


def measure(check: Check, kind: str, case: Case) -> None:
    """Say a row for each size. A case that fails says why, and the next one may do."""
    if not check.report.has_time(case.name, case.seconds):
        return
    for size in case.sizes:
        row: Row = {"what": case.name, "px": size}
        failure = ""
        try:
            row |= figures(check, case, size)
        except SystemExit as error:  # of the trainer's thread, which has told it
            failure = f"failed: {error}"
        except torch.OutOfMemoryError:
            failure = "out of memory"
        except Exception as error:
            failure = f"failed: {type(error).__name__}: {str(error)[:300]}"
            traceback.print_exc()
        clear()
        if failure:
            row["note"] = failure
        check.report.say(kind, row)
        if failure:
            return


def measure_unless_known(check: Check, kind: str, case: Case) -> None:
    """Measure a case that others are compared with, if none has done so at all of its sizes."""
    known = [Size(size, case.samples, case.group) for size in case.sizes]
    if not all(size in check.whole_steps for size in known):
        measure(check, kind, case)


def config_of(check: Check, case: Case, size: int) -> TrainConfig:
    """Return the config of a case at a size: a run of its own."""
    folder = check.folder
    run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    text = {"prompt_source": "concept", "prompt_path": str(folder / "captions.txt")}
    images = {"name": "images", "path": str(folder / "images"), "text": text}
    values = {
        "base_model_name": str(folder / "model"),
        "workspace_dir": str(run),
        "cache_dir": str(folder / "cache"),
        "concepts": [images],
        "epochs": 100_000,
        "backup_after_unit": "NEVER",
        "sample_after_unit": "NEVER",
        "resolution": str(size),
        "aspect_ratio_bucketing": False,
        "batch_size": case.samples,
        "text_encoder_2_sequence_length": check.scale.text_tokens,
        "lora_alpha": 16.0,
        "train_device": check.scale.device.type,
        **case.changes,
    }
    file = "model" if values.get("training_method") == "FINE_TUNE" else "a.safetensors"
    values["output_model_destination"] = str(run / file)
    part = values.get("transformer", {})
    if part.get("weight_dtype") == "GGUF":
        values["transformer"] = {**part, "model_name": str(check.gguf_file)}
    return TrainConfig.model_validate(values)


def figures(check: Check, case: Case, size: int) -> Row:
    """Return what is measured at a size. Raises SystemExit where the trainer fails."""
    config = config_of(check, case, size)
    predicted = predict(check, config)
    with trainer_of(check, case.name, config) as me:
        state = me.model.state
        assert state
        if case.change:
            case.change(state)
        peak = peak_of_two(me.step)
        before = loads_of(state)
        seconds = seconds_of(me.step, check.steps, warm_up=0)
        loads = (loads_of(state) - before) / check.steps
        row = speed_and_memory(check, predicted, seconds, peak)
        if case.idle:
            share = idle_share(me.step, check.steps, seconds)
            row["% idle"] = None if share is None else round(100 * share, 1)
        notes = [loss_note(losses_of(me))]
        if predicted.streaming.blocks:
            resident = predict(check, without_streaming(config))
            row |= {"loads/step": round(loads, 1)}
            row |= of_resident(check, case, size, seconds, predicted, resident)
        else:
            row |= cost(check, case, size, seconds, is_good=not notes[0])
        if case.beside_bare_loop:
            found, went_wrong = beside_bare_loops(check, me, seconds)
            row |= found
            notes.append(went_wrong)
    note = "; ".join(filter(None, notes))
    return row | ({"note": note} if note else {})


def loads_of(state: TrainingState) -> int:
    """Return how many blocks have streamed onto the card so far."""
    stream = stream_of(state.transformer)
    return stream.loads if stream else 0


def losses_of(me: Contestant) -> list[float]:
    """Return the loss of every step so far."""
    last = me.model.taken
    return [*me.losses, *([last.result().loss] if last else [])]


def peak_of_two(step: Callable[[], None]) -> Peak:
    """Take two steps, the second of which has the optimizer's state too."""
    # of the loading, in which what streams lay on the card
    clear()
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


def of_resident(
    check: Check,
    case: Case,
    size: int,
    seconds: float,
    predicted: Prediction,
    resident: Prediction,
) -> Row:
    """Return what streams in a step, and what the step costs of the same one with all weights on the card."""
    streams = predicted.streaming
    moved = streams.once_bytes + 2 * streams.twice_bytes + streams.written_bytes
    row: Row = {
        "GiB moved a step": round(moved / GIB, 2),
        "of resident predicted": round(predicted.seconds / resident.seconds, 3),
    }
    whole = check.whole_steps.get(Size(size, case.samples, case.group))
    if case.group and whole:
        row["of resident"] = round(seconds / whole, 3)
    return row


def without_streaming(config: TrainConfig) -> TrainConfig:
    """Return a config whose weights all lie on the card."""
    part = config.transformer.model_copy(update={"layer_offload_fraction": 0.0})
    return config.model_copy(update={"transformer": part})


def beside_bare_loops(check: Check, me: Contestant, first: float) -> tuple[Row, str]:
    """Return our step's share of two bare loops', round by round, and whether one of them went wrong.

    ``first``: seconds of ours in the first round. One loop has no PEFT and nothing of ours, the other has our adapters;
    what it learns is taken back.
    """
    state = me.model.state
    assert state
    plain = without_wrappers(state)
    loops = {BARE: of_its_own(plain, me), BARE_WITH_OURS: of_its_own(state, me)}
    before = {name: weights.detach().clone() for name, weights in state.trained.items()}
    ours = [first]
    theirs: dict[str, list[float]] = {name: [] for name in loops}
    note = ""
    for number in range(check.rounds):
        if number:
            ours.append(seconds_of(me.step, check.steps, warm_up=0))
        for name, loop in loops.items():

            def lent(loop: Callable[[], None] = loop) -> None:
                me.lend(loop)

            warm_up = 0 if number else 1
            theirs[name].append(seconds_of(lent, check.steps, warm_up=warm_up))
        if not all_finite([*state.trained.values(), *plain.trained.values()]):
            note = "weights not a number after the bare loops"
        with torch.no_grad():
            for name, weights in state.trained.items():
                weights.copy_(before[name])
    return {
        name: round(median(ratios(ours, times)), 3) for name, times in theirs.items()
    }, note


def of_its_own(state: TrainingState, me: Contestant) -> Callable[[], None]:
    """Return a bare step with an optimizer of its own."""
    optimizer = torch.optim.AdamW(state.trained.values(), lr=1e-4, fused=True)
    return bare_loop(state, me.model.batch, optimizer)


def speed_and_memory(
    check: Check, predicted: Prediction, seconds: float, peak: Peak
) -> Row:
    """Return the figures that need no other row."""
    rate = predicted.flops / seconds
    return {
        "s/step": round(seconds, 3),
        "s predicted": round(predicted.seconds, 3),
        "steps/s": round(1 / seconds, 2),
        "TFLOP/step": round(predicted.flops / 1e12, 1),
        "% of matmul rate": round(100 * rate / check.matmul_rate, 1),
        "peak GiB": round(peak.allocated / GIB, 2),
        "reserved GiB": round(peak.reserved / GIB, 2),
        "predicted GiB": round(predicted.memory / GIB, 2),
        "cost predicted": round(predicted.cost, 3),
    }


def predict(check: Check, config: TrainConfig) -> Prediction:
    """Return what the plan says of a step of this config, whose resolution is one size."""
    # what it says of a card, here as well
    config = config.model_copy(update={"train_device": "cuda"})
    plan = make_plan(config)
    card = Card("this one", 0, 0, check.matmul_rate)
    seconds, flops = predicted_and_flops(config, card)
    return Prediction(
        memory=plan.memory_bytes.total - CONTEXT_BYTES,
        flops=flops,
        cost=plan.step_cost,
        seconds=seconds,
        streaming=plan.streaming,
    )


def loss_note(losses: list[float]) -> str:
    """Return what is wrong with the losses; the timings count all the same, though bad steps change no weights."""
    bad = [loss for loss in losses if not math.isfinite(loss)]
    if not bad:
        return ""
    return f"loss not a number in {len(bad)} of {len(losses)} steps"


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)

"""What a step asks of the device, and that nothing in it waits for an answer."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from support.lives import Small, events, saved_bytes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from blockrate.config.train_config import TrainConfig
from blockrate.engine import memory, steps
from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.effective_rates import AS_THEY_ARE
from blockrate.engine.fused_back_pass import FusedBackPass
from blockrate.engine.memory import pinned, room_for
from blockrate.engine.readings import Mark, Reading
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import TakenStep
from blockrate.run.checkpoints import newest_valid

# what gives the program a number, for which it has to wait
ANSWERS = ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__")


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts reads of single numbers, however they are spelt."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answers: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.answers.append("a number")
        return func(*args, **(kwargs or {}))


Step = tuple[TrainingState, list[NoisedBatch], Any]


@pytest.fixture
def step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Step]:
    """The first step of a run: its state, its batches, and what takes it."""

    def make(**settings: Any) -> Step:
        taken: list[Step] = []
        real = steps.take_step

        def take_step(
            state: TrainingState, batches: Any, config: Any, **named: Any
        ) -> Any:
            taken.append((state, batches, config))
            return real(state, batches, config, **named)

        with monkeypatch.context() as patch:
            patch.setattr("blockrate.engine.train.take_step", take_step)
            config = small.config(
                tmp_path, epochs=1, telemetry_every=1000, clip_grad_norm=1.0, **settings
            )
            small.live(config)
        return taken[0]

    return make


def answers_of(
    state: TrainingState,
    batches: Any,
    config: Any,
    patch: pytest.MonkeyPatch,
    take_step: Callable[..., TakenStep] = steps.take_step,
) -> list[str]:
    """What a step asks, but for the one reading of its numbers."""
    asked = Asked()
    reading: list[Tensor] = []

    def note(name: str, real: Any) -> Callable[..., Any]:
        def answer(tensor: Tensor, *given: Any, **named: Any) -> Any:
            if not reading or tensor is not reading[-1]:
                asked.answers.append(name)
            return real(tensor, *given, **named)

        return answer

    real_reading = Reading.__init__

    def read(self: Reading, numbers: Tensor) -> None:
        reading.append(numbers)
        real_reading(self, numbers)

    patch.setattr(Reading, "__init__", read)
    for name in ANSWERS:
        patch.setattr(Tensor, name, note(name, getattr(Tensor, name)))
    with asked:
        take_step(state, batches, config, step=1, telemetry=None)
    patch.undo()
    assert len(reading) == 1
    return asked.answers


def test_a_step_waits_for_nothing(
    step: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers_of(*step(), monkeypatch) == []


def test_a_wait_would_be_noticed(
    step: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, batches, config = step()
    real = steps.flow_loss

    def flow_loss(*given: Any) -> Tensor:
        loss = real(*given)
        assert loss.isfinite()
        return loss

    monkeypatch.setattr(steps, "flow_loss", flow_loss)
    # two micro-batches, each seen as Python asks and as torch answers
    found = answers_of(state, batches, config, monkeypatch)
    assert sorted(found) == ["__bool__"] * 2 + ["a number"] * 2


@pytest.mark.parametrize("by_chance", [True, False])
def test_a_fused_step_of_adafactor_waits_for_nothing_where_weights_are_rounded_by_chance(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_chance: bool
) -> None:
    taken: list[tuple[FusedBackPass, Any, Any]] = []
    real = FusedBackPass.take_step

    def take_step(
        self: FusedBackPass, batches: Any, config: Any, **named: Any
    ) -> TakenStep:
        taken.append((self, batches, config))
        return real(self, batches, config, **named)

    with monkeypatch.context() as patch:
        patch.setattr(FusedBackPass, "take_step", take_step)
        small.live(fused_config(small, tmp_path, by_chance))
    fused, batches, config = taken[0]

    def again(_: TrainingState, *given: Any, **named: Any) -> TakenStep:
        return fused.take_step(*given, **named)

    found = answers_of(fused.state, batches, config, monkeypatch, again)
    # else each of three blocks is waited for, seen as Python asks and as torch answers
    waits = [] if by_chance else ["__bool__"] * 3 + ["a number"] * 3
    assert sorted(found) == waits


def fused_config(small: Small, run: Path, by_chance: bool) -> TrainConfig:
    """The 24 GB preset's optimizer."""
    optimizer = {"optimizer": "ADAFACTOR", "fused_back_pass": True}
    return small.config(
        run,
        epochs=1,
        telemetry_every=1000,
        gradient_accumulation_steps=1,
        clip_grad_norm=None,
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        transformer={"weight_dtype": "BFLOAT_16"},
        optimizer={**optimizer, "stochastic_rounding": by_chance},
    )


def test_nothing_is_copied_in_the_way_between_forward_and_backward(
    step: Callable[..., Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, batches, config = step()
    to = Tensor.to
    story: list[str] = []

    def noted(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        # the model's own are to where its inputs are already
        ours = sys._getframe(1).f_globals["__name__"].startswith("blockrate.")
        places = (torch.device, str, Tensor)
        if ours and any(
            isinstance(value, places) for value in [*given, *named.values()]
        ):
            story.append("copy" if named.get("non_blocking") else "blocking copy")
        return to(tensor, *given, **named)

    def forward(*_: Any) -> None:
        story.append("forward")

    backward = Tensor.backward

    def told(*given: Any, **named: Any) -> None:
        story.append("backward")
        backward(*given, **named)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Tensor, "to", noted)
    monkeypatch.setattr(Tensor, "backward", told)
    handle = state.transformer.register_forward_pre_hook(forward)
    steps.take_step(state, batches, config, step=1, telemetry=None)
    handle.remove()
    first = story.index("forward")
    last = len(story) - story[::-1].index("backward")
    assert "blocking copy" not in story[first:last]
    assert [word for word in story if word != "copy"] == ["forward", "backward"] * 2
    # latents, noise, times, two of the prompt, weights: all of them before their forward
    assert story[:7] == ["copy"] * 6 + ["forward"]
    assert story[7] == "backward"


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "settings",
    [
        {"ema": "CPU"},
        {"optimizer": {"optimizer": "ADAMW", "fused": False}, "ema": "GPU"},
        {"optimizer": {"optimizer": "ADAFACTOR"}},
    ],
)
def test_a_step_that_is_told_of_late_was_the_same_step(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    common: dict[str, Any] = {
        "backup_after": 5,
        "validation": True,
        "telemetry_every": 3,
        "ema_update_step_interval": 1,
        **settings,
    }
    spoil_some(monkeypatch)
    told = small.live(small.config(tmp_path / "told", **common))
    monkeypatch.undo()
    spoil_some(monkeypatch)
    monkeypatch.setattr(TakenStep, "is_at_hand", False)
    late = small.live(small.config(tmp_path / "late", **common))
    for kind in ("step", "skipped", "blocks", "validated"):
        found, expected = (
            [without_time(event) for event in events(run, kind)] for run in (late, told)
        )
        assert found == expected
    assert [event["step"] for event in events(late, "skipped")] == [3, 6, 9]
    saved = [newest_valid(run.checkpoints, pytest.fail) for run in (late, told)]
    assert saved[0]
    assert saved[1]
    assert saved_bytes(saved[0]) == saved_bytes(saved[1])


def spoil_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps 3, 6 and 9 bad."""
    real = steps._gradients

    def gradients(
        state: TrainingState, batches: Any, config: Any, step: int
    ) -> torch.Tensor:
        loss = real(state, batches, config, step)
        return loss * (float("nan") if step in (2, 5, 8) else 1.0)

    monkeypatch.setattr(steps, "_gradients", gradients)


def without_time(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in event.items() if name not in ("time", "seconds")
    }


def test_a_late_step_is_told_of_before_the_run_ends_for_another_reason(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TakenStep, "is_at_hand", False)
    calls = iter(range(99))
    real = steps._gradients

    def gradients(*given: Any) -> torch.Tensor:
        if next(calls) == 4:
            raise ValueError("the fifth step")
        return real(*given)

    monkeypatch.setattr(steps, "_gradients", gradients)
    config = small.config(tmp_path, backup_after_unit="NEVER", ema="CPU")
    with pytest.raises(ValueError, match="the fifth step") as caught:
        small.live(config)
    assert caught.value.__notes__ == ["Step 4 is saved: the same command goes on."]
    monkeypatch.undo()
    run = small.live(config)
    assert [event["step"] for event in events(run, "step")] == list(range(1, 13))
    unbroken = small.live(
        small.config(tmp_path / "unbroken", backup_after_unit="NEVER", ema="CPU")
    )
    results = [folder / "result.safetensors" for folder in (tmp_path, unbroken.path)]
    found, expected = map(load_file, results)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_where_no_memory_can_be_pinned_numbers_go_as_they_are_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = iter(["CUDA error: out of memory\nmore of it", "another", "a third"])
    empty_like = torch.empty_like

    def full(*given: Any, **named: Any) -> Tensor:
        if (given and not named) or named.get("pin_memory"):
            raise RuntimeError(next(reasons))
        return empty_like(*given, **named)

    monkeypatch.setattr(memory, "_told_of", [])
    monkeypatch.setattr(Tensor, "pin_memory", full)
    monkeypatch.setattr(torch, "empty_like", full)
    tensor = torch.ones(3)
    for _ in range(2):
        assert pinned(tensor) is tensor
    room = room_for(tensor)
    assert (room.shape, room.dtype, room.is_pinned()) == ((3,), tensor.dtype, False)
    [said] = caplog.messages
    assert said.endswith("without pinned memory: CUDA error: out of memory")


class Moment:
    """A mark that the device has come to, or has not."""

    def __init__(self, come: bool) -> None:
        self.come = come

    def query(self) -> bool:
        return self.come


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("changed", [False, True])
def test_a_step_is_at_hand_when_its_numbers_and_its_change_have_come(
    read: bool, changed: bool
) -> None:
    reading = Reading(torch.ones(2))
    reading._arrival = cast(Mark, Moment(read))
    ended = cast(Mark, Moment(changed))
    taken = TakenStep(reading, [], [], 0.0, ended, None, AS_THEY_ARE)
    assert taken.is_at_hand == (read and changed)


def test_the_norms_of_a_step_are_those_that_torch_clips_by() -> None:
    stream = torch.Generator().manual_seed(0)
    parameters = []
    for size in (3, 700, 40):
        parameter = torch.nn.Parameter(torch.zeros(size, 5))
        parameter.grad = torch.randn(size, 5, generator=stream)
        parameters.append(parameter)
    gradients = [
        parameter.grad for parameter in parameters if parameter.grad is not None
    ]
    norms = steps._gradient_norms(parameters)
    expected = torch.nn.utils.get_total_norm(gradients)
    assert torch.equal(torch.linalg.vector_norm(norms), expected)
    assert norms.tolist() == [float(gradient.norm()) for gradient in gradients]

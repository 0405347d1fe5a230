"""How much a step asks of the device: calls and casts, which a card pays for whatever the width of the model."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lives import Small, events, saved_bytes
from torch.utils._python_dispatch import TorchDispatchMode

from blockrate.engine import train
from blockrate.engine.adapters import lora
from blockrate.engine.models import flux1
from blockrate.engine.steps import take_step
from blockrate.run.checkpoints import newest_valid

pytestmark = pytest.mark.usefixtures("no_sync")
BF16: dict[str, Any] = {
    "train_dtype": "BFLOAT_16",
    "layer_filter": "",
    "layer_filter_preset": "blocks",
    "gradient_accumulation_steps": 1,
    "block_learning_rate_multiplier": {"double_block_0": 0.9},
}


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch is asked to do, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


# as counted: all that is more came back
@pytest.mark.parametrize(
    ("checkpointing", "calls", "casts"), [(False, 2501, 114), (True, 3633, 162)]
)
def test_a_step_asks_for_no_more_than_it_did(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpointing: bool,
    calls: int,
    casts: int,
) -> None:
    counted = []

    def counting(*given: Any, **named: Any) -> Any:
        with Calls() as found:
            taken = take_step(*given, **named)
        counted.append(found.counted)
        return taken

    monkeypatch.setattr(train, "take_step", counting)
    transformer = {
        "weight_dtype": "BFLOAT_16",
        "gradient_checkpointing": checkpointing,
    }
    settings = {**BF16, "epochs": 1, "telemetry_every": 1000}
    small.live(small.config(tmp_path, transformer=transformer, **settings))
    second = counted[1]
    assert second.total() <= calls
    assert second["aten._to_copy.default"] <= casts


def test_without_the_copies_of_peft_a_run_ends_in_the_same_bytes(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    for name in ("without", "with"):
        if name == "with":
            monkeypatch.setattr(lora, "leave_casts_to_autocast", lambda model: None)
        transformer = {"weight_dtype": "BFLOAT_16"}
        config = small.config(tmp_path / name, transformer=transformer, **BF16)
        newest = newest_valid(small.live(config).checkpoints, pytest.fail)
        assert newest
        saved.append(saved_bytes(newest))
    assert saved[0] == saved[1]


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("train_dtype", "autocast"),
    [("BFLOAT_16", True), ("BFLOAT_16", False), ("FLOAT_32", True)],
)
def test_samples_are_drawn_in_the_precision_of_training_and_decoded_in_their_own(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    train_dtype: str,
    autocast: bool,
) -> None:
    seen = []

    def note(name: str) -> None:
        real = getattr(flux1, name)

        def noted(*given: Any, **named: Any) -> Any:
            seen.append((name, torch.is_autocast_enabled("cpu")))
            return real(*given, **named)

        monkeypatch.setattr(flux1, name, noted)

    note("denoise")
    note("decode_latents")
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}
    settings = {"samples": [sample], "sample_after_unit": "EPOCH", "epochs": 1}
    # fp32 adapters on a bf16 base, which both must take
    transformer = {"weight_dtype": "BFLOAT_16"}
    run = small.live(
        small.config(
            tmp_path,
            transformer=transformer,
            train_dtype=train_dtype,
            enable_autocast=autocast,
            **settings,
        )
    )
    assert seen[:2] == [
        ("denoise", train_dtype == "BFLOAT_16" and autocast),
        ("decode_latents", False),
    ]
    assert list(run.samples.glob("*.png"))


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"transformer": {"weight_dtype": "FLOAT_8"}},
        # what PEFT's own layers compute
        {"dropout_probability": 0.1},
        {"lora_weight_dtype": "BFLOAT_16"},
        {
            "training_method": "FINE_TUNE",
            "output_model_format": "DIFFUSERS",
        },
    ],
)
def test_without_autocast_a_run_learns_in_bf16_throughout(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    kinds = set()
    real = torch.nn.functional.layer_norm

    def layer_norm(values: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        kinds.add((values.dtype, torch.is_autocast_enabled("cpu")))
        return real(values, *given, **named)

    # two encoders have norms too, which are not meant
    config = small.config(
        tmp_path,
        **{
            "train_dtype": "BFLOAT_16",
            "enable_autocast": False,
            "epochs": 2,
            **settings,
            "transformer": {
                "weight_dtype": "BFLOAT_16",
                **settings.get("transformer", {}),
            },
        },
    )
    small.live(config.model_copy(update={"only_cache": True}))
    monkeypatch.setattr(torch.nn.functional, "layer_norm", layer_norm)
    run = small.live(config)
    assert kinds == {(torch.bfloat16, False)}
    losses = [event["loss"] for event in events(run, "step")]
    assert len(losses) == 3
    assert all(0.1 < loss < 10 for loss in losses)

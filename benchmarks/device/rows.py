"""The full-size rows, in the order of their worth."""

from collections.abc import Iterator
from typing import Any

from random_flux import Scale

from device.card import CUDA
from device.measuring import ATTENTION, Case, measure
from device.shared import Check

MULTIPLIERS = "block_learning_rate_multiplier"
FINE_TUNE = {
    "training_method": "FINE_TUNE",
    "output_model_format": "DIFFUSERS",
    "output_model_destination": "fine",
}


def measure_rows(check: Check) -> None:
    """Measure LoRAs at both sizes, then fine-tunes at the first."""
    for case in (*lora_cases(check.scale), *fine_tune_cases(check.scale)):
        measure(check, "rows", case)


def lora_cases(scale: Scale) -> Iterator[Case]:
    for name, profile in scale.profiles.items():
        yield Case(
            name=f"LoRA 16 bf16, {name}",
            changes={MULTIPLIERS: profile},
            sizes=scale.sizes,
            seconds=25,
            group="lora",
            is_whole_step=name in ("all blocks", "decay"),
            beside_bare_loop=name == "all blocks",
        )
    yield Case(
        name="LoRA 16 bf16, attention only, all blocks",
        changes={"layer_filter": ATTENTION},
        sizes=scale.sizes,
        seconds=20,
        group="attention",
        is_whole_step=True,
    )
    yield Case(
        name="launch floor: as the first, next to no image",
        changes={},
        sizes=(32 if CUDA else 16,),
        seconds=10,
    )
    for form, seconds in (("FLOAT_8", 25), ("INT_8", 25), ("NFLOAT_4", 30)):
        yield Case(
            name=f"LoRA 16 {form}, all blocks",
            changes={"transformer": {"weight_dtype": form}},
            sizes=scale.sizes,
            seconds=seconds,
        )


def fine_tune_cases(scale: Scale) -> Iterator[Case]:
    rounding = {"optimizer": "ADAMW", "stochastic_rounding": True}
    half = {MULTIPLIERS: scale.profiles["first half frozen"]}
    of_cases: dict[str, dict[str, Any]] = {
        "first half frozen, AdamW with stochastic rounding": {
            **half,
            "optimizer": rounding,
        },
        "all, Adafactor": {
            "optimizer": {"optimizer": "ADAFACTOR", "relative_step": False}
        },
        "all, AdamW 8 bit": {"optimizer": {"optimizer": "ADAMW_8BIT"}},
    }
    for name, changes in of_cases.items():
        yield Case(
            name=f"fine-tune, {name}",
            changes={**FINE_TUNE, **changes},
            sizes=scale.sizes[:1],
            seconds=25,
        )

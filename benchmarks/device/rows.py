"""The full-size rows, in the order of their worth."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from random_flux import Scale

from blockrate.config.presets import read_named
from device.card import CUDA
from device.measuring import ATTENTION, Case, measure, measure_unless_known
from device.shared import Check

MULTIPLIERS = "block_learning_rate_multiplier"
FINE_TUNE = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}
STREAMED = 0.9  # of the weights of all blocks


def measure_rows(check: Check) -> None:
    """Measure LoRAs at both sizes, then fine-tunes at the first."""
    for case in (*lora_cases(check.scale), *fine_tune_cases(check.scale)):
        measure(check, "rows", case)


def measure_streamed(check: Check) -> None:
    """Measure what streams, each after what it is compared with, if no row was that."""
    for resident, streamed in streamed_cases(check.scale):
        measure_unless_known(check, "rows", resident)
        measure(check, "rows", streamed)


def measure_short(check: Check) -> None:
    """Measure the few rows that say most of a card."""
    for case in short_cases(check.scale):
        measure(check, "rows", case)


def first_case(scale: Scale) -> Case:
    """Return the row that the others are compared with."""
    return Case(
        name="LoRA 16 bf16, all blocks",
        changes={},
        sizes=scale.sizes,
        seconds=50,
        group="lora",
        is_whole_step=True,
        beside_bare_loop=True,
        idle=True,
    )


def lora_cases(scale: Scale) -> Iterator[Case]:
    first = first_case(scale)
    yield first
    for name, profile in scale.profiles.items():
        if profile:
            yield replace(
                first,
                name=f"LoRA 16 bf16, {name}",
                changes={MULTIPLIERS: profile},
                seconds=25,
                is_whole_step=name == "decay",
                beside_bare_loop=False,
                idle=False,
            )
    yield attention_case(scale)
    yield Case(
        name="launch floor: as the first, next to no image",
        changes={},
        sizes=(32 if CUDA else 16,),
        seconds=10,
    )
    for form in ("FLOAT_8", "INT_8", "NFLOAT_4", "GGUF"):
        yield form_case(scale, form)


def attention_case(scale: Scale) -> Case:
    """Return what diffusers' script is compared with."""
    return Case(
        name="LoRA 16 bf16, attention only, all blocks",
        changes={"layer_filter": ATTENTION},
        sizes=scale.sizes,
        seconds=20,
        group="attention",
        is_whole_step=True,
    )


def form_case(scale: Scale, form: str) -> Case:
    """Return a LoRA on weights in few bits; of GGUF, in Q8_0."""
    return Case(
        name=f"LoRA 16 {form}, all blocks",
        changes={"transformer": {"weight_dtype": form}},
        sizes=scale.sizes,
        seconds=30,
        group=form,
        is_whole_step=True,
    )


def streamed_cases(scale: Scale) -> Iterator[tuple[Case, Case]]:
    """Yield what has all weights on the card, and what streams most of them."""
    for resident in (first_case(scale), form_case(scale, "FLOAT_8")):
        part = {**resident.changes.get("transformer", {})}
        part["layer_offload_fraction"] = STREAMED
        streamed = replace(
            resident,
            name=f"{resident.name}, {STREAMED:.0%} of the weights streamed",
            changes={"transformer": part},
            seconds=60,
            is_whole_step=False,
            beside_bare_loop=False,
            idle=True,
        )
        yield replace(resident, beside_bare_loop=False), streamed


def fine_tune_cases(scale: Scale) -> Iterator[Case]:
    rounding = {"optimizer": "ADAMW", "stochastic_rounding": True}
    half = {MULTIPLIERS: scale.profiles["first half frozen"]}
    of_cases: dict[str, dict[str, Any]] = {
        "as the preset flux_fine_tune": preset("flux_fine_tune"),
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
            seconds=40,
        )


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset; where it writes is the benchmark's."""
    values = {**read_named(name)}
    del values["output_model_destination"]
    return values


def short_cases(scale: Scale) -> Iterator[Case]:
    """Yield the first row, what differs from it in one thing, 8 bits, and fine-tunes that a card of 80 GB holds."""
    first = first_case(scale)
    yield first
    small = replace(first, sizes=scale.sizes[:1], seconds=20, beside_bare_loop=False)
    large = replace(small, sizes=scale.sizes[-1:])
    half = {MULTIPLIERS: scale.profiles["first half frozen"]}
    yield replace(
        large, name="LoRA 16 bf16, first half frozen", changes=half, is_whole_step=False
    )
    # the product's default, or half of the toy's
    tokens = 77 if CUDA else scale.text_tokens // 2
    yield replace(
        small,
        name=f"LoRA 16 bf16, all blocks, {tokens} text tokens",
        changes={"text_encoder_2_sequence_length": tokens},
        group="",
    )
    yield replace(small, name="LoRA 16 bf16, all blocks, batch 2", samples=2, group="")
    yield replace(attention_case(scale), sizes=scale.sizes[:1])
    yield form_case(scale, "FLOAT_8")
    preset_alone, half_frozen, *_ = fine_tune_cases(scale)
    yield preset_alone
    yield half_frozen

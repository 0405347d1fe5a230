"""A run is fitted onto a card: the plan's peak is below what is free, and what could stay stayed."""

from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.fit import fit, needed_bytes, told_changes
from blockrate.config.plan import make_plan
from blockrate.config.presets import read_named
from blockrate.config.room import encoding_excess
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.models.cards import SLACK, Card, card_of_size, rate_of
from blockrate.models.families import FAMILIES

OFFLOAD = "transformer.layer_offload_fraction"
# one of those that are alike: its plan is theirs
MODELS = {
    repr(row.spec): row for row in FAMILIES.values() if row.repo and not row.distilled
}.values()


def config(**fields: Any) -> TrainConfig:
    return parse_config({"layer_filter_preset": "blocks", **fields}).config


@pytest.mark.cases(8)
@pytest.mark.parametrize("size", [6, 8, 12, 16, 24])
@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_every_model_fits_or_is_refused_with_what_it_needs(row: Any, size: int) -> None:
    asked = config(base_model_name=row.repo, model_type=row.model_type)
    card = card_of_size(size)
    # of the models that there are only the largest is too large, for the smallest cards
    if row.spec.hidden > 5000 and size <= 8:
        with pytest.raises(ConfigError, match="least that this run needs"):
            fit(asked, card)
        return
    found = fit(asked, card)
    plan = make_plan(found.config)
    assert needed_bytes(plan) <= card.free
    assert found.needed == round(plan.memory_bytes.total * SLACK)
    # nothing of what is learned
    same = ("resolution", "batch_size", "lora_rank", "block_learning_rate_multiplier")
    for name in same:
        assert getattr(found.config, name) == getattr(asked, name)
    # to fit again changes nothing
    assert not fit(found.config, card).changes


def test_what_fits_stays_as_it_is() -> None:
    found = fit(config(), card_of_size(48))
    assert (found.changes, found.slow_down) == ({}, 1.0)
    assert found.config == config()


def test_eight_bits_come_before_streaming_and_that_before_four_bits() -> None:
    whole = fit(config(), card_of_size(24)).changes
    assert whole == {"transformer.weight_dtype": "FLOAT_8"}
    part = fit(config(), card_of_size(12)).changes
    assert part["transformer.weight_dtype"] == "FLOAT_8"
    assert 0 < part[OFFLOAD] < 1


def test_no_more_streams_than_is_needed() -> None:
    card = card_of_size(12)
    found = fit(config(), card)
    fraction = found.changes[OFFLOAD]
    less = found.config.model_copy(deep=True)
    less.transformer.layer_offload_fraction = fraction - 0.05
    assert needed_bytes(make_plan(less)) > card.free


def test_where_a_bus_is_the_slower_part_four_bits_stay_on_the_card() -> None:
    slow = card_of_size(8)
    # a card that computes in no time
    fast = Card("fast", slow.total, slow.free, slow.rate * 100)
    small = config(resolution="512")
    assert fit(small, slow).stall <= 1.15
    found = fit(small, fast)
    # of two that wait for the bus the one with less to move
    assert found.config.transformer.weight_dtype == "NFLOAT_4"
    assert found.stall > 1.15


def test_frozen_early_blocks_stream_once() -> None:
    frozen = dict.fromkeys(BlockLayout(19, 38).names[:28], 0.0)
    found = fit(config(block_learning_rate_multiplier=frozen), card_of_size(8))
    assert found.plan.streaming.once
    assert len(found.plan.streaming.once) > len(found.plan.streaming.twice)


def test_checkpointing_the_average_and_compiling_make_way() -> None:
    asked = config(
        ema="GPU", compile=True, transformer={"gradient_checkpointing": False}
    )
    found = fit(asked, card_of_size(8))
    assert found.changes["ema"] == "CPU"
    assert found.changes["compile"] is False
    assert found.changes["transformer.gradient_checkpointing"] is True
    assert found.slow_down > 1.2
    lines = told_changes(asked, found.changes)
    assert "ema=CPU (was GPU)" in lines
    assert "compile=false (was true)" in lines


def test_an_average_alone_makes_way_where_that_is_enough() -> None:
    asked = config(
        training_method="FINE_TUNE", output_model_format="DIFFUSERS", ema="GPU"
    )
    assert fit(asked, card_of_size(160)).changes == {"ema": "CPU"}


def test_encoders_get_the_form_in_which_they_fit() -> None:
    part = "text_encoder_2.weight_dtype"
    assert part not in fit(config(), card_of_size(12)).changes
    for size, form in ((10, "FLOAT_8"), (8, "INT_8"), (6, "NFLOAT_4")):
        found = fit(config(), card_of_size(size))
        assert found.changes[part] == form
        # and CLIP is the smaller one
        if size > 6:
            assert "text_encoder.weight_dtype" not in found.changes
            assert not encoding_excess(found.config, found.card)


def test_where_no_form_of_a_text_encoder_fits_that_is_said() -> None:
    asked = config(
        base_model_name="black-forest-labs/FLUX.2-dev",
        model_type="FLUX_2",
        resolution="512",
    )
    large = fit(asked, card_of_size(16))
    assert large.config.text_encoder.weight_dtype == "NFLOAT_4"
    assert not encoding_excess(large.config, large.card)
    found = fit(asked, card_of_size(10))
    # what is of no use is not set
    assert "text_encoder.weight_dtype" not in found.changes
    assert encoding_excess(found.config, found.card).endswith(
        "set train_device to cpu with only_cache, for one run that fills the cache"
    )


def test_a_whole_fine_tune_fits_into_24_gb_and_8_by_what_is_said() -> None:
    asked = config(training_method="FINE_TUNE", output_model_format="DIFFUSERS")
    assert needed_bytes(make_plan(asked)) > 130 * 2**30
    for size in (8, 24):
        found = fit(asked, card_of_size(size))
        assert found.changes["optimizer.fused_back_pass"] is True
        assert found.changes["clip_grad_norm"] is None
        assert found.config.optimizer.optimizer == "ADAFACTOR"
        assert found.plan.streaming.written_bytes > 0
        # bf16 weights that lose small changes would lose the low block rates first
        assert not any("lose small changes" in text for text in found.plan.warnings)
    large = fit(asked, card_of_size(80)).changes
    assert large["optimizer.optimizer"] == "ADAMW_8BIT"
    assert "clip_grad_norm" not in large


def test_another_optimizer_keeps_what_means_the_same_in_it() -> None:
    chosen = {"weight_decay": 0.1, "beta2": 0.95, "eps": 1e-6, "fused": True}
    asked = config(
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        optimizer={"optimizer": "ADAMW", **chosen},
    )
    eight = fit(asked, card_of_size(80))
    same = eight.config.optimizer
    assert same.optimizer == "ADAMW_8BIT"
    assert (same.weight_decay, same.beta2, same.eps) == (0.1, 0.95, 1e-6)
    # it has no such parameter
    assert eight.changes["optimizer.fused"] is None
    found = fit(asked, card_of_size(24))
    other = found.config.optimizer
    assert other.optimizer == "ADAFACTOR"
    assert other.weight_decay == 0.1
    # its own eps is of squares, and it has no such mean
    assert (other.eps, other.beta2) == (None, None)
    assert "optimizer.eps=null (was 1e-06)" in told_changes(asked, found.changes)


def test_what_is_told_makes_the_config_that_was_found() -> None:
    written: dict[str, Any] = {
        "layer_filter_preset": "blocks",
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
        "optimizer": {"optimizer": "ADAMW", "eps": 1e-6, "beta2": 0.95},
    }
    found = fit(parse_config(written).config, card_of_size(24))
    told = told_changes(parse_config(written).config, found.changes)
    settings = [line.partition(" (was ")[0] for line in told]
    assert "clip_grad_norm=null" in settings
    assert parse_config(written, overrides=settings).config == found.config


@pytest.mark.cases(2)
@pytest.mark.parametrize("size", [8, 24])
@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_a_whole_fine_tune_of_every_model_fits_or_is_refused(
    row: Any, size: int
) -> None:
    asked = config(
        base_model_name=row.repo,
        model_type=row.model_type,
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        resolution="512",
    )
    card = card_of_size(size)
    # what lies in no block of the larger ones, and the blocks that stay, are more
    if row.spec.hidden > 4000 and size == 8:
        with pytest.raises(ConfigError, match="least that this run needs") as caught:
            fit(asked, card)
        assert "lora_rank" not in caught.value.cure
        assert "train a LORA" in caught.value.cure
        return
    found = fit(asked, card)
    assert needed_bytes(make_plan(found.config)) <= card.free
    assert not any("lose small changes" in text for text in found.plan.warnings)
    assert not fit(found.config, card).changes


def fine_tune(**fields: Any) -> TrainConfig:
    own = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}
    return config(**{**own, **fields})


PREVIEW = {"prompt": "a cat", "preview": "black-forest-labs/FLUX.2-klein-9B"}


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"ema": "CPU"}, "Set ema to OFF."),
        ({"batch_size": 8, "resolution": "1536"}, "Set batch_size to 1."),
        (
            {"gradient_accumulation_steps": 4},
            "Set gradient_accumulation_steps to 1.",
        ),
        (
            {"multi_gpu": True, "device_indexes": "0"},
            "Set multi_gpu to false and sharding to NONE.",
        ),
        ({"optimizer": {"optimizer": "CAME"}}, "Set optimizer.optimizer to ADAMW."),
        (
            {"ema": "CPU", "gradient_accumulation_steps": 4},
            "Set ema to OFF and set gradient_accumulation_steps to 1.",
        ),
    ],
    ids=str,
)
def test_what_keeps_a_fine_tune_from_fitting_is_named(
    fields: dict[str, Any], cure: str
) -> None:
    with pytest.raises(ConfigError, match="least that this run needs") as caught:
        fit(fine_tune(**fields), card_of_size(24))
    assert caught.value.cure == cure


def test_what_is_not_in_the_way_is_not_named() -> None:
    # an average on the card goes to main memory, and fewer moments are enough
    found = fit(fine_tune(ema="GPU", batch_size=2), card_of_size(80))
    assert found.config.ema == "CPU"
    with pytest.raises(ConfigError) as caught:
        fit(fine_tune(ema="CPU", resolution="2048"), card_of_size(4))
    assert caught.value.cure.startswith("Lower resolution, train a LORA, or set")


def test_a_setting_that_cannot_be_planned_is_passed_over() -> None:
    asked = config(
        base_model_name="black-forest-labs/FLUX.2-klein-base-9B",
        model_type="FLUX_2",
        resolution="512",
        samples=[PREVIEW],
    )
    # neither streams nor 4 bits go with a preview
    with pytest.raises(ConfigError, match="least that this run needs") as caught:
        fit(asked, card_of_size(8))
    assert caught.value.cure == "Leave samples.0.preview empty."
    many = asked.model_copy(update={"batch_size": 4})
    found = fit(many, card_of_size(14))
    assert found.config.batch_size < 4
    assert found.config.transformer.layer_offload_fraction == 0
    assert found.config.samples[0].preview


@pytest.mark.parametrize("name", ["LION", "CAME", "SCHEDULE_FREE_ADAMW", "PRODIGY"])
def test_nothing_is_set_that_an_optimizer_does_not_have(name: str) -> None:
    early = dict.fromkeys(BlockLayout(19, 38).names[:45], 0.0)
    asked = fine_tune(
        optimizer={"optimizer": name}, block_learning_rate_multiplier=early
    )
    found = fit(asked, card_of_size(24))
    # frozen blocks stream without it
    assert found.plan.streaming.blocks
    assert not found.plan.streaming.written_bytes
    assert found.changes.keys() == {OFFLOAD}
    assert found.config.clip_grad_norm == asked.clip_grad_norm


def test_with_accumulated_gradients_moments_are_saved_and_frozen_blocks_stream() -> (
    None
):
    early = dict.fromkeys(BlockLayout(19, 38).names[:40], 0.0)
    asked = fine_tune(
        gradient_accumulation_steps=4, block_learning_rate_multiplier=early
    )
    found = fit(asked, card_of_size(16))
    assert found.config.gradient_accumulation_steps == 4
    assert found.plan.streaming.blocks
    assert "optimizer.fused_back_pass" not in found.changes


def test_weights_in_half_the_bytes_are_rounded_by_chance() -> None:
    asked = fine_tune(
        transformer={"weight_dtype": "FLOAT_32"}, optimizer={"optimizer": "ADAMW_8BIT"}
    )
    found = fit(asked, card_of_size(80))
    assert found.config.transformer.weight_dtype == "BFLOAT_16"
    assert found.changes["optimizer.stochastic_rounding"] is True


def test_what_is_so_already_is_not_told_as_changed() -> None:
    asked = fine_tune(
        clip_grad_norm=None,
        optimizer={"optimizer": "ADAFACTOR", "fused_back_pass": True},
    )
    assert fit(asked, card_of_size(24)).changes.keys() <= {
        OFFLOAD,
        "optimizer.stochastic_rounding",
    }


def test_the_preset_of_a_fine_tune_fits_a_card_with_24_gb() -> None:
    preset = parse_config(read_named("flux_fine_tune")).config
    assert not fit(preset, card_of_size(24)).changes


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="least that this run needs is") as caught:
        fit(config(resolution="2048"), card_of_size(4))
    assert "resolution" in caught.value.cure


def test_a_smaller_batch_keeps_the_images_of_a_step() -> None:
    found = fit(config(resolution="1024", batch_size=4), card_of_size(8))
    batch = found.config.batch_size
    assert batch < 4
    assert batch * found.config.gradient_accumulation_steps == 4


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 80.2),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA RTX A1000", 0),
        ("NVIDIA L40", 0),
        ("NVIDIA A10G", 0),
        # which has the chip of a smaller card
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0),
        ("NVIDIA L40S", 362),
        ("Radeon", 0),
    ],
)
def test_a_card_is_known_by_its_name(name: str, teraflops: float) -> None:
    assert rate_of(name) == pytest.approx(teraflops * 1e12)

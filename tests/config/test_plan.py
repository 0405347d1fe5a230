"""The plan says what would train, what it costs, and refuses what cannot work before anything is loaded."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.files import load_config, parse_config
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.plan import Plan, make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.selection import parse_selection
from blockrate.core.shapes import only
from blockrate.models.families import FAMILIES

FLUX1 = BlockLayout(19, 38)
GIB = 2**30


def config(
    multipliers: dict[str, float] | None = None, **fields: object
) -> TrainConfig:
    fields = {
        "layer_filter_preset": "blocks",
        "block_learning_rate_multiplier": multipliers or {},
        **fields,
    }
    return parse_config(fields).config


def plan(multipliers: dict[str, float] | None = None, **fields: object) -> Plan:
    return make_plan(config(multipliers, **fields))


def fine_tune(multipliers: dict[str, float] | None = None, **fields: object) -> Plan:
    return plan(
        multipliers,
        **{
            "training_method": "FINE_TUNE",
            "output_model_format": "DIFFUSERS",
            **fields,
        },
    )


def only_these(text: str) -> dict[str, float]:
    return only(
        dict.fromkeys((*FLUX1.names, "other"), 1.0), parse_selection(text, FLUX1)
    )


def refusal(
    multipliers: dict[str, float] | None = None, **fields: object
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan(multipliers, **fields)
    assert all(error.cure for error in caught.value.parts or [caught.value])
    return caught.value


# Groups


def test_without_multipliers_there_is_one_group() -> None:
    for multipliers in ({}, {"double_block_3": 1.0}):
        (group,) = plan(multipliers).groups
        assert (group.name, group.multiplier, group.learning_rate, group.status) == (
            "transformer",
            1.0,
            3e-4,
            "trained",
        )
        assert group.blocks == FLUX1.names


def test_each_block_has_its_rate_and_other_is_the_last() -> None:
    made = plan(
        {"double_block_0": 0.3, "single_block_37": 0.0}, layer_filter_preset="full"
    )
    groups = {group.name: group for group in made.groups}
    assert tuple(groups) == (*FLUX1.names, "other")
    assert groups["double_block_0"].learning_rate == pytest.approx(0.3 * 3e-4)
    assert groups["double_block_1"].learning_rate == 3e-4
    assert groups["double_block_0"].blocks == ("double_block_0",)
    frozen = groups["single_block_37"]
    assert (frozen.status, frozen.parameters, frozen.learning_rate) == (
        "frozen",
        0,
        0.0,
    )
    assert (groups["other"].status, groups["other"].blocks) == ("trained", ())


def test_a_block_that_the_filter_empties_is_filtered_and_told() -> None:
    made = plan(
        {"single_block_3": 0.5, "single_block_4": 0.0},
        layer_filter="ff.net",
        layer_filter_preset="custom",
    )
    statuses = {group.name: group.status for group in made.groups}
    assert (
        statuses["single_block_3"]
        == statuses["single_block_4"]
        == statuses["other"]
        == "filtered"
    )
    assert statuses["double_block_3"] == "trained"
    assert any("nothing to train in single 3-4" in warning for warning in made.warnings)
    (group,) = plan(layer_filter="ff.net", layer_filter_preset="custom").groups
    assert group.blocks == FLUX1.names[:19]


def test_parameters_are_those_of_real_adapters_and_weights() -> None:
    def sizes(made: Plan) -> dict[str, int]:
        return {group.name: group.parameters for group in made.groups}

    # rank 16 on attention, as PEFT makes it
    lora = sizes(plan({"other": 0.5}, layer_filter_preset="attn-only"))
    assert (lora["double_block_0"], lora["single_block_0"], sum(lora.values())) == (
        786_432,
        294_912,
        26_148_864,
    )
    weights = sizes(fine_tune({"other": 0.5}, layer_filter_preset="full"))
    assert (weights["double_block_0"], weights["single_block_0"]) == (
        339_831_296,
        141_591_808,
    )
    assert sum(weights.values()) == 11_901_408_320


def test_the_base_rate_is_the_transformers_own_and_scaled() -> None:
    made = plan(
        {"double_block_0": 0.5},
        transformer={"learning_rate": 1e-4},
        batch_size=4,
        learning_rate_scaler="BATCH",
    )
    assert made.base_learning_rate == pytest.approx(2e-4)
    assert made.groups[0].learning_rate == pytest.approx(1e-4)


def test_training_starts_at_the_first_trained_block() -> None:
    assert plan().first_trained_block == "double_block_0"
    assert plan(only_these("single 7,12,16,20")).first_trained_block == "single_block_7"
    assert (
        plan(only_these("other"), layer_filter_preset="full").first_trained_block
        is None
    )


# Costs


def test_four_single_blocks_cost_a_good_part_less() -> None:
    made = plan(only_these("single 7,12,16,20"))
    assert 0.55 < made.step_cost < 0.75
    assert made.memory_bytes.weights < made.memory_bytes_all_ones.weights
    assert (
        made.memory_bytes.optimizer / made.memory_bytes_all_ones.optimizer
        == pytest.approx(4 * 1_032_192 / (19 * 2_457_600 + 38 * 1_032_192))
    )
    assert made.memory_bytes.activations < made.memory_bytes_all_ones.activations


def test_all_ones_cost_exactly_one() -> None:
    assert plan().step_cost == 1.0
    assert plan({"double_block_0": 0.5}).step_cost == 1.0
    assert plan().memory_bytes == plan().memory_bytes_all_ones


def test_full_size_memory_is_about_what_it_is() -> None:
    lora = plan().memory_bytes
    # bf16 weights and fp32 adapters
    assert lora.weights / GIB == pytest.approx(22.17, abs=0.5)
    assert plan(
        transformer={"weight_dtype": "FLOAT_8"}
    ).memory_bytes.weights / GIB == pytest.approx(11.1, abs=0.5)
    assert plan(
        transformer={"weight_dtype": "NFLOAT_4"}
    ).memory_bytes.weights / GIB == pytest.approx(5.9, abs=0.5)
    assert lora.optimizer == 2 * lora.gradients  # two fp32 moments
    weights = fine_tune(layer_filter_preset="full").memory_bytes
    assert weights.gradients == weights.weights
    assert weights.optimizer / GIB == pytest.approx(88.67, abs=0.1)
    lion = fine_tune(
        layer_filter_preset="full", optimizer={"optimizer": "LION"}
    ).memory_bytes
    assert lion.optimizer == lion.weights  # its one moment is bf16 as they are
    assert (
        lora.activations
        < plan(transformer={"gradient_checkpointing": False}).memory_bytes.activations
        / 5
    )
    assert (
        plan(resolution="512,1024").memory_bytes == plan(resolution="1024").memory_bytes
    )
    assert (
        plan(resolution="512").memory_bytes.activations
        < plan(resolution="1024").memory_bytes.activations
    )


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(FLUX1.names)))
def test_freezing_never_costs_more(frozen: set[str]) -> None:
    if len(frozen) == 57:
        return
    made = plan(
        dict.fromkeys(frozen, 0.0), base_model_name="tiny-flux1", resolution="64"
    )
    assert 0.3 < made.step_cost <= 1.0
    assert made.memory_bytes.optimizer <= made.memory_bytes_all_ones.optimizer
    assert made.memory_bytes.activations <= made.memory_bytes_all_ones.activations


def test_what_is_computed_with_is_in_the_memory() -> None:
    whole = plan().memory_bytes.workspace
    assert whole / GIB == 0.5
    largest = 2 * 18432 * 3073  # of a modulation, in bf16
    for form in ("FLOAT_8", "NFLOAT_4"):
        small = plan(transformer={"weight_dtype": form}).memory_bytes.workspace
        assert small == whole + largest
    unpacked = plan(transformer={"weight_dtype": "FLOAT_8"}, train_dtype="FLOAT_32")
    assert unpacked.memory_bytes.workspace == whole + 2 * largest
    assert plan(train_device="cpu").memory_bytes.workspace == 0


def test_fp32_activations_are_for_weights_and_computation_in_fp32() -> None:
    def kept(weight_dtype: str, train_dtype: str) -> float:
        transformer = {"weight_dtype": weight_dtype, "gradient_checkpointing": False}
        made = plan(
            transformer=transformer,
            train_dtype=train_dtype,
            resolution="1024",
            text_encoder_2_sequence_length=512,
        )
        return made.memory_bytes.activations / GIB

    # a LoRA on every layer, without checkpointing, with 512 tokens of text
    assert kept("BFLOAT_16", "BFLOAT_16") == pytest.approx(41, abs=1)
    assert kept("FLOAT_8", "BFLOAT_16") == kept("BFLOAT_16", "BFLOAT_16")
    assert kept("FLOAT_32", "FLOAT_32") > kept("FLOAT_32", "BFLOAT_16")
    # every Linear has an adapter, and its weights are not kept in bf16 beside
    assert kept("FLOAT_32", "BFLOAT_16") == kept("BFLOAT_16", "BFLOAT_16")
    assert kept("FLOAT_8", "FLOAT_32") == kept("FLOAT_32", "FLOAT_32")


def test_the_main_memory_that_a_run_needs_is_told() -> None:
    program = 3.0
    # what is loaded comes block by block
    assert plan().host_bytes / GIB == pytest.approx(program + 0.63, abs=0.1)
    whole = plan(transformer={"weight_dtype": "FLOAT_32"}).host_bytes / GIB
    assert whole == pytest.approx(program + 1.27, abs=0.1)
    small = plan(transformer={"weight_dtype": "FLOAT_8"}, train_dtype="FLOAT_32")
    assert small.host_bytes / GIB == pytest.approx(whole, abs=0.1)
    # an average in fp32, the trained weights set aside, what is on its way, and one part of what is written
    averaged = fine_tune(layer_filter_preset="full", ema="CPU").host_bytes / GIB
    assert averaged == pytest.approx(program + 44.3 + 22.2 + 0.25 + 4.7, abs=0.1)
    # on the card it is not there, but what it stands in for is
    on_card = fine_tune(layer_filter_preset="full", ema="GPU").host_bytes / GIB
    assert on_card == pytest.approx(averaged - 44.3 - 0.25, abs=0.1)
    # as with an optimizer that averages
    schedule_free = {"optimizer": "SCHEDULE_FREE_ADAMW"}
    own = fine_tune(layer_filter_preset="full", optimizer=schedule_free)
    assert own.host_bytes / GIB == pytest.approx(averaged - 44.3 - 0.25, abs=0.1)
    # without a card all of it is there
    alone = plan(train_device="cpu")
    assert alone.host_bytes == plan().host_bytes + alone.memory_bytes.total


def test_an_average_on_the_card_is_counted_as_what_trains_in_fp32() -> None:
    without = plan().memory_bytes
    assert without.average == 0
    assert plan(ema="CPU").memory_bytes == without
    # whose gradients are fp32, too
    lora = plan(ema="GPU").memory_bytes
    assert lora.average == without.gradients
    assert lora.total == without.total + lora.average
    whole = fine_tune(layer_filter_preset="full", ema="GPU").memory_bytes
    assert whole.average / GIB == pytest.approx(44.3, abs=0.1)


# Warnings


def test_training_other_loses_the_saving_of_frozen_early_blocks_and_is_told() -> None:
    early = dict.fromkeys(FLUX1.names[:19], 0.0)
    costly = plan(early, layer_filter_preset="full")
    saving = plan({**early, "other": 0.0}, layer_filter_preset="full")
    assert costly.step_cost > saving.step_cost + 0.1
    assert any(
        "Training other sends gradients" in warning for warning in costly.warnings
    )
    assert not any("Training other" in warning for warning in saving.warnings)
    late = plan(dict.fromkeys(FLUX1.names[-4:], 0.0), layer_filter_preset="full")
    assert not any("Training other" in warning for warning in late.warnings)


def test_a_block_with_a_rate_that_the_filter_trains_in_part_is_told() -> None:
    (warning,) = plan({"double_block_0": 0.5}, layer_filter_preset="attn-only").warnings
    assert (
        warning
        == "The layer filter trains only a part of double 0: rates count for that."
    )
    (warning,) = plan(
        {"double_block_0": 0.5}, layer_filter="to_q", layer_filter_preset="custom"
    ).warnings
    assert "only a part of double 0" in warning


def test_a_rate_that_holds_for_all_that_can_train_in_its_block_is_not_remarked_on() -> (
    None
):
    for preset in ("full", "blocks"):
        for made in (plan, fine_tune):
            assert (
                made(
                    {"double_block_0": 0.5, "single_block_3": 0.1},
                    layer_filter_preset=preset,
                ).warnings
                == ()
            )
    assert plan({"double_block_0": 0.0}, layer_filter_preset="attn-only").warnings == ()
    assert plan(layer_filter_preset="attn-only").warnings == ()
    whole = {"layer_filter": r"^transformer_blocks\.0\.", "layer_filter_regex": True}
    assert plan({"double_block_0": 0.5}, **whole).warnings == ()


def test_bf16_weights_without_stochastic_rounding_are_told() -> None:
    assert (
        "stochastic_rounding" in fine_tune(optimizer={"optimizer": "LION"}).warnings[0]
    )
    told = "bf16 weights lose small changes: use ADAMW with stochastic_rounding, or lora_weight_dtype FLOAT_32."
    assert plan(
        lora_weight_dtype="BFLOAT_16", optimizer={"optimizer": "LION"}
    ).warnings == (told,)
    assert (
        plan(lora_weight_dtype="BFLOAT_16").warnings
        == plan(optimizer={"optimizer": "LION"}).warnings
        == ()
    )
    assert fine_tune().warnings == ()
    exact = {"weight_dtype": "FLOAT_32"}
    lion = {"optimizer": "LION"}
    assert fine_tune(transformer=exact, optimizer=lion).warnings == ()


# Refusals


def test_a_block_of_another_model_is_refused_with_the_range() -> None:
    error = refusal({"double_block_19": 0.5})
    assert str(error).startswith(
        "block_learning_rate_multiplier: double_block_19: FLUX.1 has double_block_0 to double_block_18."
    )
    assert "did you mean double_block_3?" in str(refusal({"doubel_block_3": 0.5}))


@pytest.mark.parametrize(
    "name", [name for name, row in OPTIMIZERS.items() if not row.per_block_rates]
)
def test_an_optimizer_without_rates_takes_only_zero_and_one(name: str) -> None:
    error = refusal({"double_block_3": 0.5}, optimizer={"optimizer": name})
    assert error.where == "optimizer.optimizer"
    assert "double_block_3" in error.problem
    assert OPTIMIZERS[name].why.rstrip(".") in error.problem
    assert "ADAMW" in error.cure
    assert name not in error.cure
    assert (
        plan({"double_block_3": 0.0}, optimizer={"optimizer": name}).groups[3].status
        == "frozen"
    )


def test_an_optimizer_that_ignores_rates_with_some_settings_is_refused_with_those() -> (
    None
):
    relative = {"optimizer": "ADAFACTOR", "relative_step": True}
    assert (
        "relative_step" in refusal({"double_block_3": 0.5}, optimizer=relative).problem
    )
    assert plan({"double_block_3": 0.5}, optimizer={"optimizer": "ADAFACTOR"}).groups


def test_everything_frozen_is_refused() -> None:
    assert (
        refusal(dict.fromkeys(FLUX1.names, 0.0)).where
        == "block_learning_rate_multiplier"
    )
    singles = dict.fromkeys(FLUX1.names[:19], 0.0)
    assert "nothing would train" in str(
        refusal(singles, layer_filter="ff.net", layer_filter_preset="custom")
    )
    assert refusal(transformer={"train": False}).where == "transformer.train"
    stopped = {"stop_training_after": 0, "stop_training_after_unit": "STEP"}
    assert refusal(transformer=stopped).where == "transformer.stop_training_after"


def test_a_filter_that_matches_nothing_is_refused() -> None:
    error = refusal(layer_filter="to_qq", layer_filter_preset="custom")
    assert error.where == "layer_filter"
    assert "'to_qq' matches none of the 504 modules" in error.problem


def test_the_kohya_form_takes_blocks_only() -> None:
    error = refusal(output_model_format="KOHYA_LORA", layer_filter_preset="full")
    assert error.where == "output_model_format"
    assert "time_text_embed.timestep_embedder.linear_1 and 9 others" in error.problem
    assert "DIFFUSERS_LORA" in error.cure
    assert plan(output_model_format="KOHYA_LORA").groups
    assert plan(
        {"other": 0.0}, output_model_format="KOHYA_LORA", layer_filter_preset="full"
    ).groups


def test_form_and_precision_must_fit_the_method() -> None:
    assert "DIFFUSERS does not go with LORA" in str(
        refusal(output_model_format="DIFFUSERS")
    )
    mismatch = refusal(training_method="FINE_TUNE", output_model_format="KOHYA_LORA")
    assert "Set it to DIFFUSERS." in str(mismatch)
    for dtype in ("FLOAT_8", "NFLOAT_4", "FLOAT_16"):
        with pytest.raises(ConfigError, match=r"transformer\.weight_dtype"):
            fine_tune(transformer={"weight_dtype": dtype})


def test_a_missing_model_is_a_file_error() -> None:
    with pytest.raises(FileError, match="no such file"):
        plan(base_model_name="/no/such/model")


# Models


def test_counts_come_from_the_models_own_config(tmp_path: Path) -> None:
    folder = tmp_path / "transformer"
    folder.mkdir()
    sizes = {
        "num_layers": 2,
        "num_single_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 128,
    }
    (folder / "config.json").write_text(
        json.dumps({"_class_name": "FluxTransformer2DModel", **sizes})
    )
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    made = plan({"double_block_1": 0.5}, base_model_name=str(tmp_path))
    assert [group.name for group in made.groups] == [*BlockLayout(2, 3).names, "other"]
    assert "double_block_2: FLUX.1 has double_block_0 to double_block_1" in str(
        refusal({"double_block_2": 0.5}, base_model_name=str(tmp_path))
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_plan(name: str) -> None:
    family = FAMILIES[name]
    variant = "DISTILLED" if family.distilled else ""
    made = plan(
        {"single_block_0": 0.5},
        base_model_name=name,
        model_type=family.model_type,
        model_variant=variant,
    )
    assert made.step_cost == 1.0


# JSON


def test_the_json_is_to_the_letter_of_the_interface() -> None:
    made = plan({"double_block_0": 0.5})
    facts = json.loads(json.dumps(asdict(made)))
    assert list(facts) == [
        "model", "model_parameters", "model_type", "training_method", "base_learning_rate", "groups", "layers",
        "layers_let_through",
        "blocks_let_through", "first_trained_block", "memory_bytes", "memory_bytes_all_ones", "encoding_bytes",
        "host_bytes", "gpus", "step_cost", "streaming", "other_cost", "warnings", "phases",
    ]  # fmt: skip
    assert facts["groups"][0] == {
        "name": "double_block_0",
        "blocks": ["double_block_0"],
        "parameters": 2_457_600,
        "multiplier": 0.5,
        "learning_rate": 1.5e-4,
        "status": "trained",
    }
    for key in ("memory_bytes", "memory_bytes_all_ones"):
        assert list(facts[key]) == [
            "weights", "gradients", "optimizer", "activations", "workspace", "average",
        ]  # fmt: skip
        assert all(isinstance(value, int) for value in facts[key].values())
    assert facts["model_type"] == "FLUX_DEV_1"
    assert facts["warnings"] == []


def test_the_readme_example_has_a_plan() -> None:
    loaded = load_config(Path(__file__).parents[2] / "examples/block_rates.json")
    rates = {
        group.name: group.learning_rate for group in make_plan(loaded.config).groups
    }
    assert rates["double_block_0"] == pytest.approx(0.3 * 3e-4)
    assert rates["single_block_1"] == pytest.approx(0.8 * 3e-4)
    assert rates["single_block_2"] == 3e-4


# what streams


STREAMS = {"weight_dtype": "FLOAT_8", "layer_offload_fraction": 0.9}


def test_what_streams_leaves_the_card_and_lies_in_main_memory() -> None:
    frozen = dict.fromkeys(FLUX1.names[:28], 0.0)
    still = plan(frozen, transformer={"weight_dtype": "FLOAT_8"})
    found = plan(frozen, transformer=STREAMS)
    moved = found.streaming.bytes
    assert moved > 0.85 * 11 * GIB
    saved = still.memory_bytes.weights - found.memory_bytes.weights
    assert saved == moved - found.streaming.places_bytes
    assert found.host_bytes - still.host_bytes == moved
    assert len(found.streaming.once) == 28


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"compile": True}, "Set compile to false"),
        ({"multi_gpu": True}, "Set multi_gpu to false"),
        (
            {"transformer": {**STREAMS, "gradient_checkpointing": False}},
            "Set transformer.gradient_checkpointing to true",
        ),
        (
            {
                "training_method": "FINE_TUNE",
                "ema": "CPU",
                "transformer": {"layer_offload_fraction": 0.5},
            },
            "Set ema to OFF",
        ),
    ],
)
def test_what_cannot_go_with_streaming_is_refused(
    fields: dict[str, object], cure: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"transformer": STREAMS, **fields})
    assert caught.value.where == "transformer.layer_offload_fraction"
    assert cure in caught.value.cure


def test_weights_that_train_do_not_stream_unless_they_are_changed_block_by_block() -> (
    None
):
    half = dict.fromkeys(FLUX1.names[:28], 0.0)
    found = fine_tune(half, transformer={"layer_offload_fraction": 1.0})
    assert found.streaming.blocks == FLUX1.names[:28]


@pytest.mark.parametrize(
    ("model_type", "form"),
    [
        ("FLUX_DEV_1", "DIFFUSERS_LORA"),
        ("FLUX_2", "COMFY_LORA"),
        ("CHROMA_1", "KOHYA_LORA"),
    ],
)
def test_a_lora_has_the_usual_form_of_its_model_where_none_is_named(
    model_type: str, form: str
) -> None:
    data = {"model_type": model_type, "base_model_name": "tiny-flux1"}
    # what lies outside of the blocks has a place in diffusers' form alone
    assert parse_config(dict(data)).config.output_model_format == "DIFFUSERS_LORA"
    data["layer_filter_preset"] = "blocks"
    assert parse_config(dict(data)).config.output_model_format == form
    named = {**data, "output_model_format": "DIFFUSERS_LORA"}
    assert parse_config(named).config.output_model_format == "DIFFUSERS_LORA"

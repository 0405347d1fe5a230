"""What may change between two lives of a run."""

from typing import Any

import pytest
from support.refusals import refusal

from blockrate.config.changes import check_changes, left_to_do
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

BEFORE: dict[str, Any] = {
    "concepts": [{"path": "photos"}],
    "samples": [{"prompt": "a cat"}],
    "layer_filter": "attn",
}


def changes(
    now: dict[str, Any], before: dict[str, Any] | None = None, reset: Any = None
) -> list[str]:
    old, new = (
        TrainConfig.model_validate(BEFORE | values) for values in (before or {}, now)
    )
    return check_changes(old, new, reset=reset)


def test_the_same_config_has_no_changes() -> None:
    assert changes({}) == []


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"learning_rate": 1e-4}, "learning_rate: 0.0003 -> 0.0001"),
        (
            {"transformer": {"learning_rate": 1e-4}},
            "transformer.learning_rate: None -> 0.0001",
        ),
        (
            {"block_learning_rate_multiplier": {"double_block_3": 0.0}},
            "block_learning_rate_multiplier.double_block_3: 1.0 -> 0.0",
        ),
        ({"epochs": 200}, "epochs: 100 -> 200"),
        ({"backup_after": 5}, "backup_after: 30 -> 5"),
        ({"ema": "CPU"}, "ema: 'OFF' -> 'CPU'"),
        ({"optimizer": {"weight_decay": 0.1}}, "optimizer.weight_decay: None -> 0.1"),
        ({"samples": []}, "samples: changed"),
        (
            {"transformer": {"weight_dtype": "FLOAT_8"}},
            "transformer.weight_dtype: 'BFLOAT_16' -> 'FLOAT_8'",
        ),
    ],
)
def test_free_changes_are_told(now: dict[str, Any], told: str) -> None:
    assert changes(now) == [told]


def test_a_multiplier_that_is_no_longer_written_is_one() -> None:
    before = {
        "block_learning_rate_multiplier": {"single_block_0": 0.0, "double_block_0": 1.0}
    }
    assert changes({}, before) == [
        "block_learning_rate_multiplier.single_block_0: 0.0 -> 1.0"
    ]


def test_places_are_nobodys_business() -> None:
    assert (
        changes(
            {
                "workspace_dir": "elsewhere",
                "cache_dir": "elsewhere",
                "concepts": [{"path": "moved/photos"}],
            }
        )
        == []
    )


@pytest.mark.parametrize(
    ("now", "field"),
    [
        (
            {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"},
            "training_method",
        ),
        ({"model_type": "FLUX_SCHNELL_1"}, "model_type"),
        ({"base_model_name": "my/flux"}, "base_model_name"),
        (
            {"transformer": {"model_name": "other.safetensors"}},
            "transformer.model_name",
        ),
        ({"lora_rank": 8}, "lora_rank"),
        ({"lora_alpha": 8.0}, "lora_alpha"),
        ({"batch_size": 2}, "batch_size"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
        ({"resolution": "512"}, "resolution"),
        ({"aspect_ratio_bucketing": False}, "aspect_ratio_bucketing"),
        ({"seed": 1}, "seed"),
    ],
)
@pytest.mark.parametrize("reset", [None, "new", "all"])
def test_another_run_is_refused_by_name(
    now: dict[str, Any], field: str, reset: Any
) -> None:
    with refusal(f"^{field}: the run was trained with .*", "fresh") as caught:
        changes(now, reset=reset)
    assert caught.value.where == field


@pytest.mark.parametrize(
    ("before", "now", "field"),
    [
        ({}, {"optimizer": {"optimizer": "LION"}}, "optimizer.optimizer"),
        (
            {"optimizer": {"optimizer": "ADAMW_8BIT"}},
            {"optimizer": {"optimizer": "ADAMW_8BIT", "min_8bit_size": 1}},
            "optimizer.min_8bit_size",
        ),
        (
            {"optimizer": {"optimizer": "ADAFACTOR"}},
            {"optimizer": {"optimizer": "ADAFACTOR", "beta1": 0.9}},
            "optimizer.beta1",
        ),
        (
            {
                "training_method": "FINE_TUNE",
                "transformer": {"weight_dtype": "FLOAT_32"},
            },
            {"training_method": "FINE_TUNE"},
            "transformer.weight_dtype",
        ),
        ({}, {"lora_weight_dtype": "BFLOAT_16"}, "lora_weight_dtype"),
    ],
)
def test_what_only_the_state_is_in_the_way_of_needs_a_word(
    before: dict[str, Any], now: dict[str, Any], field: str
) -> None:
    for reset in (None, "new"):
        with refusal(f"^{field}: ", "reset_all", "fresh"):
            changes(now, before, reset)
    assert [change.partition(":")[0] for change in changes(now, before, "all")] == [
        field
    ]


def test_the_adapters_type_is_nothing_to_a_fine_tune() -> None:
    method = {"training_method": "FINE_TUNE"}
    told = changes({"lora_weight_dtype": "BFLOAT_16", **method}, method)
    assert told == ["lora_weight_dtype: 'FLOAT_32' -> 'BFLOAT_16'"]


def test_a_default_that_is_written_out_is_no_change_of_the_state() -> None:
    assert changes({"optimizer": {"beta1": 0.9, "fused": None}}) == [
        "optimizer.beta1: None -> 0.9"
    ]


@pytest.mark.parametrize("reset", ["new", "all"])
def test_another_filter_needs_a_word(reset: Any) -> None:
    told = "^layer_filter: .*attn.*, the config says ff"
    with refusal(told, "reset_new", "fresh"):
        changes({"layer_filter": "ff"})
    assert changes({"layer_filter": "ff"}, reset=reset) == [
        "layer_filter: 'attn' -> 'ff'"
    ]


def test_the_same_filter_in_other_words_is_the_same() -> None:
    before = {"layer_filter": "", "layer_filter_preset": "attn-only"}
    assert changes({}, before) == [
        "layer_filter: '' -> 'attn'",
        "layer_filter_preset: 'attn-only' -> 'full'",
    ]


# -- a finished run ----------------------------------------------------------------------------------------------------


def left(
    now: dict[str, Any], before: dict[str, Any] | None = None, *, trained: bool = True
) -> bool:
    old, new = (
        TrainConfig.model_validate(BEFORE | values) for values in (before or {}, now)
    )
    return left_to_do(old, new, trained=trained)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (
            {"learning_rate": 0.01},
            "learning_rate: the finished run was trained with 0.0003, the config says 0.01",
        ),
        (
            {"block_learning_rate_multiplier": {"double_block_0": 0.0}},
            r"block_learning_rate_multiplier.double_block_0: .*with 1.0, the config says 0.0",
        ),
        (
            {"optimizer": {"weight_decay": 0.5}},
            "optimizer.weight_decay: .*with 0.01, the config says 0.5",
        ),
        (
            {"optimizer": {"optimizer": "LION"}},
            "optimizer.optimizer: .*with 'ADAMW', the config says 'LION' .*",
        ),
        ({"layer_filter": "ff"}, "layer_filter: .*with 'attn', the config says 'ff'"),
        ({"epochs": 50}, "epochs: .*with 100, the config says 50"),
    ],
)
def test_a_finished_run_does_not_answer_for_another_result(
    now: dict[str, Any], told: str
) -> None:
    cure = "Set it back, raise epochs to go on with it, or choose another workspace_dir"
    with refusal(f"^{told}. {cure}", "fresh"):
        left(now)


def test_nor_for_other_rates_in_a_phase() -> None:
    def phases(**rates: float) -> dict[str, Any]:
        phase = {"from": 0, "block_learning_rate_multiplier": rates}
        return {"block_learning_rate_phases": [phase]}

    # a rate that is not written is 1.0
    assert not left(phases(double_block_0=1.0), phases())
    with refusal(
        "^block_learning_rate_phases.0.*with 1.0, the config says 0.5", "fresh"
    ):
        left(phases(double_block_0=0.5), phases())


@pytest.mark.parametrize(
    ("concept", "told"),
    [
        (
            {"path": "others"},
            "concepts.0.path: .*with 'photos', the config says 'others'",
        ),
        (
            {"path": "photos", "balancing": 2.0},
            "concepts.0.balancing: .*with 1.0, the config says 2.0",
        ),
        (
            {"path": "photos", "image": {"enable_random_flip": True}},
            "concepts.0.image.enable_random_flip: .*with False, the config says True",
        ),
    ],
)
def test_nor_for_other_images(concept: dict[str, Any], told: str) -> None:
    with refusal(f"^{told}. Set it back, or choose another work", "fresh"):
        left({"concepts": [concept]})


def test_nor_for_more_images() -> None:
    two = [{"path": "photos"}, {"path": "more"}]
    with pytest.raises(ConfigError, match=r"^concepts: .*with 1, the config says 2\."):
        left({"concepts": two})


def test_all_that_differs_is_named() -> None:
    now = {"learning_rate": 0.01, "ema": "CPU", "huber_strength": 1.0}
    with pytest.raises(
        ConfigError, match=r"^learning_rate: .*0\.01 \(huber_strength differs, too\)\."
    ):
        left({key: now[key] for key in ("learning_rate", "huber_strength")})
    now |= {"mae_strength": 1.0, "train_dtype": "FLOAT_32"}
    with pytest.raises(ConfigError, match=r"\(ema, .*, .* and 1 more differ, too\)"):
        left(now)


def test_with_more_epochs_it_goes_on_whatever_else_is_changed() -> None:
    assert left({"epochs": 200})
    assert left({"epochs": 200, "learning_rate": 0.01, "layer_filter": "ff"})
    assert left({"only_cache": True})
    assert left({"transformer": {"stop_training_after": 3}, "learning_rate": 0.01})


def test_another_form_of_the_file_is_written_from_the_same_weights_alone() -> None:
    assert left({"output_dtype": "BFLOAT_16"})
    with pytest.raises(ConfigError, match=r"^learning_rate: "):
        left({"output_dtype": "BFLOAT_16", "learning_rate": 0.01})


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {}),
        ({}, {"samples": [{"prompt": "a dog"}]}),
        ({}, {"backup_after": 1, "telemetry_every": 1, "tensorboard": False}),
        ({}, {"concepts": [{"path": "photos", "name": "mine"}]}),
        ({}, {"workspace_dir": "elsewhere", "cache_dir": "elsewhere"}),
        ({}, {"optimizer": {"beta1": 0.9, "weight_decay": 0.01}}),
        ({}, {"block_learning_rate_multiplier": {"double_block_0": 1.0}}),
        (
            {"layer_filter": "", "layer_filter_preset": "attn-only"},
            {"layer_filter": "attn", "layer_filter_preset": "custom"},
        ),
    ],
)
def test_what_has_no_effect_on_the_result_leaves_it_finished(
    before: dict[str, Any], now: dict[str, Any]
) -> None:
    assert not left(now, before)


def test_a_run_that_only_filled_the_cache_fills_it_again() -> None:
    only = {"only_cache": True}
    assert not left(only, only, trained=False)
    assert left({**only, "concepts": [{"path": "others"}]}, only, trained=False)

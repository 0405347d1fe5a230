"""Which GPUs a config asks for, and what several GPUs cannot do: told before anything is loaded."""

from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.many_gpus import (
    for_gpus,
    gpu_numbers,
    idle_refusal,
    idle_warning,
    images_of_a_step,
    platform_refusal,
    takes_all,
)
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.plan import Plan, make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError


def config(**settings: Any) -> TrainConfig:
    return parse_config(settings).config


def refused(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    return str(caught.value)


# --- which ---


@pytest.mark.parametrize(
    ("written", "read"),
    [("", ()), ("0,1", ("0", "1")), (" 2 , 03 ", ("2", "3")), (1, ("1",))],
)
def test_gpus_are_named_by_numbers(written: object, read: tuple[str, ...]) -> None:
    found = config(multi_gpu=True, device_indexes=written, batch_size=9)
    assert gpu_numbers(found) == read
    assert takes_all(found) == (not read)


@pytest.mark.parametrize(
    "written", ["cuda:0", "0;1", "-1", "0,", ",", "0,0", "1,01", "½", "٣", "9" * 5000]
)
def test_what_is_no_list_of_numbers_is_refused(written: str) -> None:
    assert "device_indexes: " in refused(multi_gpu=True, device_indexes=written)


def test_numbers_mean_nothing_without_multi_gpu() -> None:
    found = config(device_indexes="0,1")
    assert gpu_numbers(found) == ()
    assert not takes_all(found)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_number_of_gpus_is_written_as_settings(count: int) -> None:
    found = parse_config({"batch_size": 8}, overrides=for_gpus(count)).config
    assert found.multi_gpu == (count > 1)
    assert len(gpu_numbers(found)) == (count if count > 1 else 0)


# --- what cannot be ---


def test_more_gpus_than_images_of_a_step_are_refused_with_both_ways_out() -> None:
    told = refused(multi_gpu=True, device_indexes="0,1,2,3")
    assert told.startswith(
        "gradient_accumulation_steps: 4 GPUs, and a step has 1 image"
    )
    assert "Set it to 4" in told
    assert "train on one GPU" in told
    told = refused(multi_gpu=True, device_indexes="0,1,2,3", batch_size=3)
    assert "Set it to 2" in told
    assert "train on 3 GPUs" in told


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
def test_the_number_told_is_the_least_that_gives_each_gpu_an_image(
    batch: int, steps: int, gpus: int
) -> None:
    found = TrainConfig(batch_size=batch, gradient_accumulation_steps=steps)
    error = idle_refusal(found, gpus)
    assert bool(error) == (gpus > images_of_a_step(found))
    if error:
        least = int(error.cure.split()[3].strip(","))
        assert (least - 1) * batch < gpus <= least * batch


def test_gpus_that_wait_in_every_step_are_told_of() -> None:
    six = TrainConfig(batch_size=2, gradient_accumulation_steps=3)
    assert "2 of them have one less to do" in idle_warning(six, 4)
    assert "as 8" in idle_warning(six, 4)
    assert [idle_warning(six, gpus) for gpus in (1, 2, 3, 6)] == [""] * 4


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_and_several_gpus_are_not_asked_for_at_once(device: str) -> None:
    told = refused(multi_gpu=True, batch_size=9, train_device=device)
    assert told.startswith(f"train_device: {device} is one device")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_refused_with_sharding_only_where_it_cannot_share(
    name: str,
) -> None:
    settings = {"sharding": "FULL", "optimizer": {"optimizer": name}}
    why = OPTIMIZERS[name].why_not_sharded
    if not why:
        assert config(**settings).sharding == "FULL"
        return
    told = refused(**settings)
    assert told.startswith("optimizer.optimizer: ")
    assert why in told
    assert "ADAMW, LION, SCHEDULE_FREE_ADAMW or SGD, or set sharding to NONE" in told


@pytest.mark.parametrize("form", ["FLOAT_8", "NFLOAT_4"])
def test_weights_in_few_bits_are_not_shared_out(form: str) -> None:
    told = refused(sharding="FULL", transformer={"weight_dtype": form})
    assert told.startswith("transformer.weight_dtype: ")
    assert "BFLOAT_16" in told
    assert config(transformer={"weight_dtype": form}).sharding == "NONE"


def test_sharding_on_one_gpu_is_not_passed_over_in_silence() -> None:
    loaded = parse_config({"sharding": "FULL"})
    assert any("shares nothing on one GPU" in note for note in loaded.warnings)
    loaded = parse_config({"sharding": "FULL", "multi_gpu": True})
    assert not any("sharding" in note for note in loaded.warnings)


def test_systems_that_have_no_several_gpus_say_so() -> None:
    assert platform_refusal("linux") is None
    assert "a Mac has one GPU" in str(platform_refusal("darwin"))
    assert "WSL" in str(platform_refusal("win32"))


# --- what the plan says ---


def planned(**settings: Any) -> Plan:
    return make_plan(config(batch_size=4, **settings))


def test_gpus_that_train_whole_models_need_what_one_needs_each() -> None:
    one = planned()
    two = planned(multi_gpu=True, device_indexes="0,1")
    assert (one.gpus, two.gpus) == (1, 2)
    assert planned(multi_gpu=True).gpus is None
    assert two.memory_bytes == one.memory_bytes
    assert two.host_bytes == 2 * one.host_bytes


def test_what_processes_hold_of_weights_that_they_share_is_told() -> None:
    four = {"multi_gpu": True, "device_indexes": "0,1,2,3"}

    def host(form: str, **settings: Any) -> float:
        told = planned(transformer={"weight_dtype": form}, **four, **settings)
        return told.host_bytes / 2**30

    # files in bf16 lie where they are mapped, for all processes once
    assert host("BFLOAT_16", sharding="FULL") == host("BFLOAT_16")
    # in another precision each has the whole model, before it has its share on its GPU
    whole = 4 * 11_901_408_320 * 4 / 2**30
    assert host("FLOAT_32", sharding="FULL") == pytest.approx(whole + 4 * 3)
    assert host("FLOAT_32") < 20
    # an average of what is shared is there once, and one process writes
    averages = {"training_method": "FINE_TUNE", "ema": "CPU"}
    beside = 4 * 3 + 5e9 / 2**30
    shared = host("BFLOAT_16", sharding="FULL", **averages) - beside
    assert host("BFLOAT_16", **averages) - beside == pytest.approx(4 * shared)


@pytest.mark.parametrize("method", ["LORA", "FINE_TUNE"])
def test_shared_weights_are_divided_by_the_gpus(method: str) -> None:
    settings = {"training_method": method, "sharding": "FULL", "ema": "GPU"}
    one = planned(**settings).memory_bytes
    eight = planned(multi_gpu=True, device_indexes="0,1,2,3", **settings).memory_bytes
    for part in ("weights", "gradients", "optimizer", "average"):
        whole = getattr(one, part)
        assert whole > 0
        assert 0 <= 4 * getattr(eight, part) - whole < 4
    assert eight.activations == one.activations
    # two blocks of FLUX.1 are 1.3 GB in bf16, and all that lies in none 0.3
    assert 0.9e9 < eight.workspace - one.workspace < 2.2e9
    assert eight.total < one.total


def test_the_plan_says_when_gpus_wait() -> None:
    told = planned(multi_gpu=True, device_indexes="0,1,2").warnings
    assert any("3 GPUs share 4 images a step" in text for text in told)
    assert not planned(multi_gpu=True, device_indexes="0,1").warnings


# --- as OneTrainer means them ---

ONETRAINER = {"__version": 9, "model_type": "FLUX_DEV_1", "training_method": "LORA"}


def of_onetrainer(**settings: Any) -> TrainConfig:
    return config(**ONETRAINER, multi_gpu=True, **settings)


def test_onetrainers_batch_for_each_gpu_is_shared_by_all_here() -> None:
    data = {
        **ONETRAINER,
        "multi_gpu": True,
        "device_indexes": "0,1,2",
        "batch_size": 2,
        "gradient_accumulation_steps": 4,
    }
    loaded = parse_config(dict(data))
    assert images_of_a_step(loaded.config) == 3 * 2 * 4
    assert loaded.config.batch_size == 2
    assert any("gradient_accumulation_steps: 12" in note for note in loaded.warnings)
    # of one GPU, and in a file of blockrate, the words mean what they say
    for changed in ({"multi_gpu": False}, {"device_indexes": "1"}, {"__version": None}):
        same = parse_config({**data, **changed}).config
        assert images_of_a_step(same) == 2 * 4


def test_onetrainers_gpus_without_their_number_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r'device_indexes.*Name the GPUs.*"0,1"'):
        of_onetrainer()
    found = parse_config(
        {**ONETRAINER, "multi_gpu": True}, overrides=['device_indexes="0,1"']
    ).config
    assert images_of_a_step(found) == 2


@pytest.mark.parametrize(
    ("scaler", "images"),
    [("NONE", 1), ("BATCH", 3), ("GLOBAL_BOTH", 3 * 2 * 4)],
)
def test_a_scaler_that_has_a_name_here_scales_as_in_onetrainer(
    scaler: str, images: int
) -> None:
    found = of_onetrainer(
        device_indexes="0,1",
        batch_size=3,
        gradient_accumulation_steps=4,
        learning_rate_scaler=scaler,
        learning_rate=1e-4,
    )
    assert found.base_learning_rate() == pytest.approx(1e-4 * images**0.5)


@pytest.mark.parametrize(
    ("scaler", "images"),
    [("GRADIENT_ACCUMULATION", 4), ("BOTH", 3 * 4), ("GLOBAL_BATCH", 2 * 3)],
)
@pytest.mark.parametrize("own", [None, 2e-4])
def test_for_another_scaler_the_rate_to_write_is_told(
    scaler: str, images: int, own: float | None
) -> None:
    settings: dict[str, Any] = {
        "device_indexes": "0,1",
        "batch_size": 3,
        "gradient_accumulation_steps": 4,
        "learning_rate_scaler": scaler,
        "learning_rate": 1e-4,
        "transformer": {"learning_rate": own},
    }
    with pytest.raises(ConfigError) as caught:
        of_onetrainer(**settings)
    told = str(caught.value)
    where = "transformer.learning_rate" if own else "learning_rate"
    expected = (own or 1e-4) * images**0.5
    assert f"Set it to NONE and {where} to {expected:.6g}." in told


def test_a_file_of_older_names_keeps_onetrainers_meaning_in_the_app() -> None:
    from blockrate.ui.document import make_document

    older = {
        **ONETRAINER,
        "__version": 6,
        "multi_gpu": True,
        "device_indexes": "0,1",
        "batch_size": 2,
        "save_after": 3,
    }
    kept = make_document(older, path=None, title="").data
    for _ in range(2):
        assert images_of_a_step(parse_config(dict(kept)).config) == 4
    unnamed = make_document({**older, "device_indexes": ""}, path=None, title="").data
    with pytest.raises(ConfigError, match="device_indexes"):
        parse_config(dict(unnamed))

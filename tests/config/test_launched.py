"""A config that asks for one GPU, started for several by a launcher: refused in what several cannot do."""

from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.launched import as_launched, check_launched
from blockrate.config.plan import make_plan
from blockrate.core.errors import ConfigError

FUSED = {
    "training_method": "FINE_TUNE",
    "layer_filter": "",
    "optimizer": {"optimizer": "ADAMW", "fused_back_pass": True},
    "clip_grad_norm": None,
}
STREAMS = {
    "transformer": {"gradient_checkpointing": True, "layer_offload_fraction": 0.5}
}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (FUSED, "optimizer.fused_back_pass"),
        (STREAMS, "transformer.layer_offload_fraction"),
        ({"train_device": "cuda:1"}, "train_device"),
        ({"batch_size": 1}, "gradient_accumulation_steps"),
    ],
)
def test_a_launcher_is_refused_what_the_config_would_be_refused(
    settings: dict[str, Any], where: str
) -> None:
    config = parse_config({"batch_size": 4, **settings}).config
    with pytest.raises(ConfigError) as caught:
        check_launched(config, 2)
    assert caught.value.where == where
    # which has not asked for several
    assert "A launcher has started it for several GPUs" in caught.value.cure


def test_what_several_can_do_is_not_refused() -> None:
    config = parse_config({"batch_size": 4}).config
    for gpus in (1, 2, 4):
        check_launched(config, gpus)
    shared = parse_config({"batch_size": 4, "sharding": "FULL"}).config
    check_launched(shared, 4)


def test_a_plan_of_what_a_launcher_has_started_is_of_its_gpus() -> None:
    config = parse_config({"batch_size": 4, "sharding": "FULL"}).config
    plan = make_plan(as_launched(config, 4))
    assert plan.gpus == 4
    assert plan.memory_bytes.weights < make_plan(config).memory_bytes.weights / 3


def test_samples_by_a_twin_are_refused_to_a_launcher() -> None:
    sample = {"prompt": "a cat", "preview": "black-forest-labs/FLUX.2-klein-4B"}
    config = parse_config(
        {
            "model_type": "FLUX_2",
            "base_model_name": "black-forest-labs/FLUX.2-klein-base-4B",
            "batch_size": 4,
            "samples": [sample],
        }
    ).config
    make_plan(config)
    with pytest.raises(ConfigError, match="several GPUs cannot draw"):
        make_plan(as_launched(config, 2))

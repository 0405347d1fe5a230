"""What a run takes of a computer's main memory is compared with what that has, and what takes less is named."""

from typing import Any

import psutil
import pytest

from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.run.main_memory import main_memory, taken_text, too_little

GIB = 2**30


def told(total: int, **settings: Any) -> list[str]:
    config = parse_config({"layer_filter_preset": "blocks", **settings}).config
    return too_little(config, make_plan(config), total * GIB)


def test_this_computer_is_read() -> None:
    memory = main_memory()
    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.free <= memory.total


def test_where_there_is_enough_nothing_is_said() -> None:
    assert told(16) == []


FINE_TUNE = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}
STREAMS = {"layer_offload_fraction": 0.9}


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({}, "train on a computer with more"),
        (
            {"transformer": STREAMS},
            "set transformer.weight_dtype to NFLOAT_4; or transformer.layer_offload_fraction lower; "
            "or train on a computer with more",
        ),
        (
            {"transformer": {**STREAMS, "weight_dtype": "NFLOAT_4"}},
            "set transformer.layer_offload_fraction lower; or train on a computer with more",
        ),
        (
            {**FINE_TUNE, "ema": "CPU"},
            "set ema to OFF; or training_method to LORA; or train on a computer with more",
        ),
        (
            {"multi_gpu": True, "device_indexes": "0,1", "batch_size": 2},
            "set multi_gpu to false; or train on a computer with more",
        ),
        (
            {"train_device": "cpu", "transformer": {"weight_dtype": "FLOAT_32"}},
            "set transformer.weight_dtype to BFLOAT_16; or resolution lower; or train on a computer with more",
        ),
    ],
    ids=str,
)
def test_what_takes_less_is_named(settings: dict[str, Any], cure: str) -> None:
    [text] = told(2, **settings)
    assert text.startswith("training takes ")
    assert text.endswith(f"of main memory, and this computer has 2.0 GiB: {cure}")


def test_of_gpus_that_nobody_has_counted_it_is_for_each() -> None:
    config = parse_config({"multi_gpu": True, "batch_size": 2}).config
    assert taken_text(make_plan(config)).endswith("of main memory for each GPU")

"""Whether a card has room before training, and which cards a config trains on."""

from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.fit import fit
from blockrate.config.plan import make_plan
from blockrate.config.room import (
    before_training,
    cards_of,
    encoding_excess,
    encoding_needed,
    plan_here,
)
from blockrate.config.train_config import TrainConfig
from blockrate.models.cards import Card, card_of_size

GIB = 2**30
WIDE = {"text_encoder_2": {"weight_dtype": "FLOAT_32"}}
ON_CPU = "train_device to cpu with only_cache"


def config(**fields: Any) -> TrainConfig:
    return parse_config({"layer_filter_preset": "blocks", **fields}).config


def test_the_plan_tells_what_encoding_captions_takes() -> None:
    assert make_plan(config()).encoding_bytes / GIB == pytest.approx(9.9, abs=0.2)
    wide = make_plan(config(**WIDE))
    assert wide.encoding_bytes / GIB == pytest.approx(18.7, abs=0.2)
    assert wide.memory_bytes == make_plan(config()).memory_bytes
    assert wide.peak_bytes == wide.memory_bytes.total
    # the smallest transformer is no help
    small = make_plan(config(transformer={"weight_dtype": "NFLOAT_4"}, **WIDE))
    assert small.peak_bytes == small.encoding_bytes
    # nobody knows what another toy has
    assert make_plan(config(base_model_name="tiny-flux1")).encoding_bytes == 0


def test_t5_keeps_a_part_whole_in_fewer_bits() -> None:
    def of(form: str) -> int:
        return make_plan(config(text_encoder_2={"weight_dtype": form})).encoding_bytes

    bf16 = of("BFLOAT_16")
    # in 8 bits all of them, but in float8 wo stays in bf16, a fifth of the model
    assert (bf16 - of("INT_8")) / 1e9 == pytest.approx(4.63, abs=0.01)
    assert (of("FLOAT_8") - of("INT_8")) / 1e9 == pytest.approx(1.01, abs=0.01)
    assert of("NFLOAT_4") < of("INT_8") < of("FLOAT_8")
    # which float16 has in fp32
    assert (of("FLOAT_16") - bf16) / 1e9 == pytest.approx(2.01, abs=0.01)


def test_encoders_without_a_card_are_counted_in_main_memory() -> None:
    small = {"transformer": {"weight_dtype": "NFLOAT_4"}, "train_device": "cpu"}
    plan = make_plan(config(**WIDE, **small))
    assert plan.host_bytes > plan.encoding_bytes > plan.memory_bytes.total


@pytest.mark.parametrize(
    ("size", "cure"),
    [(16, "BFLOAT_16"), (10, "FLOAT_8"), (7, "INT_8"), (4, "")],
)
def test_what_finds_no_room_is_told_with_the_form_that_does(
    size: int, cure: str
) -> None:
    card = card_of_size(size)
    told = encoding_excess(config(**WIDE), card)
    assert "encoding captions that are in no cache yet needs 20.7 GiB" in told
    assert f"and a card with {size} GB has" in told
    assert ON_CPU in told
    assert ON_CPU not in encoding_excess(config(**WIDE), card, on_card=False)
    if not cure:
        assert "weight_dtype" not in told
        return
    assert f"text_encoder_2.weight_dtype to {cure};" in told
    cured = config(text_encoder_2={"weight_dtype": cure})
    assert encoding_needed(cured) <= card.free
    # as a fit does
    fitted = fit(config(**WIDE), card).config
    assert fitted.text_encoder_2.weight_dtype == cure
    assert not encoding_excess(cured, card)


@pytest.mark.parametrize(
    ("side", "form", "size", "cure"),
    [
        (1024, "FLOAT_32", 6, ""),
        (2048, "FLOAT_32", 16, ""),
        (2048, "FLOAT_32", 12, "vae.weight_dtype to BFLOAT_16"),
        (2048, "FLOAT_32", 6, "resolution lower"),
        (2048, "BFLOAT_16", 6, "resolution lower"),
        (2048, "BFLOAT_16", 8, ""),
    ],
)
def test_images_that_find_no_room_are_told(
    side: int, form: str, size: int, cure: str
) -> None:
    small = {"text_encoder_2": {"weight_dtype": "NFLOAT_4"}}
    asked = config(resolution=str(side), vae={"weight_dtype": form}, **small)
    told = [
        one.text
        for one in before_training(asked, card_of_size(size))
        if "images" in one.text
    ]
    assert len(told) == bool(cure)
    for text in told:
        assert f"free: set {cure}; or {ON_CPU}" in text
    toy = config(resolution="2048", base_model_name="tiny-flux1")
    assert not before_training(toy, Card("full", 1, 1, 1.0))


def test_a_config_trains_on_the_cards_that_it_names() -> None:
    cards = [Card(name, 1, 1, 1.0) for name in "abc"]

    def names(**fields: Any) -> list[str]:
        found = cards_of(config(batch_size=4, **fields), cards)
        return [card.name for card in found]

    assert names() == names(train_device="cuda") == ["a"]
    assert names(train_device="cuda:2") == ["c"]
    assert names(train_device="cpu") == names(train_device="cuda:3") == []
    several = {"multi_gpu": True, "device_indexes": "0,2"}
    assert names(**several) == ["GPU 0 (a)", "GPU 2 (c)"]
    assert names(multi_gpu=True) == ["GPU 0 (a)", "GPU 1 (b)", "GPU 2 (c)"]


def test_only_the_machine_knows_how_many_share_on_all_its_gpus() -> None:
    cards = [Card("a", 1, 1, 1.0)] * 4
    shared = config(batch_size=4, multi_gpu=True, sharding="FULL")
    whole = make_plan(shared)
    each = plan_here(shared, whole, cards)
    assert each.memory_bytes.weights == pytest.approx(whole.memory_bytes.weights / 4)
    assert plan_here(shared, whole, []) is whole
    one = config()
    alone = make_plan(one)
    assert plan_here(one, alone, cards) is alone

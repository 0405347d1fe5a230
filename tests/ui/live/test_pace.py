"""What was predicted of a run's steps, beside what they take."""

from types import SimpleNamespace
from typing import Any

import pytest

from blockrate.config.plan import make_plan
from blockrate.config.step_time import predicted_and_flops, step_seconds
from blockrate.config.train_config import TrainConfig
from blockrate.models.cards import SHARE, card_named
from blockrate.run.events import Rank, Record, Step
from blockrate.ui.live.history import History
from blockrate.ui.live.pace import pace

H100 = "NVIDIA H100 80GB HBM3 with 79.2 GiB"
CONFIG = TrainConfig.model_validate({"gradient_accumulation_steps": 2})


def watching(seconds: float | None, *devices: str, config: Any = CONFIG) -> Any:
    history = History()
    history.config = config
    for step in range(20 if seconds else 0):
        taken = Step(1.0, 1e-4, 1.0, float(seconds or 0))
        history.feed([Record(taken, step + 1)])
    history.cards.ranks = [
        Rank(number, "here", device, 85 * 10**9)
        for number, device in enumerate(devices)
    ]
    return SimpleNamespace(history=history)


def test_a_step_as_predicted_reaches_the_share_that_is_assumed() -> None:
    card = card_named(H100, 85 * 10**9)
    assert card
    assert card.known
    expected, flops = predicted_and_flops(CONFIG, card)
    assert expected == step_seconds(CONFIG, make_plan(CONFIG), card)
    assert flops / (expected * card.rate) == pytest.approx(SHARE)
    told = pace(watching(expected, H100))
    assert told == f"{expected:.2g} s/step predicted · 50% of what the card multiplies"
    # at half the pace half of it
    assert "25% of what the card" in pace(watching(2 * expected, H100))
    # of a step that two share, each does half
    both = pace(watching(expected / 2, H100, H100))
    assert (
        both == f"{expected / 2:.2g} s/step predicted · 50% of what the cards multiply"
    )


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert pace(watching(1.0, "the processor")) == ""
    assert pace(watching(None, H100)) == ""
    assert pace(watching(1.0)) == ""
    assert pace(watching(1.0, H100, config=None)) == ""
    gone = TrainConfig.model_validate({"base_model_name": "/gone/model.safetensors"})
    assert pace(watching(1.0, H100, config=gone)) == ""

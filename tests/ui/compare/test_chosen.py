"""Which runs an address names, and how they are called."""

from pathlib import Path

import pytest

from blockrate.config.differences import differing
from blockrate.config.train_config import TrainConfig
from blockrate.ui.compare.chosen import address_of, compared_in, names_of
from blockrate.ui.page import Compared
from blockrate.ui.preferences import Preferences


def query_of(*paths: str) -> str:
    return address_of(Compared(tuple(map(Path, paths)))).partition("?")[2]


def test_an_address_names_only_what_was_compared_here() -> None:
    preferences = Preferences(compared=["/runs/a", "/runs/b"])
    query = query_of("/runs/b", "/runs/a")
    assert compared_in(query, preferences) == Compared(
        (Path("/runs/b"), Path("/runs/a"))
    )
    other = query_of("/runs/a", "/etc")
    assert compared_in(other, preferences) == Compared((Path("/runs/a"),), unknown=1)


@pytest.mark.parametrize(
    "query", ["", "runs=", "runs=/etc/passwd", "runs=" + "x," * 9999, "runs=%00&runs"]
)
def test_a_hostile_address_names_nothing(query: str) -> None:
    assert compared_in(query, Preferences(compared=["/runs/a"])).paths == ()


def test_runs_of_the_same_name_are_told_apart_by_their_folders() -> None:
    paths = [Path("/r/flat/seed-1"), Path("/r/a/run"), Path("/r/b/run"), Path("/r/c")]
    assert names_of(paths) == ["flat/seed-1", "a/run", "b/run", "c"]


def test_settings_that_differ_are_listed_entry_by_entry() -> None:
    one = TrainConfig(
        lora_rank=8, samples=[{"prompt": "a cat"}], block_learning_rate_multiplier={}
    )
    other = TrainConfig(
        lora_rank=8,
        samples=[{"prompt": "a dog"}, {"prompt": "b"}],
        block_learning_rate_multiplier={"double_block_0": 0.5},
    )
    found = {row.path: row.values for row in differing([one, other, other])}
    assert "lora_rank" not in found
    assert found["samples.0.prompt"] == ("a cat", "a dog", "a dog")
    assert found["samples.1.prompt"] == (None, "b", "b")
    assert found["block_learning_rate_multiplier.double_block_0"] == (None, 0.5, 0.5)
    assert differing([one, one]) == []

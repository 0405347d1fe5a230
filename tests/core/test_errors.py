"""What an error says, and how a front end tells the ways on."""

from collections.abc import Mapping

import pytest

from blockrate.core.errors import (
    ConfigError,
    NoCheckpointError,
    WayOn,
    in_words,
    with_ways_on,
)

WORDS: Mapping[WayOn, str] = {
    "fresh": "begin again",
    "reset_all": "forget the moments: the weights stay",
}


def test_the_text_of_an_error_names_no_way_on() -> None:
    error = ConfigError("seed", "was 1.", "Set it back.", ways_on=["fresh"])
    assert str(error) == "seed: was 1. Set it back."
    assert error.ways_on == ("fresh",)


@pytest.mark.parametrize(
    ("ways_on", "told"),
    [
        ([], ""),
        (["fresh"], " Or begin again."),
        (
            ["reset_all", "fresh"],
            " Or forget the moments: the weights stay; or begin again.",
        ),
        (["reset_new", "fresh"], " Or begin again."),
        (["reset_new"], ""),
    ],
)
def test_a_front_end_tells_the_ways_that_it_has_words_for(
    ways_on: list[WayOn], told: str
) -> None:
    error = NoCheckpointError("run", "none is whole", "Restore one.", ways_on=ways_on)
    assert in_words(error, WORDS) == f"run: none is whole. Restore one.{told}"
    assert with_ways_on("None is whole.", ways_on, WORDS) == f"None is whole.{told}"


def test_errors_that_are_told_together_keep_their_own_ways_on() -> None:
    parts = [
        ConfigError("a", "is wrong", "Mend it."),
        ConfigError("b", "is another", ways_on=["fresh"]),
    ]
    error = ConfigError("config.json", "2 settings are wrong", parts=parts)
    assert str(error) == (
        "config.json: 2 settings are wrong.\n  a: is wrong. Mend it.\n  b: is another."
    )
    assert in_words(error, WORDS) == f"{error} Or begin again."

"""Samples that OneTrainer saved have any size: what no sample can be here is rounded as it does, and told."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.saved_configs import FACTS, saved_config

from blockrate.config.files import find_problems, parse_config
from blockrate.core.errors import ConfigError

# side: what OneTrainer samples at, to the nearest multiple of 64, halves to the even one
ROUNDED = {1000: 1024, 515: 512, 700: 704, 1001: 1024, 999: 1024, 33: 64, 8: 64}
WORDS = "rounded to 64 pixels, as OneTrainer does: "


def sample(**changes: Any) -> dict[str, Any]:
    saved: dict[str, Any] = copy.deepcopy(FACTS["sample"])
    return saved | changes


def rounded(warnings: list[str]) -> list[str]:
    return [line.removeprefix(WORDS) for line in warnings if line.startswith(WORDS)]


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("pixels", ROUNDED)
def test_a_size_that_no_sample_has_here_is_onetrainers_and_told(
    side: str, pixels: int
) -> None:
    other = {"width": 768, "height": 768}
    loaded = parse_config(saved_config(samples=[sample(**other | {side: pixels})]))
    found = loaded.config.samples[0].model_dump()
    assert {name: found[name] for name in other} == other | {side: ROUNDED[pixels]}
    told = f"samples.0.{side} {pixels} -> {ROUNDED[pixels]}"
    assert rounded(loaded.warnings) == [told]


def test_a_size_that_a_sample_can_have_stays_without_a_word() -> None:
    loaded = parse_config(saved_config(samples=[sample(width=1040, height=528)]))
    found = loaded.config.samples[0]
    assert (found.width, found.height) == (1040, 528)
    assert rounded(loaded.warnings) == []


def test_entries_of_a_file_of_samples_are_rounded_by_their_own_version(
    tmp_path: Path,
) -> None:
    saved = sample(width=1000, height=1000, __version=0)
    (file := tmp_path / "samples.json").write_text(json.dumps([saved]))
    loaded = parse_config({"sample_definition_file_name": str(file)})
    assert loaded.config.samples[0].width == 1024


def test_what_is_no_size_at_all_is_refused_as_ever() -> None:
    for pixels in (0, -5, "1000", 1000.0, True):
        with pytest.raises(ConfigError, match=r"samples\.0\.width"):
            parse_config(saved_config(samples=[sample(width=pixels)]))


def test_a_config_of_our_own_is_refused_as_ever() -> None:
    with pytest.raises(ConfigError, match=r"samples\.0\.width: 1000 should be"):
        parse_config({"samples": [{"prompt": "a", "width": 1000}]})


def test_the_app_gets_the_rounded_list_and_the_file_keeps_its_own() -> None:
    data = saved_config(samples=[sample(width=1000, height=1024)])
    given = data["samples"]
    unsaid = find_problems(data).unsaid
    assert unsaid["samples"][0]["width"] == 1024
    assert given[0]["width"] == 1000

"""The gallery of models: what stands in it is true of presets, of the models themselves, and of the documents."""

import json
import re
from pathlib import Path

import pytest

from blockrate.config.files import parse_config
from blockrate.config.gallery import (
    Offered,
    first_config,
    gallery,
    offered_as,
    settings_of,
)
from blockrate.config.plan import make_plan
from blockrate.config.presets import named, read_named
from blockrate.config.train_config import TrainConfig
from blockrate.config.value_errors import default
from blockrate.core.units import size_text
from blockrate.models.families import ARCHITECTURES, FAMILIES, encoder_names, known_as

REPOSITORY = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("row", gallery(), ids=lambda row: row.preset)


def test_klein_base_4b_is_the_first_choice_and_needs_no_account() -> None:
    first = gallery()[0]
    assert first.name == "black-forest-labs/FLUX.2-klein-base-4B"
    assert not first.family.gated
    assert first.licence == "Apache-2.0"
    assert next(iter(named())) == first.preset == "flux_lora_klein_4b"
    config = parse_config(first_config()).config
    assert config.base_model_name == first.name
    # what a run makes is named like the run
    assert config.output_model_destination == default("output_model_destination")


def test_a_config_that_says_nothing_means_what_it_always_meant() -> None:
    assert TrainConfig().base_model_name == "black-forest-labs/FLUX.1-dev"
    assert parse_config({}).config == TrainConfig()


@EVERY
def test_each_model_has_a_preset_of_its_own_that_states_what_suits_it(
    row: Offered,
) -> None:
    preset = read_named(row.preset)
    config = parse_config(preset).config
    assert known_as(config.base_model_name) == row.family
    assert config.model_type == row.family.model_type
    make_plan(config)
    stated = settings_of(row, "LORA").keys()
    assert {"learning_rate", "lora_rank", "lora_alpha", "resolution"} <= stated
    assert {"layer_filter_preset", "transformer.weight_dtype"} <= stated
    assert "output_model_format" in stated
    if row.family.repo:
        assert {"timestep_distribution", "dynamic_timestep_shifting"} <= stated
    length = row.family.spec.facts["caption_tokens"]
    assert isinstance(length, int) or length in stated
    assert not stated & {"samples", "concepts", "output_model_destination"}


def test_no_preset_and_no_model_stands_twice() -> None:
    assert len({row.preset for row in gallery()}) == len(gallery())
    assert len({row.name for row in gallery()}) == len(gallery())


@EVERY
def test_what_suits_a_lora_alone_is_not_given_to_a_fine_tune(row: Offered) -> None:
    settings = settings_of(row, "FINE_TUNE")
    assert not settings.keys() & {"learning_rate", "lora_rank", "output_model_format"}
    assert "transformer.weight_dtype" not in settings
    assert "resolution" in settings


@EVERY
def test_a_preview_is_the_distilled_twin_of_the_same_sizes(row: Offered) -> None:
    if row.preview:
        assert row.preview.distilled
        assert row.preview.spec == row.family.spec
    assert not row.family.distilled


def test_every_published_model_that_trains_is_offered_or_a_twin() -> None:
    offered = {row.name for row in gallery()}
    twins = {row.preview.repo for row in gallery() if row.preview}
    # what does not train as it was made to yet waits for its preset
    rows = [family for family in FAMILIES.values() if not family.warns]
    published = {family.repo for family in rows if family.repo}
    assert published <= offered | twins


def test_a_model_is_known_by_its_hub_id_in_any_capitals() -> None:
    row = offered_as("black-forest-labs/flux.2-KLEIN-base-4b")
    assert row == gallery()[0]
    assert offered_as("my/flux") is None
    assert offered_as("tiny-flux2") is None


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda row: row.name)
def test_every_text_encoder_has_a_name(family: object) -> None:
    assert isinstance(family, type(next(iter(FAMILIES.values()))))
    names = encoder_names(family)
    assert set(names) == {
        part
        for part in ARCHITECTURES[family.architecture]["parts"]
        if part.startswith("text_encoder")
    }
    assert all(names.values())


def test_the_encoders_are_called_as_they_are() -> None:
    assert encoder_names(FAMILIES["flux1-dev"]) == {
        "text_encoder": "CLIP",
        "text_encoder_2": "T5",
    }
    assert encoder_names(FAMILIES["flux2-klein-9b"]) == {"text_encoder": "Qwen3"}
    assert encoder_names(FAMILIES["flux2-dev"]) == {"text_encoder": "Mistral"}


@EVERY
def test_the_documents_say_of_a_model_what_the_gallery_says(row: Offered) -> None:
    text = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| `{re.escape(row.name)}` .*$", text, re.MULTILINE)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    layout = row.family.spec.layout
    assert cells[1] == f"{layout.double} + {layout.single}"
    assert row.licence in cells[3] or "with blockrate" in cells[3]
    assert cells[4] == ("yes" if row.family.gated else "no")
    size = f"{row.download_gb:g} GB" if row.download_gb else "none"
    assert cells[5] == size
    assert f"`{row.preset}`" in text


def test_the_facts_hold_nothing_that_nobody_reads() -> None:
    facts = json.loads(
        (REPOSITORY / "src/blockrate/config/gallery.json").read_text(encoding="utf-8")
    )
    assert facts.keys() == {"about", "left", "of_lora", "models"}


def test_the_memory_that_the_documents_tell_is_that_of_the_plan() -> None:
    text = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`flux_lora_.*?) \|.* ([\d.]+ GiB) at ", text, re.MULTILINE)
    told = {name: size for names, size in rows for name in re.findall(r"\w+", names)}
    assert len(told) >= 6
    for name, size in told.items():
        plan = make_plan(parse_config(read_named(name)).config)
        assert size_text(plan.memory_bytes.total) == size, name

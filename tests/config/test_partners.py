"""Which model takes references or masks: told by its files, refused in one sentence, counted by the plan."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from blockrate.config.base_model import model_spec
from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.config.planned_memory import work_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError
from blockrate.core.reference_sizes import (
    MOST_PIXELS,
    capped,
    fitted,
    is_same_shape,
    whole,
)
from blockrate.models.families import FAMILIES, config_from_spec

KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"
DEV = "black-forest-labs/FLUX.1-dev"
FILL = "black-forest-labs/FLUX.1-Fill-dev"
KLEIN = "black-forest-labs/FLUX.2-klein-base-4B"


def config(name: str, references: int = 0, **settings: Any) -> TrainConfig:
    concept = {"path": "photos", "references": ["before"] * references}
    types = {FILL: "FLUX_FILL_DEV_1", KLEIN: "FLUX_2"}
    values: dict[str, Any] = {
        "base_model_name": name,
        "model_type": types.get(name, "FLUX_DEV_1"),
        "concepts": [concept],
        "output_model_format": "DIFFUSERS_LORA",
        **settings,
    }
    return TrainConfig(**values)


def refused(asked: TrainConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(asked)
    return str(caught.value)


@pytest.mark.parametrize(("name", "most"), [(KONTEXT, 1), (KLEIN, 10)])
def test_a_model_takes_so_many_references(name: str, most: int) -> None:
    assert make_plan(config(name, most))
    told = refused(config(name, most + 1))
    assert f"concepts.0.references: has {most + 1}, and {name} takes {most}" in told


@pytest.mark.parametrize("name", [DEV, FILL])
def test_references_of_a_model_that_takes_none_are_refused(name: str) -> None:
    sample = {"references": ["a.png"], "base_image_path": "a", "mask_image_path": "b"}
    told = refused(config(name, 1, samples=[sample]))
    assert f"concepts.0.references: is set, and {name} takes no reference" in told
    assert "samples.0.references: is set" in told
    assert "Kontext" in told


def test_kontext_is_known_by_its_folder_and_never_taken_for_dev(
    tmp_path: Path,
) -> None:
    spec = FAMILIES["tiny-flux1"].spec
    model = tmp_path / "model"
    (model / "transformer").mkdir(parents=True)
    facts = {"_class_name": "FluxTransformer2DModel", **config_from_spec(spec)}
    (model / "transformer" / "config.json").write_text(json.dumps(facts))
    from safetensors.torch import save_file

    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    index = model / "model_index.json"
    index.write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    assert make_plan(config(str(model), 1))
    assert any("Kontext" in text for text in make_plan(config(str(model))).warnings)
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "takes no reference images" in refused(config(str(model), 1))
    index.unlink()
    told = refused(config(str(model), 1))
    assert "model_variant" in told
    assert "KONTEXT" in told
    assert make_plan(config(str(model), 1, model_variant="KONTEXT"))


def test_kontext_without_references_is_told_and_with_them_is_not() -> None:
    def told(references: int) -> bool:
        warnings = make_plan(config(KONTEXT, references)).warnings
        return any("reference images" in text for text in warnings)

    assert told(0)
    assert not told(1)


def test_masks_of_a_model_that_takes_none_are_refused() -> None:
    concept = {"path": "photos", "masks": "masks"}
    told = refused(config(KLEIN, concepts=[concept]))
    assert "concepts.0.masks: is set" in told
    assert "FLUX.1-Fill-dev" in told


def test_samples_of_fill_need_an_image_a_mask_and_much_guidance() -> None:
    told = refused(config(FILL, samples=[{"prompt": "a cat"}]))
    assert "samples.0.base_image_path" in told
    assert "samples.0.mask_image_path" in told
    sample = {"base_image_path": "a.png", "mask_image_path": "b.png"}
    warnings = make_plan(config(FILL, samples=[sample])).warnings
    assert any("made to draw with 30" in text for text in warnings)
    enough = config(FILL, samples=[{**sample, "cfg_scale": 30.0}])
    assert not any("draw with 30" in text for text in make_plan(enough).warnings)


def test_an_image_to_draw_into_is_told_to_do_nothing_where_a_model_draws_into_none() -> (
    None
):
    sample = {"base_image_path": "a.png", "mask_image_path": "b.png", "cfg_scale": 30.0}

    def told(name: str, **settings: Any) -> list[str]:
        asked = config(name, samples=[{**sample, **settings}])
        return [text for text in make_plan(asked).warnings if "no effect" in text]

    [text] = told(KLEIN)
    assert text.startswith("samples.0: its image to draw into has no effect; FLUX.2")
    assert told(DEV, mask_image_path="")
    assert not told(DEV, base_image_path="", mask_image_path="")
    assert not told(DEV, enabled=False)
    assert not told(FILL)


def test_a_type_that_contradicts_the_model_is_refused() -> None:
    told = refused(config(FILL, model_type="FLUX_DEV_1"))
    assert "Set it to FLUX_FILL_DEV_1" in told
    assert "model_type" in refused(config(DEV, model_type="FLUX_FILL_DEV_1"))


def test_the_plan_counts_the_tokens_of_references() -> None:
    plain = config(KLEIN, resolution="512")
    edited = config(KLEIN, 2, resolution="512")
    spec = model_spec(plain)
    assert work_of(plain, spec).image_tokens == 1024
    assert work_of(edited, spec).image_tokens == 3 * 1024
    large = config(KLEIN, 1, resolution="1536")
    assert work_of(large, spec).image_tokens == 9216 + MOST_PIXELS // 256
    one, other = make_plan(plain), make_plan(edited)
    assert other.memory_bytes.activations > 1.5 * one.memory_bytes.activations
    assert other.memory_bytes.weights == one.memory_bytes.weights


@pytest.mark.parametrize("width", [1, 16, 63, 512, 4000])
@pytest.mark.parametrize("height", [1, 100, 1024, 9000])
def test_a_whole_reference_has_its_shape_and_no_more_pixels_than_its_image(
    width: int, height: int
) -> None:
    size = whole(width, height, Bucket(512, 512))
    assert size.width % 16 == size.height % 16 == 0
    assert size.width * size.height <= 512 * 512
    assert size.width <= max(16, width)
    assert size.height <= max(16, height)


def test_references_of_one_shape_are_as_large_as_their_image_up_to_a_limit() -> None:
    assert capped(Bucket(768, 512)) == Bucket(768, 512)
    assert capped(Bucket(1536, 1536)) == Bucket(1024, 1024)
    assert fitted(1024, 1024, MOST_PIXELS) == Bucket(1024, 1024)
    assert is_same_shape(1920, 1080, 1281, 720)
    assert not is_same_shape(1920, 1080, 1080, 1920)


def test_a_config_of_onetrainer_for_fill_loads_with_its_samples() -> None:
    saved = Path(__file__).with_name("onetrainer_defaults.json")
    data = json.loads(saved.read_text(encoding="utf-8"))["config"]
    sample = {
        "__version": 0,
        "prompt": "a cat",
        "cfg_scale": 30.0,
        "sample_inpainting": True,
        "base_image_path": "a.png",
        "mask_image_path": "b.png",
    }
    data |= {
        "model_type": "FLUX_FILL_DEV_1",
        "base_model_name": FILL,
        "training_method": "LORA",
        "train_dtype": "BFLOAT_16",
        "samples": [sample],
    }
    read = parse_config(data).config
    assert read.samples[0].base_image_path == "a.png"
    assert read.samples[0].mask_image_path == "b.png"
    assert make_plan(read).model_type == "FLUX_FILL_DEV_1"

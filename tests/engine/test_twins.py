"""Samples by the distilled twin: the images are its own with the LoRA loaded, and training is as if there were none."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from safetensors.torch import load_file
from support.lives import Small, events, make_small
from support.model_folders import change_config, change_weights

from blockrate.config.plan import make_plan
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.engine import twins
from blockrate.engine.models import flux2
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.locate import locate
from blockrate.models.families import FAMILIES
from blockrate.models.hub import snapshot_folder

pytestmark = pytest.mark.engine
KLEIN = replace(FAMILIES["tiny-flux2"].spec, layout=BlockLayout(2, 2))
SAMPLE = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 4}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("klein")
    made = make_small(folder, KLEIN)
    twin = flux2.make_tiny(folder / "twin", spec=KLEIN, seed=5)
    change_config(twin / "model_index.json", is_distilled=True)
    return made


def config_of(small: Small, run: Path, *previews: str, **settings: Any) -> Any:
    twin = str(small.folder / "twin")
    samples = [{**SAMPLE, "preview": twin if name else ""} for name in previews]
    ours: dict[str, Any] = {
        "model_type": "FLUX_2",
        "layer_filter": "",
        "layer_filter_preset": "blocks",
        "block_learning_rate_multiplier": {"single_block_0": 0.0},
        "output_model_format": "COMFY_LORA",
        "learning_rate": 1e-2,
        "learning_rate_warmup_steps": 0,
        "epochs": 2,
        "samples": samples,
        "sample_after": 1,
        "sample_after_unit": "STEP",
        **settings,
    }
    return small.config(run, **ours)


@pytest.mark.cases(1)
@pytest.mark.parametrize("form", ["FLOAT_32", "BFLOAT_16", "FLOAT_8", "INT_8"])
def test_training_learns_the_same_with_and_without_previews(
    small: Small, tmp_path: Path, form: str
) -> None:
    results = []
    for previews in (("",), ("twin", "", "twin")):
        run = tmp_path / f"run {len(previews)}"
        transformer = {"weight_dtype": form}
        config = config_of(small, run, *previews, transformer=transformer)
        made = small.live(config)
        assert not events(made, "warned")
        for event in events(made, "sampled"):
            assert len(event["files"]) == len(previews)
        results.append(load_file(config.output_model_destination))
    without, with_them = results
    assert without.keys() == with_them.keys()
    for name, tensor in without.items():
        assert torch.equal(tensor, with_them[name]), name


def test_the_image_is_that_of_the_twins_pipeline_with_the_lora(
    small: Small, tmp_path: Path
) -> None:
    strong = {"learning_rate": 0.05, "lora_alpha": 16.0}
    config = config_of(small, tmp_path / "run", "twin", "", **strong)
    run = small.live(config)
    by_twin, by_base = events(run, "sampled")[-1]["files"]
    pipeline = Flux2KleinPipeline.from_pretrained(small.folder / "twin")
    pipeline.set_progress_bar_config(disable=True)

    # the encoder and VAE of the model that trains
    base = Flux2KleinPipeline.from_pretrained(small.folder / "model")
    drawn = Flux2KleinPipeline(
        scheduler=base.scheduler,
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        transformer=pipeline.transformer,
        is_distilled=True,
    )
    drawn.set_progress_bar_config(disable=True)

    def image() -> torch.Tensor:
        drawing = drawn(
            prompt="a cat",
            width=64,
            height=64,
            num_inference_steps=4,
            guidance_scale=1.0,
            generator=torch.Generator("cpu").manual_seed(42),
            output_type="pt",
        )
        found: torch.Tensor = drawing.images[0]
        return found

    plain = image()
    drawn.load_lora_weights(config.output_model_destination)
    expected = image()
    assert (plain - expected).abs().max() > 0.01
    assert (pixels(run.path / by_twin) - expected).abs().max() < 0.005
    assert (pixels(run.path / by_base) - expected).abs().max() > 0.01


def pixels(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return flat.view(image.height, image.width, 3).permute(2, 0, 1) / 255


def test_files_that_changed_meanwhile_are_told_and_the_run_goes_on(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(small, tmp_path / "run", "twin")
    stamps = iter([{Path("a"): (1, 1)}])
    monkeypatch.setattr(twins, "_stamps", lambda files: next(stamps, {}))
    run = small.live(config)
    assert not events(run, "sampled")
    assert "has changed since the run began" in events(run, "warned")[0]["message"]
    assert events(run, "step")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}, "FINE_TUNE"),
        ({"transformer": {"weight_dtype": "NFLOAT_4"}}, "4 bits"),
        ({"transformer": {"layer_offload_fraction": 0.5, "gradient_checkpointing": True}}, "stream"),
    ],
)  # fmt: skip
def test_what_cannot_preview_is_refused_before_anything_is_loaded(
    small: Small, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    config = config_of(small, tmp_path / "run", "", "twin", **settings)
    with pytest.raises(ConfigError, match=words) as caught:
        make_plan(config)
    assert caught.value.where == "samples.1.preview"


def test_a_twin_must_be_the_twin_of_the_model(small: Small, tmp_path: Path) -> None:
    def refused(name: Path | str, **settings: Any) -> str:
        config = config_of(small, tmp_path / "run", **settings)
        sample = config.samples or [{**SAMPLE, "preview": str(name)}]
        with pytest.raises(ConfigError, match=r"samples\.0\.preview") as caught:
            make_plan(config_of(small, tmp_path / "run", samples=sample, **settings))
        return str(caught.value)

    assert "is not distilled, but BASE" in refused(small.folder / "model")
    missing = refused(tmp_path / "missing")
    assert "there is no such file or folder. Use black-forest-labs/" in missing
    other = flux2.make_tiny(
        tmp_path / "other", spec=replace(KLEIN, layout=BlockLayout(1, 1))
    )
    assert "other sizes" in refused(other)
    alone = Path(shutil.copytree(small.folder / "twin/transformer", tmp_path / "mine"))
    make_plan(
        config_of(small, tmp_path / "run", samples=[{**SAMPLE, "preview": str(alone)}])
    )
    flux1 = {"model_type": "FLUX_DEV_1", "base_model_name": "tiny-flux1"}
    form = {"output_model_format": "DIFFUSERS_LORA"}
    assert "has no distilled twin" in refused(small.folder / "twin", **flux1, **form)


def test_a_twin_of_the_hub_is_known_by_the_files_that_have_come(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # it means a distilled one, and nobody knows of which sizes
    name = "somebody/klein-4b-mine"
    config = config_of(small, tmp_path / "run", samples=[{**SAMPLE, "preview": name}])
    own = locate(config)
    make_plan(config)

    def find(come: ModelFiles) -> None:
        monkeypatch.setattr(twins, "locate", lambda *_, **__: come)
        twins.find_twins(config, own)

    find(own)
    with pytest.raises(ConfigError, match="has other sizes than the model"):
        find(replace(own, spec=replace(own.spec, layout=BlockLayout(1, 1))))
    shutil.copytree(small.folder / "model", snapshot_folder(name))
    for look in (lambda: find(own), lambda: make_plan(config)):
        with pytest.raises(ConfigError, match="is not distilled, but BASE"):
            look()


def test_a_damaged_twin_is_told_before_the_model_is_loaded(
    small: Small, tmp_path: Path
) -> None:
    twin = Path(shutil.copytree(small.folder / "twin", tmp_path / "twin"))
    change_weights(
        twin, "transformer", lambda tensors: tensors.pop("x_embedder.weight")
    )
    samples = [{**SAMPLE, "preview": str(twin)}]
    with pytest.raises(Exception, match=r"lacks 1 tensor \(x_embedder\.weight\)"):
        small.live(config_of(small, tmp_path / "run", samples=samples))

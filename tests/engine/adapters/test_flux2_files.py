"""LoRA files of FLUX.2 against the model that was trained, the same weights merged by hand, and diffusers' loader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
)
from safetensors import safe_open
from support.lora_files import adapt, merge

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.engine.adapters.file import lora_weights, read_lora, save_lora
from blockrate.engine.adapters.lora import read_start
from blockrate.engine.models import flux2
from blockrate.models.families import FAMILIES
from blockrate.models.lora_norms import inspect_lora

SPEC = replace(FAMILIES["tiny-flux2"].spec, layout=BlockLayout(2, 3))
FORMS = {
    "DIFFUSERS_LORA": "diffusers",
    "COMFY_LORA": "comfy",
    "KOHYA_LORA": "kohya",
}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return flux2.random_transformer(SPEC).eval().requires_grad_(False)


def linears(model: Any) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]


def chosen(model: Any, form: str, kind: str) -> list[str]:
    """All that a form can hold, or query and value alone."""
    names = linears(model)
    if kind == "query and value":
        return [name for name in names if name.endswith(("to_q", "to_v"))]
    if form == "KOHYA_LORA":
        return [name for name in names if "blocks." in name]
    if form == "COMFY_LORA":
        return [name for name in names if name != "norm_out.linear"]
    return names


@torch.no_grad()
def predicted(model: Any) -> torch.Tensor:
    stream = torch.Generator().manual_seed(2)
    noisy = torch.randn(1, 128, 2, 3, generator=stream)
    embeds = torch.randn(1, 5, 96, generator=stream)
    return flux2.predict(
        model, noisy, torch.tensor([0.6]), {"prompt_embeds": embeds}, guidance=1.0
    )


def loaded(model: Any, path: Path) -> Any:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), latent_channels=32, norm_num_groups=4
    )
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=model,
    )
    pipeline.load_lora_weights(path)
    return pipeline


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["everything", "query and value"])
def test_each_form_gives_the_output_of_the_trained_model(
    model: Any, tmp_path: Path, form: str, kind: str
) -> None:
    names = chosen(model, form, kind)
    adapt(model, names, rank=3, alpha=2.0)
    trained = predicted(model)
    weights = lora_weights(model)
    path = tmp_path / "lora.safetensors"
    save_lora(
        path,
        weights,
        architecture="FLUX.2",
        file_format=form,
        dtype=torch.float32,
        metadata={"blockrate.base_model": "black-forest-labs/FLUX.2-klein-base-4B"},
    )
    model.delete_adapters("default")
    model.unload_lora()
    untrained = predicted(model)
    assert (trained - untrained).abs().max() > 1e-3
    pipeline = loaded(model, path)
    assert (predicted(model) - trained).abs().max() < 1e-5
    pipeline.unload_lora_weights()
    assert torch.equal(predicted(model), untrained)
    found = read_lora(path, "FLUX.2")
    assert set(found) == set(names)
    for name, module in found.items():
        before = weights[name]
        assert torch.allclose(
            module.scale * module.up @ module.down,
            before.scale * before.up @ before.down,
            atol=1e-6,
        )
    merge(model, found)
    assert (predicted(model) - trained).abs().max() < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_inspect_names_the_form_and_the_base_and_every_block(
    model: Any, tmp_path: Path, form: str
) -> None:
    base = "black-forest-labs/FLUX.2-klein-base-4B"
    adapt(model, chosen(model, form, "everything"), rank=3)
    path = tmp_path / "lora.safetensors"
    weights = lora_weights(model)
    save_lora(
        path,
        weights,
        architecture="FLUX.2",
        file_format=form,
        dtype=torch.float32,
        metadata={"blockrate.base_model": base},
    )
    report = inspect_lora(path)
    assert (report.format, report.base_model) == (FORMS[form], base)
    assert tuple(report.blocks) == SPEC.layout.names
    assert report.unknown_tensors == 0
    assert bool(report.other) == (form != "KOHYA_LORA")
    expected = sum(
        float((one.scale * one.up @ one.down).square().sum())
        for name, one in weights.items()
        if name.startswith("single_transformer_blocks.1.")
    )
    assert report.blocks["single_block_1"] == pytest.approx(expected**0.5, rel=1e-5)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if form == "KOHYA_LORA":
        assert metadata["ss_base_model_version"] == "flux2"
        assert metadata["modelspec.architecture"] == "flux-2-klein-4b/lora"


def config(**settings: Any) -> TrainConfig:
    ours = {"base_model_name": "tiny-flux2", "model_type": "FLUX_2", **settings}
    return TrainConfig.model_validate(ours)


@pytest.mark.parametrize(
    ("form", "names"),
    [("KOHYA_LORA", "holds modules of blocks only"), ("COMFY_LORA", "norm_out.linear")],
)
def test_what_a_form_cannot_hold_is_refused_before_anything_is_loaded(
    form: str, names: str
) -> None:
    with pytest.raises(ConfigError, match=names) as caught:
        make_plan(config(output_model_format=form))
    assert "DIFFUSERS_LORA" in caught.value.cure
    make_plan(config(output_model_format=form, layer_filter_preset="blocks"))
    make_plan(
        config(output_model_format=form, block_learning_rate_multiplier={"other": 0.0})
    )


def test_a_form_of_another_model_is_refused() -> None:
    wrong = TrainConfig(output_model_format="COMFY_LORA", base_model_name="tiny-flux1")
    with pytest.raises(ConfigError, match=r"COMFY_LORA is no form for a FLUX\.1"):
        make_plan(wrong)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_goes_on_from_each_form(model: Any, tmp_path: Path, form: str) -> None:
    model = flux2.random_transformer(FAMILIES["tiny-flux2"].spec)
    adapt(model, chosen(model, form, "everything"), rank=3)
    path = tmp_path / "lora.safetensors"
    save_lora(
        path,
        lora_weights(model),
        architecture="FLUX.2",
        file_format=form,
        dtype=torch.float32,
        metadata={},
    )
    start = read_start(config(lora_model_name=str(path), lora_rank=9))
    assert start.keys() == lora_weights(model).keys()
    other = TrainConfig(base_model_name="tiny-flux1", lora_model_name=str(path))
    with pytest.raises(FileError, match=r"is a LoRA of a FLUX\.2, and the model is"):
        read_start(other)


@pytest.mark.parametrize(
    ("base_model", "hidden", "called"),
    [
        ("/models/FLUX2-dev", 6144, "flux-2-dev/lora"),
        ("/models/my-flux2-fine-tune", 4096, "flux-2-klein-9b/lora"),
        ("/models/my-flux2-fine-tune", 3072, "flux-2-klein-4b/lora"),
    ],
)
def test_a_kohya_header_names_the_model_by_its_width_where_its_name_is_silent(
    model: Any, tmp_path: Path, base_model: str, hidden: int, called: str
) -> None:
    adapt(model, chosen(model, "KOHYA_LORA", "query and value"), rank=2)
    path = tmp_path / "lora.safetensors"
    save_lora(
        path,
        lora_weights(model),
        architecture="FLUX.2",
        file_format="KOHYA_LORA",
        dtype=torch.float32,
        metadata={"blockrate.base_model": base_model},
        hidden=hidden,
    )
    with safe_open(path, "pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == called

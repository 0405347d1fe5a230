"""LoRA files of Chroma against the model that was trained, the same weights merged by hand, and diffusers' loader."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ChromaPipeline, FlowMatchEulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.lora_files import adapt, merge, with_small_weights

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.engine.adapters.file import lora_weights, read_lora, save_lora
from blockrate.engine.adapters.lora import read_start
from blockrate.engine.models import chroma
from blockrate.models.families import FAMILIES
from blockrate.models.lora_norms import inspect_lora

TOY = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(2, 3))
# diffusers takes BFL's names apart at this width alone
WIDE = replace(
    FAMILIES["chroma1-hd"].spec,
    layout=BlockLayout(1, 1),
    joint_attention_dim=16,
    approximator_hidden_dim=32,
    approximator_layers=2,
)
FORMS = {
    "DIFFUSERS_LORA": "diffusers",
    "COMFY_LORA": "comfy",
    "KOHYA_LORA": "kohya",
}
BASE = "lodestones/Chroma1-HD"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return chroma.random_transformer(TOY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def wide() -> Any:
    model = with_small_weights(lambda: chroma.random_transformer(WIDE))
    # what is in no file hangs on the number of blocks alone
    narrow = chroma.random_transformer(replace(TOY, layout=WIDE.layout))
    model.time_text_embed.mod_proj = narrow.time_text_embed.mod_proj
    return model


def chosen(model: Any, form: str, kind: str = "everything") -> list[str]:
    """All that a form can hold, or query and value alone."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    if kind == "query and value":
        return [name for name in names if name.endswith(("to_q", "to_v"))]
    if form != "DIFFUSERS_LORA":
        return [name for name in names if "blocks." in name]
    return names


@torch.no_grad()
def predicted(model: Any) -> torch.Tensor:
    stream = torch.Generator().manual_seed(2)
    width = model.config.joint_attention_dim
    given = {
        "prompt_embeds": torch.randn(1, 5, width, generator=stream),
        "prompt_mask": torch.tensor([[True, True, True, False, False]]),
    }
    noisy = torch.randn(1, 16, 4, 6, generator=stream)
    return chroma.predict(model, noisy, torch.tensor([0.6]), given, guidance=1.0)


def saved(model: Any, path: Path, form: str) -> dict[str, Any]:
    weights = lora_weights(model)
    save_lora(
        path,
        weights,
        architecture="Chroma",
        file_format=form,
        dtype=torch.float32,
        metadata={"blockrate.base_model": BASE},
    )
    return weights


@pytest.mark.cases(2)
@pytest.mark.engine
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["everything", "query and value"])
def test_each_form_gives_the_output_of_the_trained_model_in_diffusers(
    wide: Any, tmp_path: Path, form: str, kind: str
) -> None:
    untrained = predicted(wide)
    names = chosen(wide, form, kind)
    adapt(wide, names, rank=3, alpha=2.0)
    trained = predicted(wide)
    path = tmp_path / "lora.safetensors"
    saved(wide, path, form)
    wide.delete_adapters("default")
    wide.unload_lora()
    assert (trained - untrained).abs().max() > 1e-3
    pipeline = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=wide,
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.load_lora_weights(path)
    assert (predicted(wide) - trained).abs().max() < 1e-5
    pipeline.unload_lora_weights()
    assert torch.equal(predicted(wide), untrained)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_read_and_merges_to_the_trained_model(
    model: Any, tmp_path: Path, form: str
) -> None:
    names = chosen(model, form)
    adapt(model, names, rank=3, alpha=2.0)
    trained = predicted(model)
    path = tmp_path / "lora.safetensors"
    weights = saved(model, path, form)
    model.delete_adapters("default")
    model.unload_lora()
    found = read_lora(path, "Chroma")
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


@pytest.mark.parametrize(
    "spelling",
    [
        # ai-toolkit: BFL's names with A and B, folded
        ("diffusion_model.", ".lora_A.weight", ".lora_B.weight"),
        ("base_model.model.", ".lora_A.weight", ".lora_B.weight"),
        ("", ".lora_A.weight", ".lora_B.weight"),
    ],
)
def test_what_others_write_is_read(
    model: Any, tmp_path: Path, spelling: tuple[str, str, str]
) -> None:
    prefix, down, up = spelling
    adapt(model, chosen(model, "COMFY_LORA"), rank=3, alpha=3.0)
    path = tmp_path / "lora.safetensors"
    weights = saved(model, path, "COMFY_LORA")
    tensors = {
        prefix
        + name.removeprefix("diffusion_model.")
        .replace(".lora_down.weight", down)
        .replace(".lora_up.weight", up): tensor
        for name, tensor in load_file(path).items()
        if not name.endswith(".alpha")
    }
    save_file(tensors, path)
    found = read_lora(path, "Chroma")
    for name, before in weights.items():
        update = found[name].scale * found[name].up @ found[name].down
        assert torch.allclose(update, before.scale * before.up @ before.down, atol=1e-6)


def test_legacy_names_of_onetrainer_and_modules_of_the_approximator_are_read(
    model: Any, tmp_path: Path
) -> None:
    adapt(model, chosen(model, "DIFFUSERS_LORA"), rank=2, alpha=2.0)
    path = tmp_path / "lora.safetensors"
    weights = saved(model, path, "DIFFUSERS_LORA")
    tensors: dict[str, torch.Tensor] = {}
    for name, one in weights.items():
        legacy = f"lora_transformer_{name.replace('.', '_')}"
        tensors[f"{legacy}.lora_down.weight"] = one.down.clone()
        tensors[f"{legacy}.lora_up.weight"] = one.up.clone()
        tensors[f"{legacy}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    assert set(read_lora(path, "Chroma")) == set(weights)


@pytest.mark.parametrize("form", FORMS)
def test_inspect_names_the_form_and_the_base_and_every_block(
    model: Any, tmp_path: Path, form: str
) -> None:
    adapt(model, chosen(model, form), rank=3)
    path = tmp_path / "lora.safetensors"
    weights = saved(model, path, form)
    report = inspect_lora(path)
    assert (report.format, report.base_model) == (FORMS[form], BASE)
    assert tuple(report.blocks) == TOY.layout.names
    assert report.unknown_tensors == 0
    assert bool(report.other) == (form == "DIFFUSERS_LORA")
    expected = sum(
        float((one.scale * one.up @ one.down).square().sum())
        for name, one in weights.items()
        if name.startswith("single_transformer_blocks.1.")
    )
    assert report.blocks["single_block_1"] == pytest.approx(expected**0.5, rel=1e-5)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if form == "KOHYA_LORA":
        assert metadata["ss_base_model_version"] == "chroma"
        assert metadata["modelspec.architecture"] == "chroma/lora"


def config(**settings: Any) -> TrainConfig:
    ours = {"base_model_name": "tiny-chroma", "model_type": "CHROMA_1", **settings}
    return TrainConfig.model_validate(ours)


@pytest.mark.parametrize("form", ["KOHYA_LORA", "COMFY_LORA"])
def test_what_a_form_cannot_hold_is_refused_before_anything_is_loaded(
    form: str,
) -> None:
    with pytest.raises(ConfigError, match="holds modules of blocks only") as caught:
        make_plan(config(output_model_format=form))
    assert "distilled_guidance_layer.in_proj" in caught.value.problem
    assert "DIFFUSERS_LORA" in caught.value.cure
    make_plan(config(output_model_format=form, layer_filter_preset="blocks"))
    make_plan(
        config(output_model_format=form, block_learning_rate_multiplier={"other": 0.0})
    )


@pytest.mark.cases(2)
@pytest.mark.parametrize("form", FORMS)
def test_a_run_goes_on_from_each_form(tmp_path: Path, form: str) -> None:
    model = chroma.random_transformer(FAMILIES["tiny-chroma"].spec)
    adapt(model, chosen(model, form), rank=3)
    path = tmp_path / "lora.safetensors"
    saved(model, path, form)
    start = read_start(config(lora_model_name=str(path), lora_rank=9))
    assert start.keys() == lora_weights(model).keys()
    other = TrainConfig.model_validate(
        {
            "base_model_name": "tiny-flux2",
            "model_type": "FLUX_2",
            "lora_model_name": str(path),
        }
    )
    with pytest.raises(FileError, match=r"is a LoRA of a .*Chroma, and the model is"):
        read_start(other)

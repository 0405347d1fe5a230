import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.engine.models import file_weights, flux1
from blockrate.engine.models.locate import locate
from blockrate.models.families import TransformerSpec
from blockrate.models.headers import TensorFacts

CPU = torch.device("cpu")
SPEC = TransformerSpec(
    BlockLayout(1, 2),
    2,
    16,
    64,
    32,
    32,
    guidance_embeds=True,
    axes_dims_rope=(4, 6, 6),
    architecture="FLUX.1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 1 + 2 blocks."""
    return flux1.make_tiny(
        tmp_path_factory.mktemp("models") / "small", seed=1, spec=SPEC
    )


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> FluxPipeline:
    from diffusers import FluxPipeline

    return FluxPipeline.from_pretrained(folder)


def config(folder: Path, **changes: object) -> TrainConfig:
    changes.setdefault("cache_dir", str(folder.parent / "cache"))
    return TrainConfig.model_validate(
        {"base_model_name": str(folder), "train_dtype": "FLOAT_32", **changes}
    )


def loaded(
    folder: Path, *, weight_dtype: str = "FLOAT_32", **changes: object
) -> FluxTransformer2DModel:
    chosen = config(folder, transformer={"weight_dtype": weight_dtype}, **changes)
    return flux1.load_transformer(locate(chosen), chosen, CPU)


def loaded_vae(chosen: TrainConfig) -> AutoencoderKL:
    folder = locate(chosen).parts["vae"]
    return flux1.load_vae(folder, weight_dtype=chosen.vae.weight_dtype, device=CPU)


def inputs(batch: int = 2, height: int = 6, width: int = 8) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(4)
    return {
        "noisy_latents": torch.randn(batch, 16, height, width, generator=draw),
        "timesteps": torch.tensor([0.25, 0.75])[:batch],
        "conditioning": {
            "prompt_embeds": torch.randn(batch, 5, 32, generator=draw),
            "pooled_prompt_embeds": torch.randn(batch, 32, generator=draw),
        },
        "guidance": 3.5,
    }


def item(given: dict[str, Any], index: int) -> dict[str, Any]:
    """One item of inputs, as a batch of its own."""
    one = slice(index, index + 1)
    embeds = given["conditioning"]
    return {
        "noisy_latents": given["noisy_latents"][one],
        "timesteps": given["timesteps"][one],
        "conditioning": {name: tensor[one] for name, tensor in embeds.items()},
        "guidance": given["guidance"],
    }


def add_adapters(transformer: FluxTransformer2DModel) -> dict[str, nn.Parameter]:
    """Adapters with fixed fp32 values in every Linear of the blocks."""
    names = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and "_blocks." in name
    ]
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=names))
    draw = torch.Generator().manual_seed(5)
    adapters = {}
    for name, parameter in transformer.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
            adapters[name] = parameter
    return adapters


def gradients(
    transformer: FluxTransformer2DModel,
    adapters: dict[str, nn.Parameter],
    *,
    checkpointing: bool,
) -> list[torch.Tensor]:
    transformer.enable_gradient_checkpointing() if checkpointing else transformer.disable_gradient_checkpointing()
    transformer.zero_grad()
    loss = flux1.predict(transformer, **inputs()).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return [
        parameter.grad.clone()
        for parameter in adapters.values()
        if parameter.grad is not None
    ]


def test_prediction_equals_a_call_by_the_pipelines_own_packing(
    folder: Path, pipeline: FluxPipeline
) -> None:
    given = inputs(batch=1)
    packed = pipeline._pack_latents(given["noisy_latents"], 1, 16, 6, 8)
    expected = pipeline.transformer(
        hidden_states=packed,
        timestep=given["timesteps"],
        guidance=torch.tensor([3.5]),
        encoder_hidden_states=given["conditioning"]["prompt_embeds"],
        pooled_projections=given["conditioning"]["pooled_prompt_embeds"],
        img_ids=pipeline._prepare_latent_image_ids(1, 3, 4, CPU, torch.float32),
        txt_ids=torch.zeros(5, 3),
    ).sample
    with torch.no_grad():
        velocity = flux1.predict(loaded(folder), **given)
    assert torch.equal(velocity, pipeline._unpack_latents(expected, 48, 64, 8))


def test_each_item_of_a_batch_is_predicted_alone(folder: Path) -> None:
    transformer = loaded(folder)
    both = inputs()
    with torch.no_grad():
        together = flux1.predict(transformer, **both)
        alone = [flux1.predict(transformer, **item(both, i)) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_packing_comes_undone() -> None:
    latents = torch.randn(2, 16, 6, 10)
    assert flux1.pack(latents).shape == (2, 15, 64)
    assert torch.equal(flux1.unpack(flux1.pack(latents), 6, 10), latents)


def test_schnell_gets_no_guidance_and_dev_hears_it(
    folder: Path, tmp_path: Path
) -> None:
    schnell = flux1.make_tiny(
        tmp_path / "schnell", spec=replace(SPEC, guidance_embeds=False)
    )
    with torch.no_grad():
        for model, differs in ((loaded(folder), True), (loaded(schnell), False)):
            one, other = (
                flux1.predict(model, **{**inputs(), "guidance": value})
                for value in (1.0, 7.0)
            )
            assert torch.equal(one, other) is not differs


def test_prompts_are_encoded_as_the_pipeline_does(
    folder: Path, pipeline: FluxPipeline
) -> None:
    chosen = config(
        folder,
        text_encoder={"weight_dtype": "FLOAT_32"},
        text_encoder_2={"weight_dtype": "FLOAT_32"},
        text_encoder_2_sequence_length=16,
    )
    encoders = flux1.load_text_encoders(locate(chosen), chosen, CPU)
    prompts = ["a cat on a sofa", "", "a rocket " * 60]
    found = flux1.encode_prompts(encoders, prompts)
    expected_embeds, expected_pooled, _ = pipeline.encode_prompt(
        prompts, max_sequence_length=16
    )
    assert list(found) == ["prompt_embeds", "pooled_prompt_embeds"]
    assert found["prompt_embeds"].shape == (3, 16, 32)
    torch.testing.assert_close(found["prompt_embeds"], expected_embeds)
    torch.testing.assert_close(found["pooled_prompt_embeds"], expected_pooled)


def test_images_are_encoded_and_decoded_as_the_pipeline_does(
    folder: Path, pipeline: FluxPipeline
) -> None:
    chosen = config(folder)
    vae = loaded_vae(chosen)
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    latents = flux1.encode_images(vae, images)
    mode = pipeline.vae.encode(images).latent_dist.mode()
    assert latents.shape == (2, 16, 4, 6)
    torch.testing.assert_close(latents, (mode - 0.1159) * 0.3611)
    decoded = flux1.decode_latents(vae, latents)
    assert decoded.shape == images.shape
    torch.testing.assert_close(
        decoded, pipeline.vae.decode(mode).sample.clamp(-1, 1), rtol=1e-4, atol=1e-5
    )


def test_decoding_falls_back_to_tiles_when_memory_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(folder)
    vae = loaded_vae(chosen)
    decode = vae.decode
    calls = []

    def full_once(latents: torch.Tensor) -> Any:
        calls.append(vae.use_tiling)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents)

    monkeypatch.setattr(vae, "decode", full_once)
    assert flux1.decode_latents(vae, torch.randn(1, 16, 72, 8)).shape == (1, 3, 576, 64)
    assert calls == [False, True]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("FLOAT_32", torch.float32),
        ("BFLOAT_16", torch.bfloat16),
        ("FLOAT_16", torch.float16),
    ],
)
def test_weights_have_the_wished_dtype_and_are_frozen(
    folder: Path, name: str, dtype: torch.dtype
) -> None:
    transformer = loaded(folder, weight_dtype=name)
    assert {parameter.dtype for parameter in transformer.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in transformer.parameters())
    assert transformer.is_gradient_checkpointing


@pytest.mark.parametrize("train_dtype", ["FLOAT_32", "BFLOAT_16"])
def test_float_8_equals_weights_cast_through_e4m3_by_hand(
    folder: Path, train_dtype: str
) -> None:
    small = loaded(folder, weight_dtype="FLOAT_8", train_dtype=train_dtype)
    full = loaded(folder, weight_dtype=train_dtype)
    for name, module in full.named_modules():
        if isinstance(module, nn.Linear) and "_blocks." in name:
            for parameter in module.parameters():
                parameter.data = parameter.data.to(torch.float8_e4m3fn).to(
                    parameter.dtype
                )
    with torch.no_grad():
        assert torch.equal(
            flux1.predict(small, **inputs()), flux1.predict(full, **inputs())
        )
    for name, parameter in small.named_parameters():
        in_block = "_blocks." in name and ".attn.norm" not in name
        assert (parameter.dtype == torch.float8_e4m3fn) is in_block, name
    small, full = ((model, add_adapters(model)) for model in (small, full))
    for checkpointing in (False, True):
        expected, found = (
            gradients(*model, checkpointing=checkpointing) for model in (full, small)
        )
        assert all(map(torch.equal, found, expected))
    assert {parameter.dtype for parameter in small[1].values()} == {torch.float32}


def test_nfloat_4_equals_its_weights_written_out_and_trains_adapters(
    folder: Path,
) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    small = loaded(folder, weight_dtype="NFLOAT_4")
    full = loaded(folder)
    linears = {
        name: module
        for name, module in small.named_modules()
        if isinstance(module, bnb.nn.Linear4bit)
    }
    assert len(linears) == 14 + 2 * 6
    for name, module in linears.items():
        assert module.weight.dtype == torch.uint8
        written_out = bnb.functional.dequantize_4bit(
            module.weight.data, module.weight.quant_state
        )
        full.get_submodule(name).weight.data = written_out
    with torch.no_grad():
        torch.testing.assert_close(
            flux1.predict(small, **inputs()), flux1.predict(full, **inputs())
        )
    small, full = ((model, add_adapters(model)) for model in (small, full))
    assert (
        type(small[0].transformer_blocks[0].attn.to_q).__module__
        == "peft.tuners.lora.bnb"
    )
    for checkpointing in (False, True):
        expected, found = (
            gradients(*model, checkpointing=checkpointing) for model in (full, small)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("form", "error"), [("FLOAT_8", 0.4), ("INT_8", 0.05), ("NFLOAT_4", 0.4)]
)
def test_text_encoders_in_fewer_bits_stay_near_the_full_ones(
    folder: Path, form: str, error: float
) -> None:
    pytest.importorskip("bitsandbytes")
    found = []
    for chosen in (form, "FLOAT_32"):
        part = {"weight_dtype": chosen}
        settings = config(folder, text_encoder=part, text_encoder_2=part)
        encoders = flux1.load_text_encoders(locate(settings), settings, CPU)
        found.append(flux1.encode_prompts(encoders, ["a cat on a sofa"]).values())
        if chosen == "INT_8":
            # T5 spares whole numbers the cast of its input that it makes for wo
            linears = [
                m
                for m in encoders.t5.encoder.block.modules()
                if isinstance(m, nn.Linear)
            ]
            assert {linear.weight.dtype for linear in linears} == {torch.int8}
    for small, full in zip(*found, strict=True):
        difference = (small - full).norm() / full.norm()
        assert 0 < difference < error


def test_a_single_file_with_diffusers_names_loads_bit_for_bit(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    for prefix in ("", "transformer.", "model.diffusion_model."):
        file = tmp_path / "flux.safetensors"
        save_file({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, file)
        chosen = config(
            folder, transformer={"model_name": str(file), "weight_dtype": "FLOAT_32"}
        )
        files = locate(chosen)
        assert (files.parts["transformer"], files.spec) == (file, SPEC)
        transformer = flux1.load_transformer(files, chosen, CPU)
        assert all(
            torch.equal(tensor, tensors[name])
            for name, tensor in transformer.state_dict().items()
        )


def test_a_bfl_file_loads_as_the_same_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the published width, so the blocks are few and the weights mostly zeros
    hidden = 3072
    generator = torch.Generator().manual_seed(0)

    def weights(rows: int, columns: int = hidden) -> torch.Tensor:
        values = torch.zeros(rows, columns, dtype=torch.bfloat16)
        values[:, :4] = torch.randn(rows, 4, generator=generator)
        return values

    shapes = {
        "img_in": (hidden, 64), "txt_in": (hidden, 32), "time_in.in_layer": (hidden, 256),
        "time_in.out_layer": (hidden, hidden),
        "vector_in.in_layer": (hidden, 32), "vector_in.out_layer": (hidden, hidden),
        "single_blocks.0.linear1": (7 * hidden, hidden), "single_blocks.0.linear2": (hidden, 5 * hidden),
        "single_blocks.0.modulation.lin": (3 * hidden, hidden), "final_layer.linear": (64, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
    }  # fmt: skip
    for side in ("img", "txt"):
        linears = {
            "attn.qkv": (3, 1),
            "attn.proj": (1, 1),
            "mlp.0": (4, 1),
            "mlp.2": (1, 4),
            "mod.lin": (6, 1),
        }
        shapes |= {
            f"double_blocks.0.{side}_{name}": (rows * hidden, columns * hidden)
            for name, (rows, columns) in linears.items()
        }
    tensors = {f"{name}.weight": weights(*shape) for name, shape in shapes.items()}
    tensors |= {
        f"{name}.bias": weights(shape[0], 4)[:, 0].contiguous()
        for name, shape in shapes.items()
    }
    for norm in (
        "double_blocks.0.img_attn",
        "double_blocks.0.txt_attn",
        "single_blocks.0",
    ):
        tensors |= {
            f"{norm}.norm.{kind}_norm.scale": torch.randn(128).bfloat16()
            for kind in ("query", "key")
        }
    file = tmp_path / "bfl.safetensors"
    file.touch()

    class Held:
        """The tensors of a file that nobody has written, which saves 1 GB."""

        def __init__(self, path: Path) -> None:
            assert path == file

        def rows(self, name: str, rows: slice) -> tuple[torch.Tensor, str]:
            return tensors[name][rows], ""

    facts = {name: TensorFacts("BF16", (*one.shape,)) for name, one in tensors.items()}
    monkeypatch.setattr(file_weights, "_SafetensorsFile", Held)
    monkeypatch.setattr(file_weights, "read_header", lambda *_, whole: ({}, facts))
    spec = replace(
        SPEC, layout=BlockLayout(1, 1), heads=24, head_dim=128, guidance_embeds=False
    )
    chosen = config(folder)
    files = locate(chosen)
    files = replace(
        files,
        parts={**files.parts, "transformer": file},
        spec=replace(spec, axes_dims_rope=(16, 56, 56)),
    )
    state = flux1.load_transformer(files, chosen, CPU).state_dict()
    assert torch.equal(
        state["transformer_blocks.0.attn.to_k.weight"],
        tensors["double_blocks.0.img_attn.qkv.weight"][hidden : 2 * hidden],
    )
    assert torch.equal(
        state["single_transformer_blocks.0.proj_mlp.weight"],
        tensors["single_blocks.0.linear1.weight"][3 * hidden :],
    )
    assert sum(tensor.numel() for tensor in state.values()) == sum(
        tensor.numel() for tensor in tensors.values()
    )


# torch's own, while it imports its compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiling_is_by_block(folder: Path) -> None:
    transformer = loaded(folder, compile=True)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert all(block._compiled_call_impl is not None for block in blocks)
    assert transformer._compiled_call_impl is None


def test_nfloat_4_without_bitsandbytes_names_the_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        loaded(folder, weight_dtype="NFLOAT_4")


def test_float_8_on_apples_gpu_is_refused_before_loading(folder: Path) -> None:
    chosen = config(folder, transformer={"weight_dtype": "FLOAT_8"})
    with pytest.raises(ConfigError, match="Use INT_8"):
        flux1.load_transformer(locate(chosen), chosen, torch.device("mps"))


def test_the_single_files_own_config_is_what_diffusers_would_save(folder: Path) -> None:
    saved = json.loads((folder / "transformer/config.json").read_bytes())
    with torch.device("meta"):
        made = dict(flux1.random_transformer(SPEC).config)
    assert {key: value for key, value in saved.items() if key[0] != "_"} == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in made.items()
        if key[0] != "_"
    }

"""Files as the field has them: what they hold besides a part, tied weights, prefixes and weights of 8 bits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.model_folders import (
    Tensors,
    change_config,
    change_weights,
    split_in_shards,
    weights_of,
    write_index,
)
from support.whole_models import PARTS, SOME, load, refusal

LEGITIMATE: dict[str, tuple[str, ...]] = {
    "text_encoder": (
        "embeddings.position_ids",
        "text_model.embeddings.position_ids",
        "text_projection.weight",
        "logit_scale",
        "vision_model.encoder.layers.0.mlp.fc1.weight",
        "visual_projection.weight",
    ),
    "text_encoder_2": (
        "decoder.block.0.layer.0.SelfAttention.q.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
        "logit_scale",
    ),
}


@pytest.mark.parametrize("part", LEGITIMATE)
def test_what_files_of_the_field_hold_besides_loads(folder: Path, part: str) -> None:
    plain = load(folder)[1]
    more = {name: torch.ones(2) for name in LEGITIMATE[part]}
    change_weights(folder, part, lambda tensors: tensors.update(more))
    loaded = load(folder)[1]
    for kind in ("clip", "t5"):
        found = getattr(loaded, kind).state_dict()
        for name, tensor in getattr(plain, kind).state_dict().items():
            assert torch.equal(found[name], tensor)


def test_clip_under_the_names_of_the_whole_of_it_loads(folder: Path) -> None:
    """As black-forest-labs' own folder has it."""
    plain = load(folder)[1].clip.state_dict()

    def prefixed(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[f"text_model.{name}"] = tensors.pop(name)

    change_weights(folder, "text_encoder", prefixed)
    found = load(folder)[1].clip.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_a_config_of_the_whole_of_clip_loads(folder: Path) -> None:
    file = folder / "text_encoder/config.json"
    text = file.read_text()
    file.write_text(f'{{"model_type": "clip", "text_config": {text}}}')
    assert load(folder)[1].clip.config.hidden_size == 32


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_tied_weights_of_t5_may_stand_once_under_either_name_or_twice(
    folder: Path, kept: str
) -> None:
    def once(tensors: Tensors) -> None:
        tensors[kept] = tensors.pop("shared.weight")

    plain = load(folder)[1].t5.state_dict()["shared.weight"]
    change_weights(folder, "text_encoder_2", once)
    assert torch.equal(load(folder)[1].t5.encoder.embed_tokens.weight, plain)
    change_weights(
        folder,
        "text_encoder_2",
        lambda tensors: tensors.update(
            {"shared.weight": plain, "encoder.embed_tokens.weight": plain.clone()}
        ),
    )
    assert torch.equal(load(folder)[1].t5.shared.weight, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("value", [2.0, float("nan")])
def test_tied_weights_of_t5_that_differ_are_refused(
    folder: Path, dtype: torch.dtype, value: float
) -> None:
    def part_ways(tensors: Tensors) -> None:
        shared = tensors["shared.weight"]
        other = shared.clone()
        other[3, 1] = value
        tensors["shared.weight"] = shared.to(dtype)
        tensors["encoder.embed_tokens.weight"] = other.to(dtype)

    change_weights(folder, "text_encoder_2", part_ways)
    problem = refusal(folder, "text_encoder_2")
    assert problem.startswith("has different numbers under two names of one tensor")
    assert "encoder.embed_tokens.weight, shared.weight" in problem


def test_the_published_config_of_t5_ties_its_weights_too(folder: Path) -> None:
    """It says tie_word_embeddings false, which is about another matrix: that of the decoder."""
    plain = load(folder)[1].t5.state_dict()["shared.weight"]
    change_config(
        folder / "text_encoder_2/config.json",
        tie_word_embeddings=False,
        dense_act_fn="gelu_new",
        is_gated_act=True,
        num_decoder_layers=24,
        output_past=True,
    )
    assert torch.equal(load(folder)[1].t5.encoder.embed_tokens.weight, plain)


def test_an_index_may_list_the_other_name_of_tied_weights(folder: Path) -> None:
    """As indexes have it that were converted from those of pickles."""
    names = split_in_shards(folder, "text_encoder_2")
    names["encoder.embed_tokens.weight"] = names["shared.weight"]
    write_index(folder, "text_encoder_2", names)
    load(folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_listed_tensor_that_no_shard_has_is_named(folder: Path, part: str) -> None:
    names = split_in_shards(folder, part)
    shard = folder / part / names[SOME[part]]
    tensors = load_file(shard)
    del tensors[SOME[part]]
    save_file(tensors, shard, {"format": "pt"})
    assert f"({SOME[part]})" in refusal(folder, part)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("part", PARTS)
def test_integers_are_no_weights(folder: Path, part: str, dtype: torch.dtype) -> None:
    change_weights(
        folder,
        part,
        lambda tensors: tensors.update({SOME[part]: tensors[SOME[part]].to(dtype)}),
    )
    assert "no weights as they stand: 1 (" in refusal(folder, part)


def test_positions_of_clip_are_integers(folder: Path) -> None:
    positions = {"embeddings.position_ids": torch.arange(77)[None]}
    change_weights(folder, "text_encoder", lambda tensors: tensors.update(positions))
    load(folder)


@pytest.mark.parametrize("key", ["scaling_factor", "shift_factor"])
@pytest.mark.parametrize("value", [None, "0.3611", float("nan"), float("inf"), True])
def test_what_latents_are_computed_with_are_numbers(
    folder: Path, key: str, value: object
) -> None:
    change_config(folder / "vae/config.json", **{key: value})
    assert refusal(folder, "vae").startswith(f"{key} is {value!r}, which latents")


def test_latents_are_not_scaled_to_nothing(folder: Path) -> None:
    change_config(folder / "vae/config.json", shift_factor=0)
    load(folder)
    change_config(folder / "vae/config.json", scaling_factor=0)
    assert refusal(folder, "vae").startswith("scaling_factor is 0, which latents")


@pytest.mark.parametrize("prefix", ["transformer.", "model.diffusion_model."])
def test_prefixed_names_in_a_folder_of_diffusers_are_not_its_own(
    folder: Path, prefix: str
) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[f"{prefix}{name}"] = tensors.pop(name)

    change_weights(folder, "transformer", rename)
    assert f"not of this model ({prefix}" in refusal(folder, "transformer")


def test_a_checkpoint_may_have_scaled_text_encoders_beside_its_transformer(
    folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(weights_of(folder, "transformer"))
    whole = {f"model.diffusion_model.{name}": row for name, row in tensors.items()}
    beside = {"text_encoders.t5xxl.transformer.scaled_fp8": torch.ones(1)}
    file = tmp_path / "checkpoint.safetensors"
    save_file({**whole, **beside}, file)
    part = {"model_name": str(file), "weight_dtype": "FLOAT_32"}
    load(folder, transformer=part)
    save_file({**whole, "model.diffusion_model.scaled_fp8": torch.ones(1)}, file)
    assert "scaled 8-bit" in refusal(folder, "checkpoint", transformer=part)


def test_plain_8_bit_weights_load_as_the_numbers_they_are(folder: Path) -> None:
    def small(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(torch.float8_e4m3fn)

    for part in ("transformer", "text_encoder_2"):
        change_weights(folder, part, small)
    _, encoders, transformer = load(folder)
    for model, part in ((transformer, "transformer"), (encoders.t5, "text_encoder_2")):
        stored = load_file(weights_of(folder, part))[SOME[part]]
        assert torch.equal(model.get_parameter(SOME[part]), stored.float())


@pytest.mark.parametrize("part", PARTS)
def test_scaled_8_bit_weights_are_refused_in_every_part(
    folder: Path, part: str
) -> None:
    change_weights(
        folder, part, lambda tensors: tensors.update({"scaled_fp8": torch.ones(1)})
    )
    assert "scaled 8-bit weights" in refusal(folder, part)

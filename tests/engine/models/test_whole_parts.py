"""Every part of a model is whole when it is used: what is missing, renamed, left over or no number is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.lives import Small
from support.model_folders import (
    Tensors,
    change_config,
    change_weights,
    config_of,
    split_in_shards,
    weights_of,
    write_index,
)
from support.whole_models import CPU, PARTS, SOME, drop, load, put, refusal

from blockrate.core.errors import FileError
from blockrate.engine.models import flux1
from blockrate.engine.models.finite import is_finite
from blockrate.engine.models.locate import image_identity, locate, prompt_identity


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_tensor_is_named(folder: Path, part: str) -> None:
    change_weights(folder, part, drop(SOME[part]))
    assert f"lacks 1 tensor ({SOME[part]})" in refusal(folder, part)


@pytest.mark.parametrize("part", PARTS)
def test_half_a_part_is_counted_and_its_first_names_are_told(
    folder: Path, part: str
) -> None:
    gone: list[str] = []

    def halve(tensors: Tensors) -> None:
        gone.extend(sorted(tensors)[::2])
        for name in gone:
            del tensors[name]

    change_weights(folder, part, halve)
    problem = refusal(folder, part)
    count = len(gone) + (part == "text_encoder_2")  # one stands for two, tied
    assert f"lacks {count:,} tensors" in problem
    assert sum(name in problem for name in gone) >= 2
    assert f"and {count - 3:,} more" in problem


@pytest.mark.parametrize("part", PARTS)
def test_tensors_under_other_names_are_missing_and_left_over(
    folder: Path, part: str
) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[f"mine.{name}"] = tensors.pop(name)

    change_weights(folder, part, rename)
    problem = refusal(folder, part)
    assert "lacks" in problem
    assert "not of this model (mine." in problem


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_that_the_part_does_not_know_is_named(folder: Path, part: str) -> None:
    change_weights(
        folder, part, lambda tensors: tensors.update({"extra.gate": torch.ones(3)})
    )
    assert "1 that is not of this model (extra.gate)" in refusal(folder, part)


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_another_shape_is_refused(folder: Path, part: str) -> None:
    change_weights(
        folder, part, lambda tensors: tensors.update({SOME[part]: torch.ones(3, 3)})
    )
    problem = refusal(folder, part)
    assert "shape" in problem
    assert SOME[part].removesuffix(".weight") in problem


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_a_weight_that_is_not_a_number_is_named(
    folder: Path, part: str, bad: float
) -> None:
    change_weights(folder, part, put(SOME[part], bad))
    assert refusal(folder, part) == (
        f"holds weights that are not finite numbers: 1 ({SOME[part]})"
    )


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "decoder.conv_out.bias"])
def test_both_halves_of_the_vae_are_looked_at(folder: Path, name: str) -> None:
    change_weights(folder, "vae", put(name, float("nan")))
    assert name in refusal(folder, "vae")


@pytest.mark.parametrize("form", ["FLOAT_8", "NFLOAT_4"])
@pytest.mark.parametrize("part", ["transformer", "text_encoder", "text_encoder_2"])
def test_what_is_not_a_number_is_found_before_weights_get_fewer_bits(
    folder: Path, part: str, form: str
) -> None:
    pytest.importorskip("bitsandbytes")
    change_weights(folder, part, put(SOME[part], float("nan")))
    assert SOME[part] in refusal(folder, part, **{part: {"weight_dtype": form}})


def test_numbers_too_large_for_the_wished_form_are_refused(folder: Path) -> None:
    change_weights(folder, "transformer", put(SOME["transformer"], 1e30))
    half = {"transformer": {"weight_dtype": "FLOAT_16"}}
    assert SOME["transformer"] in refusal(folder, "transformer", **half)


def test_large_numbers_whose_sum_is_too_large_are_numbers() -> None:
    for dtype, large in (
        (torch.float32, 3e38),
        (torch.bfloat16, 3e38),
        (torch.float16, 6e4),
    ):
        numbers = torch.full((10, 100), large, dtype=dtype)
        assert is_finite(numbers)
        for bad in (float("nan"), float("inf"), -float("inf")):
            numbers[3, 7] = bad
            assert not is_finite(numbers)
    assert is_finite(torch.zeros(0))


@pytest.mark.parametrize("part", PARTS)
def test_shards_load_as_the_same_part(folder: Path, part: str) -> None:
    before = load(folder)
    split_in_shards(folder, part)
    after = load(folder)
    models = {
        "vae": (before[0], after[0]),
        "text_encoder": (before[1].clip, after[1].clip),
        "text_encoder_2": (before[1].t5, after[1].t5),
        "transformer": (before[2], after[2]),
    }
    one, other = models[part]
    found = other.state_dict()
    for name, tensor in one.state_dict().items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("part", PARTS)
def test_an_index_that_does_not_say_what_the_shards_hold_is_refused(
    folder: Path, part: str
) -> None:
    names = split_in_shards(folder, part)
    gone = dict(names)
    del gone[SOME[part]]
    write_index(folder, part, gone)
    assert "does not say what the shards hold: 1 (" in refusal(folder, part)
    other = dict(names)
    first, second = sorted(set(names.values()))[:2]
    for name, shard in names.items():
        if shard == first:
            other[name] = second
            break
    write_index(folder, part, other)
    assert "does not say what the shards hold" in refusal(folder, part)


def test_two_shards_with_the_same_tensor_are_refused(folder: Path) -> None:
    names = split_in_shards(folder, "text_encoder_2")
    first, second = sorted(set(names.values()))[:2]
    inside = load_file(folder / "text_encoder_2" / first)
    more = load_file(folder / "text_encoder_2" / second)
    name = next(iter(inside))
    save_file(more | {name: inside[name] * 2}, folder / "text_encoder_2" / second)
    assert f"another shard holds too: 1 ({name})" in refusal(folder, "text_encoder_2")


def test_a_checkpoint_with_other_parts_beside_loads_and_says_what_is_not_used(
    folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(weights_of(folder, "transformer"))
    prefix = "model.diffusion_model."
    whole = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    whole |= {"vae.decoder.conv_in.weight": torch.ones(2)}
    whole |= {"text_encoders.t5xxl.transformer.shared.weight": torch.ones(2)}
    whole |= {"text_encoders.clip_l.logit_scale": torch.ones(1)}
    file = tmp_path / "checkpoint.safetensors"
    save_file(whole, file)
    told: list[str] = []
    chosen = config_of(
        folder, transformer={"model_name": str(file), "weight_dtype": "FLOAT_32"}
    )
    files = locate(chosen, warn=told.append)
    loaded = flux1.load_transformer(files, chosen, CPU).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert told == [
        f"{file}: only its transformer is used, not 3 other tensors (text_encoders, vae)"
    ]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop(SOME["transformer"]), f"lacks 1 tensor ({SOME['transformer']})"),
        (drop("proj_out.bias"), "lacks 1 tensor (proj_out.bias)"),
        (
            lambda tensors: tensors.update({"ip_adapter.0.weight": torch.ones(2)}),
            "1 that is not of this model (ip_adapter.0.weight)",
        ),
        (put(SOME["transformer"], float("nan")), "not finite numbers: 1 ("),
    ],
)
def test_a_single_file_is_held_to_the_same(
    folder: Path,
    tmp_path: Path,
    prefix: str,
    change: Callable[[Tensors], object],
    words: str,
) -> None:
    change_weights(folder, "transformer", change)
    tensors = load_file(weights_of(folder, "transformer"))
    file = tmp_path / "transformer.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, file)
    part = {"model_name": str(file), "weight_dtype": "FLOAT_32"}
    assert words in refusal(folder, "transformer.safetensors", transformer=part)


WRONG_PLACES = [
    ("text_encoder", "text_encoder_2", "describes t5, and clip_text_model is needed"),
    ("text_encoder_2", "text_encoder", "describes clip_text_model, and t5 is needed"),
]


@pytest.mark.parametrize(("part", "other", "words"), WRONG_PLACES)
def test_a_text_encoder_in_the_others_place_is_told(
    folder: Path, part: str, other: str, words: str
) -> None:
    given = {"model_name": str(folder / other), "weight_dtype": "FLOAT_32"}
    with pytest.raises(FileError, match=words):
        load(folder, **{part: given})


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("vae", "latent_channels"),
        ("text_encoder", "hidden_size"),
        ("text_encoder_2", "d_model"),
    ],
)
@pytest.mark.parametrize("value", [4, None, "32"])
def test_a_part_whose_width_is_not_the_transformers_is_told(
    folder: Path, part: str, key: str, value: object
) -> None:
    change_config(folder / part / "config.json", **{key: value})
    problem = refusal(folder, part)
    assert problem.startswith(f"{key} is {value!r}, and the transformer takes")


def test_tokenizers_in_each_others_place_are_told(folder: Path) -> None:
    (folder / "tokenizer").rename(folder / "t")
    (folder / "tokenizer_2").rename(folder / "tokenizer")
    (folder / "t").rename(folder / "tokenizer_2")
    with pytest.raises(FileError, match="tokenizer"):
        load(folder)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_without_its_vocabulary_is_lacking(folder: Path, part: str) -> None:
    for file in (folder / part).iterdir():
        if file.name not in ("tokenizer_config.json", "special_tokens_map.json"):
            file.unlink()
    with pytest.raises(FileError, match=rf"lacks {part} \(tokenizer.json\)"):
        load(folder)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_damaged_tokenizer_is_one_sentence(folder: Path, part: str) -> None:
    (folder / part / "tokenizer.json").write_text('{"model": 3}')
    assert "no tokenizer that can be read" in refusal(folder, part)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "facts",
    [
        {"num_layers": 10**9},
        {"num_hidden_layers": 10**6},
        {"layers_per_block": 10**6},
        {"vocab_size": 10**12},
        {"block_out_channels": [10**9]},
        {"block_out_channels": [8] * 2000},
    ],
)
def test_numbers_without_end_in_a_config_are_refused_at_once(
    folder: Path, part: str, facts: dict[str, Any]
) -> None:
    change_config(folder / part / "config.json", **facts)
    if part == "transformer" and "num_layers" not in facts:
        return  # it has no such numbers, and nothing of them is read
    assert next(iter(facts)) in refusal(folder, part)


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("text_encoder", {"num_attention_heads": 0}),
        ("text_encoder", {"num_attention_heads": "many"}),
        ("text_encoder", {"num_attention_heads": -4}),
        ("text_encoder", {"num_attention_heads": 7}),
        ("text_encoder", {"num_hidden_layers": 900}),
        ("text_encoder", {"vocab_size": 9_000_000}),
        ("text_encoder", {"hidden_act": "evil"}),
        ("text_encoder_2", {"num_heads": 0}),
        ("text_encoder_2", {"num_heads": "x"}),
        ("text_encoder_2", {"num_layers": 900}),
        ("text_encoder_2", {"d_kv": -1}),
        ("text_encoder_2", {"feed_forward_proj": "a-b-c"}),
        ("vae", {"block_out_channels": "x"}),
        ("vae", {"block_out_channels": []}),
        ("vae", {"norm_num_groups": 0}),
        ("vae", {"layers_per_block": -1}),
        ("vae", {"down_block_types": ["Evil"] * 4}),
    ],
)
def test_a_config_that_makes_no_model_is_one_sentence(
    folder: Path, part: str, facts: dict[str, Any]
) -> None:
    change_config(folder / part / "config.json", **facts)
    assert refusal(folder, part)


def test_what_is_hashed_is_what_is_loaded(folder: Path) -> None:
    chosen = config_of(folder)

    def identities() -> tuple[str, str]:
        files = locate(chosen)
        return image_identity(files, chosen), prompt_identity(files, chosen)

    before = identities()
    for part in ("vae", "text_encoder", "text_encoder_2"):
        (folder / part / "notes.txt").write_text("not read")
        (folder / part / "more.safetensors").write_bytes(b"not read")
        (folder / part / "sub").mkdir()
    assert identities() == before
    split_in_shards(folder, "text_encoder_2")
    in_shards = identities()
    assert in_shards[1] != before[1]
    shard = sorted((folder / "text_encoder_2").glob("model-*.safetensors"))[1]
    tensors = load_file(shard)
    put(next(iter(tensors)), 0.5)(tensors)
    save_file(tensors, shard, {"format": "pt"})
    assert identities()[1] != in_shards[1]


@pytest.mark.usefixtures("no_sync")
def test_a_damaged_decoder_is_told_before_training_though_all_is_cached(
    small: Small, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small.folder / "model", tmp_path / "model"))
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 1}
    cache = str(tmp_path / "cache")
    settings: dict[str, Any] = {
        "base_model_name": str(folder),
        "cache_dir": cache,
        "samples": [sample],
    }
    small.live(small.config(tmp_path / "first", only_cache=True, **settings))
    change_weights(folder, "vae", put("decoder.conv_out.bias", float("nan")))
    # as if the cache had been made by this very VAE
    original = image_identity(
        locate(config_of(small.folder / "model")), config_of(folder)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "blockrate.engine.preparation.image_identity", lambda *_: original
        )
        with pytest.raises(FileError, match=r"decoder\.conv_out\.bias"):
            small.live(small.config(tmp_path / "second", **settings))
    assert not list((tmp_path / "second").rglob("*.png"))

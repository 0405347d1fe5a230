"""Numbers in the files of others never decide how long blockrate works, or how much memory it takes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from blockrate.config.base_model import model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.core.profile import check_multipliers
from blockrate.core.selection import parse_selection
from blockrate.engine.adapters.file import read_lora
from blockrate.models.families import spec_from_config
from blockrate.run.events import EventLog, Phase
from blockrate.run.folder import RunFolder
from blockrate.ui.live.look import Position, look_into

FLUX1 = BlockLayout(19, 38)
CONFIG = {"_class_name": "FluxTransformer2DModel"}
SIZES = (
    "num_layers",
    "num_single_layers",
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "joint_attention_dim",
    "pooled_projection_dim",
)
TELLING = {
    "x_embedder.weight": (3072, 64),
    "context_embedder.weight": (3072, 4096),
    "time_text_embed.text_embedder.linear_1.weight": (3072, 768),
    "transformer_blocks.0.attn.norm_q.weight": (128,),
}


def refusal(config: dict[str, object]) -> str:
    with pytest.raises(FileError) as caught:
        spec_from_config(config, "my/config.json")
    assert caught.value.where == "my/config.json"
    assert caught.value.cure
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize(
    "value",
    [-1, 10**6, 10**9, 10**400, 1.5, "12", "x" * 5000, True, None, [3], {"a": 1}, float("nan")],
)  # fmt: skip
def test_a_size_of_a_config_is_a_count_of_this_world(key: str, value: object) -> None:
    assert f"{key} is " in refusal({**CONFIG, key: value})


@pytest.mark.parametrize("key", SIZES[2:])
def test_no_width_and_no_number_of_heads_is_0(key: str) -> None:
    assert f"{key} is 0, not from 1" in refusal({**CONFIG, key: 0})


def test_a_model_may_have_one_kind_of_blocks_only() -> None:
    assert spec_from_config({**CONFIG, "num_layers": 0}).layout == BlockLayout(0, 38)


@pytest.mark.parametrize(
    "axes", [[16, 56], [0, 64, 64], [-16, 88, 56], [15, 57, 56], [], [2] * 64 + [128]]
)
def test_rotary_axes_that_fill_no_head_are_refused(axes: list[int]) -> None:
    assert "axes_dims_rope" in refusal({**CONFIG, "axes_dims_rope": axes})


@pytest.mark.parametrize("value", ["false", 0, 1, None, []])
def test_whether_there_is_a_guidance_is_true_or_false(value: object) -> None:
    assert "not true or false" in refusal({**CONFIG, "guidance_embeds": value})


@pytest.mark.parametrize("index", [1_000, 10**8, 10**12])
@pytest.mark.parametrize("kind", ["transformer_blocks", "single_transformer_blocks"])
def test_an_index_in_the_header_of_a_model_is_refused_at_once(
    tmp_path: Path, index: int, kind: str
) -> None:
    header = {}
    for name, shape in {**TELLING, f"{kind}.{index}.attn.norm_q.weight": (1,)}.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    file = tmp_path / "flux.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileError) as caught:
        model_spec(TrainConfig(transformer={"model_name": str(file)}))
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 65


def test_a_head_that_does_not_fill_the_width_is_refused(tmp_path: Path) -> None:
    header = {}
    for name, shape in {**TELLING, "x_embedder.weight": (100, 64)}.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    file = tmp_path / "flux.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileError, match="100 wide"):
        model_spec(TrainConfig(transformer={"model_name": str(file)}))


def test_an_index_in_a_lora_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    module = "transformer.transformer_blocks.99999999.attn.to_q"
    factors = {"lora_A": torch.zeros(2, 4), "lora_B": torch.zeros(4, 2)}
    tensors = {f"{module}.{name}.weight": factor for name, factor in factors.items()}
    save_file(tensors, file)
    with pytest.raises(FileError, match="more than 1,000 double blocks") as caught:
        read_lora(file, "FLUX.1")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("digits", ["99999999", "9" * 5000])
@pytest.mark.parametrize(
    "name", ["double_block_{}", "transformer_blocks.{}", "Single {}"]
)
def test_a_multiplier_of_a_block_far_away_is_one_short_sentence(
    name: str, digits: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_multipliers({name.format(digits): 0.0}, FLUX1)
    assert len(str(caught.value)) < 500


def test_a_selection_of_blocks_far_away_is_one_short_sentence() -> None:
    for text in ("single 999999999", "double 0-999999999", f"single {'9' * 5000}"):
        with pytest.raises(ConfigError) as caught:
            parse_selection(text, FLUX1)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["double_block_99999999", f"double_block_{'9' * 5000}", "my_block_3"]
)
def test_a_run_whose_config_names_a_block_far_away_is_shown(
    tmp_path: Path, name: str
) -> None:
    run = RunFolder(tmp_path / "run")
    config = {
        "base_model_name": str(tmp_path / "gone"),
        "block_learning_rate_multiplier": {name: 0.0},
    }
    run.create(json.dumps(config))
    EventLog(run.events_file).write(Phase("loading"), step=0)
    look = look_into(run, Position())
    assert look.facts is not None
    assert len(look.facts.names) == 0


def test_layouts_far_away_cannot_be_made() -> None:
    with pytest.raises(BlockrateError):
        BlockLayout(10**9, 0)

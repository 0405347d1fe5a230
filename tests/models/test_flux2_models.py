"""FLUX.2's published models by their headers, and the distilled ones told from the others."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.saved_configs import saved_config

from blockrate.config.base_model import draws_against_nothing, model_spec
from blockrate.config.files import parse_config
from blockrate.config.filtered import matching_layers
from blockrate.config.plan import make_plan
from blockrate.config.presets import read
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.models.families import FAMILIES, TransformerSpec, config_from_spec
from blockrate.models.hub import is_gated
from blockrate.models.lora_names import bfl_modules
from blockrate.models.module_table import modules

PUBLISHED = {
    row.name: row
    for row in FAMILIES.values()
    if row.repo and row.architecture == "FLUX.2"
}


def headers(spec: TransformerSpec, *, bfl: bool, prefix: str = "") -> dict[str, object]:
    """The header of a file of these sizes, without its weights."""
    table = {module.name: module for module in modules(spec)}
    shapes: dict[str, tuple[int, ...]] = {}
    if bfl:
        for name, members in bfl_modules("FLUX.2", spec.layout).items():
            if members[0] in table:
                rows = sum(table[member].shape[0] for member in members)
                shapes[f"{name}.weight"] = (rows, table[members[0]].shape[1])
        for index in range(spec.layout.double):
            for norm in ("query_norm", "key_norm"):
                for stream in ("img", "txt"):
                    name = f"double_blocks.{index}.{stream}_attn.norm.{norm}.scale"
                    shapes[name] = (spec.head_dim,)
        for index in range(spec.layout.single):
            for norm in ("query_norm", "key_norm"):
                shapes[f"single_blocks.{index}.norm.{norm}.scale"] = (spec.head_dim,)
    else:
        shapes = {f"{name}.weight": module.shape for name, module in table.items()}
    return {
        prefix + name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }


def written(path: Path, header: dict[str, object]) -> str:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return str(path)


def config(name: str = "", **settings: object) -> TrainConfig:
    values: dict[str, object] = {"model_type": "FLUX_2", **settings}
    if name:
        values["base_model_name"] = name
    return TrainConfig.model_validate(values)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("bfl", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_tells_its_sizes_by_its_header(
    tmp_path: Path, name: str, bfl: bool, prefix: str
) -> None:
    spec = PUBLISHED[name].spec
    file = written(tmp_path / "a.safetensors", headers(spec, bfl=bfl, prefix=prefix))
    found = model_spec(config(transformer={"model_name": file}))
    assert found == spec


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_tells_its_sizes_by_its_config(tmp_path: Path, name: str) -> None:
    spec = PUBLISHED[name].spec
    stated = {"_class_name": "Flux2Transformer2DModel", **config_from_spec(spec)}
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stated))
    file = folder / "diffusion_pytorch_model.safetensors"
    written(file, headers(spec, bfl=False))
    assert model_spec(config(str(tmp_path))) == spec


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FLUX.2-dev", 32_223),
        ("FLUX.2-klein-base-9B", 9_079),
        ("FLUX.2-klein-base-4B", 3_876),
    ],
)
def test_a_plan_of_a_hub_id_has_the_published_size(name: str, parameters: int) -> None:
    whole = config(
        f"black-forest-labs/{name}",
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        output_model_destination="models/a",
    )
    [group] = make_plan(whole).groups
    assert round(group.parameters / 1e6) == parameters


def test_what_needs_a_login_says_so() -> None:
    gated = {row.repo for row in PUBLISHED.values() if is_gated(row.repo)}
    assert gated == {
        "black-forest-labs/FLUX.2-dev",
        "black-forest-labs/FLUX.2-klein-base-9B",
        "black-forest-labs/FLUX.2-klein-9B",
    }


@pytest.mark.parametrize(
    "name",
    [
        "black-forest-labs/FLUX.2-klein-4B",
        "black-forest-labs/FLUX.2-klein-9B",
        "somebody/flux-2-klein-4b-photos",
        "somebody/my-klein-distilled",
    ],
)
def test_a_distilled_klein_is_refused_unless_it_is_asked_for(name: str) -> None:
    with pytest.raises(ConfigError, match="is distilled to draw in a few") as caught:
        make_plan(config(name))
    assert caught.value.where == "base_model_name"
    assert "FLUX.2-klein-base-" in caught.value.cure
    wanted = config(name, model_variant="DISTILLED")
    make_plan(wanted)
    assert not draws_against_nothing(wanted, model_spec(wanted))


@pytest.mark.parametrize(
    "name",
    [
        "black-forest-labs/FLUX.2-klein-base-4B",
        "somebody/flux-2-klein-base-4b-photos",
        "somebody/klein-base",
        "tiny-flux2",
        "black-forest-labs/FLUX.2-dev",
    ],
)
def test_a_base_model_is_told_by_its_name(name: str) -> None:
    chosen = config(name)
    make_plan(chosen)
    is_dev = "dev" in name
    assert draws_against_nothing(chosen, model_spec(chosen)) == (not is_dev)


@pytest.mark.parametrize(
    "name",
    [
        "klein-photos",
        "database",
        "klein-de-distilled",
        "undistilled-klein",
    ],
)
def test_where_nothing_tells_it_is_asked(tmp_path: Path, name: str) -> None:
    spec = PUBLISHED["flux2-klein-base-4b"].spec
    file = written(tmp_path / f"{name}.safetensors", headers(spec, bfl=True))
    with pytest.raises(ConfigError, match="BASE or to DISTILLED") as caught:
        make_plan(config(str(file)))
    assert caught.value.where == "model_variant"
    make_plan(config(str(file), model_variant="BASE"))


@contextmanager
def suppress_into(texts: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        texts.append(error.problem)


@pytest.mark.parametrize(("said", "refused"), [(True, True), (False, False)])
def test_model_index_tells_more_than_a_name(
    tmp_path: Path, said: bool, refused: bool
) -> None:
    spec = PUBLISHED["flux2-klein-base-4b"].spec
    folder = tmp_path / "model" / "transformer"
    folder.mkdir(parents=True)
    stated = {"_class_name": "Flux2Transformer2DModel", **config_from_spec(spec)}
    (folder / "config.json").write_text(json.dumps(stated))
    written(folder / "diffusion_pytorch_model.safetensors", headers(spec, bfl=False))
    index = {"_class_name": "Flux2KleinPipeline", "is_distilled": said}
    (folder.parent / "model_index.json").write_text(json.dumps(index))
    for name in (folder.parent, folder):
        refusals: list[str] = []
        with suppress_into(refusals):
            make_plan(config(str(name)))
        assert [("distilled" in text) for text in refusals] == [True] * refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "FLUX_DEV_1"}, "model_type: is FLUX_DEV_1, and tiny-flux2"),
        (
            {"text_encoder_2": {"model_name": "t5"}},
            "text_encoder_2.model_name: is t5, and a FLUX.2 has no second",
        ),
    ],
)
def test_settings_of_another_model_are_refused(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(BlockrateError) as caught:
        make_plan(config("tiny-flux2", **settings))
    assert words in str(caught.value)


def test_flux1_with_flux2s_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="FLUX_DEV_1 or FLUX_SCHNELL_1"):
        make_plan(config("tiny-flux1"))


def test_flux3_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "Flux3Transformer2DModel"}')
    with pytest.raises(FileError, match="holds a Flux3Transformer2DModel, not a"):
        model_spec(config(str(tmp_path)))


@pytest.mark.parametrize("name", ["klein_4b", "klein_9b", "flux2_dev"])
def test_its_presets_train_every_layer_of_every_block(name: str) -> None:
    chosen = parse_config(read(f"flux_lora_{name}")).config
    plan = make_plan(chosen)
    assert plan.layers_let_through == plan.layers - len(
        [m for m in modules(model_spec(chosen)) if m.linear and not m.block]
    )
    assert chosen.output_model_format == "COMFY_LORA"
    assert not plan.warnings


@pytest.mark.parametrize(
    "settings",
    [
        {"layer_filter_preset": "attn-mlp"},
        {"layer_filter_preset": "attn-mlp", "layer_filter": "attn, ff.net,proj_mlp"},
        {"layer_filter": "attn,ff.net,proj_mlp"},
    ],
)
def test_attn_mlp_finds_the_mlp_under_its_name_here(settings: dict[str, Any]) -> None:
    chosen = config("tiny-flux2", output_model_format="DIFFUSERS_LORA", **settings)
    found, _ = matching_layers(chosen)
    assert not make_plan(chosen).warnings
    in_first = {name for name in found if name.startswith("transformer_blocks.0.")}
    assert in_first == {
        f"transformer_blocks.0.{name}"
        for name in (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
            *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            *("attn.to_add_out", "ff.linear_in", "ff.linear_out"),
        )
    }
    assert "single_transformer_blocks.0.attn.to_qkv_mlp_proj" in found
    assert not any("block" not in name for name in found)


def test_a_file_with_scaled_8_bit_weights_is_refused(tmp_path: Path) -> None:
    header = headers(PUBLISHED["flux2-klein-base-4b"].spec, bfl=True)
    header["img_in.weight_scale"] = {
        "dtype": "F32",
        "shape": [1],
        "data_offsets": [0, 0],
    }
    file = written(tmp_path / "klein-base.safetensors", header)
    with pytest.raises(FileError, match="scaled 8-bit weights"):
        model_spec(config(transformer={"model_name": file}))


def test_a_config_of_onetrainer_loads() -> None:
    saved = saved_config(
        model_type="FLUX_2",
        base_model_name="black-forest-labs/FLUX.2-klein-base-9B",
        output_model_format="COMFY_LORA",
        layer_filter_preset="blocks",
        concepts=[],
        samples=[],
    )
    loaded = parse_config(saved).config
    assert loaded.output_model_format == "COMFY_LORA"
    assert model_spec(loaded) == PUBLISHED["flux2-klein-base-9b"].spec

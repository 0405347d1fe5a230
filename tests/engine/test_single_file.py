"""A fine-tune as one file with its makers' names: what diffusers' own converters read, and what trains on."""

import json
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file
from support.lives import make_small

from blockrate.config.base_model import told_variant
from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, NotANumberError
from blockrate.engine.export import export, file_metadata
from blockrate.engine.gathering import Gathering
from blockrate.engine.memory import dtype_of
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.locate import locate
from blockrate.models.bfl_tensors import bfl_tensors
from blockrate.models.families import FAMILIES, TransformerSpec, is_toy
from blockrate.models.headers import read_header
from blockrate.models.single_file import spec_of_file
from blockrate.models.variants import variants_of

pytestmark = pytest.mark.engine
SPECS = {
    row.architecture: replace(row.spec, layout=BlockLayout(2, 3))
    for row in FAMILIES.values()
    if is_toy(row.name)
}
EVERY = pytest.mark.parametrize("architecture", SPECS)
# diffusers' own converters; two of them are written for one width
CONVERTERS = {
    "FLUX.1": single_file_utils.convert_flux_transformer_checkpoint_to_diffusers,
    "FLUX.2": single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers,
    "Chroma": single_file_utils.convert_chroma_transformer_checkpoint_to_diffusers,
}
FINE_TUNE = {
    "training_method": "FINE_TUNE",
    "output_model_format": "ORIGINAL_TRANSFORMER",
}


def model_of(spec: TransformerSpec, seed: int = 0) -> Any:
    """A transformer whose every weight differs from every other, norms and biases too."""
    torch.manual_seed(seed)
    family: Any = FAMILY_MODULES[spec.architecture]
    model = family.random_transformer(spec).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape)
    return model


def written(path: Path, model: Any, **options: Any) -> dict[str, torch.Tensor]:
    given: dict[str, Any] = {
        "training_method": "FINE_TUNE",
        "file_format": "ORIGINAL_TRANSFORMER",
        "dtype": torch.float32,
        "metadata": {},
        **options,
    }
    export(path, model, **given)
    return load_file(path)


def of_diffusers(
    tensors: dict[str, torch.Tensor], spec: TransformerSpec
) -> dict[str, torch.Tensor]:
    """What diffusers' own converter makes of a file, at any width."""
    converter: Any = CONVERTERS[spec.architecture]
    constants = tuple(
        spec.hidden if value == 3072 else value
        for value in converter.__code__.co_consts
    )
    code = converter.__code__.replace(co_consts=constants)
    function: Callable[..., Any] = types.FunctionType(code, converter.__globals__)
    found: dict[str, torch.Tensor] = function(dict(tensors))
    return found


@EVERY
@pytest.mark.parametrize("precision", ["FLOAT_32", "BFLOAT_16", "FLOAT_16"])
def test_diffusers_reads_every_tensor_bit_equal(
    tmp_path: Path, architecture: str, precision: str
) -> None:
    spec = SPECS[architecture]
    model = model_of(spec)
    dtype = dtype_of(precision)
    tensors = written(tmp_path / "a.safetensors", model, dtype=dtype)
    assert tensors.keys() == bfl_tensors(spec).keys()
    found = of_diffusers(tensors, spec)
    own = model.state_dict()
    assert found.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(found[name], tensor.to(dtype)), name


def test_diffusers_itself_loads_the_file_of_a_klein(tmp_path: Path) -> None:
    from diffusers import Flux2Transformer2DModel

    model = model_of(SPECS["FLUX.2"])
    written(tmp_path / "klein.safetensors", model)
    model.save_config(tmp_path / "config")
    loaded = Flux2Transformer2DModel.from_single_file(
        str(tmp_path / "klein.safetensors"),
        config=str(tmp_path / "config"),
        local_files_only=True,
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@EVERY
def test_the_header_says_what_it_is(tmp_path: Path, architecture: str) -> None:
    config = TrainConfig.model_validate(
        {"base_model_name": "mine", "transformer": {"weight_dtype": "BFLOAT_16"}}
    )
    path = tmp_path / "flower.safetensors"
    metadata = file_metadata(config, "KONTEXT")
    written(path, model_of(SPECS[architecture]), metadata=metadata)
    said = read_header(path, whole=True)[0]
    assert said.items() >= metadata.items()
    assert said["modelspec.title"] == "flower"
    assert not said["modelspec.architecture"].endswith("/lora")
    assert list(said) == sorted(said)
    assert "kontext" in said["modelspec.architecture"] or architecture != "FLUX.1"


def test_a_new_one_replaces_the_old_one_and_a_broken_one_does_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.safetensors"
    spec = SPECS["FLUX.2"]
    written(path, model_of(spec, seed=1))
    before = written(path, model_of(spec, seed=2))
    broken = model_of(spec, seed=3)
    broken.proj_out.weight.data[0, 0] = float("nan")
    with pytest.raises(NotANumberError, match=r"proj_out\.weight is not a number"):
        written(path, broken)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(load_file(path)["img_in.weight"], before["img_in.weight"])


def test_it_is_written_a_tensor_at_a_time(tmp_path: Path) -> None:
    spec = SPECS["FLUX.1"]
    asked: list[torch.Tensor] = []

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor)
        size = sum(file.stat().st_size for file in tmp_path.iterdir())
        expected = sum(one.nbytes for one in asked[:-1])
        # what came before is on its way to the disk when the next one is asked for
        assert size >= expected
        return tensor

    written(tmp_path / "a.safetensors", model_of(spec), gathering=Gathering(whole))
    assert len(asked) == len(model_of(spec).state_dict())


def test_a_process_that_does_not_write_gathers_all_the_same(tmp_path: Path) -> None:
    asked: list[torch.Tensor] = []

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor)
        return tensor

    model = model_of(SPECS["FLUX.1"])
    export(
        tmp_path / "a.safetensors",
        model,
        training_method="FINE_TUNE",
        file_format="ORIGINAL_TRANSFORMER",
        dtype=torch.float32,
        metadata={},
        gathering=Gathering(whole, writes=False),
    )
    assert len(asked) == len(model.state_dict())
    assert not list(tmp_path.iterdir())


# --- runs ---


@EVERY
def test_a_run_writes_one_and_another_run_trains_on_from_it(
    tmp_path: Path, architecture: str
) -> None:
    spec = replace(SPECS[architecture], layout=BlockLayout(2, 2))
    small = make_small(tmp_path / "small", spec)
    toys = [row for row in FAMILIES.values() if is_toy(row.name)]
    [kind] = [row.model_type for row in toys if row.architecture == architecture]
    settings: dict[str, Any] = {
        "model_type": kind,
        "layer_filter": "",
        "layer_filter_preset": "blocks",
        "learning_rate": 1e-2,
        "learning_rate_warmup_steps": 0,
        "epochs": 1,
    }
    result = tmp_path / "run" / "flower.safetensors"
    folder = small.config(tmp_path / "run", training_method="FINE_TUNE", **settings)
    single = {**FINE_TUNE, "output_model_destination": str(result)}
    small.live(folder.model_copy(update=single))
    assert [file.name for file in result.parent.glob("*.safetensors")] == [result.name]
    variant = read_header(result)[0].get("blockrate.model_variant", "")
    assert bool(variant) == bool(variants_of(spec))

    # under a name that says nothing, with everything else from the model before
    plain = result.rename(tmp_path / "mine.safetensors")
    on = small.config(
        tmp_path / "on", **settings, transformer={"model_name": str(plain)}
    )
    files = locate(on)
    assert files.parts["transformer"] == plain
    assert told_variant(on, files.spec) == files.variant == variant
    loaded = files.family.load_transformer(files, on, torch.device("cpu"))
    before = load_file(
        small.folder / "model/transformer/diffusion_pytorch_model.safetensors"
    )
    found = of_diffusers(load_file(plain), files.spec)
    for name, tensor in found.items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    changed = {
        name for name, tensor in found.items() if not torch.equal(tensor, before[name])
    }
    assert "transformer_blocks.0.attn.to_q.weight" in changed
    assert not any(name.startswith("single_transformer_blocks.0") for name in changed)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_what_is_written_is_recognised_with_and_without_a_prefix(
    tmp_path: Path, prefix: str
) -> None:
    from safetensors.torch import save_file

    tensors = written(tmp_path / "a.safetensors", model_of(SPECS["FLUX.2"]))
    save_file(
        {prefix + name: tensor for name, tensor in tensors.items()},
        tmp_path / "b.safetensors",
    )
    assert spec_of_file(tmp_path / "b.safetensors") == SPECS["FLUX.2"]


# --- settings ---


def test_a_config_that_names_no_file_gets_one() -> None:
    config = parse_config(dict(FINE_TUNE)).config
    assert config.output_model_destination == "models/model.safetensors"
    assert not config.writes_folder()
    folder = parse_config({"training_method": "FINE_TUNE"}).config
    assert folder.output_model_destination == "models/model"
    assert folder.writes_folder()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_model_destination": "models/mine"}, "'models/mine.safetensors'"),
        ({"output_model_destination": "a.ckpt"}, "'a.safetensors'"),
        ({"output_model_format": "DIFFUSERS", "output_model_destination": "a.safetensors"}, "folder"),
        ({"output_model_format": "COMFY_LORA"}, "ORIGINAL_TRANSFORMER"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_go_with_the_form_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match="output_model") as caught:
        parse_config({**FINE_TUNE, **settings})
    assert words in str(caught.value)


def test_a_lora_has_no_such_form() -> None:
    with pytest.raises(ConfigError, match="output_model_format"):
        parse_config({"output_model_format": "ORIGINAL_TRANSFORMER"})


def test_the_header_is_a_safetensors_header_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written(path, model_of(SPECS["FLUX.2"]))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert json.loads(content[8 : 8 + length])["img_in.weight"]["dtype"] == "F32"

"""The header of a GGUF file: what ggml's own package writes is read, and what is damaged is refused in a sentence."""

import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.gguf_files import usual_forms, write_gguf

from blockrate.config.explain import contradictions
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.engine.models import FAMILY_MODULES
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.files import spec_of
from blockrate.models.gguf_header import (
    _NOT_READ,
    FORMS,
    is_gguf,
    mean_bytes,
    read_gguf,
)
from blockrate.models.whole import check_transformer

pytestmark = pytest.mark.engine
SPECS = {
    name: replace(FAMILIES[name].spec, layout=BlockLayout(1, 2))
    for name in ("tiny-flux1", "tiny-flux2", "tiny-chroma")
}
TYPES = {"tiny-flux1": "FLUX_DEV_1", "tiny-flux2": "FLUX_2", "tiny-chroma": "CHROMA_1"}


def weights_of(spec: TransformerSpec) -> dict[str, Any]:
    family: Any = FAMILY_MODULES[spec.architecture]
    weights: dict[str, Any] = family.random_transformer(spec).state_dict()
    return weights


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    write_gguf(path, weights_of(SPECS["tiny-flux1"]), SPECS["tiny-flux1"])
    return path


def config_of(file: Path, **settings: Any) -> TrainConfig:
    part = {"model_name": str(file), "weight_dtype": "GGUF"}
    own = settings.pop("transformer", {})
    return TrainConfig.model_validate({"transformer": part | own, **settings})


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("name", SPECS)
def test_its_header_tells_the_model(tmp_path: Path, name: str, prefix: str) -> None:
    path = tmp_path / "klein-base.gguf"
    write_gguf(path, weights_of(SPECS[name]), SPECS[name], prefix=prefix)
    assert is_gguf(path)
    assert spec_of(str(path), TYPES[name]) == SPECS[name]
    assert check_transformer(path, SPECS[name]) == []
    for tensor, row in read_gguf(path).items():
        whole = len(row.shape) == 1 or usual_forms(tensor) == "F32"
        assert row.form.name == ("F32" if whole else "Q8_0"), tensor
    assert mean_bytes(read_gguf(path), "_blocks.") == pytest.approx(34 / 32, rel=0.02)


def test_the_plan_counts_the_bytes_of_the_file(file: Path, tmp_path: Path) -> None:
    smaller = tmp_path / "q4.gguf"
    spec = SPECS["tiny-flux1"]
    write_gguf(
        smaller,
        weights_of(spec),
        spec,
        forms=lambda name: usual_forms(name).replace("Q8_0", "Q4_0"),
    )
    eight, four = (make_plan(config_of(path)) for path in (file, smaller))
    difference = eight.memory_bytes.weights - four.memory_bytes.weights
    packed = file.stat().st_size - smaller.stat().st_size
    assert difference == pytest.approx(packed, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "field", "cure"),
    [
        ({"transformer": {"weight_dtype": "BFLOAT_16"}}, "weight_dtype", "to GGUF"),
        ({"transformer": {"model_name": "tiny-flux1"}}, "weight_dtype", "name a .gguf"),
        ({"compile": True}, "compile", "to false"),
        ({"sharding": "FULL"}, "weight_dtype", "BFLOAT_16"),
        (
            {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"},
            "weight_dtype",
            "train a LORA",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_cure(
    file: Path, settings: dict[str, Any], field: str, cure: str
) -> None:
    config = config_of(file, **settings)
    found: list[BlockrateError] = list(contradictions(config))
    if not found:
        with pytest.raises(ConfigError) as raised:
            make_plan(config)
        found = [raised.value, *raised.value.parts]
    assert any(field in error.where and cure in error.cure for error in found), found


def test_only_a_transformer_may_be_one(file: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"lora_model_name": str(file)})
    from blockrate.engine.adapters.file import read_lora

    with pytest.raises(FileError, match="only a transformer may be"):
        read_lora(Path(config.lora_model_name), "FLUX.1")


def test_whatever_is_cut_or_changed_is_refused_or_read_and_nothing_else(
    file: Path, tmp_path: Path
) -> None:
    whole = file.read_bytes()
    header = min(row.start for row in read_gguf(file).values())
    damaged = tmp_path / "damaged.gguf"
    for size in (*range(4, header, 211), len(whole) - 1):
        damaged.write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"damaged\.gguf.*cut off"):
            read_gguf(damaged)
    stream = random.Random(0)
    refused = read = 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(stream.randint(1, 3)):
            changed[stream.randrange(4, header)] = stream.randrange(256)
        damaged.write_bytes(changed)
        try:
            read_gguf(damaged)
            spec_of(str(damaged), "FLUX_DEV_1")
        except FileError as error:
            refused += str(damaged) in str(error)
        else:
            read += 1
    assert refused > 100
    assert refused + read == 300


@pytest.mark.parametrize("alignment", [float("nan"), float("inf"), -1.0])
def test_an_alignment_that_is_no_number_of_bytes_is_refused(
    tmp_path: Path, alignment: float
) -> None:
    name = b"general.alignment"
    header = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(name)) + name
    path = tmp_path / "odd.gguf"
    path.write_bytes(header + struct.pack("<If", 6, alignment))
    with pytest.raises(FileError, match="damaged header"):
        read_gguf(path)


def test_forms_and_versions_that_are_not_read_are_named(
    file: Path, tmp_path: Path
) -> None:
    whole = file.read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(whole[:4] + struct.pack("<I", 9) + whole[8:])
    with pytest.raises(FileError, match="version 9, and 2 and 3 are read"):
        read_gguf(other)
    name = b"double_blocks.0.img_attn.qkv.weight"
    place = whole.index(name) + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", whole, place) == (8,)
    for number, told in {16: "IQ2_XXS", 21: "IQ3_S", 99: "form 99"}.items():
        other.write_bytes(
            whole[:place] + struct.pack("<I", number) + whole[place + 4 :]
        )
        cure = r"Use a file of .*Q8_0.*IQ4_NL, IQ4_XS"
        with pytest.raises(FileError, match=rf"img_attn.*ggml's {told}, .*{cure}"):
            read_gguf(other)


def test_the_names_and_sizes_of_forms_are_ggmls_own() -> None:
    import gguf

    for number, form in FORMS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (
            form.name,
            (form.weights, form.size),
        )
    for number, name in _NOT_READ.items():
        assert gguf.GGMLQuantizationType(number).name == name
        assert number not in FORMS

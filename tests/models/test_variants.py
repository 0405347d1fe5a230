"""Models with the same sizes are told apart by their files, then by their names, and never guessed."""

import json
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.base_model import model_spec, told_variant
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.models.families import FAMILIES, TransformerSpec, config_from_spec
from blockrate.models.hub import snapshot_folder
from blockrate.models.module_table import modules
from blockrate.models.variants import variants_of

KINDS = {
    "flux1-dev": ("DEV", "KONTEXT"),
    "flux1-kontext": ("DEV", "KONTEXT"),
    "flux1-schnell": (),
    "flux2-dev": (),
    "flux2-klein-base-4b": ("BASE", "DISTILLED"),
    "flux2-klein-9b": ("BASE", "DISTILLED"),
}


def written(path: Path, spec: TransformerSpec, metadata: dict[str, str]) -> Path:
    """A file with the names and shapes of a transformer, and none of its weights."""
    header: dict[str, Any] = {"__metadata__": metadata}
    for module in modules(spec):
        header[f"{module.name}.weight"] = {
            "dtype": "BF16",
            "shape": module.shape,
            "data_offsets": [0, 0],
        }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def folder(path: Path, name: str, index: dict[str, Any] | None) -> Path:
    """A diffusers folder of a model, with this model_index.json."""
    spec = FAMILIES[name].spec
    inside = path / "transformer"
    inside.mkdir(parents=True)
    config = {"_class_name": spec.facts["class"], **config_from_spec(spec)}
    (inside / "config.json").write_text(json.dumps(config))
    written(inside / "diffusion_pytorch_model.safetensors", spec, {})
    if index is not None:
        (path / "model_index.json").write_text(json.dumps(index))
    return path


def config_of(name: str, model: object, **settings: Any) -> TrainConfig:
    family = FAMILIES[name]
    return TrainConfig.model_validate(
        {
            "base_model_name": str(model),
            "model_type": family.model_type,
            **settings,
        }
    )


def variant(config: TrainConfig) -> str | None:
    return told_variant(config, model_spec(config))


@pytest.mark.parametrize("name", KINDS)
def test_sizes_say_which_models_they_may_be(name: str) -> None:
    spec = FAMILIES[name].spec
    found = variants_of(spec)
    assert tuple(found) == KINDS[name]
    if found and name.startswith("flux2"):
        assert {row.spec.hidden for row in found.values()} == {spec.hidden}


@pytest.mark.parametrize(
    ("name", "index", "said"),
    [
        ("flux1-dev", {"_class_name": "FluxPipeline"}, "DEV"),
        ("flux1-dev", {"_class_name": "FluxKontextPipeline"}, "KONTEXT"),
        ("flux1-schnell", {"_class_name": "FluxPipeline"}, ""),
        ("flux2-klein-9b", {"is_distilled": True}, "DISTILLED"),
        ("flux2-klein-9b", {"is_distilled": False}, "BASE"),
        ("flux2-klein-9b", {"_class_name": "Flux2KleinPipeline"}, None),
        ("flux1-dev", None, None),
    ],
)
def test_model_index_tells_whatever_the_folder_is_called(
    tmp_path: Path, name: str, index: dict[str, Any] | None, said: str | None
) -> None:
    model = folder(tmp_path / "mine", name, index)
    assert variant(config_of(name, model)) == said
    part = {"model_name": str(model / "transformer")}
    assert variant(config_of(name, "somebody/plain", transformer=part)) == said
    if index and said:
        misleading = model.rename(tmp_path / "kontext-klein-base-4b")
        assert variant(config_of(name, misleading)) == said


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("flux1-dev", "flux1-dev.safetensors", "DEV"),
        ("flux1-dev", "flux1-krea-dev.safetensors", "DEV"),
        ("flux1-dev", "flux1-dev-kontext_fp8.safetensors", "KONTEXT"),
        ("flux1-dev", "developed.safetensors", None),
        ("flux2-klein-base-4b", "flux-2-klein-base-4b.safetensors", "BASE"),
        ("flux2-klein-base-4b", "flux-2-klein-4b.safetensors", "DISTILLED"),
        ("flux2-klein-base-4b", "flux1-dev.safetensors", None),
    ],
)
def test_a_single_file_is_told_by_its_name(
    tmp_path: Path, name: str, file: str, said: str | None
) -> None:
    path = written(tmp_path / file, FAMILIES[name].spec, {})
    assert variant(config_of(name, path)) == said


def test_a_model_that_came_from_the_hub_keeps_its_name(tmp_path: Path) -> None:
    cache = tmp_path / "models--base-camp--my-Kontext" / "snapshots" / "c0ffee"
    model = folder(cache, "flux1-dev", None)
    assert variant(config_of("flux1-dev", model / "transformer")) == "KONTEXT"
    assert variant(config_of("flux1-dev", model)) == "KONTEXT"


@pytest.mark.parametrize(
    ("name", "metadata", "said"),
    [
        ("flux1-dev", {"blockrate.model_variant": "KONTEXT"}, "KONTEXT"),
        ("flux1-dev", {"blockrate.model_variant": "BASE"}, None),
        (
            "flux1-dev",
            {"blockrate.base_model": "black-forest-labs/FLUX.1-Kontext-dev"},
            "KONTEXT",
        ),
        ("flux1-dev", {"modelspec.architecture": "flux-1-dev"}, "DEV"),
        (
            "flux2-klein-9b",
            {"blockrate.base_model": "black-forest-labs/FLUX.2-klein-base-9B"},
            "BASE",
        ),
    ],
)
def test_a_header_tells_more_than_a_name(
    tmp_path: Path, name: str, metadata: dict[str, str], said: str | None
) -> None:
    path = written(tmp_path / "mine.safetensors", FAMILIES[name].spec, metadata)
    assert variant(config_of(name, path)) == said


def test_the_base_model_tells_what_the_transformer_beside_it_does_not(
    tmp_path: Path,
) -> None:
    file = written(tmp_path / "mine.safetensors", FAMILIES["flux1-dev"].spec, {})
    model = folder(tmp_path / "m", "flux1-dev", {"_class_name": "FluxKontextPipeline"})
    part = {"model_name": str(file)}
    assert variant(config_of("flux1-dev", model, transformer=part)) == "KONTEXT"
    own = "black-forest-labs/FLUX.1-dev"
    assert variant(config_of("flux1-dev", own, transformer=part)) == "DEV"


@pytest.mark.parametrize("name", ["flux1-dev", "flux2-klein-base-4b"])
def test_where_nothing_tells_the_field_and_its_choices_are_named(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / "mine.safetensors", FAMILIES[name].spec, {})
    with pytest.raises(ConfigError, match="nothing says whether") as caught:
        make_plan(config_of(name, path))
    assert (caught.value.where, caught.value.choices) == ("model_variant", KINDS[name])
    assert caught.value.exit_code == 2
    for choice in KINDS[name]:
        assert choice in caught.value.cure
        assert variant(config_of(name, path, model_variant=choice)) == choice


def test_a_model_of_the_hub_is_asked_about_once_its_files_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = config_of("flux1-dev", "somebody/my-tune")
    # as a config of before that setting was made
    make_plan(config)
    model = snapshot_folder("somebody/my-tune")
    folder(model, "flux1-dev", {"_class_name": "FluxPipeline"})
    assert variant(config) == "DEV"
    make_plan(config)
    (model / "model_index.json").unlink()
    with pytest.raises(ConfigError, match="nothing says whether"):
        make_plan(config)


def test_a_variant_that_is_named_counts_and_what_the_files_say_is_told(
    tmp_path: Path,
) -> None:
    model = folder(tmp_path / "m", "flux1-dev", {"_class_name": "FluxKontextPipeline"})
    denied = config_of("flux1-dev", model, model_variant="DEV")
    assert variant(denied) == "DEV"
    assert any("own files say KONTEXT" in text for text in make_plan(denied).warnings)
    with pytest.raises(ConfigError, match=r"is BASE, and of .* no such variant"):
        make_plan(config_of("flux1-dev", model, model_variant="BASE"))
    said = make_plan(config_of("flux1-dev", model, model_variant="KONTEXT")).warnings
    assert not any("files say" in text for text in said)


def test_a_file_in_the_folder_of_a_model_is_that_model(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", "flux1-dev", {"_class_name": "FluxKontextPipeline"})
    [file] = (model / "transformer").glob("*.safetensors")
    assert variant(config_of("flux1-dev", file)) == "KONTEXT"
    beside = file.rename(model / "mine.safetensors")
    assert variant(config_of("flux1-dev", beside)) is None


def test_a_variant_of_a_model_that_has_none_is_said_to_do_nothing() -> None:
    config = config_of(
        "flux2-dev", "black-forest-labs/FLUX.2-dev", model_variant="BASE"
    )
    assert any(
        "model_variant has no effect" in text for text in make_plan(config).warnings
    )


@pytest.mark.parametrize("variant", ["", "KONTEXT"])
def test_kontext_is_not_taken_for_dev_without_a_word(
    tmp_path: Path, variant: str
) -> None:
    index = {"_class_name": "FluxKontextPipeline"} if not variant else None
    model = folder(tmp_path / "mine", "flux1-dev", index)
    config = config_of("flux1-dev", model, model_variant=variant)
    assert any("FLUX.1-Kontext-dev" in text for text in make_plan(config).warnings)

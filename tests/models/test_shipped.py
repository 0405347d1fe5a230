"""The model that comes with blockrate: by its name it is the one that was shipped, or one sentence says why not."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.model_folders import weights_of

from blockrate.config.base_model import model_paths, model_spec
from blockrate.config.explain import notices
from blockrate.config.files import load_config
from blockrate.config.named_files import misplaced
from blockrate.config.plan import make_plan
from blockrate.config.presets import read_named
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import FileError
from blockrate.models.families import (
    FAMILIES,
    is_own,
    is_shipped,
    is_toy,
    spec_from_config,
    variant_of,
)
from blockrate.models.files import folder_here
from blockrate.models.shipped import LIST, check_shipped, list_files, shipped_folder
from blockrate.run.folder import RunFolder
from blockrate.run.launch import Options, Refused, launch
from blockrate.ui.checked import check as app_check
from blockrate.ui.tabs import model_check

NAME = "miniature"
FAMILY = FAMILIES[NAME]
SOURCE = Path(__file__).parents[2] / "src" / "blockrate" / NAME
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
GIVEN = {"base_model_name": NAME, "resolution": "128", "text_encoder_2_sequence_length": 16}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the model in a package of its own, which a test may break."""
    package = tmp_path / "package"
    copy = Path(shutil.copytree(SOURCE, package / NAME))
    monkeypatch.setattr("blockrate.models.shipped._PACKAGE", package)
    yield copy
    shutil.rmtree(package)  # 32 MB


def config(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate({**GIVEN, **settings})


# What it is


def test_what_lies_there_is_what_is_listed() -> None:
    """After a change of the model: python studies/miniature/list_files.py."""
    listed = json.loads((SOURCE / LIST).read_text("utf-8"))["files"]
    assert {name: tuple(row) for name, row in listed.items()} == list_files(NAME)
    files = {file for file in SOURCE.rglob("*") if file.is_file()}
    beside = {SOURCE / name for name in (LIST, "names.json", "README.md")}
    assert files - beside == {SOURCE / name for name in listed}


def test_its_row_says_what_its_folder_says() -> None:
    stated = json.loads((SOURCE / "transformer" / "config.json").read_text("utf-8"))
    assert FAMILY.spec == spec_from_config(stated) == model_spec(config())
    assert FAMILY.spec.layout == BlockLayout(19, 38)
    assert not FAMILY.spec.guidance_embeds
    names = json.loads((SOURCE / "names.json").read_text("utf-8"))
    assert f" {len(names['known'])} pictograms" in FAMILY.about
    vae = json.loads((SOURCE / "vae" / "config.json").read_text("utf-8"))
    assert vae["sample_size"] == FAMILY.pixels == 128


def test_it_is_no_toy_and_no_model_of_the_hub() -> None:
    assert (is_own(NAME), is_shipped(NAME), is_toy(NAME)) == (True, True, False)
    assert is_own("tiny-flux1")
    assert not is_shipped("tiny-flux1")
    assert not is_own("flux1-dev")
    assert not is_own("somewhere/miniature")


@pytest.mark.parametrize("model_type", ["FLUX_DEV_1", "FLUX_SCHNELL_1"])
def test_every_part_comes_from_its_folder_whatever_the_type_is_called(
    model_type: str,
) -> None:
    chosen = config(model_type=model_type)

    def folder_of(name: str, _parts: list[str]) -> Path:
        found = folder_here(name, "no/matter")
        assert found
        return found

    paths = model_paths(chosen, FAMILY.spec, folder_of)
    assert paths == {part: SOURCE / part for part in FAMILY.spec.facts["parts"]}
    assert make_plan(chosen) == replace(make_plan(config()), model_type=model_type)


def test_a_lora_of_it_is_not_called_one_of_dev() -> None:
    assert variant_of("FLUX.1", NAME).lora_architecture == "flux-1-schnell/lora"
    # as before
    assert variant_of("FLUX.1", "tiny-flux1").lora_architecture == "flux-1-dev/lora"
    assert variant_of("FLUX.1", "some/flux").lora_architecture == "flux-1-dev/lora"


def test_the_preset_trains_it_as_it_has_learned() -> None:
    data = read_named("flux_lora_miniature")
    loaded = TrainConfig.model_validate(data)
    assert loaded.base_model_name == NAME
    assert not app_check(data).warnings
    assert make_plan(loaded).training_method == "LORA"


# A folder or file of its name


@pytest.mark.parametrize("name", [NAME, "tiny-flux1"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_called_like_a_model_of_ours_does_not_hide_it(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model_spec(TrainConfig(base_model_name=name))
    monkeypatch.chdir(tmp_path)
    other = Path(name)
    if kind == "folder":
        other.mkdir()
    else:
        other.write_text("nothing")
    assert model_spec(TrainConfig(base_model_name=name)) == found
    findings = model_check.check(TrainConfig(base_model_name=name), None).findings
    assert {finding.kind for finding in findings} == {"Fine"}
    # a path is no name
    with pytest.raises(FileError):
        model_spec(TrainConfig(base_model_name=f"./{name}"))


@pytest.mark.parametrize("name", [NAME, "tiny-flux1"])
def test_a_folder_of_its_name_beside_the_config_is_not_meant(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / name).mkdir(parents=True)
    file = tmp_path / "project" / "my.json"
    file.write_text(json.dumps({"base_model_name": name}))
    monkeypatch.chdir(tmp_path)
    assert misplaced(load_config(file).config, file.parent) == []


# What is wrong with it


def gone(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.parent.mkdir(exist_ok=True)


def without_parts(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    (folder / WEIGHTS).unlink()


def cut_off(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:100_000])


def empty(folder: Path) -> None:
    weights_of(folder, "text_encoder_2").write_bytes(b"")


def pointer(folder: Path) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 6648806\n"
    weights_of(folder, "vae").write_text(text)


def other_byte(folder: Path) -> None:
    file = folder / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_words(folder: Path) -> None:
    file = folder / "tokenizer_2" / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("rocket", "tekcor"), "utf-8")


def shards(folder: Path) -> None:
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text('{"weight_map": {"a": "b.safetensors"}}')


def no_list(folder: Path) -> None:
    (folder / LIST).unlink()


def odd_list(folder: Path) -> None:
    (folder / LIST).write_text('{"files": {"model_index.json": 7}}')


Break = Callable[[Path], None]
RESTORE = f"git checkout src/blockrate/{NAME}"
OF_YOUR_OWN = "A model of your own is named by its folder"
BROKEN: dict[Break, tuple[str, ...]] = {
    gone: ("/miniature: there is no such folder", RESTORE),
    without_parts: (
        f"/miniature: lacks {WEIGHTS}, vae/config.json, vae/diffusion_pytorch_model.safetensors and 2 more",
        RESTORE,
    ),
    cut_off: (f"/{WEIGHTS}: has 100,000 bytes", "has 23,625,160", OF_YOUR_OWN),
    empty: ("/text_encoder_2/model.safetensors: has 0 bytes", RESTORE),
    pointer: (
        "/vae/diffusion_pytorch_model.safetensors: is a pointer of Git LFS",
        "`git lfs pull`",
    ),
    other_byte: (f"/{WEIGHTS}: is damaged or of another model", "SHA-256", OF_YOUR_OWN),
    other_words: (
        "/tokenizer_2/tokenizer.json: is damaged or of another model",
        RESTORE,
    ),
    shards: (f"/{WEIGHTS}.index.json: is not of miniature", "Delete it."),
    no_list: (f"/miniature: lacks {LIST}", RESTORE),
    odd_list: (f"/{LIST}: does not list the files of a model", RESTORE),
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_each_damage_is_one_sentence_in_plan_train_and_the_app(
    damage: Break, folder: Path, tmp_path: Path
) -> None:
    make_plan(config())
    damage(folder)
    with pytest.raises(FileError) as caught:
        make_plan(config())
    text = str(caught.value)
    assert all(words in text.replace("\\", "/") for words in BROKEN[damage]), text
    assert "\n" not in text
    run = RunFolder(tmp_path / "run")
    refused = launch(config(workspace_dir=str(run.path)), run, Options())
    assert isinstance(refused, Refused)
    assert str(refused.error) == text
    assert not run.path.exists()
    finding, *_ = model_check.check(config(), None).findings
    assert finding == model_check.Finding("Problem", text)
    problems = {
        problem.field: problem.text for problem in app_check({**GIVEN}).problems
    }
    assert problems["base_model_name"] == text


def test_a_damaged_part_is_told_where_it_alone_is_taken(folder: Path) -> None:
    empty(folder)
    with pytest.raises(FileError, match="has 0 bytes"):
        model_spec(TrainConfig(text_encoder_2={"model_name": NAME}))
    with pytest.raises(FileError, match="has 0 bytes"):
        model_spec(config(transformer={"model_name": str(folder / "transformer")}))
    # a path is looked at as any model's
    assert model_spec(config(base_model_name=str(folder))) == FAMILY.spec


def test_what_was_mended_is_fine_again(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    other_byte(folder)
    with pytest.raises(FileError):
        check_shipped(NAME)
    (folder / WEIGHTS).write_bytes(content)
    check_shipped(NAME)


def test_a_file_is_read_once_and_not_at_every_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shipped(NAME)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    check_shipped(NAME)
    make_plan(config())
    assert folder == shipped_folder(NAME)


# What it has not learned


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"resolution": "128x128"}, []),
        ({"resolution": "64"}, ["resolution 64"]),
        ({"resolution": "128,512"}, ["resolution 128,512"]),
        ({"resolution": "never"}, []),
        (
            {
                "concepts": [
                    {
                        "image": {
                            "enable_resolution_override": True,
                            "resolution_override": "96",
                        }
                    }
                ]
            },
            ["concepts.0.image.resolution_override 96"],
        ),
        (
            {
                "samples": [
                    {"width": 128, "height": 128},
                    {},
                    {"enabled": False},
                    *[{"width": 64, "height": 128}] * 3,
                ]
            },
            ["samples.1 1024x1024, samples.3 64x128, samples.4 64x128 and 1 more"],
        ),
        (
            {"text_encoder_2_sequence_length": 77},
            ["text_encoder_2_sequence_length 77"],
        ),
    ],
)
def test_other_sizes_and_lengths_are_warned_of(
    settings: dict[str, object], told: list[str]
) -> None:
    notes = notices(config(**settings))
    assert [note.partition(": miniature has learned ")[0] for note in notes] == told
    assert all(note.endswith(("Use 128.", "Use 16.")) for note in notes)
    assert not notices(config(**settings, base_model_name="tiny-flux1"))


def test_the_app_warns_where_it_warns_of_all_else() -> None:
    pixels, tokens = app_check({"base_model_name": NAME}).warnings
    assert pixels.startswith("resolution 768: miniature has learned pictures of 128")
    assert tokens.startswith("text_encoder_2_sequence_length 77: miniature has learned")

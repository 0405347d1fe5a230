"""A file that a config names and that is not there: from where it was looked for, and where it lies."""

import json
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.files import load_config
from blockrate.config.named_files import check_start_file, folder_of, misplaced
from blockrate.core.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and what it names; the working directory is another one."""
    project = tmp_path / "project"
    (project / "models" / "flux").mkdir(parents=True)
    (project / "start.safetensors").touch()
    for name in ("concepts.json", "samples.json"):
        (project / name).write_text("[]")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "start-2.safetensors").touch()
    monkeypatch.chdir(tmp_path / "here")
    return project


def written(project: Path, **settings: Any) -> Path:
    (project / "my.json").write_text(json.dumps(settings))
    return project / "my.json"


@pytest.mark.parametrize(
    "setting", ["concept_file_name", "sample_definition_file_name"]
)
def test_a_list_that_lies_beside_the_config_is_told(
    project: Path, setting: str
) -> None:
    name = "concepts.json" if setting.startswith("concept") else "samples.json"
    with pytest.raises(ConfigError) as caught:
        load_config(written(project, **{setting: name}))
    assert caught.value.where == setting
    assert caught.value.problem.startswith(f"{name} cannot be read: No such file")
    assert f"write {project / name}, or start in {project}." in caught.value.cure
    assert load_config(written(project, **{setting: str(project / name)})).config


def test_a_list_that_is_nowhere_is_told_with_the_folder_it_was_looked_for_in(
    project: Path,
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(project, concept_file_name="nowhere.json"))
    assert caught.value.cure == f"Paths start at the folder you are in, {Path.cwd()}."


def test_the_list_that_every_saved_config_of_onetrainer_names_is_told_where_it_lies(
    project: Path,
) -> None:
    name = "training_concepts/concepts.json"
    file = written(project, concept_file_name=name)
    assert load_config(file).warnings == [
        f"concept_file_name: there is no {name} here, so there are no concepts"
    ]
    (project / "training_concepts").mkdir()
    (project / name).write_text("[]")
    [warning] = load_config(file).warnings
    assert warning.endswith(f": write {project / name}, or start in {project}.")


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model_name": "models/flux"},
        {"transformer": {"model_name": "models/flux"}},
        {"vae": {"model_name": "models/flux"}},
        {"lora_model_name": "start.safetensors"},
    ],
)
def test_a_model_and_a_lora_beside_the_config_are_told(
    project: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(project, **settings)
    config = load_config(file).config
    [error] = misplaced(config, folder_of(str(file)))
    assert f"in {Path.cwd()}" in error.problem
    assert error.cure.endswith(f", or start in {project}.")
    assert misplaced(config, None) == []
    monkeypatch.chdir(project)
    assert misplaced(config, folder_of("my.json")) == []
    assert folder_of("flux_lora") is None


def test_a_file_called_like_the_home_of_nobody_is_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "~nobody-of-this-name").write_text("{}")
    assert load_config("~nobody-of-this-name").config
    assert folder_of("~nobody-of-this-name") == Path.cwd()


def test_a_name_of_the_hub_is_no_file(project: Path) -> None:
    file = written(project, base_model_name="black-forest-labs/FLUX.1-dev")
    assert misplaced(load_config(file).config, project) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start-1.safetensors", "Did you mean start-2.safetensors?"),
        ("nothing", "Paths start at the folder you are in, "),
        ("/nowhere/start.safetensors", "Check the path."),
        (".", ". is a folder. Give a LoRA file."),
        ("x" * 250, "there is no file xxx"),
    ],
)
def test_a_lora_to_start_from_must_be_there(
    project: Path, name: str, words: str
) -> None:
    config = load_config(written(project, lora_model_name=name)).config
    with pytest.raises(ConfigError, match="lora_model_name: ") as caught:
        check_start_file(config)
    assert words in str(caught.value)


def test_a_lora_that_is_there_or_not_used_is_no_mistake(project: Path) -> None:
    for settings in (
        {"lora_model_name": "start-2.safetensors"},
        {"lora_model_name": ""},
        {"lora_model_name": "nowhere", "training_method": "FINE_TUNE"},
    ):
        check_start_file(load_config(written(project, **settings)).config)

"""Presets and examples have names, and are the same wherever the program runs from."""

from pathlib import Path

import pytest

from blockrate.config import presets
from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.config.presets import clone, examples, named, read, read_named
from blockrate.core.errors import ConfigError
from blockrate.dataset.folders import concept_problems

REPOSITORY = Path(__file__).parents[2]
PHOTOS = REPOSITORY / "examples" / "photos"


def test_every_preset_and_example_has_a_name() -> None:
    names = named()
    assert {"flux_lora", "flux_fine_tune", "demo", "lora_style"} <= names.keys()
    for folder in ("examples", "src/blockrate/config/presets"):
        for path in (REPOSITORY / folder).glob("*.json"):
            assert names[path.stem] == path
    assert clone() == REPOSITORY


@pytest.mark.parametrize("name", named())
def test_each_can_be_planned_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config(read(name)).config
    make_plan(config)
    assert not config.concepts or not concept_problems(config)


def test_in_the_clone_an_example_is_what_its_file_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert read("demo") == read("examples/demo.json")
    assert read("demo")["concepts"][0]["path"] == "examples/photos"


def test_elsewhere_its_photographs_are_those_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [concept["path"] for concept in read("demo")["concepts"]]
    assert paths == [str(PHOTOS), str(PHOTOS)]


def test_a_file_comes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text('{"epochs": 7}')
    assert read("demo") == {"epochs": 7}
    assert read_named("demo")["epochs"] == 25


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"flux_lora, .*lora_style") as caught:
        read("flux_lore")
    assert caught.value.where == "flux_lore"


def test_a_package_has_its_own_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "site-packages" / "blockrate"
    (package / "examples" / "photos").mkdir(parents=True)
    for name in ("demo", "mine"):
        text = '{"concepts": [{"path": "examples/photos"}]}'
        (package / "examples" / f"{name}.json").write_text(text)
    monkeypatch.setattr(presets, "_PACKAGE", package)
    monkeypatch.setattr(presets, "_REPOSITORY", package.parents[1])
    monkeypatch.chdir(tmp_path)
    assert examples() == package / "examples"
    assert clone() is None
    assert list(named()) == ["demo", "mine"]
    photos = str(package / "examples" / "photos")
    assert read("mine") == {"concepts": [{"path": photos}]}


def test_an_example_takes_its_own_photographs_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples" / "photos").mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    data = presets.read("demo")
    photographs = Path(data["concepts"][0]["path"])
    assert photographs.is_absolute()
    assert any(photographs.iterdir())

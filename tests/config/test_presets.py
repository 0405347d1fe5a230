"""Presets and examples have names, and are the same wherever the program runs from."""

from pathlib import Path

import pytest

from blockrate.config import presets
from blockrate.config.files import parse_config
from blockrate.config.fit import fit
from blockrate.config.plan import make_plan
from blockrate.config.presets import clone, examples, named, read, read_named
from blockrate.core.errors import ConfigError
from blockrate.dataset.folders import concept_problems
from blockrate.models.cards import card_of_size

REPOSITORY = Path(__file__).parents[2]
PICTOGRAMS = REPOSITORY / "examples" / "pictograms"


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
    assert read("demo")["concepts"][0]["path"] == "examples/pictograms/ink"


def test_elsewhere_its_pictures_are_those_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [concept["path"] for concept in read("demo")["concepts"]]
    assert paths == [str(PICTOGRAMS / "ink"), str(PICTOGRAMS / "new")]


@pytest.mark.parametrize("gigabytes", [8, 16, 24])
def test_presets_by_card_go_on_loading_and_fit_it(gigabytes: int) -> None:
    name = f"flux_lora_{gigabytes}gb"
    assert name not in named()
    config = parse_config(read(name)).config
    assert not fit(config, card_of_size(gigabytes)).changes


def test_a_file_comes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text('{"epochs": 7}')
    assert read("demo") == {"epochs": 7}
    assert read_named("demo")["epochs"] == 22


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"flux_lora, .*lora_style") as caught:
        read("flux_lore")
    assert caught.value.where == "flux_lore"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("portrait", "Did you mean portrait.json?"),
        ("portrait.jsn", "Did you mean portrait.json?"),
        ("sets/portait.json", "Did you mean sets/portrait.json?"),
        ("sets\\portrait.json", "Did you mean sets/portrait.json?"),
        ("flux_lor", "Did you mean flux_lora"),
        ("elsewhere/deep/portrait.json", "There is no folder {here}/elsewhere."),
        ("nothing.json", "Files are looked for in {here}."),
    ],
)
def test_for_a_missing_file_what_may_be_meant_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), Path("sets")):
        folder.mkdir(exist_ok=True)
        (folder / "portrait.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        read(name)
    text = str(caught.value).replace("\\", "/")
    assert words.format(here=tmp_path.as_posix()) in text
    assert "Known names: flux_" in text


def test_a_name_that_no_disk_takes_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        read("x" * 5000)


def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "mine.json").write_text('{"epochs": 7}')
    assert read("~/mine.json") == {"epochs": 7}


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

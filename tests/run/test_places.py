"""Where a run is and writes: by the name of its config, by number where that is taken, and found again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.saved_checkpoints import commit_checkpoint

from blockrate.config.files import config_json, parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.run.durable import sha256_of
from blockrate.run.events import EventLog, Finished, Saved, Step
from blockrate.run.launch import Options, prepare
from blockrate.run.places import Placed, Source, place


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**settings: Any) -> TrainConfig:
    data = {"base_model_name": "tiny-flux1", "concepts": [{"path": "photos"}]}
    return parse_config({**data, **settings}).config


def file(name: str) -> Source:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return Source(path)


def places(placed: Placed) -> tuple[str, str]:
    return placed.config.workspace_dir, placed.config.output_model_destination


def train(placed: Placed, *, finish: bool = True, options: Any = None) -> Placed:
    """A run that was started with what was placed, took five steps, and wrote its file."""
    run = placed.run
    prepare(
        placed.config, run, options or Options(origin=placed.origin), lambda text: None
    )
    log = EventLog(run.events_file)
    log.write(Step(1.0, 1e-3, 1.0, 0.1), step=5)
    if not (run.checkpoints / "step-00000005").exists():
        data = placed.config.model_dump(mode="json")
        commit_checkpoint(run.checkpoints, 5, data)
    if finish:
        result = Path(placed.config.output_model_destination)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(f"weights of {run.path}")
        log.write(Saved(result, "export", sha256_of(result)), step=5)
        log.write(Finished([result]), step=5)
    return placed


MY = ("workspace/my", "models/my.safetensors")
MY_2 = ("workspace/my-2", "models/my-2.safetensors")
OLD = ("workspace/run", "models/model.safetensors")


def test_a_run_has_the_name_of_its_config(folder: Path) -> None:
    placed = place(config(), file("configs/my.json"))
    assert places(placed) == MY
    assert placed.note == ""
    assert placed.origin == str(folder / "configs" / "my.json")
    tuned = config(training_method="FINE_TUNE")
    assert places(place(tuned, file("my.v1.5.json"))) == (
        "workspace/my.v1.5",
        "models/my.v1.5",
    )
    assert not Path("workspace").exists()


def test_the_defaults_choose_nothing_and_anything_else_is_kept() -> None:
    source = file("my.json")
    saved = config(workspace_dir="workspace/run", output_model_destination=OLD[1])
    assert places(place(saved, source)) == MY
    chosen = config(workspace_dir="runs/a", output_model_destination="b.safetensors")
    placed = place(chosen, source)
    assert (placed.config, placed.note, placed.origin) == (chosen, "", "")
    half = config(workspace_dir="runs/a")
    assert places(place(half, source)) == ("runs/a", "models/my.safetensors")
    half = config(output_model_destination="b.safetensors")
    assert places(place(half, source)) == ("workspace/my", "b.safetensors")


def test_a_default_that_is_given_beside_the_config_is_chosen() -> None:
    source = file("my.json")
    asked = Source(source.file, chosen=frozenset({"workspace_dir"}))
    assert places(place(config(), asked)) == ("workspace/run", MY[1])
    both = frozenset({"workspace_dir", "output_model_destination"})
    assert places(place(config(), Source(source.file, chosen=both))) == OLD


def test_a_run_is_found_again_whatever_was_changed_in_its_config() -> None:
    """What may not change is then refused, as it is with a folder that was chosen."""
    source = file("my.json")
    train(place(config(), source))
    for settings in ({}, {"epochs": 200}, {"lora_rank": 8}, {"learning_rate": 1.0}):
        placed = place(config(**settings), source)
        assert places(placed) == MY
        assert placed.note == ""


@pytest.mark.parametrize("finish", [True, False])
def test_another_config_of_the_same_name_gets_a_number_for_both(finish: bool) -> None:
    one, other = file("a/my.json"), file("b/my.json")
    train(place(config(), one), finish=finish)
    placed = place(config(), other)
    assert places(placed) == MY_2
    assert placed.note == (
        "this run is in workspace/my-2: workspace/my is taken; "
        "it writes models/my-2.safetensors"
    )
    train(placed, finish=finish)
    assert places(place(config(), one)) == MY
    assert places(place(config(), other)) == MY_2
    assert "my-2" in place(config(), other).note


def test_a_result_that_is_there_takes_the_number_of_its_run_along() -> None:
    Path("models").mkdir()
    Path("models/my.safetensors").write_text("somebody's")
    assert places(place(config(), file("my.json"))) == MY_2
    kept = config(workspace_dir="runs/a")
    assert places(place(kept, file("my.json"))) == ("runs/a", MY_2[1])


def test_fresh_goes_on_under_the_same_name() -> None:
    source = file("my.json")
    train(place(config(), source))
    anew = place(config(lora_rank=8), source)
    assert places(anew) == MY
    said: list[str] = []
    prepare(anew.config, anew.run, Options(fresh=True, origin=anew.origin), said.append)
    assert "models/my-1.safetensors" in said[0]
    assert places(place(config(lora_rank=8), source)) == MY


def old_run(**settings: Any) -> None:
    """A run that was begun when every config without a name trained in one folder; it remembers no config."""
    before = config(**settings)
    placed = Placed(before, "", "", chosen=False)
    train(placed)
    options = placed.run.options()
    del options["origin"]
    placed.run.options_file.write_text(json.dumps(options))


def test_a_run_of_the_folder_of_old_goes_on_there_with_its_config() -> None:
    old_run()
    source = file("my.json")
    placed = place(config(), source)
    assert places(placed) == OLD
    assert placed.note == (
        "the run of this config is in workspace/run, and goes on there; "
        "it writes models/model.safetensors"
    )
    assert places(place(config(epochs=200), source)) == OLD
    # from now on it knows its config
    train(place(config(epochs=200), source))
    assert places(place(config(lora_rank=8), source))[0] == OLD[0]
    assert places(place(config(epochs=200), file("other.json")))[0] == "workspace/other"


@pytest.mark.parametrize(
    "settings",
    [
        {"concepts": [{"path": "other"}]},
        {"concepts": [{"path": "photos", "text_variations": 3}]},
        {"base_model_name": "other"},
        {"lora_rank": 8},
        {"learning_rate": 1.0},
        {"block_learning_rate_multiplier": {"double_block_0": 0.5}},
    ],
)
def test_the_folder_of_old_is_left_to_its_config(settings: dict[str, Any]) -> None:
    old_run()
    assert places(place(config(**settings), file("my.json"))) == MY


def test_a_config_that_was_renamed_keeps_its_run() -> None:
    source = file("my.json")
    train(place(config(), source))
    os.rename("my.json", "new.json")
    placed = place(config(), Source(Path("new.json")))
    assert places(placed) == MY
    assert "workspace/my, and goes on there" in placed.note
    # changed as well, it is another one, as far as can be seen
    changed = place(config(learning_rate=1.0), Source(Path("new.json")))
    assert places(changed)[0] == "workspace/new"
    train(placed)
    assert places(place(config(epochs=200), Source(Path("new.json")))) == MY


def test_a_copy_of_a_config_is_another_config() -> None:
    train(place(config(), file("my.json")))
    shutil.copy("my.json", "copy.json")
    assert places(place(config(), Source(Path("copy.json"))))[0] == "workspace/copy"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_own_config_of_a_run_goes_on_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    source = file("my.json")
    placed = train(place(config(), source))
    old_run(lora_rank=4)
    if elsewhere:
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
    for run, expected in [(folder / "workspace/my", MY), (folder / OLD[0], OLD)]:
        own = parse_config(json.loads((run / "config.json").read_text())).config
        again = place(own, Source(run / "config.json"))
        assert again.config.output_model_destination == expected[1]
        assert again.note == ""
        if expected == OLD:
            assert again.run.path == run
    if not elsewhere:
        own = config(**json.loads(placed.run.config_file.read_text()))
        train(place(own, Source(placed.run.config_file)))
        assert places(place(config(), source)) == MY, "whose run it is was forgotten"


def test_a_config_without_a_file_goes_by_what_it_holds() -> None:
    draft = Source()
    assert places(place(config(), draft)) == OLD
    train(place(config(), draft))
    assert places(place(config(epochs=200), draft)) == OLD
    other = place(config(concepts=[{"path": "other"}]), draft)
    assert places(other) == ("workspace/run-2", "models/model-2.safetensors")
    # saved, it takes its run along
    assert places(place(config(epochs=200), file("my.json"))) == OLD


def test_a_preset_with_other_settings_is_another_run() -> None:
    preset = Source(name="flux_lora")
    named = config(output_model_destination="models/lora.safetensors")
    assert places(place(named, preset)) == (
        "workspace/flux_lora",
        "models/lora.safetensors",
    )
    train(place(config(), preset))
    again = place(config(), preset)
    assert places(again) == ("workspace/flux_lora", "models/flux_lora.safetensors")
    other = place(config(lora_rank=8), preset)
    assert places(other)[0] == "workspace/flux_lora-2"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a b ü.json", "a b ü"),
        ("[v1]*.json", "[v1]-"),
        ("x.safetensors.json", "x"),
        (".json", "json"),
        ("..json", "run"),
        ("é" * 120 + ".json", "é" * 100),
        ("a\nb.json", "a-b"),
    ],
)
def test_any_name_of_a_config_is_a_name_of_a_run(name: str, stem: str) -> None:
    placed = place(config(), file(name))
    assert placed.config.workspace_dir == f"workspace/{stem}"
    assert placed.config.output_model_destination.isprintable()
    prepare(placed.config, placed.run, Options(), lambda text: None)


def test_whatever_lies_in_the_workspace_is_no_hindrance() -> None:
    source = file("my.json")
    Path("workspace/my/run1").mkdir(parents=True)
    Path("workspace/file").write_text("")
    Path("workspace/bad").mkdir()
    Path("workspace/bad/options.json").write_text('{"origin": 5}')
    Path("workspace/bad/config.json").write_text("[[[")
    assert places(place(config(), source)) == MY
    shutil.rmtree("workspace/my")
    Path("workspace/my").write_text("a file")
    assert places(place(config(), source)) == MY_2
    shutil.rmtree("workspace")
    Path("workspace").write_text("a file")
    assert places(place(config(), source)) == MY


def test_a_garbled_config_in_the_folder_of_old_is_another_ones() -> None:
    old_run()
    Path("workspace/run/config.json").write_text("{")
    assert places(place(config(), file("my.json"))) == MY


def test_what_the_user_wrote_stays_what_he_wrote() -> None:
    before = config()
    text = config_json(before)
    place(before, file("my.json"))
    assert config_json(before) == text


@pytest.mark.parametrize("name", ["/dev/fd/63", "/proc/self/fd/11", "/dev/stdin"])
def test_a_config_that_the_shell_hands_over_has_no_name_of_its_own(name: str) -> None:
    placed = place(config(), Source(name=name))
    assert places(placed) == ("workspace/run", "models/model.safetensors")

"""The open config: opened, edited, checked, saved and kept, without any page."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockrate.config.files import load_config
from blockrate.core.errors import ConfigError, WriteError
from blockrate.ui import session as session_module
from blockrate.ui.preferences import load_preferences
from blockrate.ui.session import Draft, FileChanged, Session

KEY = "block_learning_rate_multiplier"
FACTS = json.loads(
    (Path(__file__).parents[1] / "config" / "onetrainer_defaults.json").read_text()
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch, no_sync):
    """A state folder and a working directory of its own; drafts are written by `keep`, not by the clock."""
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(session_module, "_PAUSE", 1000)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").touch()


@pytest.fixture
def session():
    session = Session()
    yield session
    session._timer.cancel()


@pytest.fixture
def restart(session):
    """End the session as a crash would, and start the next one."""
    sessions = []

    def start(config=None):
        for old in (session, *sessions):
            old._timer.cancel()
        sessions.append(Session())
        sessions[-1].restore(config)
        return sessions[-1]

    yield start
    for other in sessions:
        other._timer.cancel()


def written(name, data):
    path = Path(name).absolute()
    path.write_text(
        data if isinstance(data, str) else json.dumps(data), encoding="utf-8"
    )
    return path


def right(**settings):
    return {
        "base_model_name": "tiny-flux1",
        "concepts": [{"path": "photos"}],
        **settings,
    }


def fields(session):
    return [problem.field for problem in session.problems]


# -- what is open and what is wrong with it ----------------------------------------------------------------------------


def test_a_right_config_has_a_plan_and_no_problem(session):
    session.open(written("a.json", right(learning_rate=1e-4)))
    assert (session.title, session.path, session.dirty) == (
        "a.json",
        Path("a.json").absolute(),
        False,
    )
    assert session.problems == session.warnings == ()
    assert session.config == load_config("a.json").config == session.usable
    assert session.plan.base_learning_rate == 1e-4


def test_a_new_config_lacks_images_only(session):
    assert (session.data, session.path, session.dirty) == ({}, None, False)
    assert fields(session) == ["concepts"]
    assert session.config
    assert session.plan


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (
            {"epochs": "many"},
            "epochs",
            '"many" should be a valid integer. The default is 100.',
        ),
        (
            {"transformer": {"learning_rate": -1}},
            "transformer.learning_rate",
            "greater than 0",
        ),
        (
            {"concepts": [{"path": "photos"}, {"path": "gone"}]},
            "concepts.1.path",
            "'gone' is not a folder",
        ),
        ({"concepts": [{"path": "photos", "seed": 0.5}]}, "concepts.0.seed", "0.5"),
        (
            {KEY: {"double_block_3": 1.5}},
            f"{KEY}.double_block_3",
            "from 0.0 (frozen) to 1.0",
        ),
        ({KEY: {"double_block_19": 0.5}}, KEY, "double_block_0 to double_block_18"),
        ({"layer_filter": "nothing"}, "layer_filter", "matches none"),
        (
            {"layer_filter": "(", "layer_filter_regex": True},
            "layer_filter",
            "regular expression",
        ),
        (
            {"base_model_name": "./gone.safetensors"},
            "base_model_name",
            "there is no such file",
        ),
        (
            {"transformer": {"model_name": "./gone.gguf"}},
            "transformer.model_name",
            "there is no such file",
        ),
        ({"min_noising_strength": 1.0}, "min_noising_strength", "not below"),
        (
            {"concepts": [], "concept_file_name": "gone.json"},
            "concept_file_name",
            "gone.json cannot be read",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_kept(session, data, field, words):
    session.open(written("a.json", right() | data))
    assert field in fields(session)
    assert words in session.problem(field)
    assert session.data == right() | data
    with pytest.raises((ConfigError, AssertionError)):
        assert not load_config("a.json").config or not session.problems


def test_every_wrong_field_is_one_problem(session):
    session.open(
        written("a.json", right(epochs=0, seed="x", transformer={"train": 1}, vae=3))
    )
    assert sorted(fields(session)) == ["epochs", "seed", "transformer.train", "vae"]
    assert session.config is None
    assert session.plan is None
    assert session.usable.epochs == 100


def test_what_is_usable_is_the_config_without_what_is_wrong_in_it(session):
    session.open(written("a.json", right(epochs=3)))
    concepts = [{"path": "a", "balancing": 0.5}, {"path": "b", "balancing": "x"}]
    rates = {"double_block_0": 0.5, "double_block_1": 7}
    session.open(
        written(
            "b.json",
            right(epochs=0, lora_rank=5, concepts=concepts, nonsense=1) | {KEY: rates},
        )
    )
    assert session.config is None
    assert (session.usable.epochs, session.usable.lora_rank) == (100, 5)
    assert [
        (concept.path, concept.balancing) for concept in session.usable.concepts
    ] == [("a", 0.5), ("b", 1.0)]
    assert session.usable.block_learning_rate_multiplier == {"double_block_0": 0.5}


def test_what_is_wrong_in_a_list_of_its_own_leaves_the_rest_usable(session):
    session.open(written("a.json", right(lora_rank=4)))
    written("list.json", [{"path": "photos", "loss_weight": "bad"}])
    config = {
        "base_model_name": "tiny-flux1",
        "lora_rank": 77,
        "concept_file_name": "list.json",
    }
    session.open(written("b.json", config))
    assert session.config is None
    assert (session.usable.lora_rank, session.usable.concepts) == (77, [])


def test_settings_that_contradict_each_other_are_usable_one_by_one(session):
    session.open(written("a.json", right(output_model_format="DIFFUSERS", epochs=3)))
    assert session.config is None
    assert (session.usable.output_model_format, session.usable.epochs) == (
        "DIFFUSERS_LORA",
        3,
    )


def test_what_is_remembered_belongs_to_the_open_config(session):
    session.open(written("a.json", right()))
    session.remember("a", 1)
    session.set({"epochs": 7})
    assert session.remembered("a") == 1
    session.save(Path("b.json"))
    assert session.remembered("a") == 1
    session.open(Path("b.json"))
    assert session.remembered("a") is None


def test_a_part_that_is_no_object_can_be_removed_and_written_into(session):
    session.open(written("a.json", right(vae=3)))
    assert [(problem.field, problem.removable) for problem in session.problems] == [
        ("vae", True)
    ]
    session.set({"vae.model_name": "other"})
    assert session.data["vae"] == {"model_name": "other"}
    assert session.problems == ()


def test_unknown_and_unsupported_keys_are_named_kept_and_removable(session):
    data = right(
        learning_rat=1, masked_training=True, x={"y.z": 1}, optimizer={"beta9": 2}
    )
    session.open(written("a.json", data))
    found = {problem.field: problem for problem in session.problems}
    assert found.keys() == {"learning_rat", "masked_training", "x", "optimizer.beta9"}
    assert all(problem.removable for problem in session.problems)
    assert "Did you mean learning_rate?" in found["learning_rat"].text
    assert "Or train without it: remove it." in found["masked_training"].text
    session.set({"epochs": 3})
    session.save()
    assert json.loads(Path("a.json").read_text()) == {**data, "epochs": 3}
    session.remove(*found)
    assert session.problems == ()
    assert session.data == right(epochs=3)


def test_a_key_with_dots_can_be_removed(session):
    session.open(written("a.json", right(**{"a.b": 1}) | {"transformer": {"c.d": 2}}))
    assert {problem.field for problem in session.problems if problem.removable} == {
        "a.b",
        "transformer.c.d",
    }
    session.remove("a.b", "transformer.c.d")
    assert session.data == right()


def test_a_known_field_with_a_wrong_value_is_mended_not_removed(session):
    session.open(written("a.json", right(epochs=0)))
    assert [problem.removable for problem in session.problems] == [False]


def test_what_is_wrong_with_a_block_is_told_at_all_blocks_too(session):
    session.open(written("a.json", right(**{KEY: {"double_block_3": 2}})))
    assert session.problem(KEY).startswith(
        "double_block_3: 2 should be less than or equal to 1."
    )
    assert session.problem("epochs") == session.problem("") == ""


def test_a_folder_that_came_is_seen_when_checked_again(session):
    session.open(written("a.json", right(concepts=[{"path": "new"}])))
    assert fields(session) == ["concepts.0.path"]
    Path("new").mkdir()
    Path("new/a.png").touch()
    session.recheck()
    assert session.problems == ()


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", '{"a": 1, "a": 2}', '{"x":' + "[" * 100_000, '{"x":' * 900],
)
def test_what_is_no_json_object_is_refused_and_the_open_config_stays(session, content):
    session.open(written("a.json", right(epochs=7)))
    session.set({"epochs": 8})
    with pytest.raises(ConfigError, match=r"b\.json"):
        session.open(written("b.json", content))
    assert (session.title, session.get("epochs"), session.dirty) == ("a.json", 8, True)


@pytest.mark.parametrize("depth", range(150, 1000, 50))
def test_a_config_of_nested_objects_is_opened_or_refused(session, depth):
    path = written("b.json", '{"x":' * depth + "1" + "}" * depth)
    with suppress(ConfigError):
        session.open(path)
    assert fields(session) == (["x"] if session.data else ["concepts"])
    assert session.title == ("b.json" if session.data else "New config")


# -- reading and writing values ----------------------------------------------------------------------------------------


def test_a_value_is_the_users_even_if_wrong_else_the_default(session):
    session.open(
        written(
            "a.json",
            right(epochs="abc", samples=[{}], transformer={"learning_rate": None}),
        )
    )
    assert session.get("epochs") == "abc"
    assert session.get("transformer.learning_rate") is None
    assert session.get("learning_rate") == 3e-4
    assert session.get("transformer.train") is True
    assert session.get("concepts.0.image.enable_crop_jitter") is True
    assert session.get("samples.0.width") == session.get("samples.7.width") == 1024
    assert session.get(f"{KEY}.double_block_3") == 1.0
    assert session.get(KEY) == {}


def test_a_fine_tune_has_the_defaults_of_a_fine_tune(session):
    session.set({"training_method": "FINE_TUNE"})
    assert (
        session.get("output_model_format")
        == session.config.output_model_format
        == "DIFFUSERS"
    )
    assert (
        session.get("output_model_destination")
        == session.config.output_model_destination
    )
    session.set({"output_model_destination": "models/mine"})
    assert session.get("output_model_destination") == "models/mine"


def test_several_values_are_one_revision_that_everybody_hears_of(session):
    heard = []
    session.changed.subscribe(
        lambda: heard.append((session.revision, session.get("epochs"), session.dirty))
    )
    before = session.revision
    session.set({"epochs": 3, "optimizer.beta1": 0.5, "concepts.0.path": "photos"})
    assert heard == [(before + 1, 3, True)]
    assert session.data == {
        "epochs": 3,
        "optimizer": {"beta1": 0.5},
        "concepts": [{"path": "photos"}],
    }


def test_writing_what_is_there_changes_nothing(session):
    session.open(
        written(
            "a.json", right(learning_rate_warmup_steps=200, epochs=1, deterministic=1)
        )
    )
    before = session.revision
    session.set({"learning_rate_warmup_steps": 200.0, "seed": 42, "epochs": 1, KEY: {}})
    assert (session.revision, session.dirty) == (before, False)
    session.set({"deterministic": True})  # which 1 is not
    assert session.dirty
    assert session.problems == ()


def test_entries_of_lists_are_added_changed_and_taken_out(session):
    session.set(
        {"samples.0.prompt": "a", "samples.1.prompt": "b", "samples.2": {"prompt": "c"}}
    )
    session.set({"samples.1.prompt": "B"})
    session.remove("samples.0", "samples.2")
    assert session.data == {"samples": [{"prompt": "B"}]}
    session.remove("samples.0.prompt")
    assert session.data == {"samples": [{}]}
    with pytest.raises(ConfigError, match="the list has 1 entries"):
        session.set({"epochs": 5, "samples.2.prompt": "c"})
    assert session.get("epochs") == 100


def test_removing_gives_the_data_back_as_they_were(session):
    session.open(written("a.json", right()))
    session.set(
        {"optimizer.beta1": 0.5, f"{KEY}.double_block_0": 0.1, "samples.0.prompt": "a"}
    )
    session.remove(
        "optimizer.beta1",
        f"{KEY}.double_block_0",
        "samples.0",
        "epochs",
        "nothing.at.all",
    )
    assert session.data == right()
    assert not session.dirty


def test_what_is_got_or_given_can_be_changed_by_its_owner(session):
    mine = [{"path": "photos"}]
    session.set({"concepts": mine})
    mine[0]["path"] = "gone"
    session.get("concepts")[0]["path"] = "gone"
    session.get("transformer").clear()
    assert session.data == {"concepts": [{"path": "photos"}]}
    assert session.get("transformer")["train"] is True


# -- concepts and samples in files of their own ------------------------------------------------------------------------


def test_concepts_of_a_file_of_their_own_are_shown_and_written_inline_once_edited(
    session,
):
    written(
        "c.json",
        [
            {"path": "photos", "repeats": 2, "__version": 0},
            {"path": "gone", "enabled": False},
        ],
    )
    written("s.json", [{"prompt": "a house"}])
    data = {
        "concepts": None,
        "concept_file_name": "c.json",
        "sample_definition_file_name": "s.json",
    }
    session.open(written("a.json", data))
    assert session.get("concepts.0.path") == "photos"
    assert session.get("concepts.0.balancing") == 2
    assert session.get("samples") == [{"prompt": "a house"}]
    assert session.data == data
    session.set({"concepts.0.name": "mine"})
    assert (
        "concept_file_name: c.json is not used any more, its concepts are in this config now"
        in session.warnings
    )
    assert session.data == {
        "concepts": [
            {"path": "photos", "__version": 0, "balancing": 2, "name": "mine"},
            {"path": "gone", "enabled": False},
        ],
        "sample_definition_file_name": "s.json",
    }
    session.remove("concepts.0", "concepts.1")
    assert session.get("concepts") == []


def test_emptying_an_inline_list_does_not_bring_the_files_back(session):
    written("c.json", [{"path": "gone"}])
    session.open(written("a.json", right(concept_file_name="c.json")))
    session.remove("concepts.0")
    assert session.get("concepts") == session.config.concepts == []


def test_the_usual_file_of_onetrainer_may_be_absent(session):
    session.open(
        written(
            "a.json",
            {"concepts": None, "concept_file_name": "training_concepts/concepts.json"},
        )
    )
    assert session.get("concepts") == []
    assert fields(session) == ["concepts"]


# -- saving ------------------------------------------------------------------------------------------------------------


def test_what_nobody_touched_is_written_back_exactly(session):
    rates = {
        "single_block_3": 0.30000000000000004,
        "double_block_0": 1e-07,
        "other": 1,
        "single_block_0": 0.1234567890123,
    }
    data = right(
        **{KEY: rates},
        seed=7,
        samples=[{"prompt": "é \u2028", "seed": 0}],
        learning_rate=0.0001,
    )
    session.open(written("a.json", data))
    session.set({"epochs": 3})
    session.save()
    saved = json.loads(Path("a.json").read_bytes())
    assert json.dumps(saved) == json.dumps({**data, "epochs": 3})
    assert not session.dirty


def test_saving_needs_a_name_once(session):
    session.set(right())
    with pytest.raises(ConfigError, match="Save as"):
        session.save()
    session.save(Path("mine.json"))
    assert (session.title, session.path, session.dirty) == (
        "mine.json",
        Path("mine.json").absolute(),
        False,
    )
    session.set({"epochs": 3})
    session.save()
    assert load_config("mine.json").config == session.config
    assert load_preferences().recent == [str(Path("mine.json").absolute())]


def test_a_file_that_another_program_changed_is_not_overwritten_unasked(session):
    session.open(path := written("a.json", right()))
    session.set({"epochs": 3})
    written("a.json", right(epochs=9))
    with pytest.raises(FileChanged, match="changed by another program"):
        session.save()
    assert load_config(path).config.epochs == 9
    assert session.dirty
    session.save(overwrite=True)
    assert load_config(path).config.epochs == 3
    session.set({"epochs": 4})
    session.save()
    written("a.json", right(epochs=9))
    session.open(path)
    assert (session.get("epochs"), session.dirty) == (9, False)


def test_saving_as_another_file_that_exists_is_asked_too(session):
    session.open(written("a.json", right()))
    written("b.json", right(epochs=9))
    with pytest.raises(FileChanged, match="exists already"):
        session.save(Path("b.json"))
    session.save(Path("b.json"), overwrite=True)
    assert session.title == "b.json"
    assert load_config("b.json").config.epochs == 100


def test_a_file_that_is_gone_is_written_anew(session):
    session.open(path := written("a.json", right()))
    path.unlink()
    session.save()
    assert load_config(path).config == session.config


def test_a_save_that_fails_leaves_the_old_file_and_the_changes(session, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    session.open(path := written("a.json", right()))
    session.set({"epochs": 3})
    with monkeypatch.context() as patch:
        patch.setattr("blockrate.run.durable._write", full)
        with pytest.raises(WriteError, match="disk is full"):
            session.save()
    assert load_config(path).config.epochs == 100
    assert session.dirty
    assert [entry.name for entry in Path().glob(".tmp-*")] == []
    session.save()
    assert load_config(path).config.epochs == 3


def test_a_folder_is_no_place_to_save_to(session):
    Path("folder.json").mkdir()
    with pytest.raises(FileChanged):
        session.save(Path("folder.json"))
    with pytest.raises(WriteError):
        session.save(Path("folder.json"), overwrite=True)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_config_stays_a_link(session):
    written("a.json", right())
    Path("link.json").symlink_to("a.json")
    session.open(Path("link.json"))
    session.set({"epochs": 3})
    session.save()
    assert Path("link.json").is_symlink()
    assert load_config("a.json").config.epochs == 3


# -- OneTrainer's files and older names --------------------------------------------------------------------------------


def test_older_names_become_todays_in_memory_and_the_file_is_copied_before_it_is_written(
    session,
):
    old = right(
        prior={"learning_rate": 2e-4},
        lora_layers="attn",
        optimizer="ADAMW",
        foo=1,
        __version=3,
    )
    session.open(path := written("a.json", old))
    assert session.get("transformer.learning_rate") == 2e-4
    assert session.get("layer_filter") == "attn"
    assert any("prior, lora_layers" in warning for warning in session.warnings)
    assert fields(session) == ["foo"]
    assert not session.dirty
    assert json.loads(path.read_text()) == old
    session.set({"epochs": 3})
    session.save()
    assert json.loads(Path("a.before.json").read_text()) == old
    assert (
        json.loads(path.read_text())
        .keys()
        .isdisjoint({"prior", "lora_layers", "__version"})
    )
    session.remove("foo")
    session.save()
    assert load_config(path).config == session.config
    assert sorted(entry.name for entry in Path().glob("a.*")) == [
        "a.before.json",
        "a.json",
    ]


def test_a_copy_never_replaces_an_earlier_one(session):
    for epochs in (1, 2):
        session.open(written("a.json", right(lora_layers="attn", epochs=epochs)))
        session.save()
    copies = [
        json.loads(Path(name).read_text())["epochs"]
        for name in ("a.before.json", "a.before-2.json")
    ]
    assert copies == [1, 2]


@pytest.mark.parametrize("version", [0, 3, 8, 9, 11])
def test_a_saved_config_of_onetrainer_opens_and_comes_back_with_all_it_holds(
    session, version
):
    data = (
        FACTS["config"]
        | {name: FACTS["part"] | part for name, part in FACTS["parts"].items()}
        | FACTS["preset"]
    )
    data |= {
        "optimizer": FACTS["optimizer"],
        "__version": version,
        "layer_filter_preset": "full",
    }
    session.open(path := written("a.json", data))
    session.set({"epochs": 77})
    session.save()
    saved = json.loads(path.read_text())
    lost = {name for name in data if name != "epochs" and saved.get(name) != data[name]}
    assert lost == (set() if version >= 9 else {"__version", "prior", "transformer"})
    assert json.loads(Path("a.before.json").read_text()) == data


def test_todays_file_of_onetrainer_keeps_its_version_and_order_and_is_copied(session):
    data = right(
        __version=10,
        debug_mode=False,
        epochs=5,
        transformer={"train": True},
        prior={"train": False},
    )
    session.open(path := written("a.json", data))
    assert session.problems == ()
    session.set({"epochs": 6})
    session.save()
    assert json.dumps(json.loads(path.read_text())) == json.dumps({**data, "epochs": 6})
    assert json.loads(Path("a.before.json").read_text()) == data


def test_a_file_of_blockrate_is_not_copied(session):
    session.open(written("a.json", right()))
    session.set({"epochs": 6})
    session.save()
    assert not Path("a.before.json").exists()


def test_presets_and_examples_open_by_name_as_copies(session):
    assert {
        "flux_lora",
        "flux_fine_tune",
        "demo",
        "layer_wise_decay",
    } <= session.named().keys()
    for name, path in session.named().items():
        before = path.read_bytes()
        session.open_named(name)
        assert (session.title, session.path, session.dirty) == (name, None, False)
        assert session.config == load_config(path).config
        assert path.read_bytes() == before


# -- what is not saved is not lost -------------------------------------------------------------------------------------


def test_a_change_is_there_after_a_crash(session, restart):
    session.open(path := written("a.json", right(lora_layers="attn")))
    session.set({"epochs": "abc"})
    session.keep()
    again = restart()
    assert (again.title, again.path, again.dirty) == ("a.json", path, True)
    assert again.data == session.data
    assert fields(again) == ["epochs"]
    assert any("not saved last time" in warning for warning in again.warnings)
    again.set({"epochs": 5})
    again.save()
    assert Path("a.before.json").exists()
    assert restart().data == again.data
    assert not restart().dirty


def test_the_draft_is_written_by_itself_after_a_pause(session, monkeypatch):
    monkeypatch.setattr(session_module, "_PAUSE", 0)
    session.set({"epochs": 5})
    session._timer.join()
    (draft,) = Path("home/drafts").iterdir()
    assert json.loads(draft.read_text())["data"] == {"epochs": 5}


def test_a_file_changed_since_the_crash_is_not_overwritten_unasked(session, restart):
    session.open(written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    written("a.json", right(epochs=9))
    with pytest.raises(FileChanged):
        restart().save()


@pytest.mark.parametrize("end", ["save", "undo", "new"])
def test_what_is_saved_undone_or_given_up_leaves_no_draft(session, restart, end):
    session.open(written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    assert list(Path("home/drafts").iterdir())
    {
        "save": session.save,
        "undo": lambda: session.remove("epochs"),
        "new": session.new,
    }[end]()
    session.keep()
    assert not list(Path("home/drafts").iterdir())
    assert restart().title == "a.json"  # the newest file


def test_another_file_named_at_the_start_leaves_the_draft_for_later(session, restart):
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right(epochs=8)))
    assert (other.title, other.get("epochs")) == ("b.json", 8)
    other.set({"epochs": 9})
    other.save()
    assert restart().get("epochs") == 5
    assert restart(first).get("epochs") == 5


def test_a_draft_is_there_again_when_its_file_is_opened_later(session, restart):
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right()))
    before = other.opened
    other.open(first)
    assert (other.get("epochs"), other.dirty, other.path) == (5, True, first)
    assert any("not saved last time" in warning for warning in other.warnings)
    assert other.opened == before + 1
    other.open(written("b.json", right()))  # given up
    other.open(first)
    assert (other.get("epochs"), other.dirty) == (100, False)


def test_what_is_remembered_counts_at_once_when_another_file_is_opened(
    session, restart
):
    session.open(first := written("a.json", right()))
    session.remember("a", 1)
    session.open(written("b.json", right()))
    session.open(first)
    assert session.remembered("a") == 1
    session.remember("a", None)
    session.open(Path("b.json"))
    session.open(first)
    assert session.remembered("a") is None
    assert restart().remembered("a") is None


def test_an_unnamed_config_without_changes_leaves_no_draft(session):
    session.open_named("demo")
    session.remember("a", 1)
    session.keep()
    assert not list(Path("home/drafts").glob("*"))


def test_a_draft_of_a_file_that_was_written_over_is_gone(session, restart):
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right(epochs=8)))
    other.save(first, overwrite=True)
    again = restart()
    assert (again.path, again.get("epochs"), again.dirty) == (first, 8, False)


def test_to_forget_what_was_not_remembered_touches_no_draft(session, restart):
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right()))
    other.new()
    other.remember("a", None)
    assert not other._timer.is_alive()
    assert restart().get("epochs") == 5


def test_to_open_the_open_file_once_more_reads_it_from_the_disk(session):
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    session.open(first)
    assert (session.get("epochs"), session.dirty) == (100, False)
    session.keep()
    assert not list(Path("home/drafts").iterdir())


def test_what_is_remembered_outlives_a_crash_and_takes_nothing_else_along(
    session, restart
):
    session.open(first := written("a.json", right(epochs=1)))
    session.remember("a", {"b": 1})
    session.keep()
    written("a.json", right(epochs=2))
    again = restart()
    assert (again.path, again.dirty, again.get("epochs"), again.remembered("a")) == (
        first,
        False,
        2,
        {"b": 1},
    )
    again.remember("a", None)
    again.keep()
    assert not list(Path("home/drafts").iterdir())
    assert restart().remembered("a") is None


def test_a_start_with_nothing_to_go_on_with_is_a_new_config(session, restart):
    assert restart().data == {}
    session.open(path := written("a.json", right()))
    path.unlink()
    assert restart().data == {}
    with pytest.raises(ConfigError, match=r"gone\.json"):
        restart(Path("gone.json"))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"data": 3}', '{"data": {}, "titel": ""}', '{"data": {}, "title'],
)
def test_a_damaged_draft_is_passed_over(restart, content):
    Path("home/drafts").mkdir(parents=True)
    written("home/drafts/unnamed.json", content)
    assert restart().data == {}


def test_a_draft_that_cannot_be_written_is_told(session):
    Path("home").write_text("a file")
    session.set({"epochs": 5})
    session.keep()
    assert any(
        "a crash would lose what is not saved" in warning
        for warning in session.warnings
    )


# -- a window's draft --------------------------------------------------------------------------------------------------


def test_a_window_writes_nothing_until_ok(session):
    session.open(written("a.json", right(optimizer={"beta1": 0.9})))
    before = session.revision
    draft = Draft(session, ["optimizer.beta1", "optimizer.optimizer"])
    assert not draft.dirty
    assert draft.get("epochs") == 100
    draft.set({"optimizer.beta1": 7, "optimizer.optimizer": "LION"})
    assert session.revision == before
    assert draft.get("optimizer.beta1") == 7
    assert "7 should be less than 1" in draft.problem("optimizer.beta1")
    assert draft.problem("optimizer.optimizer") == ""
    draft.set({"optimizer.beta1": 0.5})
    assert draft.problem("optimizer.beta1") == ""
    assert draft.changes() == {"optimizer.beta1": 0.5, "optimizer.optimizer": "LION"}
    assert draft.dirty
    draft.ok()
    assert session.revision == before + 1
    assert session.data["optimizer"] == {"beta1": 0.5, "optimizer": "LION"}


def test_a_window_sees_what_contradicts_the_rest_of_the_config(session):
    session.open(written("a.json", right(optimizer={"optimizer": "PRODIGY"})))
    draft = Draft(session, [KEY])
    draft.set({KEY: {"double_block_0": 0.5}})
    assert "Prodigy cannot give double_block_0 a rate of its own" in draft.problem(
        "optimizer.optimizer"
    )
    session.set({"optimizer.optimizer": "ADAMW"})
    assert draft.checked.problems == ()
    assert draft.checked.plan.groups[0].multiplier == 0.5


def test_reset_brings_the_defaults_and_ok_takes_the_keys_out(session):
    session.open(
        written(
            "a.json",
            right(optimizer={"beta1": 0.5, "eps": 1e-7}, **{KEY: {"other": 0.5}}),
        )
    )
    draft = Draft(session, [KEY, "optimizer.beta1"])
    draft.set({"optimizer.beta1": 0.7})
    draft.reset()
    assert draft.changes() == {KEY: {}, "optimizer.beta1": None}
    draft.set({"optimizer.beta1": 0.5})
    assert draft.changes() == {KEY: {}}
    draft.ok()
    assert session.data == right(optimizer={"eps": 1e-7, "beta1": 0.5})


def test_a_window_put_back_as_it_was_changes_nothing(session):
    session.open(written("a.json", right(epochs=3)))
    draft = Draft(session, ["epochs", "seed"])
    before = session.revision
    heard = []
    draft.changed.subscribe(lambda: heard.append(draft.dirty))
    draft.set({"epochs": 4, "seed": 1})
    draft.set({"epochs": 3, "seed": 42})
    draft.ok()
    assert heard == [True, False]
    assert session.revision == before


def test_a_window_knows_that_its_values_were_changed_elsewhere(session):
    draft = Draft(session, ["epochs"])
    session.set({"seed": 1})
    assert not draft.stale
    draft.set({"epochs": 5})
    assert not draft.stale
    session.set({"epochs": 6})
    assert draft.stale
    draft.ok()
    assert session.get("epochs") == 5


# -- whatever is done --------------------------------------------------------------------------------------------------

PATHS = "epochs transformer.learning_rate optimizer.optimizer optimizer.beta1 concepts concepts.0 concepts.0.path"
PATHS += f" concepts.1 samples.0.prompt {KEY} {KEY}.double_block_3 training_method foo.bar foo"
paths = st.sampled_from(PATHS.split())
leaves = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        1.0,
        0.1 + 0.2,
        1e308,
        float("nan"),
        "photos",
        "FINE_TUNE",
        "LION",
    ]
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["path", "a.b", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)
steps = st.lists(
    st.tuples(st.just("set"), st.dictionaries(paths, values, min_size=1, max_size=2))
    | st.tuples(st.just("remove"), paths)
    | st.tuples(st.sampled_from(["save", "open", "restart"]), st.none()),
    max_size=8,
)
OLD = {
    "lora_layers": "attn",
    "prior": {"learning_rate": 1e-4},
    "epochs": 3,
    "__version": 5,
    "concepts": [{"repeats": 2}],
}
FILES = [
    {},
    OLD,
    right(),
    {
        "concept_file_name": "c.json",
        "concepts": None,
        "masked_training": True,
        "x": {"y": []},
    },
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(FILES), steps=steps)
def test_whatever_is_done_the_same_data_come_back_and_load_as_they_were_checked(
    session, restart, start, steps
):
    written("c.json", [{"path": "photos"}])
    session.open(path := written("a.json", start))
    for step, argument in steps:
        if step == "set":
            before = session.data
            try:
                session.set(argument)
            except ConfigError:  # an entry that no list has
                assert session.data is before
            for key, value in (
                argument.items()
                if len(argument) == 1 and session.data is not before
                else ()
            ):
                # OneTrainer's word for an empty list
                none = key == "concepts" and value is None
                assert json.dumps(session.get(key)) == json.dumps([] if none else value)
        elif step == "remove":
            session.remove(argument)
        elif step == "save":
            session.save(overwrite=True)
        elif step == "open":
            before = json.dumps(session.data)
            session.save(overwrite=True)
            session.open(path)
            assert json.dumps(session.data) == before
        else:
            session.keep()
            before = json.dumps(session.data)
            dirty = session.dirty
            session = restart(path)
            assert (json.dumps(session.data), session.dirty) == (before, dirty)
    session.save(overwrite=True)
    assert not session.dirty
    assert json.dumps(json.loads(path.read_bytes())) == json.dumps(session.data)
    if session.config:
        assert load_config(path).config == session.config
    else:
        with pytest.raises(ConfigError):
            load_config(path)

"""The open config: what is wrong with it is told at its field, and kept."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.sessions import KEY, fields, right, written

from blockrate.config.files import load_config
from blockrate.config.gallery import first_config
from blockrate.core.errors import ConfigError
from blockrate.ui import checked
from blockrate.ui.session import Session
from blockrate.ui.windows.block_learning_rate_window import why_not_block_rates


def test_a_right_config_has_a_plan_and_no_problem(session: Session) -> None:
    session.open(written("a.json", right(learning_rate=1e-4)))
    assert (session.title, session.path, session.dirty) == (
        "a.json",
        Path("a.json").absolute(),
        False,
    )
    assert session.problems == ()
    assert session.warnings == ()
    assert session.config == load_config("a.json").config == session.usable
    assert session.plan
    assert session.plan.base_learning_rate == 1e-4


def test_a_new_config_has_the_first_model_and_lacks_images_only(
    session: Session,
) -> None:
    session.new()
    data = first_config()
    assert (session.data, session.path, session.dirty) == (data, None, False)
    assert session.encoders == {"text_encoder": "Qwen3"}
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
def test_what_is_wrong_is_told_at_its_field_and_kept(
    session: Session, data: Any, field: str, words: str
) -> None:
    session.open(written("a.json", right() | data))
    assert field in fields(session)
    assert words in session.problem(field)
    assert session.data == right() | data
    with pytest.raises((ConfigError, AssertionError)):
        assert not load_config("a.json").config or not session.problems


def test_every_wrong_field_is_one_problem(session: Session) -> None:
    session.open(
        written("a.json", right(epochs=0, seed="x", transformer={"train": 1}, vae=3))
    )
    assert sorted(fields(session)) == ["epochs", "seed", "transformer.train", "vae"]
    assert session.config is None
    assert session.plan is None
    assert session.usable.epochs == 100


def test_what_is_wrong_behind_other_mistakes_is_told_with_them(
    session: Session,
) -> None:
    wrong = right(
        learning_rate="fast",
        concepts=[{"path": "gone"}],
        masked_training=True,
        nonsense=3,
        optimizer={"optimizer": "PRODIGY"},
        layer_filter_preset="blocks",
    )
    rates = {"double_block_0": 0.3, "single_block_77": 0.5}
    session.open(written("a.json", wrong | {KEY: rates, "__version": 10}))
    assert sorted(fields(session)) == [
        KEY,
        "concepts.0.path",
        "learning_rate",
        "masked_training",
        "nonsense",
        "optimizer.optimizer",
    ]
    assert session.config is None
    # with all of it wrong the window still knows model and filter
    assert why_not_block_rates(session) == ""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        # without the method it is a LoRA's, with which a folder does not go
        (
            {"training_method": "FULL", "output_model_format": "DIFFUSERS"},
            ["training_method"],
        ),
        # of another model there may be such a block
        (
            {
                "base_model_name": "./gone.gguf",
                KEY: {"single_block_77": 0.5},
                "seed": "x",
            },
            ["base_model_name", KEY, "seed"],
        ),
    ],
)
def test_nothing_is_told_that_only_the_gap_of_a_mistake_makes_wrong(
    session: Session, wrong: dict[str, Any], told: list[str]
) -> None:
    session.open(written("a.json", right() | wrong))
    assert set(fields(session)) <= set(told)
    assert told[0] in fields(session) or "seed" in fields(session)


def test_what_is_usable_is_the_config_without_what_is_wrong_in_it(
    session: Session,
) -> None:
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


def test_what_is_wrong_in_a_list_of_its_own_leaves_the_rest_usable(
    session: Session,
) -> None:
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


def test_settings_that_contradict_each_other_are_usable_one_by_one(
    session: Session,
) -> None:
    session.open(written("a.json", right(output_model_format="DIFFUSERS", epochs=3)))
    assert session.config is None
    assert (session.usable.output_model_format, session.usable.epochs) == (
        "DIFFUSERS_LORA",
        3,
    )


def test_what_is_remembered_belongs_to_the_open_config(session: Session) -> None:
    session.open(written("a.json", right()))
    session.remember("a", 1)
    session.set({"epochs": 7})
    assert session.remembered("a") == 1
    session.save(Path("b.json"))
    assert session.remembered("a") == 1
    session.open(Path("b.json"))
    assert session.remembered("a") is None


def test_a_part_that_is_no_object_can_be_removed_and_written_into(
    session: Session,
) -> None:
    session.open(written("a.json", right(vae=3)))
    assert [(problem.field, problem.removable) for problem in session.problems] == [
        ("vae", True)
    ]
    session.set({"vae.model_name": "other"})
    assert session.data["vae"] == {"model_name": "other"}
    assert session.problems == ()


def test_unknown_and_unsupported_keys_are_named_kept_and_removable(
    session: Session,
) -> None:
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


def test_a_key_with_dots_can_be_removed(session: Session) -> None:
    session.open(written("a.json", right(**{"a.b": 1}) | {"transformer": {"c.d": 2}}))
    assert {problem.field for problem in session.problems if problem.removable} == {
        "a.b",
        "transformer.c.d",
    }
    session.remove("a.b", "transformer.c.d")
    assert session.data == right()


def test_a_known_field_with_a_wrong_value_is_mended_not_removed(
    session: Session,
) -> None:
    session.open(written("a.json", right(epochs=0)))
    assert [problem.removable for problem in session.problems] == [False]


def test_what_is_wrong_with_a_block_is_told_at_all_blocks_too(session: Session) -> None:
    session.open(written("a.json", right(**{KEY: {"double_block_3": 2}})))
    assert session.problem(KEY).startswith(
        "double_block_3: 2 should be less than or equal to 1."
    )
    assert session.problem("epochs") == session.problem("") == ""


def test_a_folder_that_came_is_seen_when_checked_again(session: Session) -> None:
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
def test_what_is_no_json_object_is_refused_and_the_open_config_stays(
    session: Session, content: str
) -> None:
    session.open(written("a.json", right(epochs=7)))
    session.set({"epochs": 8})
    with pytest.raises(ConfigError, match=r"b\.json"):
        session.open(written("b.json", content))
    assert (session.title, session.get("epochs"), session.dirty) == ("a.json", 8, True)


@pytest.mark.parametrize("depth", range(150, 1000, 50))
def test_a_config_of_nested_objects_is_opened_or_refused(
    session: Session, depth: int
) -> None:
    path = written("b.json", '{"x":' * depth + "1" + "}" * depth)
    with suppress(ConfigError):
        session.open(path)
    assert fields(session) == (["x", "concepts"] if session.data else ["concepts"])
    assert session.title == ("b.json" if session.data else "New config")


def test_a_problem_without_a_cure_ends_with_its_full_stop(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise ConfigError("epochs", "are too few")

    monkeypatch.setattr(checked, "make_plan", refuse)
    session.open(written("a.json", right()))
    (problem,) = session.problems
    assert (problem.field, problem.text) == ("epochs", "are too few.")


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_a_pipe_is_refused_and_never_waited_for(session: Session) -> None:
    os.mkfifo("pipe.json")
    for opens in (session.open, session.restore):
        with pytest.raises(ConfigError, match="is a named pipe"):
            opens(Path("pipe.json"))
    session.open(written("a.json", right(concept_file_name="pipe.json", concepts=[])))
    assert any(
        "pipe.json is a named pipe" in problem.text for problem in session.problems
    )

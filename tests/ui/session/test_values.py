"""The open config: values read, written and removed, in every order."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sessions import KEY, fields, right, written

from blockrate.config.files import load_config
from blockrate.core.errors import ConfigError
from blockrate.ui.session import Session


def test_a_value_is_the_users_even_if_wrong_else_the_default(session: Session) -> None:
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


def test_a_fine_tune_has_the_defaults_of_a_fine_tune(session: Session) -> None:
    session.set({"training_method": "FINE_TUNE"})
    assert session.config
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


def test_several_values_are_one_revision_that_everybody_hears_of(
    session: Session,
) -> None:
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


def test_writing_what_is_there_changes_nothing(session: Session) -> None:
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


def test_entries_of_lists_are_added_changed_and_taken_out(session: Session) -> None:
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


def test_removing_gives_the_data_back_as_they_were(session: Session) -> None:
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


def test_what_is_got_or_given_can_be_changed_by_its_owner(session: Session) -> None:
    mine = [{"path": "photos"}]
    session.set({"concepts": mine})
    mine[0]["path"] = "gone"
    session.get("concepts")[0]["path"] = "gone"
    session.get("transformer").clear()
    assert session.data == {"concepts": [{"path": "photos"}]}
    assert session.get("transformer")["train"] is True


# -- concepts and samples in files of their own ------------------------------------------------------------------------


def test_concepts_of_a_file_of_their_own_are_shown_and_written_inline_once_edited(
    session: Session,
) -> None:
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


def test_emptying_an_inline_list_does_not_bring_the_files_back(
    session: Session,
) -> None:
    written("c.json", [{"path": "gone"}])
    session.open(written("a.json", right(concept_file_name="c.json")))
    session.remove("concepts.0")
    assert session.config
    assert session.get("concepts") == session.config.concepts == []


def test_the_usual_file_of_onetrainer_may_be_absent(session: Session) -> None:
    session.open(
        written(
            "a.json",
            {"concepts": None, "concept_file_name": "training_concepts/concepts.json"},
        )
    )
    assert session.get("concepts") == []
    assert fields(session) == ["concepts"]


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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(FILES), steps=steps)
def test_whatever_is_done_the_same_data_come_back_and_load_as_they_were_checked(
    session: Session, restart: Callable[..., Any], start: Any, steps: Any
) -> None:
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
            text = json.dumps(session.data)
            session.save(overwrite=True)
            session.open(path)
            assert json.dumps(session.data) == text
        else:
            session.keep()
            text = json.dumps(session.data)
            dirty = session.dirty
            session = restart(path)
            assert (json.dumps(session.data), session.dirty) == (text, dirty)
    session.save(overwrite=True)
    assert not session.dirty
    assert json.dumps(json.loads(path.read_bytes())) == json.dumps(session.data)
    if session.config:
        assert load_config(path).config == session.config
    else:
        with pytest.raises(ConfigError):
            load_config(path)

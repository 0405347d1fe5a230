"""The open config: files of OneTrainer and of older versions open and come back."""

import json
from pathlib import Path

import pytest
from support.sessions import fields, right, written

from blockrate.config.files import load_config, parse_config
from blockrate.config.presets import named, read_named
from blockrate.core.errors import ConfigError
from blockrate.ui.session import Session

FACTS = json.loads(
    (Path(__file__).parents[2] / "config" / "onetrainer_defaults.json").read_text()
)


# -- OneTrainer's files and older names --------------------------------------------------------------------------------


def test_older_names_become_todays_in_memory_and_the_file_is_copied_before_it_is_written(
    session: Session,
) -> None:
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


def test_a_copy_never_replaces_an_earlier_one(session: Session) -> None:
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
    session: Session, version: int
) -> None:
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


def test_todays_file_of_onetrainer_keeps_its_version_and_order_and_is_copied(
    session: Session,
) -> None:
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


def test_a_file_of_blockrate_is_not_copied(session: Session) -> None:
    session.open(written("a.json", right()))
    session.set({"epochs": 6})
    session.save()
    assert not Path("a.before.json").exists()


def test_presets_and_examples_open_by_name_as_copies(session: Session) -> None:
    for name, path in named().items():
        before = path.read_bytes()
        session.open_named(name)
        assert (session.title, session.path, session.dirty) == (name, None, False)
        assert session.config == parse_config(read_named(name)).config
        if session.config.concepts:  # of an example: its photographs are found
            assert session.problems == ()
        assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="no such file, preset or example"):
        session.open_named("nowhere")


@pytest.mark.parametrize("version", [6, 10])
def test_unknown_names_that_set_nothing_stand_in_nobodys_way(
    session: Session, version: int
) -> None:
    data = right(__version=version, brand_new=False, optimizer={"zeta": None})
    data |= {"samples": [{"prompt": "a", "prior_attention_mask": False}]}
    session.open(path := written("a.json", data))
    assert fields(session) == []
    assert any("brand_new, optimizer.zeta" in line for line in session.warnings)
    session.set({"epochs": 3})
    session.save()
    assert load_config(path).config == session.config


def test_what_onetrainer_takes_for_an_absent_name_is_shown_and_stays_absent(
    session: Session,
) -> None:
    data = right(__version=10, transformer={"train": True})
    session.open(path := written("a.json", data))
    assert session.get("dynamic_timestep_shifting") is False
    assert session.get("transformer.weight_dtype") == "FLOAT_32"
    assert session.config
    assert session.config.transformer.weight_dtype == "FLOAT_32"
    assert not session.dirty
    session.set({"epochs": 3, "transformer.train": True})
    session.save()
    assert json.loads(path.read_text()) == {**data, "epochs": 3}
    session.set({"dynamic_timestep_shifting": True})
    assert session.config.dynamic_timestep_shifting


def test_what_an_older_file_meant_by_an_absent_name_is_written_into_it(
    session: Session,
) -> None:
    session.open(path := written("a.json", right(__version=6)))
    session.save()
    saved = json.loads(path.read_text())
    assert saved["dynamic_timestep_shifting"] is False
    assert "__version" not in saved
    assert load_config(path).config == session.config


@pytest.mark.parametrize("rates", [None, {"double_block_3": 1.0000000000000002}])
def test_rates_of_the_fork_are_read_where_they_are_shown(
    session: Session, rates: object
) -> None:
    data = right(__version=9, block_learning_rate_multiplier=rates)
    session.open(path := written("a.json", data))
    assert fields(session) == []
    shown = session.get("block_learning_rate_multiplier")
    assert shown == ({"double_block_3": 1.0} if rates else {})
    session.set({"block_learning_rate_multiplier.double_block_4": 0.5})
    session.save()
    assert load_config(path).config.block_learning_rate_multiplier == {
        **shown,
        "double_block_4": 0.5,
    }

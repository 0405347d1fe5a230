"""The open config: saved over what was read and nothing else."""

import json
import os
from pathlib import Path

import pytest
from support.sessions import KEY, right, written

from blockrate.config.files import load_config
from blockrate.core.errors import ConfigError, WriteError
from blockrate.ui.document import FileChanged
from blockrate.ui.open_save import _proposed_name
from blockrate.ui.preferences import load_preferences
from blockrate.ui.session import Session


def test_what_nobody_touched_is_written_back_exactly(session: Session) -> None:
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


def test_saving_needs_a_name_once(session: Session) -> None:
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


def test_the_home_of_nobody_is_a_name_like_any_other(session: Session) -> None:
    name = Path("~nobody-of-this-name")
    written(str(name), right())
    session.open(name)
    session.save(name)
    assert session.path == name.absolute()


def test_a_file_that_another_program_changed_is_not_overwritten_unasked(
    session: Session,
) -> None:
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


def test_saving_as_another_file_that_exists_is_asked_too(session: Session) -> None:
    session.open(written("a.json", right()))
    written("b.json", right(epochs=9))
    with pytest.raises(FileChanged, match="exists already"):
        session.save(Path("b.json"))
    session.save(Path("b.json"), overwrite=True)
    assert session.title == "b.json"
    assert load_config("b.json").config.epochs == 100


def test_a_file_that_is_gone_is_written_anew(session: Session) -> None:
    session.open(path := written("a.json", right()))
    path.unlink()
    session.save()
    assert load_config(path).config == session.config


def test_a_save_that_fails_leaves_the_old_file_and_the_changes(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: int | memoryview) -> None:
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


def test_a_folder_is_no_place_to_save_to(session: Session) -> None:
    Path("folder.json").mkdir()
    with pytest.raises(FileChanged):
        session.save(Path("folder.json"))
    with pytest.raises(WriteError):
        session.save(Path("folder.json"), overwrite=True)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_config_stays_a_link(session: Session) -> None:
    written("a.json", right())
    Path("link.json").symlink_to("a.json")
    session.open(Path("link.json"))
    session.set({"epochs": 3})
    session.save()
    assert Path("link.json").is_symlink()
    assert load_config("a.json").config.epochs == 3


def test_a_config_without_a_name_is_called_like_its_images(session: Session) -> None:
    assert _proposed_name(session) == "config"
    session.set({"concepts": [{"path": "photos/my red dog"}]})
    assert _proposed_name(session) == "my-red-dog"
    session.open_data({}, path=None, title="portrait again")
    assert _proposed_name(session) == "portrait-again"

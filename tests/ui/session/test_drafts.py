"""The open config: what is not saved is not lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sessions import fields, right, written

from blockrate.config.gallery import first_config
from blockrate.core.errors import ConfigError
from blockrate.ui import session as session_module
from blockrate.ui.document import FileChanged
from blockrate.ui.session import Session


def test_a_change_is_there_after_a_crash(
    session: Session, restart: Callable[..., Any]
) -> None:
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


def test_the_draft_is_written_by_itself_after_a_pause(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_PAUSE", 0)
    session.set({"epochs": 5})
    session._timer.join()
    (draft,) = Path("home/drafts").iterdir()
    assert json.loads(draft.read_text())["data"] == {"epochs": 5}


def test_a_file_changed_since_the_crash_is_not_overwritten_unasked(
    session: Session, restart: Callable[..., Any]
) -> None:
    session.open(written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    written("a.json", right(epochs=9))
    with pytest.raises(FileChanged):
        restart().save()


@pytest.mark.parametrize("end", ["save", "undo", "new"])
def test_what_is_saved_undone_or_given_up_leaves_no_draft(
    session: Session, restart: Callable[..., Any], end: str
) -> None:
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


def test_another_file_named_at_the_start_leaves_the_draft_for_later(
    session: Session, restart: Callable[..., Any]
) -> None:
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right(epochs=8)))
    assert (other.title, other.get("epochs")) == ("b.json", 8)
    other.set({"epochs": 9})
    other.save()
    assert restart().get("epochs") == 5
    assert restart(first).get("epochs") == 5


def test_a_draft_is_there_again_when_its_file_is_opened_later(
    session: Session, restart: Callable[..., Any]
) -> None:
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
    session: Session, restart: Callable[..., Any]
) -> None:
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


def test_an_unnamed_config_without_changes_leaves_no_draft(session: Session) -> None:
    session.open_named("demo")
    session.remember("a", 1)
    session.keep()
    assert not list(Path("home/drafts").glob("*"))


def test_a_draft_of_a_file_that_was_written_over_is_gone(
    session: Session, restart: Callable[..., Any]
) -> None:
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right(epochs=8)))
    other.save(first, overwrite=True)
    again = restart()
    assert (again.path, again.get("epochs"), again.dirty) == (first, 8, False)


def test_to_forget_what_was_not_remembered_touches_no_draft(
    session: Session, restart: Callable[..., Any]
) -> None:
    session.set({"epochs": 5})
    session.keep()
    other = restart(written("b.json", right()))
    other.new()
    other.remember("a", None)
    assert not other._timer.is_alive()
    assert restart().get("epochs") == 5


def test_to_open_the_open_file_once_more_reads_it_from_the_disk(
    session: Session,
) -> None:
    session.open(first := written("a.json", right()))
    session.set({"epochs": 5})
    session.keep()
    session.open(first)
    assert (session.get("epochs"), session.dirty) == (100, False)
    session.keep()
    assert not list(Path("home/drafts").iterdir())


def test_what_is_remembered_outlives_a_crash_and_takes_nothing_else_along(
    session: Session, restart: Callable[..., Any]
) -> None:
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


def test_a_start_with_nothing_to_go_on_with_is_a_new_config(
    session: Session, restart: Callable[..., Any]
) -> None:
    assert restart().data == first_config()
    session.open(path := written("a.json", right()))
    path.unlink()
    assert restart().data == first_config()
    with pytest.raises(ConfigError, match=r"gone\.json"):
        restart(Path("gone.json"))


def test_a_draft_keeps_the_form_that_every_version_reads(
    session: Session, restart: Callable[..., Any]
) -> None:
    draft: dict[str, Any] = {
        "data": right(epochs=5),
        "title": "a.json",
        "path": str(Path("a.json").absolute()),
        "saved": json.dumps(right(), sort_keys=True),
        "digest": "0123",
        "foreign": True,
        "notes": ["a note"],
        "aside": {"a": 1},
    }
    Path("home/drafts").mkdir(parents=True)
    file = written("home/drafts/04f5.json", json.dumps(draft))
    session = restart()
    assert (session.title, session.get("epochs"), session.dirty) == ("a.json", 5, True)
    assert session.path == Path("a.json").absolute()
    assert session.remembered("a") == 1
    assert "a note" in session.warnings
    file.unlink()
    session.keep()
    (file,) = Path("home/drafts").iterdir()
    again = json.loads(file.read_text())
    assert again.pop("notes")[0] == draft.pop("notes")[0]
    assert again == draft


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"data": 3}', '{"data": {}, "titel": ""}', '{"data": {}, "title'],
)
def test_a_damaged_draft_is_passed_over(
    restart: Callable[..., Any], content: str
) -> None:
    Path("home/drafts").mkdir(parents=True)
    written("home/drafts/unnamed.json", content)
    assert restart().data == first_config()


def test_a_draft_that_cannot_be_written_is_told(session: Session) -> None:
    Path("home").write_text("a file")
    session.set({"epochs": 5})
    session.keep()
    assert any(
        "a crash would lose what is not saved" in warning
        for warning in session.warnings
    )

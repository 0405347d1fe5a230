"""What the app remembers between starts."""

from pathlib import Path
from typing import Any

import pytest

from blockrate.core.errors import WriteError
from blockrate.run.home import state_folder
from blockrate.ui.preferences import Preferences, load_preferences


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_first_start_has_the_defaults_and_writes_nothing(home: Path) -> None:
    assert load_preferences() == Preferences(
        recent=[], theme="auto", port=0, templates={}, last_run=""
    )
    assert not home.exists()


def test_what_is_saved_is_there_at_the_next_start() -> None:
    wishes = Preferences(
        theme="dark",
        port=8080,
        templates={"soft é": {"double_block_0": 0.123456789}},
        last_run="/r",
    )
    wishes.save()
    assert load_preferences() == wishes


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b'{"theme": "pink"}', b'{"port": 70000}', b"\xff", b'{"recent": 3}'],
)
def test_a_damaged_file_gives_the_defaults(home: Path, content: bytes) -> None:
    home.mkdir()
    (home / "preferences.json").write_bytes(content)
    assert load_preferences() == Preferences()


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "0.5", True])
def test_a_template_holds_multipliers_only(home: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="templates"):
        Preferences(templates={"mine": {"double_block_0": value}})


def test_the_recent_files_are_the_newest_twelve_each_once() -> None:
    wishes = Preferences()
    for number in [*range(14), 5]:
        wishes.used(Path(f"/configs/{number}.json"))
    expected = [
        f"/configs/{number}.json" for number in (5, 13, 12, 11, 10, 9, 8, 7, 6, 4, 3, 2)
    ]
    assert wishes.recent == load_preferences().recent == expected


def test_a_state_folder_that_cannot_be_written_is_told_but_stops_no_opening(
    home: Path,
) -> None:
    home.write_text("a file")
    wishes = Preferences()
    wishes.used(Path("/configs/a.json"))
    assert wishes.recent == ["/configs/a.json"]
    with pytest.raises(WriteError):
        wishes.save()


def test_without_a_wish_the_state_lies_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLOCKRATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert state_folder() == tmp_path / ".blockrate"

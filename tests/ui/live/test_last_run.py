"""Which run the app begins with at its next start: one that was shown without harm, and no other."""

import json
from pathlib import Path

import pytest
from support.loops import run_apart

from blockrate.run.folder import RunFolder
from blockrate.ui.live import watch as watch_module
from blockrate.ui.live.watch import Watch
from blockrate.ui.preferences import Preferences, load_preferences


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        RunFolder(folder).create(json.dumps({}))
    return folders


def kept() -> str:
    return load_preferences().last_run


def test_a_run_is_remembered_when_it_was_looked_at(runs: list[Path]) -> None:
    watch = Watch(Preferences())
    watch.show(runs[0])
    assert kept() == ""
    run_apart(watch.look())
    assert kept() == str(runs[0])
    watch.show(runs[1])
    assert kept() == str(runs[0])
    run_apart(watch.look())
    assert kept() == str(runs[1])


def test_who_dies_of_a_run_does_not_begin_with_it_again(runs: list[Path]) -> None:
    Preferences(last_run=str(runs[0])).save()
    # and its process ends here, before a look is over
    Watch(load_preferences())
    assert kept() == ""


def test_a_look_that_fails_is_told_once_and_forgets_the_run(
    runs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = Watch(Preferences())
    watch.show(runs[0])
    run_apart(watch.look())
    rounds = 0

    def look(*_: object) -> None:
        raise RuntimeError("bad luck")

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch_module, "look_into", look)
    monkeypatch.setattr("asyncio.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        run_apart(watch.follow())
    assert (rounds, kept()) == (5, "")
    assert capsys.readouterr().err.count("RuntimeError: bad luck") == 1


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800", "gone"])
def test_a_run_that_cannot_be_is_not_shown(runs: list[Path], name: str) -> None:
    assert Watch(Preferences(last_run=name)).run is None

"""A session in a state folder and a working directory of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockrate.ui import session as session_module
from blockrate.ui.document import NO_TITLE
from blockrate.ui.session import Session


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sync: None) -> None:
    """A state folder and a working directory of its own; drafts are written by `keep`, not by the clock."""
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(session_module, "_PAUSE", 1000)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").touch()


@pytest.fixture
def session() -> Iterator[Session]:
    """One whose config says nothing yet."""
    session = Session()
    session.open_data({}, path=None, title=NO_TITLE)
    yield session
    session._timer.cancel()


@pytest.fixture
def restart(session: Session) -> Iterator[Callable[..., Any]]:
    """End the session as a crash would, and start the next one."""
    sessions: list[Session] = []

    def start(config: Path | None = None) -> Session:
        for old in (session, *sessions):
            old._timer.cancel()
        sessions.append(Session())
        sessions[-1].restore(config)
        return sessions[-1]

    yield start
    for other in sessions:
        other._timer.cancel()

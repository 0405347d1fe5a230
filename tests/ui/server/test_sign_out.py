"""Signing out, and of which server a cookie is."""

import json
import os
import stat
from pathlib import Path

import pytest
from support.apps import App
from support.guarded import KEY, Inside, make
from support.guarded import ask as ask_guard
from support.guarded import sign_in as sign_in_guard
from support.http_answers import SOCKET, ask, host_of, origin_of, place, sign_in
from support.loops import run_apart
from support.pages import StartApp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from blockrate.core.errors import WriteError
from blockrate.run.home import private_folder
from blockrate.ui import sign_ins as module
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session
from blockrate.ui.sign_ins import SignIns

NAME = "blockrate"


def sign_out(app: App, session: dict[str, str], **headers: str) -> int:
    return ask(app, "/sign-out", session | headers, method="POST")[0]


def test_who_signs_out_is_out_and_so_are_all_others(app: App) -> None:
    session = sign_in(app)
    another = sign_in(app)
    assert ask(app, "/", session)[0] == 200
    assert sign_out(app, session) == 200
    for cookie in (session, another):
        for path in ("/", "/run", SOCKET + "?EIO=4&transport=polling"):
            assert ask(app, path, cookie)[0] == 401
    # the printed address lets in whoever has it
    assert ask(app, "/", sign_in(app))[0] == 200


def test_an_open_websocket_ends_with_the_session(app: App) -> None:
    session = sign_in(app)

    async def talk() -> None:
        address = f"ws://{host_of(app)}{SOCKET}?EIO=4&transport=websocket"
        headers = {**session, "Origin": origin_of(app)}
        async with connect(
            address, additional_headers=headers, proxy=None
        ) as websocket:
            await websocket.recv()
            assert sign_out(app, session) == 200
            with pytest.raises(ConnectionClosed):
                await websocket.recv()

    run_apart(talk())


def test_nobody_else_signs_the_owner_out(app: App) -> None:
    session = sign_in(app)
    assert sign_out(app, {}) == 401
    assert sign_out(app, session, Origin="http://evil.example") == 403
    assert sign_out(app, session, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert ask(app, "/sign-out", session)[0] == 404
    assert ask(app, "/", session)[0] == 200


def test_a_session_outlives_a_restart_of_its_server_and_a_sign_out_too(
    start_app: StartApp,
) -> None:
    first = start_app()
    port = str(place(first)[1])
    session = sign_in(first)
    first.kill()
    second = start_app("--port", port)
    assert ask(second, "/", session)[0] == 200
    assert sign_out(second, session) == 200
    second.kill()
    assert ask(start_app("--port", port), "/", session)[0] == 401


def test_a_cookie_is_of_one_server(start_app: StartApp) -> None:
    """Browsers send it to every port of the machine, and its name can be changed."""
    first, second = start_app(), start_app()
    value = sign_in(first)["Cookie"].partition("=")[2]
    renamed = {"Cookie": f"blockrate-{place(second)[1]}={value}"}
    assert ask(second, "/", renamed)[0] == 401


def test_one_key_makes_no_cookies_for_another_place() -> None:
    cookie = SignIns(KEY, "127.0.0.1 8080").begin()
    assert SignIns(KEY, "127.0.0.1 8080").hold(cookie)
    assert not SignIns(KEY, "127.0.0.1 8081").hold(cookie)
    assert not SignIns(KEY, "192.168.0.2 8080").hold(cookie)


def test_signed_out_is_signed_out_on_a_full_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise WriteError("session.key", "the disk is full")

    monkeypatch.setattr(module, "atomic_write", full)
    sign_ins = SignIns(KEY, "a server", tmp_path / "session.key")
    cookie = sign_ins.begin()
    with pytest.raises(WriteError):
        sign_ins.end_all()
    assert not sign_ins.hold(cookie)


def test_the_guard_takes_the_cookie_back() -> None:
    guard = make(Inside())
    session = sign_in_guard(guard)
    answer = ask_guard(guard, "/sign-out", session, method="POST")
    assert (answer.status, answer.body) == (200, "Signed out.")
    assert f'{NAME}="";' in answer.headers["set-cookie"]
    assert ask_guard(guard, "/", session).status == 401


# -- what it keeps -----------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {
        str(entry.relative_to(folder)): stat.S_IMODE(entry.stat().st_mode)
        for entry in folder.rglob("*")
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_what_the_app_keeps_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("BLOCKRATE_HOME", str(home))
    before = os.umask(0)
    try:
        preferences = Preferences(recent=["/home/me/secret/config.json"])
        preferences.save()
        session = Session(preferences)
        session.set({"concepts": [{"path": "secret photos"}]})
        session.keep()
    finally:
        os.umask(before)
    session.new()
    found = modes(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (found["preferences.json"], found["drafts"]) == (0o600, 0o700)
    assert all(mode in (0o600, 0o700) for mode in found.values())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_what_earlier_versions_left_open_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLOCKRATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    folder = tmp_path / ".blockrate"
    folder.mkdir(mode=0o755)
    (folder / "preferences.json").write_text(json.dumps({}))
    Preferences().save()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {"preferences.json": 0o600}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_folder_that_the_user_shares_stays_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    assert private_folder() == tmp_path
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE(private_folder("drafts").stat().st_mode) == 0o700

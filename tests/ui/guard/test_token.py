"""The guard alone: the token and the session."""

import os
import stat
from pathlib import Path

import pytest
from support.guarded import KEY, TOKEN, Inside, ask, make, sign_in

from blockrate.ui.guard import Guard
from blockrate.ui.sign_ins import read_key


def test_the_token_is_traded_for_a_cookie_and_redirected_away(
    guard: Guard, inside: Inside
) -> None:
    answer = ask(guard, "/training", query=f"token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/training")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert inside.scopes == []
    assert ask(guard, headers=[("cookie", cookie.split(";")[0])]).body == "the app"


def test_two_sessions_differ(guard: Guard) -> None:
    assert sign_in(guard) != sign_in(guard)


def test_the_app_never_sees_a_token(guard: Guard, inside: Inside) -> None:
    session = sign_in(guard)
    for token in (TOKEN, "x" * 43):
        assert (
            ask(guard, "/run", session, query=f"a=1&token={token}").headers["location"]
            == "/run"
        )
    assert inside.scopes == []


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "/.//evil.example"]
)
def test_the_token_leads_to_no_other_site(guard: Guard, path: str) -> None:
    assert ask(guard, path, query=f"token={TOKEN}").status == 404


@pytest.mark.parametrize(
    "token",
    ["", "t", "t" * 42, "t" * 44, "T" * 43, "t" * 42 + "é", "%00" + "t" * 42, "*"],
)
def test_a_wrong_token_lets_nobody_in(guard: Guard, inside: Inside, token: str) -> None:
    assert ask(guard, query=f"token={token}").status == 401
    assert ask(guard, kind="websocket", query=f"token={token}").status == 401
    assert inside.scopes == []


def test_the_token_alone_opens_neither_websocket_nor_post(
    guard: Guard, inside: Inside
) -> None:
    assert ask(guard, kind="websocket", query=f"token={TOKEN}").status == 401
    assert ask(guard, method="POST", query=f"token={TOKEN}", body=[b""]).status == 401
    assert (
        ask(
            guard,
            headers=[
                ("authorization", f"Bearer {TOKEN}"),
                ("cookie", f"blockrate={TOKEN}"),
            ],
        ).status
        == 401
    )
    assert inside.scopes == []


def test_tokens_are_compared_in_constant_time(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("secrets.compare_digest", compare)
    assert ask(guard, query="token=wrong").status == 401
    assert ask(guard, query=f"token={TOKEN}").status == 303
    assert compared == [(TOKEN.encode(), b"wrong"), (TOKEN.encode(), TOKEN.encode())]


def test_a_thousand_guesses_cost_time_and_the_right_token_does_not(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("blockrate.ui.guard.asyncio.sleep", sleep)
    for number in range(1000):
        assert ask(guard, query=f"token={number:043}").status == 401
    assert waited[:10] == [0.0] * 10
    assert waited == sorted(waited)
    assert sum(waited) > 1000
    assert ask(guard, query=f"token={TOKEN}").status == 303
    assert len(waited) == 1000


def test_a_ticket_lets_in_once(guard: Guard) -> None:
    ticket = guard.ticket()
    assert ask(guard, query=f"token={ticket}").status == 303
    assert ask(guard, query=f"token={ticket}").status == 401
    assert ask(guard, query=f"token={TOKEN}").status == 303


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_session_survives_a_restart_with_the_same_key_only(
    inside: Inside, kind: str
) -> None:
    session = sign_in(make(inside))
    assert ask(make(inside, token="u" * 43), headers=session, kind=kind).status in (
        200,
        101,
    )
    assert ask(make(inside, key=b"o" * 64), headers=session, kind=kind).status == 401


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_no_other_cookie_is_a_session(guard: Guard, inside: Inside, kind: str) -> None:
    value = sign_in(guard)[0][1].partition("=")[2]
    name, moment, signature = value.split(".")
    bad = [
        "",
        "x",
        name,
        f"{name}.{moment}",
        f"x{value}",
        f"{name}.{moment}.{signature[:-2]}",
        f"{name}.aaaa.{signature}",
    ]
    for cookie in [f"blockrate={text}" for text in bad] + [
        f"other={value}",
        f"blockrate-x={value}",
        "=",
        ";;",
        "é",
    ]:
        assert ask(guard, headers=[("cookie", cookie)], kind=kind).status == 401
    assert inside.scopes == []


def test_a_session_ends_after_a_month(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    session = sign_in(guard)
    now = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 29 * 86400)
    assert ask(guard, headers=session).status == 200
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 31 * 86400)
    assert ask(guard, headers=session).status == 401


@pytest.mark.parametrize(
    ("token", "key"), [("", KEY), ("short", KEY), (TOKEN, b""), (TOKEN, b"short")]
)
def test_there_is_no_guard_without_a_token_and_a_key(
    inside: Inside, token: str, key: bytes
) -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        make(inside, token=token, key=key)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "session.key"
    key = read_key(file)
    assert len(key) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert read_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"damaged")
    assert read_key(file) != key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

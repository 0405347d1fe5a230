"""The guard alone, asked directly: an app inside that remembers what reaches it."""

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from blockrate.core.errors import ConfigError
from blockrate.ui.guard import Guard, all_names, read_key

TOKEN = "t" * 43
KEY = b"k" * 64
HOST = "127.0.0.1:8080"
Headers = Sequence[tuple[str, str]]

BAD_HOSTS: list[Headers] = [
    [("host", "evil.example")],
    [("host", "evil.example:8080")],
    [("host", "127.0.0.1.evil.example:8080")],
    [("host", "127.0.0.1:8080.evil.example")],
    [("host", "localhost.evil:8080")],
    [("host", "evil@127.0.0.1:8080")],
    [("host", "127.0.0.1:8080@evil")],
    [("host", "127.0.0.1:8081")],
    [("host", "127.0.0.1")],
    [("host", "127.0.0.1:")],
    [("host", "127.0.0.1:08080")],
    [("host", "127.0.0.1.:8080")],
    [("host", "localhost.:8080")],
    [("host", "127.1:8080")],
    [("host", "2130706433:8080")],
    [("host", "0.0.0.0:8080")],
    [("host", "[::1]:8080")],
    [("host", "[::ffff:127.0.0.1]:8080")],
    [("host", "::1")],
    [("host", "http://127.0.0.1:8080")],
    [("host", " 127.0.0.1:8080")],
    [("host", "127.0.0.1:8080, evil.example")],
    [("host", "")],
    [],
    [("host", HOST), ("host", HOST)],
    [("host", HOST), ("host", "evil.example")],
]
BAD_ORIGINS = [
    "http://evil.example",
    "null",
    "",
    "http://localhost.evil:8080",
    "http://127.0.0.1",
    "http://127.0.0.1:80",
    "http://127.0.0.1:3000",
    "https://127.0.0.1:8080",
    "http://127.0.0.1:8080/",
    "http://127.0.0.1:8080.evil.example",
    "http://evil@127.0.0.1:8080",
    "HTTP://127.0.0.1:8080",
    "file://",
    "ws://127.0.0.1:8080",
    "http://[::1]:8080",
    "http://127.0.0.1:8080 http://evil.example",
]
FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},  # another port of this machine
    {"sec-fetch-site": "nonsense"},
    {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "iframe",
    },
    {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "no-cors",
        "sec-fetch-dest": "image",
    },
]
NAVIGATION = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}


NO_BODY = {"type": "http.request", "body": b"", "more_body": False}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Inside:
    """The app behind the guard."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.accept"})
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body = body + message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"cache-control", b"public")],
            }
        )
        await send({"type": "http.response.body", "body": b"the app"})


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def guard(inside: Inside) -> Guard:
    return make(inside)


def make(
    inside: Inside, *, token: str = TOKEN, key: bytes = KEY, extra: Sequence[str] = ()
) -> Guard:
    return Guard(
        inside,
        token=token,
        key=key,
        names=all_names("127.0.0.1", "127.0.0.1", 8080, extra),
    )


def ask(
    guard: Guard,
    path: str = "/",
    headers: Headers = (),
    *,
    kind: str = "http",
    method: str = "GET",
    query: str = "",
    body: Sequence[bytes] = (),
    host: Headers = (("host", HOST),),
) -> Answer:
    """What the guard answers; the status of a websocket that was let in is 101."""
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "http_version": "1.1",
    }
    scope["headers"] = [
        (name.encode(), value.encode()) for name, value in (*host, *headers)
    ]
    scope |= (
        {"method": method}
        if kind == "http"
        else {"extensions": {"websocket.http.response": {}}}
    )
    coming: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": part, "more_body": i + 1 < len(body)}
            for i, part in enumerate(body)
        ]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return (
            {"type": "websocket.connect"}
            if kind == "websocket"
            else next(coming, NO_BODY)
        )

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    if sent[0]["type"] == "websocket.accept":
        return Answer(101, {}, "")
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(
        sent[0]["status"], told, b"".join(part["body"] for part in sent[1:]).decode()
    )


def sign_in(guard: Guard) -> Headers:
    """The header of a browser with a session."""
    cookie = ask(guard, query=f"token={TOKEN}").headers["set-cookie"]
    return [("cookie", cookie.split(";")[0])]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", BAD_HOSTS, ids=str)
def test_no_other_name_is_answered(
    guard: Guard, inside: Inside, kind: str, host: Headers
) -> None:
    session = sign_in(guard)
    for path in ("/", "/health", "/files/x", "/_nicegui_ws/socket.io/"):
        assert ask(guard, path, session, kind=kind, host=host).status == 403
    assert inside.scopes == []


@pytest.mark.parametrize(
    "path",
    ["http://evil.example/", "http://127.0.0.1:8080/", "*", "evil.example:443", ""],
)
def test_a_request_for_another_server_is_refused(
    guard: Guard, inside: Inside, path: str
) -> None:
    assert ask(guard, path, sign_in(guard)).status == 403
    assert inside.scopes == []


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LocalHost:8080"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_its_own_names_are_answered(
    guard: Guard, inside: Inside, kind: str, host: str
) -> None:
    answer = ask(
        guard,
        "/",
        [*sign_in(guard), ("origin", f"http://{host.lower()}")],
        kind=kind,
        host=[("host", host)],
    )
    assert answer.status in (200, 101)
    assert len(inside.scopes) == 1


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_no_page_of_another_site_is_answered(
    guard: Guard, inside: Inside, kind: str, origin: str
) -> None:
    session = sign_in(guard)
    for path in ("/", "/health", "/_nicegui_ws/socket.io/"):
        for method in ("GET", "POST"):
            headers = [*session, ("origin", origin)]
            assert (
                ask(guard, path, headers, kind=kind, method=method, body=[b""]).status
                == 403
            )
    assert (
        ask(
            guard,
            "/",
            [*session, ("origin", "http://" + HOST), ("origin", origin)],
            kind=kind,
        ).status
        == 403
    )
    assert inside.scopes == []


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("metadata", FOREIGN, ids=str)
def test_what_another_site_fetches_is_refused(
    guard: Guard, inside: Inside, kind: str, metadata: Any
) -> None:
    for path in ("/", "/health", "/files/x"):
        assert (
            ask(guard, path, [*sign_in(guard), *metadata.items()], kind=kind).status
            == 403
        )
    assert inside.scopes == []


def test_a_link_from_another_site_shows_only_the_sign_in_page(
    guard: Guard, inside: Inside
) -> None:
    headers = [*sign_in(guard), *NAVIGATION.items()]
    answer = ask(guard, "/training", headers)
    assert answer.status == 401
    # looked at again from our own page: then the cookie counts
    assert 'content="0; url=/training"' in answer.body
    assert ask(guard, "/training", headers, method="POST", body=[b""]).status == 403
    assert inside.scopes == []
    assert (
        ask(
            guard, "/training", [*sign_in(guard), ("sec-fetch-site", "same-origin")]
        ).status
        == 200
    )


def test_a_name_of_a_proxy_is_answered_with_http_and_https(inside: Inside) -> None:
    guard = make(inside, extra=["GPU.example.org", "localhost:9000", "[fd00::1]"])
    session = sign_in(guard)
    for host in (
        "gpu.example.org",
        "gpu.example.org:8080",
        "localhost:9000",
        "[fd00::1]",
        "[fd00::1]:8080",
    ):
        for origin in (f"http://{host}", f"https://{host}"):
            assert (
                ask(
                    guard, "/", [*session, ("origin", origin)], host=[("host", host)]
                ).status
                == 200
            )
    for host in (
        "gpu.example.org:9000",
        "localhost:9001",
        "x.gpu.example.org",
        "gpu.example.org.evil",
    ):
        assert ask(guard, "/", session, host=[("host", host)]).status == 403
    assert ask(guard, "/", [*session, ("origin", f"https://{HOST}")]).status == 403


@pytest.mark.parametrize(
    "name",
    [
        "https://x.org",
        "*",
        "*.x.org",
        "",
        "x.org/",
        "x..org",
        "a b",
        "::1",
        "x.org:port",
    ],
)
def test_what_is_no_name_of_a_host_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a host"):
        all_names("127.0.0.1", "127.0.0.1", 8080, [name])


def test_a_server_for_all_networks_answers_to_the_addresses_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from socket import AF_INET, AF_INET6

    from psutil._ntuples import snicaddr

    cards = {
        "eth0": [
            (AF_INET, "192.168.1.5"),
            (AF_INET6, "fe80::1%eth0"),
            (17, "02:42:ac:11:00:02"),
        ]
    }
    found = {
        name: [snicaddr(a, b, None, None, None) for a, b in items]
        for name, items in cards.items()
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    of_ipv4 = {
        "localhost:80",
        "box:80",
        "192.168.1.5:80",
        "localhost",
        "box",
        "192.168.1.5",
    }
    assert all_names("0.0.0.0", "0.0.0.0", 80, []).hosts == of_ipv4
    assert all_names("::", "::", 80, []).hosts == of_ipv4 | {
        "[fe80::1]:80",
        "[fe80::1]",
    }
    assert all_names("192.168.1.5", "192.168.1.5", 81, []).hosts == {
        "192.168.1.5:81",
        "box:81",
    }
    assert all_names("::1", "::1", 8080, []).hosts == {"[::1]:8080", "localhost:8080"}


# -- the token and the session -----------------------------------------------------------------------------------------


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
    compared = []
    monkeypatch.setattr(
        "secrets.compare_digest",
        lambda *pair: compared.append(pair) or pair[0] == pair[1],
    )
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


# -- every request -----------------------------------------------------------------------------------------------------


def test_only_health_needs_no_session(guard: Guard, inside: Inside) -> None:
    for path in (
        "/",
        "/health/",
        "/healthy",
        "/HEALTH",
        "/files/x",
        "/favicon.ico",
        "/_nicegui/x",
        "/no/such",
    ):
        assert ask(guard, path).status == 401
        assert ask(guard, path, kind="websocket").status == 401
    assert inside.scopes == []
    assert ask(guard, "/health").status == 200


@pytest.mark.parametrize(
    "path", ["/", "/health", "/_nicegui/3/static/x.js", "/a//b", "/no"]
)
@pytest.mark.parametrize("known", [True, False])
def test_every_answer_carries_the_headers_of_safety(
    guard: Guard, path: str, known: bool
) -> None:
    answers = [
        ask(guard, path, sign_in(guard) if known else ()),
        ask(guard, path, host=[("host", "evil;x")]),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        policy = answer.headers["content-security-policy"]
        for rule in (
            "default-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "object-src 'none'",
        ):
            assert rule in policy
        assert "evil" not in policy
        kept = known and path.startswith("/_nicegui") and answer.status == 200
        assert answer.headers["cache-control"] == ("public" if kept else "no-store")


def test_a_body_reaches_the_app_whole(guard: Guard, inside: Inside) -> None:
    headers = [*sign_in(guard), ("transfer-encoding", "chunked")]
    assert (
        ask(
            guard, method="POST", headers=headers, body=[b"a", b"b" * 2**19, b"c"]
        ).status
        == 200
    )
    assert inside.bodies == [b"a" + b"b" * 2**19 + b"c"]


@pytest.mark.parametrize("size", ["1048577", "10000000000", "-1", "x", "1e3"])
def test_a_body_that_is_announced_too_large_is_not_read(
    guard: Guard, inside: Inside, size: str
) -> None:
    answer = ask(
        guard, method="POST", headers=[*sign_in(guard), ("content-length", size)]
    )
    assert answer.status == 413
    assert inside.scopes == []


def test_a_body_that_grows_too_large_is_cut_off(guard: Guard, inside: Inside) -> None:
    headers = [*sign_in(guard), ("transfer-encoding", "chunked")]
    assert (
        ask(guard, method="POST", headers=headers, body=[b"x" * 2**16] * 10_000).status
        == 413
    )
    assert inside.scopes == []


def test_what_a_proxy_says_of_the_asker_does_not_reach_the_app(
    guard: Guard, inside: Inside
) -> None:
    hostile = [
        "X-Forwarded-Prefix",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
    ]
    ask(
        guard,
        headers=[
            *sign_in(guard),
            *((name.lower(), "//evil.example") for name in hostile),
        ],
    )
    assert {name for name, _ in inside.scopes[0]["headers"]} == {b"host", b"cookie"}


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/a/../b",
        "/./a",
        "/files/..",
        "/a\\b",
        "/a\0b",
        "/a\nb",
        "/a\x7fb",
        "/" + "a" * 1000,
    ],
)
def test_odd_paths_do_not_reach_the_app(
    guard: Guard, inside: Inside, path: str
) -> None:
    assert ask(guard, path, sign_in(guard)).status == 404
    assert inside.scopes == []


@pytest.mark.parametrize(
    ("words", "is_a_fault"),
    [("No response returned.", False), ("a fault of ours", True)],
)
def test_only_a_browser_that_goes_on_before_the_answer_is_no_fault(
    words: str, is_a_fault: bool
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError(words)

    guard = Guard(
        fail, token=TOKEN, key=KEY, names=all_names("127.0.0.1", "127.0.0.1", 8080, ())
    )
    # nothing was sent
    with (
        pytest.raises(RuntimeError, match=words)
        if is_a_fault
        else pytest.raises(IndexError)
    ):
        ask(guard, "/health")

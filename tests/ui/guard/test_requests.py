"""The guard alone: every request and every answer."""

import pytest
from starlette.types import Receive, Scope, Send
from support.guarded import KEY, TOKEN, Inside, ask, sign_in

from blockrate.ui.guard import Guard, all_names
from blockrate.ui.sign_ins import SignIns


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
        fail,
        token=TOKEN,
        sign_ins=SignIns(KEY, "a server"),
        names=all_names("127.0.0.1", "127.0.0.1", 8080, ()),
    )
    # nothing was sent
    with (
        pytest.raises(RuntimeError, match=words)
        if is_a_fault
        else pytest.raises(IndexError)
    ):
        ask(guard, "/health")

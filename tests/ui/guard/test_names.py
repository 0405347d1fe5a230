"""The guard alone: which names and origins it lets in."""

from typing import Any

import pytest
from support.guarded import HOST, Headers, Inside, ask, make, sign_in

from blockrate.core.errors import ConfigError
from blockrate.ui.guard import Guard, all_names

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

    cards: dict[str, list[tuple[Any, str]]] = {
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

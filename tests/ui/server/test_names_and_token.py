"""The real server: which names and origins are answered, and the token."""

import json

from support.apps import App
from support.http_answers import (
    SOCKET,
    ask,
    host_of,
    origin_of,
    place,
    raw,
    sign_in,
    token_of,
    upgrade,
)
from support.pages import StartApp

EDGES = [
    "/",
    "/health",
    "/training",
    "/files/x",
    SOCKET + "?EIO=4&transport=polling",
    "/favicon.ico",
    "/no/such",
]


# -- names and origins -------------------------------------------------------------------------------------------------


def test_no_other_name_is_answered_over_http_and_websocket(app: App) -> None:
    session = sign_in(app)
    port = place(app)[1]
    bad = [
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil:{port}",
        f"127.0.0.1.:{port}",
        f"[::1]:{port}",
    ]
    for host in [*bad, "127.0.0.1", f"127.0.0.1:{port + 1}", f"0.0.0.0:{port}", ""]:
        for path in EDGES:
            assert ask(app, path, session | {"Host": host})[0] == 403, (host, path)
        assert upgrade(app, session | {"Host": host}) == 403, host
    cookie = f"Cookie: {session['Cookie']}\r\n"
    for path in EDGES:
        # HTTP itself calls these a mistake: 400
        assert raw(app, f"GET {path} HTTP/1.1\r\n{cookie}\r\n".encode()) in (400, 403)
        two = f"Host: {host_of(app)}\r\nHost: evil.example\r\n"
        assert raw(app, f"GET {path} HTTP/1.1\r\n{two}{cookie}\r\n".encode()) in (
            400,
            403,
        )
        assert raw(app, f"GET {path} HTTP/1.0\r\n{cookie}\r\n".encode()) == 403
        for other in ("http://evil.example", origin_of(app)):
            whole = (
                f"GET {other}{path} HTTP/1.1\r\nHost: {host_of(app)}\r\n{cookie}\r\n"
            )
            assert raw(app, whole.encode()) == 403
    assert (
        upgrade(
            app, session, "http://evil.example" + SOCKET + "?EIO=4&transport=websocket"
        )
        == 403
    )


def test_no_page_of_another_site_is_answered_over_http_and_websocket(app: App) -> None:
    session = sign_in(app)
    port = place(app)[1]
    bad = [
        "http://evil.example",
        "null",
        f"http://localhost.evil:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:3000",
    ]
    for origin in [
        *bad,
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}.evil",
        "",
    ]:
        for path in EDGES:
            for method in ("GET", "POST", "OPTIONS"):
                answer = ask(app, path, session | {"Origin": origin}, method=method)
                assert answer[0] == 403, (origin, path)
                assert "access-control-allow-origin" not in answer[1]
        assert upgrade(app, session | {"Origin": origin}) == 403, origin
    for site in ("cross-site", "same-site"):
        for path in EDGES:
            assert ask(app, path, session | {"Sec-Fetch-Site": site})[0] == 403
            navigation = {
                "Sec-Fetch-Site": site,
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "document",
            }
            status, _, page = ask(app, path, session | navigation)
            assert status == 401
            assert b"Sign in" in page
            assert b"client_id" not in page
        assert upgrade(app, session | {"Sec-Fetch-Site": site}) == 403


def test_its_own_page_is_answered_over_http_and_websocket(app: App) -> None:
    session = sign_in(app) | {"Origin": origin_of(app), "Sec-Fetch-Site": "same-origin"}
    assert ask(app, "/training", session)[0] == 200
    assert ask(app, SOCKET + "?EIO=4&transport=polling", session)[2].startswith(b"0{")
    assert upgrade(app, session) == 101


# -- the token ---------------------------------------------------------------------------------------------------------


def test_without_the_token_nobody_comes_in(app: App) -> None:
    for headers in (
        {},
        {"Cookie": "blockrate=x"},
        {"Cookie": f"blockrate-{place(app)[1]}={token_of(app)}"},
    ):
        for path in [path for path in EDGES if path != "/health"]:
            assert ask(app, path, headers)[0] == 401
        assert upgrade(app, headers) == 401
    assert (
        upgrade(app, {}, f"{SOCKET}?EIO=4&transport=websocket&token={token_of(app)}")
        == 401
    )
    assert ask(app, "/?token=" + "x" * 43)[0] == 401
    assert ask(app, "/health")[::2] == (200, b'{"status":"ok"}')


def test_the_token_stays_in_the_terminal(app: App, start_app: StartApp) -> None:
    session = sign_in(app)
    token = token_of(app)
    seen = [ask(app, path, session) for path in EDGES]
    seen += [
        ask(app, f"{path.partition('?')[0]}?token={token}", session) for path in EDGES
    ]
    for _, headers, content in seen:
        assert token not in json.dumps(headers)
        assert token.encode() not in content
        assert headers["referrer-policy"] == "no-referrer"
    assert token not in app.errors()
    assert not [
        file
        for file in app.home.rglob("*")
        if file.is_file() and token.encode() in file.read_bytes()
    ]
    app.kill()
    again = start_app()
    assert again.url != app.url
    assert ask(again, "/?token=" + token)[0] == 401


def test_open_pages_find_the_restarted_server_again(
    app: App, start_app: StartApp
) -> None:
    session = sign_in(app)
    app.kill()
    again = start_app()
    assert place(again) == place(app)
    assert ask(again, "/run", session)[0] == 200
    assert upgrade(again, session) == 101

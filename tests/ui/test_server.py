"""The real server, asked over real sockets by who may come in and who may not, over http and websocket."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from support.apps import App
from support.traversal import corpus
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from blockrate.core.errors import ConfigError
from blockrate.ui.app import _has_display, listen

SOCKET = "/_nicegui_ws/socket.io/"
EDGES = [
    "/",
    "/health",
    "/training",
    "/files/x",
    SOCKET + "?EIO=4&transport=polling",
    "/favicon.ico",
    "/no/such",
]
StartApp = Callable[..., App]
Answer = tuple[int, dict[str, str], bytes]


def ask(
    app: App,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
) -> Answer:
    """What the server answers to one request, its path as it is."""
    with closing(http.client.HTTPConnection(*place(app), timeout=30)) as connection:
        return asked(connection, path, headers or {}, method)


def asked(
    connection: http.client.HTTPConnection,
    path: str,
    headers: Mapping[str, str],
    method: str = "GET",
) -> Answer:
    connection.putrequest(
        method, path, skip_host="Host" in headers, skip_accept_encoding=True
    )
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return (
        answer.status,
        {name.lower(): value for name, value in answer.getheaders()},
        answer.read(),
    )


def raw(app: App, request: bytes) -> int:
    """The status of the answer to bytes that no client of good manners would send."""
    with socket.create_connection(place(app), timeout=30) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


def place(app: App) -> tuple[str, int]:
    parts = urlsplit(app.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def upgrade(
    app: App,
    headers: Mapping[str, str],
    path: str = SOCKET + "?EIO=4&transport=websocket",
) -> int:
    """The status of the answer to the handshake of a websocket: 101 lets in."""
    words = {
        "Host": host_of(app),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
    }
    words |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in words.items())
    return raw(app, f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())


def host_of(app: App) -> str:
    return urlsplit(app.url).netloc


def origin_of(app: App) -> str:
    return f"http://{host_of(app)}"


def token_of(app: App) -> str:
    return parse_qs(urlsplit(app.url).query)["token"][0]


def sign_in(app: App) -> dict[str, str]:
    """The headers of a browser that has opened the printed address."""
    status, headers, _ = ask(app, "/?token=" + token_of(app))
    assert status == 303
    return {"Cookie": headers["set-cookie"].split(";")[0]}


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


# -- routes ------------------------------------------------------------------------------------------------------------

ROUTES = """
import asyncio, json, sys
import uvicorn
from nicegui import dependencies
from starlette.routing import Mount

def paths(app, prefix=""):
    for route in app.routes:
        if isinstance(route, Mount) and route.routes:
            yield from paths(route, prefix + route.path)
        else:
            yield prefix + route.path, sorted(getattr(route, "methods", None) or [])

async def look(server):
    server.config.load()
    guard = server.config.loaded_app
    async with guard.app.router.lifespan_context(guard.app):
        keys = {name: list(getattr(dependencies, name))[:1] for name in ("resources", "esm_modules")}
        return {"outermost": type(guard).__name__, "paths": list(paths(guard.app)), **keys}

def run(server, sockets):
    print(json.dumps(asyncio.run(look(server))))

uvicorn.Server.run = run
sys.argv = ["blockrate", "ui", "--no-browser"]
from blockrate.cli.commands import main
main()
"""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every route of the app that `blockrate ui` makes, also what NiceGUI adds at its start."""
    done = run_python(tmp_path_factory.mktemp("routes"), ["-c", ROUTES])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_python(
    folder: Path, arguments: Sequence[str], **settings: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    environment = environment_in(folder) | settings
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment_in(folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_")
    }
    return kept | {
        "BLOCKRATE_HOME": str(folder / "memory"),
        "HOME": str(folder),
        "USERPROFILE": str(folder),
    }


def test_every_route_but_health_needs_a_session(
    app: App, routes: dict[str, Any]
) -> None:
    assert routes["outermost"] == "Guard"
    paths = [path for path, _ in routes["paths"]]
    assert {
        "/health",
        "/files/{name}",
        "/",
        "/run",
        "/_nicegui_ws",
        "/favicon.ico",
    } <= set(paths)
    assert len(paths) > 12
    session = sign_in(app)
    open_ones = []
    for path in paths:
        filled = re.sub(r"\{[^}]*\}", "x", path) or "/"
        answers = {
            method: ask(app, filled, method=method)[0]
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
        }
        if set(answers.values()) != {401}:
            open_ones.append(path)
        assert ask(app, filled.rstrip("/") + "/x")[0] == 401
        assert upgrade(app, {}, filled) == 401
        assert ask(app, filled, session | {"Origin": "http://evil.example"})[0] == 403
    assert open_ones == ["/health"]


def test_nothing_is_written_by_a_request(routes: dict[str, Any]) -> None:
    writing = [
        path for path, methods in routes["paths"] if set(methods) - {"GET", "HEAD"}
    ]
    assert writing == []


def test_no_route_reaches_a_file_outside(app: App, routes: dict[str, Any]) -> None:
    canary = app.folder.parent / "canary.txt"
    canary.write_text("canary-4711")
    (app.folder / "link.txt").symlink_to(canary)
    before = sorted(app.folder.parent.rglob("*"))
    asked_for = list(corpus(canary))
    session = sign_in(app)
    assert len(asked_for) >= 120
    keys = [key for name in ("resources", "esm_modules") for key in routes[name]]
    places = [
        re.sub(r"\{key\}", key, path)
        for path, _ in routes["paths"]
        for key in (keys if "{key}" in path else [""])
    ]
    places = sorted(
        {
            re.sub(r"\{[^}]*\}$", "", path)
            for path in places
            if "{" in path or "static" in path
        }
        | {"/"}
    )
    assert len(places) > 6
    with closing(http.client.HTTPConnection(*place(app), timeout=30)) as connection:
        for beginning in places:
            for path in asked_for:
                status, _, content = asked(
                    connection,
                    beginning.rstrip("/") + "/" + path.replace(" ", "%20"),
                    session,
                )
                assert status in (307, 400, 403, 404) or (beginning, status) == (
                    "/",
                    200,
                ), (beginning, path)
                assert b"canary-4711" not in content
                assert b"root:" not in content
    assert sorted(app.folder.parent.rglob("*")) == before
    assert len(app.errors()) < 1_000_000


def test_a_thousand_slashes_at_the_end_do_not_fill_the_log(
    app: App, routes: dict[str, Any]
) -> None:
    session = sign_in(app)
    beginnings = [
        path for path, _ in routes["paths"] if "{" in path or "static" in path
    ]
    for beginning in beginnings:
        path = (
            re.sub(r"\{[^}]*\}", routes["esm_modules"][0], beginning).rstrip("/") + "/"
        )
        with closing(http.client.HTTPConnection(*place(app), timeout=30)) as connection:
            assert {
                asked(connection, path, session)[0]
                for _ in range(1000 // len(beginnings) + 1)
            } <= {404, 307}
    assert len(app.errors()) < 1_000_000
    assert ask(app, "/health")[0] == 200


# -- a client session --------------------------------------------------------------------------------------------------


def test_a_client_session_works_behind_the_guard_and_nowhere_else(app: App) -> None:
    session = sign_in(app)
    page = ask(app, "/training", session)[2].decode()
    client = re.search(r'"client_id": "([^"]+)"', page) or re.search(
        r"client_id[^0-9a-f]{1,12}([0-9a-f-]{36})", page
    )
    assert client
    query = "&implicit_handshake=true&next_message_id=0&document_id=d&tab_id=t&old_tab_id=null"
    address = f"ws://{host_of(app)}{SOCKET}?EIO=4&transport=websocket&client_id={client[1]}{query}"

    async def talk(**headers: str) -> str:
        async with connect(
            address, additional_headers=headers, proxy=None
        ) as websocket:
            assert str(await websocket.recv()).startswith("0{")
            await websocket.send("40")
            return str(await websocket.recv())

    def refused(**headers: str) -> int:
        with pytest.raises(InvalidStatus) as caught:
            asyncio.run(talk(**headers))
        return caught.value.response.status_code

    # knowing the id of a client opens nothing: NiceGUI itself would take it as the password
    assert refused() == 401
    assert refused(Cookie="blockrate=x", Origin=origin_of(app)) == 401
    assert refused(**session, Origin="http://evil.example") == 403
    assert refused(**session, Origin="null") == 403
    assert asyncio.run(talk(**session, Origin=origin_of(app))).startswith('40{"sid"')
    place_of_client = urlsplit(address)._replace(scheme="", netloc="").geturl()
    for host in (
        "evil.example",
        f"evil.example:{place(app)[1]}",
        "127.0.0.1",
        "localhost",
    ):
        assert upgrade(app, session | {"Host": host}, place_of_client) == 403
        assert (
            ask(
                app,
                place_of_client.replace("websocket", "polling"),
                session | {"Host": host},
            )[0]
            == 403
        )
    assert upgrade(app, session, place_of_client) == 101


def test_a_message_too_large_ends_the_websocket(app: App) -> None:
    address = f"ws://{host_of(app)}{SOCKET}?EIO=4&transport=websocket"

    async def flood() -> int | None:
        async with connect(
            address, additional_headers=sign_in(app), proxy=None
        ) as websocket:
            await websocket.recv()
            await websocket.send("4" * (2**20 + 1))
            with suppress(ConnectionClosed):
                while True:
                    await websocket.recv()
            return websocket.close_code

    assert asyncio.run(flood()) == 1009
    assert ask(app, "/health")[0] == 200


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_token_of_the_hub_is_shown_nowhere(start_app: StartApp) -> None:
    canary = "hf_canary4711"
    app = start_app(HF_TOKEN=canary, HUGGING_FACE_HUB_TOKEN=canary)
    session = sign_in(app)
    for path in ("/", "/model", "/data", "/training", "/sampling", "/run", "/health"):
        status, headers, content = ask(app, path, session)
        assert status == 200
        assert canary not in content.decode() + json.dumps(headers)
    for process in (app.process, *app.process.children(recursive=True)):
        assert canary not in " ".join(process.cmdline())
    files = [file for file in app.folder.parent.rglob("*") if file.is_file()]
    assert any(file.name == "session.key" for file in files)
    assert not [file for file in files if canary.encode() in file.read_bytes()]


# -- starting ----------------------------------------------------------------------------------------------------------


def test_all_networks_are_served_only_to_who_has_the_token(start_app: StartApp) -> None:
    app = start_app("--host", "0.0.0.0")
    assert len(token_of(app)) >= 43
    assert ask(app, "/")[0] == 401
    assert upgrade(app, {}) == 401
    session = sign_in(app)
    port = place(app)[1]
    assert ask(app, "/", session)[0] == 200
    assert ask(app, "/", session | {"Host": f"{socket.gethostname()}:{port}"})[0] == 200
    for host in (f"evil.example:{port}", f"0.0.0.0:{port}"):
        assert ask(app, "/", session | {"Host": host})[0] == 403
    assert f"ssh -L {port}:127.0.0.1:{port}" in app.errors()


def test_a_name_of_a_proxy_is_answered(start_app: StartApp) -> None:
    app = start_app("--allowed-host", "gpu.example.org")
    session = sign_in(app) | {"Host": "gpu.example.org"}
    assert ask(app, "/", session | {"Origin": "https://gpu.example.org"})[0] == 200
    assert upgrade(app, session | {"Origin": "https://gpu.example.org"}) == 101
    assert ask(app, "/", session | {"Origin": "https://gpu.example.org.evil"})[0] == 403


def test_it_does_not_start_where_its_key_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file, not a folder")
    done = run_python(
        tmp_path, ["-m", "blockrate", "ui", "--no-browser", "--host", "0.0.0.0"]
    )
    assert done.returncode == 73
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*memory.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--allowed-host", "*"], "--allowed-host: '*' is not the name of a host"),
        (
            ["--host", "no.such.host.invalid"],
            "--host: 'no.such.host.invalid' is no address of this machine",
        ),
        (["--host", "192.0.2.1"], "--host: '192.0.2.1' is no address of this machine"),
        (["--host", ""], "--host: '' is no address of this machine"),
        (["--native"], "--native: pywebview, which makes the window, is not installed"),
        (
            ["no_such_preset"],
            "no_such_preset: there is no such file, preset or example",
        ),
        (["--root", "no-such-folder"], "no-such-folder"),
        (["--port", "70000"], "--port"),
    ],
    ids=lambda value: str(value[0]).strip("-"),
)
def test_what_cannot_be_served_is_told_in_one_line(
    arguments: list[str], problem: str, tmp_path: Path
) -> None:
    done = run_python(tmp_path, ["-m", "blockrate", "ui", "--no-browser", *arguments])
    assert done.returncode == 2
    assert done.stdout == ""
    assert problem in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_busy_port_names_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"--port: {port} is in use by .* \(pid {os.getpid()}\)"
        ):
            listen("127.0.0.1", port)
        with listen("127.0.0.1", 0, port) as listener:  # the port of last time
            assert listener.getsockname()[1] != port
    with listen("127.0.0.1", 0, port) as listener:
        assert listener.getsockname()[1] == port


def test_a_port_for_the_administrator_alone_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.create_server", refuse)
    monkeypatch.setattr("psutil.net_connections", lambda kind: [])
    with pytest.raises(
        ConfigError, match="--port: 80 needs the rights of an administrator"
    ):
        listen("127.0.0.1", 80)


def test_a_machine_of_ipv6_alone_is_served(start_app: StartApp) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    app = start_app("--host", "::1")
    assert app.url.startswith("http://[::1]:")
    assert ask(app, "/", sign_in(app))[0] == 200
    assert (
        ask(app, "/", sign_in(app) | {"Host": f"127.0.0.1:{place(app)[1]}"})[0] == 403
    )


@pytest.mark.skipif(
    os.name == "nt", reason="Windows sends no such signal to one process"
)
def test_an_interrupt_ends_it_cleanly_with_pages_open(app: App) -> None:
    address = f"ws://{host_of(app)}{SOCKET}?EIO=4&transport=websocket"

    async def interrupt() -> None:
        async with connect(
            address, additional_headers=sign_in(app), proxy=None
        ) as websocket:
            await websocket.recv()
            app.process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                await websocket.recv()

    asyncio.run(interrupt())
    app.process.wait(30)
    assert app.errors() == ""


BROWSER = """
import sys, pathlib
pathlib.Path("opened.txt").write_text(sys.argv[1])
"""
WINDOW = """
import sys, pathlib
def create_window(title, url):
    pathlib.Path("window.txt").write_text(url + "\\n" + " ".join(sys.orig_argv))
def start():
    pass
"""


@pytest.mark.skipif(os.name == "nt", reason="BROWSER is not asked on Windows")
def test_a_browser_is_given_a_ticket_and_not_the_token(tmp_path: Path) -> None:
    (tmp_path / "browser.py").write_text(BROWSER)
    settings = environment_in(tmp_path) | {
        "DISPLAY": ":1",
        "BROWSER": f"{sys.executable} {tmp_path}/browser.py %s",
    }
    command = [sys.executable, "-m", "blockrate", "ui"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, env=settings, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().removeprefix("blockrate ui: ").strip()
        app = App(url, tmp_path, tmp_path, psutil.Process(process.pid), tmp_path / "x")
        while (
            not (tmp_path / "opened.txt").exists()
            or not (tmp_path / "opened.txt").read_text()
        ):
            assert process.poll() is None
        opened = urlsplit((tmp_path / "opened.txt").read_text())
        assert token_of(app) not in opened.query
        assert [ask(app, f"/?{opened.query}")[0] for _ in range(2)] == [303, 401]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_window_is_told_its_address_in_private_and_ends_the_server_when_it_closes(
    tmp_path: Path,
) -> None:
    (tmp_path / "webview.py").write_text(WINDOW)
    done = run_python(
        tmp_path, ["-m", "blockrate", "ui", "--native"], PYTHONPATH=str(tmp_path)
    )
    assert (done.returncode, done.stderr) == (0, "")
    url, words = (tmp_path / "window.txt").read_text().split("\n")
    assert done.stdout == f"blockrate ui: {url}\n"
    assert "token" not in words


def test_a_browser_is_opened_only_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not _has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert _has_display()
    monkeypatch.delenv("WAYLAND_DISPLAY")
    monkeypatch.setattr("sys.platform", "win32")
    assert _has_display()

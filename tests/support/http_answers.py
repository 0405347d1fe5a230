"""Requests to a running app over real sockets, as they are: no client mends them."""

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from support.apps import App

SOCKET = "/_nicegui_ws/socket.io/"
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

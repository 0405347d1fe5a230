"""The real server: where it starts, where it does not, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from support.apps import App
from support.http_answers import (
    SOCKET,
    ask,
    environment_in,
    host_of,
    place,
    run_python,
    sign_in,
    token_of,
    upgrade,
)
from support.loops import run_apart
from support.pages import StartApp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from blockrate.core.errors import ConfigError
from blockrate.ui.app import _has_display, listen


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


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--allowed-host", "*"], "--allowed-host: '*' is not the name of a host"),
        (
            ["--host", "no.such.host.invalid"],
            "--host: 'no.such.host.invalid' is not an address of this machine",
        ),
        (
            ["--host", "192.0.2.1"],
            "--host: '192.0.2.1' is not an address of this machine",
        ),
        (["--host", ""], "--host: '' is not an address of this machine"),
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

    run_apart(interrupt())
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

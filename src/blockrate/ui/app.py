"""The server of the app: one open config, one watch, many pages; a socket of its own, and the guard before everything.

Training runs in processes of their own: they live on when this one ends.
"""

import errno
import importlib.util
import ipaddress
import os
import secrets
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import urlencode

import psutil
import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.types import ASGIApp

from blockrate.config.presets import examples
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import is_there
from blockrate.run.children import child_environment
from blockrate.run.home import state_folder
from blockrate.ui.arrivals import Limits
from blockrate.ui.compare.chosen import SCREEN, compared_in
from blockrate.ui.connections import most_strangers, protocol_of
from blockrate.ui.guard import Guard, all_names
from blockrate.ui.help_pages import add_help_pages
from blockrate.ui.live.watch import Watch
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.preferences import Preferences, load_preferences
from blockrate.ui.quiet_log import speak_sparingly
from blockrate.ui.session import Session
from blockrate.ui.shell import TABS, build
from blockrate.ui.sign_ins import SignIns, read_key

PAGES = {"/": TABS[0], **{f"/{tab.lower()}": tab for tab in TABS}}
_STATIC = Path(__file__).parent / "static"
_ADVICE = """Others on the network can reach this server, and could read along: the connection is not encrypted.
Safer: leave --host out, run `ssh -L {port}:127.0.0.1:{port} USER@{machine}` on your own machine, and open it there."""
_WINDOW = "import sys, webview; webview.create_window('blockrate', sys.stdin.readline().strip()); webview.start()"


def serve(
    config: str,
    *,
    host: str,
    port: int,
    browser: bool,
    native: bool,
    names: Sequence[str],
    roots: Sequence[Path],
    largest_upload: int = Limits.file_bytes,
) -> int:
    """Serve the app until Ctrl-C, or until its window is closed; the exit code.

    ``config``: a file, the name of a preset or an example, or "". ``port`` 0: the last one if it is free, else any.
    ``names``: what else the server is called. ``roots``: what may be seen of the disk. ``largest_upload``: bytes of a
    file that a browser may bring. Raises ConfigError and WriteError.
    """
    if native:
        _check_webview()
    preferences = load_preferences()
    app = make_app(
        _open(config, preferences),
        Watch(preferences),
        Media(roots or default_roots(), Limits(file_bytes=largest_upload)),
        preferences,
    )
    with listen(host, port, preferences.port) as listener:
        address, preferences.port = listener.getsockname()[:2]
        preferences.save()
        token = secrets.token_urlsafe(32)
        guard = Guard(
            app,
            token=token,
            sign_ins=_sign_ins(address, preferences.port),
            names=all_names(host, address, preferences.port, names),
        )
        url = _url(address, preferences.port)
        _print_address(address, preferences.port, url + token)
        server = _server(guard)
        window = None
        if native:
            window = _open_window(url + token, server)
        elif browser and _has_display():
            _open_browser(url + guard.ticket())
        # uvicorn has ended by then, and hands the signal on
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if window:
            window.terminate()
    return 0


def make_app(
    session: Session, watch: Watch, media: Media, preferences: Preferences
) -> FastAPI:
    """The app without its guard. Once in a process: NiceGUI's pages are the process's."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/files/{name}")
    def file(name: str) -> Response:
        return _file_response(media, name)

    @app.api_route("/uploads/{given}", methods=["GET", "PUT"])
    async def upload(request: Request, given: str) -> Response:
        return await media.uploads.answer(request, given)

    _add_pages(lambda: Page(session, watch, media, preferences))
    add_help_pages(preferences)
    nicegui_app.on_startup(watch.follow)
    # a bar without a name over the page, for every request of ours; each upload has its own
    nicegui_app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.run_with(
        app,
        title="blockrate",
        language="en-US",
        favicon=_STATIC / "icon.svg",
        # it costs a third of the time to the first page, and our style is our own
        tailwind=False,
        gzip_middleware_factory=_gzip,
        binding_refresh_interval=None,
        reconnect_timeout=120,
        show_welcome_message=False,
    )
    return app


def _gzip(app: ASGIApp) -> GZipMiddleware:
    # the highest level takes three times as long for the last 4 percent, at each first page of a browser
    return GZipMiddleware(app, compresslevel=4)


def _add_pages(new_page: Callable[[], Page]) -> None:
    def add(path: str, tab: str) -> None:
        @ui.page(path)
        def page() -> None:
            build(new_page(), tab)

    @ui.page("/compare")
    def compare(runs: str = "") -> None:
        page = new_page()
        page.compared = compared_in(urlencode({"runs": runs}), page.preferences)
        build(page, SCREEN)

    for path, tab in PAGES.items():
        add(path, tab)


def _file_response(media: Media, name: str) -> Response:
    file = media.download(name)
    if file:
        return FileResponse(
            file, media_type="application/octet-stream", filename=file.name
        )
    samples = media.samples(name)
    if samples:
        return StreamingResponse(samples, media_type="application/zip")
    picture = media.picture(name)
    if picture:
        return Response(picture.content, media_type=picture.media_type)
    return PlainTextResponse("Not here.", 404)


def listen(host: str, port: int, last: int = 0) -> socket.socket:
    """A socket that listens, so that nobody else can take the port; 0: ``last`` if it is free, else any.

    Raises ConfigError that says who has the port.
    """
    number = port or last
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        family, _, _, _, address = addresses[0]
        return socket.create_server((str(address[0]), number), family=family)
    except (OSError, UnicodeError) as error:
        if port and getattr(error, "errno", 0) in (errno.EADDRINUSE, errno.EACCES):
            raise _busy(port, error) from error
        if last and not port:
            return listen(host, 0)
        cure = "Use 127.0.0.1 for this machine alone, 0.0.0.0 for all its networks."
        raise ConfigError(
            "--host", f"{host!r} is not an address of this machine", cure
        ) from error


def _busy(port: int, error: Exception) -> ConfigError:
    problem = "is in use"
    if isinstance(error, PermissionError):
        problem = "needs the rights of an administrator"
    with suppress(psutil.Error, OSError):  # who may not see the processes of others
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            is_listening = connection.status == psutil.CONN_LISTEN
            if is_listening and connection.pid and address and address.port == port:
                name = psutil.Process(connection.pid).name()
                problem = f"is in use by {name} (pid {connection.pid})"
    return ConfigError(
        "--port",
        f"{port} {problem}",
        "Choose another from 1024 on, or leave --port out.",
    )


def _open(config: str, preferences: Preferences) -> Session:
    """What was open last, unless ``config`` names a file, a preset or an example. Raises ConfigError."""
    session = Session(preferences)
    file = Path(os.path.expanduser(config))
    if not config or is_there(file):
        session.restore(file if config else None)
    else:
        session.open_named(config)
    return session


def default_roots() -> list[Path]:
    """The working directory, the home folder, the examples; never the whole disk as a container starts there."""
    here = Path.cwd()
    folders = (here, Path.home())
    roots = [folder for folder in folders if folder != Path(folder.anchor)] or [here]
    shown = examples()
    if shown and shown.parent != here:
        roots.append(shown)
    return roots


def _sign_ins(address: str, port: int) -> SignIns:
    """The sessions of the server at this address and port, those of its last time too."""
    file = state_folder() / f"session-{port}.key"
    with suppress(OSError):
        # of versions before, whose sessions were good at every port
        (state_folder() / "session.key").unlink()
    place = f"{address} {port}"
    return SignIns(read_key(file), place, file, cookie=f"blockrate-{port}")


def _server(guard: Guard) -> uvicorn.Server:
    settings = uvicorn.Config(
        guard,
        # h11 is stricter than httptools: it shows the whole of an absolute address, and refuses two Hosts
        http=cast(Any, protocol_of(guard.connections)),
        ws_max_size=2**20,
        # as many wait to be taken in at once
        backlog=most_strangers(),
        log_level="warning",
        access_log=False,
    )
    speak_sparingly()
    settings.proxy_headers = False
    settings.forwarded_allow_ips = ""
    settings.timeout_graceful_shutdown = 3
    return uvicorn.Server(settings)


def _url(address: str, port: int) -> str:
    """Where a browser on this machine finds the app, up to the token."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    if ":" in local:
        local = f"[{local}]"
    return f"http://{local}:{port}/?token="


def _print_address(address: str, port: int, url: str) -> None:
    print(f"blockrate ui: {url}", flush=True)
    if not ipaddress.ip_address(address).is_loopback:
        advice = _ADVICE.format(port=port, machine=socket.gethostname())
        print(advice, file=sys.stderr)


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_browser(url: str) -> None:
    # it may take its time, or wait for the browser's end
    Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _check_webview() -> None:
    """Raise ConfigError if what makes the window is not there."""
    if not importlib.util.find_spec("webview"):
        problem = "pywebview, which makes the window, is not installed"
        cure = 'Install it: pip install "blockrate[native]". Or leave --native out, and use a browser.'
        raise ConfigError("--native", problem, cure)


def _open_window(url: str, server: uvicorn.Server) -> subprocess.Popen[str]:
    """Show the app in a window of another process, and end the server when it closes."""
    window = subprocess.Popen(
        [sys.executable, "-c", _WINDOW],
        stdin=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
    )

    def wait() -> None:
        # not by the command line, which every user of the machine can see
        window.communicate(url + "\n")
        server.should_exit = True

    Thread(target=wait, daemon=True).start()
    return window

"""A real browser, a fresh app for each test, and pages that must not complain. POSIX forks the app, others start it."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest
from nicegui import Client, core, ui
from support.apps import App, Server, warm_apps
from support.apps import start_app as run_app
from support.browsers import find_browser
from support.loops import run_apart
from support.pages import OpenConfig, OpenPage, StartApp

from blockrate.run.folder import RunFolder, is_alive, read_json
from blockrate.ui import shell
from blockrate.ui.live.watch import Watch
from blockrate.ui.media import Media
from blockrate.ui.page import Page as PageOfApp
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

if TYPE_CHECKING:
    from playwright.sync_api import (
        Browser,
        ConsoleMessage,
        Page,
        Playwright,
        Request,
        WebSocket,
    )

# Playwright's own list, because Chromium heeds the last --disable-features only, and the popup of the address bar:
# no test can see it, and its page takes half a second of processor time in every context
FEATURES = (
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "TcpPortRandomizationWin",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
    "msForceBrowserSignIn",
    "msEdgeUpdateLaunchServicesPreferredVersion",
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=" + ",".join(FEATURES),
]


# -- the browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The system's Chromium, Chrome or Edge (or BLOCKRATE_BROWSER), else Playwright's own; without any, a failure."""
    # here, so that tests without a browser need no Playwright
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("BLOCKRATE_BROWSER") or find_browser()
        browser = launch(playwright, path)
        yield browser
        browser.close()


def launch(playwright: "Playwright", path: str) -> "Browser":
    from playwright.sync_api import Error

    try:
        return playwright.chromium.launch(executable_path=path or None, args=FLAGS)
    except Error as error:
        pytest.fail(
            f"no browser could be started; `python start.py test` installs one: {error.message}"
        )


# -- the app -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _warm_apps() -> Iterator[Server | None]:
    with nullcontext() if os.name == "nt" else warm_apps() as server:
        yield server


@pytest.fixture
def start_app(
    request: pytest.FixtureRequest, tmp_path: Path, _warm_apps: Server | None
) -> Iterator[StartApp]:
    """Start `blockrate ui ARGUMENTS` in `tmp_path/work`; a second start is a restart: same folders, same settings.

    A test that trains also asks for `warm_engine`. At the end the app and its engine are killed, and no traceback may
    stand in what the app wrote to stderr.
    """
    engine = (
        request.getfixturevalue("warm_engine")
        if "warm_engine" in request.fixturenames
        else {}
    )
    apps: list[App] = []

    def start(*arguments: str, **environment: str) -> App:
        settings = {**engine, **environment}
        apps.append(
            run_app(tmp_path, arguments, settings, number=len(apps), server=_warm_apps)
        )
        return apps[-1]

    yield start
    for app in apps:
        app.kill()
    for who in tmp_path.rglob("who.json"):
        with suppress(psutil.Error):
            if is_alive(RunFolder(who.parent)):
                psutil.Process(read_json(who)["pid"]).kill()
    for app in apps:
        assert "Traceback" not in app.errors(), app.errors()


@pytest.fixture
def app(start_app: StartApp) -> App:
    """A fresh app: no config, no memory of an earlier one."""
    return start_app()


@pytest.fixture
def open_config(start_app: StartApp, tmp_path: Path) -> OpenConfig:
    """Start the app with a config."""

    def open_config(config: object) -> App:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "mine.json").write_text(json.dumps(config))
        return start_app("mine.json")

    return open_config


# -- its pages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tolerated() -> list[str]:
    """Regular expressions for console errors that a test provokes: it appends to them."""
    return []


@pytest.fixture
def open_page(
    browser: "Browser", start_app: StartApp, tolerated: list[str]
) -> Iterator[OpenPage]:
    """Open a path of an app in a new browser context, as large as asked, light or dark, for mouse or touch.

    At the end: no page error, no console error, no request to another host.
    """
    pages: list[Page] = []
    complaints: list[str] = []

    def complain(message: "ConsoleMessage") -> None:
        if message.type == "error":
            complaints.append(
                f"console: {message.text} ({message.location.get('url', '')})"
            )

    def look(request: "Request | WebSocket") -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            complaints.append(f"another host: {request.url}")

    def open_page(
        app: App,
        path: str = "/",
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        touch: bool = False,
    ) -> "Page":
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
            device_scale_factor=2 if touch else 1,
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.on("request", look)
        context.on("console", complain)
        context.on("weberror", lambda error: complaints.append(f"page: {error.error}"))
        page = context.new_page()
        page.on("websocket", look)
        page.set_default_timeout(15_000)
        pages.append(page)
        page.goto(app.at(path))
        page.wait_for_function("window.did_handshake")
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert [
        text
        for text in complaints
        if not any(re.search(pattern, text) for pattern in tolerated)
    ] == []


@pytest.fixture
def page(app: App, open_page: OpenPage) -> "Page":
    """The fresh app in a browser of 1280 x 800, light."""
    return open_page(app)


@pytest.fixture
def on_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[PageOfApp], None]], None]:
    """Do something in this process with a whole page that no browser shows."""
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))

    async def do(what: Callable[[PageOfApp], None]) -> None:
        monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
        session = Session(Preferences())
        session.set(
            {"concepts": [{"path": str(tmp_path)}], "samples": [{"prompt": "a photo"}]}
        )
        with Client(ui.page("/alone")) as client:
            page = PageOfApp(
                session, Watch(Preferences()), Media([tmp_path]), Preferences()
            )
            shell.build(page, "model")
            what(page)
        client.delete()
        session.new()  # nothing is left to be written

    return lambda what: run_apart(do(what))

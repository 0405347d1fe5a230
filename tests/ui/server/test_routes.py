"""The real server: every route needs a session, writes nothing and reaches no file outside."""

import http.client
import json
import re
from contextlib import closing
from typing import Any

import pytest
from support.apps import App
from support.http_answers import ask, asked, place, run_python, sign_in, upgrade
from support.traversal import corpus

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
        "/compare",
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


def test_nothing_but_a_piece_of_a_file_is_written_by_a_request(
    routes: dict[str, Any],
) -> None:
    writing = [
        path for path, methods in routes["paths"] if set(methods) - {"GET", "HEAD"}
    ]
    # each piece under an id that only a signed-in page was given
    assert writing == ["/uploads/{given}"]


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

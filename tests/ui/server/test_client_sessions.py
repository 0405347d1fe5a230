"""The real server: client sessions behind the guard, and secrets."""

import json
import re
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from support.apps import App
from support.http_answers import (
    SOCKET,
    ask,
    host_of,
    origin_of,
    place,
    sign_in,
    upgrade,
)
from support.loops import run_apart
from support.pages import StartApp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


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
            run_apart(talk(**headers))
        return caught.value.response.status_code

    # knowing the id of a client opens nothing: NiceGUI itself would take it as the password
    assert refused() == 401
    assert refused(Cookie="blockrate=x", Origin=origin_of(app)) == 401
    assert refused(**session, Origin="http://evil.example") == 403
    assert refused(**session, Origin="null") == 403
    assert run_apart(talk(**session, Origin=origin_of(app))).startswith('40{"sid"')
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

    assert run_apart(flood()) == 1009
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
    assert any(file.name.startswith("session-") for file in files)
    assert not [file for file in files if canary.encode() in file.read_bytes()]

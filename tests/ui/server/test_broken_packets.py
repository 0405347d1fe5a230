"""Messages on a websocket that are none: a line a minute in the log, no traceback, and the server goes on."""

import logging
import time
from contextlib import suppress

import pytest
from support.apps import App
from support.http_answers import SOCKET, ask, host_of, origin_of, sign_in
from support.loops import run_apart
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from blockrate.ui.quiet_log import Sparing

BROKEN: list[list[str | bytes]] = [
    ["42[\"x\""],
    [b"\x00\x01"],
    ["9zzz"],
    [""],
    ["x"],
    ["40/x,{"],
    ["451-[\"a\",{\"_placeholder\":true,\"num\":0}]", b"abc"],
    ["4" + "9" * 5000],
    ["40", "42[\"event\",1]", "42[1]", "42{}", "42[\"javascript_response\",3]", "42[\"handshake\",\"x\"]"],
    ["40", "451-[\"event\",{\"_placeholder\":true,\"num\":7}]", b"x"],
    ["40", "42" + "[" * 5000],
]  # fmt: skip


def test_broken_packets_do_not_fill_the_log(app: App) -> None:
    session = sign_in(app)
    address = f"ws://{host_of(app)}{SOCKET}?EIO=4&transport=websocket"
    headers = {**session, "Origin": origin_of(app)}

    async def send(packets: list[str | bytes]) -> None:
        async with connect(
            address, additional_headers=headers, proxy=None
        ) as websocket:
            await websocket.recv()
            with suppress(ConnectionClosed):
                for packet in packets:
                    await websocket.send(packet)

    for packets in BROKEN * 5:
        run_apart(send(packets))
    assert ask(app, "/", session)[0] == 200
    deadline = time.monotonic() + 30
    while "was not understood" not in app.errors() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "Traceback" not in app.errors()
    assert len(app.errors().splitlines()) < 20
    assert "was not understood" in app.errors()
    assert ask(app, "/", session)[0] == 200


def test_what_is_our_own_fault_is_told_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("uvicorn.error.of.a.test")
    logger.addFilter(Sparing())
    for _ in range(3):
        logger.error("Exception in ASGI application", exc_info=RuntimeError("ours"))
    assert len(caplog.records) == 3
    assert all(record.exc_info for record in caplog.records)


def test_what_comes_again_is_told_again_after_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    logger = logging.getLogger("uvicorn.error.of.another.test")
    logger.addFilter(Sparing())
    for moment in (1000.0, 1001.0, 1059.0, 1061.0):
        now = moment
        logger.warning("Invalid HTTP request received.")
    assert len(caplog.records) == 2

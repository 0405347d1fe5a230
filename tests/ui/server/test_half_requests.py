"""Who has no session cannot keep the owner out: half requests, silence, nonsense, however many."""

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psutil
import pytest
from support.apps import App
from support.http_answers import ask, place, sign_in, upgrade
from support.loops import run_apart
from support.pages import StartApp

from blockrate.ui import connections as module
from blockrate.ui.connections import Connections, most_strangers, peer_of

HALVES = {
    "nothing": b"",
    "a word": b"GET / HT",
    "no end": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5000,
    "no body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nx",
    "chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
}


@contextmanager
def strangers(app: App, half: bytes, number: int) -> Iterator[list[socket.socket]]:
    """So many connections that have sent this, and send no more."""
    with ExitStack() as stack:
        opened = []
        for _ in range(number):
            stranger = stack.enter_context(socket.create_connection(place(app), 30))
            # the server may have ended it already
            with suppress(OSError):
                stranger.sendall(half)
            opened.append(stranger)
        yield opened


@pytest.mark.cases(2)
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_the_owner_is_served_while_strangers_hold_half_requests(
    app: App, half: bytes
) -> None:
    session = sign_in(app)
    with strangers(app, half, 300):
        for _ in range(3):
            assert ask(app, "/", session)[0] == 200
            assert ask(app, "/health")[0] == 200
        assert sign_in(app)
        assert upgrade(app, session) == 101
        held = [
            c for c in app.process.net_connections("tcp") if c.status == "ESTABLISHED"
        ]
        assert len(held) < 150
    assert "Traceback" not in app.errors()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_few_files_are_enough(start_app: StartApp) -> None:
    app = start_app()
    # what the process may open from here on
    psutil.Process(app.process.pid).rlimit(psutil.RLIMIT_NOFILE, (256, 256))
    session = sign_in(app)
    with strangers(app, b"GET / HT", 200):
        assert ask(app, "/", session)[0] == 200
    assert "Traceback" not in app.errors()


def test_what_strangers_send_does_not_fill_the_log(app: App) -> None:
    for _ in range(50):
        with suppress(OSError), socket.create_connection(place(app), 30) as stranger:
            stranger.sendall(b"NONSENSE\r\n\r\n")
            stranger.recv(1000)
        assert upgrade(app, {}) == 401
        assert upgrade(app, {"Origin": "http://evil.example"}) == 403
    assert len(app.errors().splitlines()) <= 3


class Transport(asyncio.Transport):
    """A connection from an address, that can be ended."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__({"peername": (host, port)})
        self.ended = False

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended


def in_a_loop(what: Any) -> None:
    async def do() -> None:
        what()

    run_apart(do())


def test_the_oldest_stranger_goes_first_and_who_is_known_stays() -> None:
    def check() -> None:
        held = Connections(most=4)
        known = Transport("10.0.0.1", 1)
        held.made(known)
        held.know(peer_of(known))
        others = [Transport(f"10.0.1.{number}", 9) for number in range(6)]
        for other in others:
            held.made(other)
        assert [other.ended for other in others] == [True, True] + [False] * 4
        assert not known.ended
        held.drop_others(peer_of(known))
        assert all(other.ended for other in others)
        assert not known.ended

    in_a_loop(check)


def test_one_address_crowds_out_itself() -> None:
    def check() -> None:
        held = Connections(most=100)
        quiet = Transport("10.0.0.1", 1)
        held.made(quiet)
        loud = [Transport("10.0.0.2", port) for port in range(1, 90)]
        for transport in loud:
            held.made(transport)
        assert not quiet.ended
        assert sum(not transport.ended for transport in loud) == 64

    in_a_loop(check)


def test_a_stranger_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)

    async def check() -> tuple[bool, bool]:
        held = Connections(most=4)
        known, stranger = Transport("10.0.0.1", 1), Transport("10.0.0.1", 2)
        held.made(known)
        held.made(stranger)
        held.know(peer_of(known))
        deadline = time.monotonic() + 30
        while not stranger.ended and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return known.ended, stranger.ended

    assert run_apart(check()) == (False, True)


def test_there_is_room_for_strangers_and_more_for_the_owner() -> None:
    assert 8 <= most_strangers() <= 128


def test_a_port_that_is_used_again_is_another_connection() -> None:
    def check() -> None:
        held = Connections(most=4)
        first, second = Transport("10.0.0.1", 1), Transport("10.0.0.1", 1)
        held.made(first)
        held.know(peer_of(first))
        first.abort()
        held.made(second)
        held.drop_others(None)
        assert second.ended

    in_a_loop(check)

"""Connections on which nobody has signed in yet are few and short: half a request cannot keep the owner out.

uvicorn waits for the end of a request without a limit, and each wait takes one of the process's files.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

Peer = tuple[str, int]  # address and port, which tell connections apart
SECONDS = 20.0  # that a connection without a session lasts
_MOST = 128  # of those at a time
_OF_ONE_ADDRESS = 64


class Connections:
    """All connections of a server, by peer. Those that ``know`` was not told of are strangers.

    The oldest stranger goes when there are too many: whoever signs in says so at once, and who sends half a request
    is soon the oldest.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most or most_strangers()
        self._all: dict[Peer, asyncio.Transport] = {}
        # the oldest first
        self._strangers: dict[Peer, asyncio.TimerHandle] = {}

    def made(self, transport: asyncio.Transport) -> None:
        """Take in a new connection."""
        peer = peer_of(transport)
        if peer is None:
            return
        self._forget_closed()
        self._make_room(peer[0])
        self._all[peer] = transport
        loop = asyncio.get_running_loop()
        self._strangers[peer] = loop.call_later(SECONDS, self._drop, peer)

    def know(self, peer: Peer | None) -> None:
        """Let a connection last: a request on it had a session."""
        timer = self._strangers.pop(peer, None) if peer else None
        if timer:
            timer.cancel()

    def drop_others(self, peer: Peer | None) -> None:
        """End all connections but one, of websockets too."""
        for other in [other for other in self._all if other != peer]:
            self._drop(other)

    def _make_room(self, address: str) -> None:
        counts = Counter(host for host, _ in self._strangers)
        if counts[address] >= min(_OF_ONE_ADDRESS, self._most):
            of_it = (peer for peer in self._strangers if peer[0] == address)
            self._drop(next(of_it))
        elif len(self._strangers) >= self._most:
            self._drop(next(iter(self._strangers)))

    def _forget_closed(self) -> None:
        closed = [
            peer for peer, transport in self._all.items() if transport.is_closing()
        ]
        for peer in closed:
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        timer = self._strangers.pop(peer, None)
        if timer:
            timer.cancel()
        transport = self._all.pop(peer, None)
        if transport:
            transport.abort()


def most_strangers() -> int:
    """How many connections without a session there may be, by how many files the process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return _MOST
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # with as many that wait to be taken in, most files stay for the owner
    return _MOST if files < 0 else max(8, min(_MOST, files // 8))


def peer_of(transport: asyncio.BaseTransport) -> Peer | None:
    """Return whom a connection leads to, as uvicorn tells the app; None where it has an end without an address."""
    name = transport.get_extra_info("peername")
    return (str(name[0]), int(name[1])) if isinstance(name, tuple | list) else None


def protocol_of(connections: Connections) -> Callable[..., H11Protocol]:
    """Return uvicorn's protocol, each connection of which is told to ``connections``."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.made(transport)

    return Protocol

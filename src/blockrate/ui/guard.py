"""Nobody else gets in: Host, Origin and session are checked before anything of the app sees a request.

Pure ASGI over http and websocket, outermost. Middleware for pages never sees a websocket, and engine.io is at work
before any handler of ours. The token of the printed address is traded for a cookie with a signed session id.
"""

import asyncio
import html
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote

import psutil
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockrate.core.errors import ConfigError, WriteError
from blockrate.ui.connections import Connections, Peer
from blockrate.ui.quiet_log import tell_broken_packet
from blockrate.ui.sign_ins import SECONDS, SignIns

OPEN = {"/health"}  # what needs no session
SIGN_OUT = "/sign-out"
_NOT_UNDERSTOOD = 1007  # RFC 6455: data that is not of its kind
_BODY = 2**20  # bytes of a request; engine.io itself takes no more
_PATH = 1000  # characters
_SIGN_IN = (Path(__file__).parent / "static" / "sign_in.html").read_text("utf-8")
# Vue compiles its templates in the browser, and NiceGUI's page starts with a script in the page.
_CONTENT = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "font-src 'self' data:; "
    "connect-src 'self' ws://{host} wss://{host}; "
    "object-src 'none'; "
    "base-uri 'none'; "
    "form-action 'self'; "
    "frame-ancestors 'none'"
)
_HOST_NAME = re.compile(r"([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?")


class Names(NamedTuple):
    """What a server is called: the Host headers, and the origins of pages, that it answers to."""

    hosts: frozenset[str]
    origins: frozenset[str]


class Guard:
    """Lets in who has a session, and who brings the token one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        sign_ins: SignIns,
        names: Names,
    ) -> None:
        if len(token) < 32:
            raise ValueError("a guard needs a token of at least 32 characters")
        self.app = app  # NiceGUI looks for the app inside by this name
        self._token = token
        self._tickets = set[str]()
        self._names = names
        self._cookie = sign_ins.cookie
        self._sign_ins = sign_ins
        self.connections = Connections()
        self._wrong: list[float] = []  # when wrong tokens came

    def ticket(self) -> str:
        """A token for one use, for where it can be seen: the command line of the browser that is opened."""
        ticket = secrets.token_urlsafe(32)
        self._tickets.add(ticket)
        return ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request here, or let it through to the app."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        request = HTTPConnection(scope)

        async def send_safely(message: Message) -> None:
            if message["type"].endswith("http.response.start"):
                self._add_headers(message, request)
            await send(message)

        answer = await self._own_answer(request)
        if answer:
            return await answer(scope, receive, send_safely)
        if scope["path"] not in OPEN:
            self.connections.know(_peer(scope))
        receive_body = await _read_body(request, receive)
        if not receive_body:
            answer = PlainTextResponse("This is too large.", 413)
            return await answer(scope, receive, send_safely)
        # nobody in front of us is trusted to say who asks, and from where
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if b"forwarded" not in name.lower()
        ]
        try:
            await self.app({**scope, "headers": headers}, receive_body, send_safely)
        except Exception as error:
            # Starlette's word for a browser that has gone on meanwhile
            if str(error) == "No response returned.":
                return
            if scope["type"] == "http":
                raise
            # engine.io's, for a packet that is none
            tell_broken_packet(error)
            with suppress(Exception):
                await send({"type": "websocket.close", "code": _NOT_UNDERSTOOD})

    async def _own_answer(self, request: HTTPConnection) -> Response | None:
        """What the guard answers itself; None for who may come in."""
        return (
            self._refusal(request)
            or await self._sign_in(request)
            or self._without_session(request)
            or self._sign_out(request)
        )

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """403 for what comes under another name or from another site's page, 404 for paths nobody means well with."""
        path = request.scope["path"]
        hosts = request.headers.getlist("host")
        has_our_name = len(hosts) == 1 and hosts[0].lower() in self._names.hosts
        # an absolute address may name another host
        if not has_our_name or not path.startswith("/"):
            return PlainTextResponse(
                "blockrate does not answer to this name. Start it with --allowed-host NAME.",
                403,
            )
        origins = request.headers.getlist("origin")
        has_our_origin = len(origins) <= 1 and self._names.origins.issuperset(origins)
        is_embedded = _is_foreign(request) and not _is_navigation(request)
        if not has_our_origin or is_embedded:
            return PlainTextResponse(
                "Requests from the pages of other sites are refused.", 403
            )
        if _is_odd(path):
            return PlainTextResponse("There is no such page.", 404)
        return None

    async def _sign_in(self, request: HTTPConnection) -> Response | None:
        """Trade a token for a cookie and an address without it; None if there is no token."""
        given = parse_qs(request.scope["query_string"].decode("latin-1")).get("token")
        if not given or request.scope.get("method") != "GET":
            return None
        without_token = RedirectResponse(quote(request.scope["path"]), 303)
        if self._takes(given[0]):
            without_token.set_cookie(
                self._cookie,
                self._sign_ins.begin(),
                max_age=SECONDS,
                httponly=True,
                samesite="strict",
            )
        elif _is_foreign(request) or not self._has_session(request):
            await self._slow_down()
            return _sign_in_page(
                "This token is wrong. Every start of blockrate ui has a new one."
            )
        return without_token

    def _takes(self, given: str) -> bool:
        """Whether this is the token, or a ticket, which is used up then."""
        tokens = {self._token, *self._tickets}
        right = {
            token
            for token in tokens
            if secrets.compare_digest(token.encode(), given.encode())
        }
        self._tickets -= right
        return bool(right)

    async def _slow_down(self) -> None:
        """Make guessing cost time: after ten wrong tokens in a minute, each answer waits longer, up to 2 seconds."""
        now = time.monotonic()
        last_minute = [moment for moment in self._wrong[-1000:] if now - moment < 60]
        self._wrong = [*last_minute, now]
        await asyncio.sleep(min(0.01 * max(len(self._wrong) - 10, 0), 2.0))

    def _without_session(self, request: HTTPConnection) -> Response | None:
        """401 for who has no session. Who follows a link from another site sees the sign-in page, which looks again."""
        path = request.scope["path"]
        if _is_foreign(request):
            return _sign_in_page(again=quote(path))
        open_to_all = request.scope["type"] == "http" and path in OPEN
        if open_to_all or self._has_session(request):
            return None
        return _sign_in_page()

    def _has_session(self, request: HTTPConnection) -> bool:
        return self._sign_ins.hold(request.cookies.get(self._cookie, ""))

    def _sign_out(self, request: HTTPConnection) -> Response | None:
        """End every session of this server, and what is open on its connections; None if that is not asked for."""
        if request.scope["path"] != SIGN_OUT or request.scope.get("method") != "POST":
            return None
        answer: Response = PlainTextResponse("Signed out.")
        try:
            self._sign_ins.end_all()
        except WriteError as error:
            text = f"Signed out, but only until the next start: {error}"
            answer = PlainTextResponse(text, 500)
        answer.delete_cookie(self._cookie, httponly=True, samesite="strict")
        self.connections.drop_others(_peer(request.scope))
        return answer

    def _add_headers(self, message: Message, request: HTTPConnection) -> None:
        headers = MutableHeaders(scope=message)
        host = request.headers.get("host", "").lower()
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        known_host = host if host in self._names.hosts else ""
        headers["Content-Security-Policy"] = _CONTENT.format(host=known_host)
        # parts of pages may be kept
        is_part = request.scope["path"].startswith("/_nicegui/")
        if message["status"] != 200 or not is_part:
            headers["Cache-Control"] = "no-store"


def all_names(host: str, address: str, port: int, extra: Iterable[str]) -> Names:
    """What a server is called that was asked to serve ``host`` and is bound to ``address``.

    ``extra``: names from ``--allowed-host``, with a port or without. Raises ConfigError for one that is not a name.
    """
    own: set[str] = set()
    for name in {host.lower(), *_own_names(address)} - {"0.0.0.0", "::"}:
        own.add(f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
    own |= {name.removesuffix(":80") for name in own}  # as browsers write it
    others = {_host_name(name) for name in extra}
    others |= {f"{name}:{port}" for name in others if not re.search(r":\d+$", name)}
    hosts = own | others
    origins = {f"http://{name}" for name in hosts}
    origins |= {f"https://{name}" for name in others}
    return Names(frozenset(hosts), frozenset(origins))


def _own_names(address: str) -> Iterator[str]:
    bound = ipaddress.ip_address(address)
    if bound.is_loopback or bound.is_unspecified:
        yield "localhost"
    if not bound.is_loopback:
        yield socket.gethostname().lower()
    addresses = [address]
    if bound.is_unspecified:
        for cards in psutil.net_if_addrs().values():
            addresses += [card.address for card in cards]
    for name in addresses:
        with suppress(ValueError):  # a hardware address
            own = ipaddress.ip_address(name.partition("%")[0])
            if own.version <= bound.version:  # a socket of IPv6 may take IPv4 too
                yield str(own)


def _host_name(name: str) -> str:
    """The name in small letters. Raises ConfigError."""
    if not _HOST_NAME.fullmatch(name.lower()):
        cure = "Give the name alone, like gpu.example.org or gpu.example.org:8443."
        raise ConfigError("--allowed-host", f"{name!r} is not the name of a host", cure)
    return name.lower()


def _is_odd(path: str) -> bool:
    """Whether nobody means well with a path."""
    is_climbing = not {".", ".."}.isdisjoint(path.split("/"))
    is_strange = "//" in path or "\\" in path or not path.isprintable()
    return is_climbing or is_strange or len(path) > _PATH


def _peer(scope: Scope) -> Peer | None:
    peer = scope.get("client")
    return (str(peer[0]), int(peer[1])) if peer else None


def _is_foreign(request: HTTPConnection) -> bool:
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _is_navigation(request: HTTPConnection) -> bool:
    """Whether somebody follows a link: the address bar will show our page, and no other page sees the answer."""
    mode = request.headers.get("sec-fetch-mode")
    target = request.headers.get("sec-fetch-dest")
    is_get = request.scope.get("method") == "GET"
    return is_get and mode == "navigate" and target == "document"


async def _read_body(request: HTTPConnection, receive: Receive) -> Receive | None:
    """What hands on the body of a request, read already; None if it is too large. uvicorn limits websockets."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > _BODY:
        return None
    body = b""
    has_more = request.scope["type"] == "http"
    waiting: list[Message] = []
    while has_more and len(body) <= _BODY:
        message = await receive()
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again if len(body) <= _BODY else None


def _sign_in_page(problem: str = "", *, again: str = "") -> Response:
    """The page for who has no session. ``again``: an address on this site to look at next."""
    refresh = ""
    if again:
        address = html.escape(again)
        refresh = f'<meta http-equiv="refresh" content="0; url={address}">'
    page = _SIGN_IN.replace("{refresh}", refresh)
    return HTMLResponse(page.replace("{problem}", html.escape(problem)), 401)

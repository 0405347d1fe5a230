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
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote

import psutil
from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockrate.core.errors import ConfigError
from blockrate.run.durable import atomic_write

OPEN = {"/health"}  # what needs no session
_SECONDS = 30 * 86400  # that a session lasts
_BODY = 2**20  # bytes of a request; engine.io itself takes no more
_PATH = 1000  # characters
_SIGN_IN = (Path(__file__).parent / "static" / "sign_in.html").read_text("utf-8")
# Vue compiles its templates in the browser, and NiceGUI's page starts with a script in the page.
_CONTENT = """default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';
 img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host};
 object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'""".replace(
    "\n", ""
)


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
        key: bytes,
        names: Names,
        cookie: str = "blockrate",
    ) -> None:
        if len(token) < 32 or len(key) < 32:
            raise ValueError(
                "a guard needs a token and a key of at least 32 characters"
            )
        self.app = app  # NiceGUI looks for the app inside by this name
        self._token = token
        self._tickets = set[str]()
        self._names = names
        self._cookie = cookie
        self._signer = TimestampSigner(
            key, salt="blockrate session", digest_method=sha256
        )
        self._wrong: list[float] = []  # when wrong tokens came

    def ticket(self) -> str:
        """A token for one use, for where it can be seen: the command line of the browser that is opened."""
        self._tickets.add(ticket := secrets.token_urlsafe(32))
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

        answer = (
            self._refusal(request)
            or await self._sign_in(request)
            or self._unknown(request)
        )
        read = None if answer else await _read(request, receive)
        if not read:
            answer = answer or PlainTextResponse("This is too large.", 413)
            return await answer(scope, receive, send_safely)
        # nobody in front of us is trusted to say who asks, and from where
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if b"forwarded" not in name.lower()
        ]
        try:
            await self.app({**scope, "headers": headers}, read, send_safely)
        except RuntimeError as error:
            # Starlette's word for a browser that has gone on meanwhile
            if str(error) != "No response returned.":
                raise

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """403 for what comes under another name or from another site's page, 404 for paths nobody means well with."""
        path = request.scope["path"]
        hosts = request.headers.getlist("host")
        origins = request.headers.getlist("origin")
        if (
            len(hosts) != 1
            or hosts[0].lower() not in self._names.hosts
            or not path.startswith("/")
        ):
            return PlainTextResponse(
                "blockrate does not answer to this name. Start it with --allowed-host NAME.",
                403,
            )
        strange = len(origins) > 1 or not self._names.origins.issuperset(origins)
        if strange or (_is_foreign(request) and not _is_navigation(request)):
            return PlainTextResponse(
                "Requests from the pages of other sites are refused.", 403
            )
        odd = (
            "//" in path
            or "\\" in path
            or not path.isprintable()
            or {".", ".."} & set(path.split("/"))
        )
        return (
            PlainTextResponse("There is no such page.", 404)
            if odd or len(path) > _PATH
            else None
        )

    async def _sign_in(self, request: HTTPConnection) -> Response | None:
        """Trade a token for a cookie and an address without it; None if there is no token."""
        given = parse_qs(request.scope["query_string"].decode("latin-1")).get("token")
        if not given or request.scope.get("method") != "GET":
            return None
        clean = RedirectResponse(quote(request.scope["path"]), 303)
        tokens = (self._token, *self._tickets)
        found = {
            token
            for token in tokens
            if secrets.compare_digest(token.encode(), given[0].encode())
        }
        self._tickets -= found
        if found:
            session = self._signer.sign(secrets.token_urlsafe(16)).decode()
            clean.set_cookie(
                self._cookie,
                session,
                max_age=_SECONDS,
                httponly=True,
                samesite="strict",
            )
        elif _is_foreign(request) or not self._has_session(request):
            await self._slow_down()
            return _sign_in_page(
                "This token is wrong. Every start of blockrate ui has a new one."
            )
        return clean

    async def _slow_down(self) -> None:
        """Make guessing cost time: after ten wrong tokens in a minute, each answer waits longer, up to 2 seconds."""
        now = time.monotonic()
        self._wrong = [
            moment for moment in self._wrong[-1000:] if now - moment < 60
        ] + [now]
        await asyncio.sleep(min(0.01 * max(len(self._wrong) - 10, 0), 2.0))

    def _unknown(self, request: HTTPConnection) -> Response | None:
        """401 for who has no session. Who follows a link from another site sees the sign-in page, which looks again."""
        path = request.scope["path"]
        if _is_foreign(request):
            return _sign_in_page(again=quote(path))
        open_to_all = request.scope["type"] == "http" and path in OPEN
        return None if open_to_all or self._has_session(request) else _sign_in_page()

    def _has_session(self, request: HTTPConnection) -> bool:
        with suppress(BadSignature):
            return bool(
                self._signer.unsign(
                    request.cookies.get(self._cookie, ""), max_age=_SECONDS
                )
            )
        return False

    def _add_headers(self, message: Message, request: HTTPConnection) -> None:
        headers = MutableHeaders(scope=message)
        host = request.headers.get("host", "").lower()
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Content-Security-Policy"] = _CONTENT.format(
            host=host if host in self._names.hosts else ""
        )
        # parts of pages may be kept
        if message["status"] != 200 or not request.scope["path"].startswith(
            "/_nicegui/"
        ):
            headers["Cache-Control"] = "no-store"


def all_names(host: str, address: str, port: int, extra: Iterable[str]) -> Names:
    """What a server is called that was asked to serve ``host`` and is bound to ``address``.

    ``extra``: names from ``--allowed-host``, with a port or without. Raises ConfigError for one that is no name.
    """
    called = {host.lower(), *_own_names(address)} - {"0.0.0.0", "::"}
    own = {f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in called}
    own |= {name.removesuffix(":80") for name in own}  # as browsers write it
    others = set(map(_checked, extra))
    others |= {f"{name}:{port}" for name in others if not re.search(r":\d+$", name)}
    origins = {f"http://{name}" for name in own | others} | {
        f"https://{name}" for name in others
    }
    return Names(frozenset(own | others), frozenset(origins))


def read_key(file: Path) -> bytes:
    """The key that signs sessions, made on first use; only its owner may read it. Raises WriteError."""
    key = file.read_bytes() if file.is_file() else b""
    if len(key) < 32:
        key = secrets.token_hex(32).encode()
        atomic_write(file, key, mode=0o600)
    file.chmod(0o600)
    return key


def _own_names(address: str) -> Iterator[str]:
    bound = ipaddress.ip_address(address)
    if bound.is_loopback or bound.is_unspecified:
        yield "localhost"
    if not bound.is_loopback:
        yield socket.gethostname().lower()
    cards = psutil.net_if_addrs().values() if bound.is_unspecified else ()
    for found in (address, *(item.address for items in cards for item in items)):
        with suppress(ValueError):  # a hardware address
            own = ipaddress.ip_address(found.partition("%")[0])
            if own.version <= bound.version:  # a socket of IPv6 may take IPv4 too
                yield str(own)


def _checked(name: str) -> str:
    if not re.fullmatch(
        r"([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?", name.lower()
    ):
        cure = "Give the name alone, like gpu.example.org or gpu.example.org:8443."
        raise ConfigError("--allowed-host", f"{name!r} is not the name of a host", cure)
    return name.lower()


def _is_foreign(request: HTTPConnection) -> bool:
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _is_navigation(request: HTTPConnection) -> bool:
    """Whether somebody follows a link: the address bar will show our page, and no other page sees the answer."""
    asked = [request.headers.get(f"sec-fetch-{what}") for what in ("mode", "dest")]
    return request.scope.get("method") == "GET" and asked == ["navigate", "document"]


async def _read(request: HTTPConnection, receive: Receive) -> Receive | None:
    """What hands on the body of a request, read already; None if it is too large. uvicorn limits websockets."""
    length = request.headers.get("content-length", "0")
    body = b""
    more = request.scope["type"] == "http"
    if not length.isdecimal() or int(length) > _BODY:
        return None
    waiting: list[Message] = []
    while more and len(body) <= _BODY:
        message = await receive()
        body = body + message.get("body", b"")
        more = message.get("more_body", False)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again if len(body) <= _BODY else None


def _sign_in_page(problem: str = "", *, again: str = "") -> Response:
    """The page for who has no session. ``again``: an address on this site to look at next."""
    refresh = (
        f'<meta http-equiv="refresh" content="0; url={html.escape(again)}">'
        if again
        else ""
    )
    return HTMLResponse(
        _SIGN_IN.replace("{refresh}", refresh).replace(
            "{problem}", html.escape(problem)
        ),
        401,
    )

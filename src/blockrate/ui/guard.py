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
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, quote

import psutil
from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockrate.core.errors import ConfigError
from blockrate.run.durable import atomic_write

OPEN = frozenset({"/health"})  # what needs no session
_SECONDS = 30 * 86400  # that a session lasts
_BODY = 2**20  # bytes of a request; engine.io itself takes no more
_PATH = 1000  # characters
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CONTENT = (  # Vue compiles its templates in the browser, and NiceGUI's page starts with a script in the page
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host} wss://{host}; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Names:
    """What this server is called: the Host headers, and the origins of pages, that it answers to."""

    hosts: frozenset[str]
    origins: frozenset[str]


class Guard:
    """Lets in who has a session, and who brings the token one."""

    def __init__(self, app: ASGIApp, *, token: str, key: bytes, names: Names, cookie: str = "blockrate") -> None:
        if len(token) < 32 or len(key) < 32:
            raise ValueError("a guard needs a token and a key of at least 32 characters")
        self.app = app  # NiceGUI looks for the app inside by this name
        self._token, self._tickets = token, set[str]()
        self._names, self._cookie = names, cookie
        self._signer = TimestampSigner(key, salt="blockrate session", digest_method=sha256)
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

        answer = self._refusal(request) or await self._sign_in(request) or self._unknown(request)
        body = b"" if answer else await _body(request, receive)
        if body is None:
            answer = PlainTextResponse("This is too large.", 413)
        if answer:
            return await answer(scope, receive, send_safely)
        # nobody in front of us is trusted to say who asks, and from where
        headers = [(name, value) for name, value in scope["headers"] if b"forwarded" not in name.lower()]
        await self.app({**scope, "headers": headers}, _again(body, receive), send_safely)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """403 for what comes under another name or from another site's page, 404 for paths nobody means well with."""
        path, headers = request.scope["path"], request.headers
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        known = len(hosts) == 1 and hosts[0].lower() in self._names.hosts and path.startswith("/")
        if not known:
            return PlainTextResponse("blockrate does not answer to this name. Start it with --allowed-host NAME.", 403)
        if len(origins) > 1 or not self._names.origins.issuperset(origins):
            return PlainTextResponse("Requests from the pages of other sites are refused.", 403)
        if _is_foreign(request) and not _is_navigation(request):
            return PlainTextResponse("Requests from the pages of other sites are refused.", 403)
        odd = "//" in path or "\\" in path or not path.isprintable() or {".", ".."} & set(path.split("/"))
        return PlainTextResponse("There is no such page.", 404) if odd or len(path) > _PATH else None

    async def _sign_in(self, request: HTTPConnection) -> Response | None:
        """Trade a token for a cookie and an address without it; None if there is no token."""
        given = parse_qs(request.scope["query_string"].decode("latin-1")).get("token")
        if not given or request.scope["type"] != "http" or request.scope["method"] != "GET":
            return None
        clean = RedirectResponse(quote(request.scope["path"]), 303)
        tokens = (self._token, *self._tickets)
        found = {token for token in tokens if secrets.compare_digest(token.encode(), given[0].encode())}
        if found:
            self._tickets -= found
            session = self._signer.sign(secrets.token_urlsafe(16)).decode()
            clean.set_cookie(self._cookie, session, max_age=_SECONDS, httponly=True, samesite="strict")
        elif _is_foreign(request) or not self._has_session(request):
            await self._slow_down()
            return _sign_in_page("This token is wrong. Every start of blockrate ui has a new one.")
        return clean

    async def _slow_down(self) -> None:
        """Make guessing cost time: after ten wrong tokens in a minute, each answer waits longer, up to 2 seconds."""
        now = time.monotonic()
        self._wrong = [moment for moment in self._wrong[-1000:] if now - moment < 60] + [now]
        await asyncio.sleep(min(0.01 * max(len(self._wrong) - 10, 0), 2.0))

    def _unknown(self, request: HTTPConnection) -> Response | None:
        """401 for who has no session. Who follows a link from another site sees the sign-in page, which looks again."""
        if _is_foreign(request):
            return _sign_in_page(again=quote(request.scope["path"]))
        open_to_all = request.scope["type"] == "http" and request.scope["path"] in OPEN
        return None if open_to_all or self._has_session(request) else _sign_in_page()

    def _has_session(self, request: HTTPConnection) -> bool:
        try:
            self._signer.unsign(request.cookies.get(self._cookie, ""), max_age=_SECONDS)
        except BadSignature:
            return False
        return True

    def _add_headers(self, message: Message, request: HTTPConnection) -> None:
        headers, host = MutableHeaders(scope=message), request.headers.get("host", "").lower()
        headers.update(_HEADERS)
        headers["Content-Security-Policy"] = _CONTENT.format(host=host if host in self._names.hosts else "")
        if message["status"] != 200 or not request.scope["path"].startswith("/_nicegui/"):  # parts of pages may be kept
            headers["Cache-Control"] = "no-store"


def names(host: str, address: str, port: int, extra: Iterable[str]) -> Names:
    """What a server is called that was asked to serve ``host`` and is bound to ``address``.

    ``extra``: names from ``--allowed-host``, with a port or without. Raises ConfigError for one that is no name.
    """
    called = {host.lower(), *_own_names(address)} - {"0.0.0.0", "::"}
    own = {f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in called}
    own |= {name.removesuffix(":80") for name in own}  # as browsers write it
    others = set(map(_checked, extra))
    others |= {f"{name}:{port}" for name in others if not re.search(r":\d+$", name)}
    origins = {f"http://{name}" for name in own | others} | {f"https://{name}" for name in others}
    return Names(frozenset(own | others), frozenset(origins))


def read_key(file: Path) -> bytes:
    """The key that signs sessions, made on first use; only its owner may read it. Raises WriteError."""
    key = file.read_bytes() if file.is_file() else b""
    if len(key) < 32:
        key = secrets.token_hex(32).encode()
        atomic_write(file, key, mode=0o600)
    file.chmod(0o600)
    return key


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    return ipaddress.ip_address(host).is_loopback


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
    if not re.fullmatch(r"([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?", name.lower()):
        cure = "Give the name alone, like gpu.example.org or gpu.example.org:8443."
        raise ConfigError("--allowed-host", f"{name!r} is not the name of a host", cure)
    return name.lower()


def _is_foreign(request: HTTPConnection) -> bool:
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _is_navigation(request: HTTPConnection) -> bool:
    """Whether somebody follows a link: the address bar will show our page, and no other page sees the answer."""
    wanted = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    asked = {name: request.headers.get(name, "") for name in wanted}
    return request.scope.get("method") == "GET" and asked == wanted


async def _body(request: HTTPConnection, receive: Receive) -> bytes | None:
    """The body of a request, None if it is too large. Websockets have none; uvicorn limits their messages."""
    if not {"content-length", "transfer-encoding"} & set(request.headers) or request.scope["type"] != "http":
        return b""
    length, body, more = request.headers.get("content-length", "0"), b"", True
    if not length.isdecimal() or int(length) > _BODY:
        return None
    while more and len(body) <= _BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= _BODY else None


def _again(body: bytes | None, receive: Receive) -> Receive:
    """What gives the app a body that was read already, then whatever else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}] if body else []

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _sign_in_page(problem: str = "", *, again: str = "") -> Response:
    """The page for who has no session. ``again``: an address on this site to look at next."""
    refresh = f'<meta http-equiv="refresh" content="0; url={html.escape(again)}">' if again else ""
    return HTMLResponse(_SIGN_IN.replace("{refresh}", refresh).replace("{problem}", html.escape(problem)), 401)


_SIGN_IN = """<!doctype html>
<html lang="en-US"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>blockrate</title>{refresh}<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif } * { box-sizing: border-box }
body { margin: 12vh auto; max-width: 26rem; padding: 0 1.5rem } [role=alert] { font-weight: 600 }
input, button { font: inherit; width: 100%; min-height: 44px; margin: .25rem 0 .75rem; padding: 0 .75rem; border-radius:
8px; border: 1px solid #5d6b7c } button { background: #4c5be0; color: #fff; border: 0; font-weight: 600 }
</style></head><body><main><h1>blockrate</h1>
<p>Open the address that <code>blockrate ui</code> has printed in its terminal, or give the token at its end.</p>
<p role="alert">{problem}</p>
<form action="/"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus><button>Sign in</button></form>
</main></body></html>
"""

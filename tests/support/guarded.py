"""A guard, asked directly, and an app inside that remembers what reaches it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from blockrate.ui.guard import Guard, all_names
from blockrate.ui.sign_ins import SignIns
from support.loops import run_apart

TOKEN = "t" * 43
KEY = b"k" * 64
HOST = "127.0.0.1:8080"
Headers = Sequence[tuple[str, str]]


NO_BODY = {"type": "http.request", "body": b"", "more_body": False}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Inside:
    """The app behind the guard."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.accept"})
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body = body + message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"cache-control", b"public")],
            }
        )
        await send({"type": "http.response.body", "body": b"the app"})


def make(
    inside: Inside, *, token: str = TOKEN, key: bytes = KEY, extra: Sequence[str] = ()
) -> Guard:
    return Guard(
        inside,
        token=token,
        sign_ins=SignIns(key, "a server"),
        names=all_names("127.0.0.1", "127.0.0.1", 8080, extra),
    )


def ask(
    guard: Guard,
    path: str = "/",
    headers: Headers = (),
    *,
    kind: str = "http",
    method: str = "GET",
    query: str = "",
    body: Sequence[bytes] = (),
    host: Headers = (("host", HOST),),
) -> Answer:
    """What the guard answers; the status of a websocket that was let in is 101."""
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "http_version": "1.1",
    }
    scope["headers"] = [
        (name.encode(), value.encode()) for name, value in (*host, *headers)
    ]
    if kind == "http":
        scope["method"] = method
    else:
        scope["extensions"] = {"websocket.http.response": {}}
    coming: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": part, "more_body": i + 1 < len(body)}
            for i, part in enumerate(body)
        ]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return (
            {"type": "websocket.connect"}
            if kind == "websocket"
            else next(coming, NO_BODY)
        )

    async def send(message: Message) -> None:
        sent.append(message)

    run_apart(guard(scope, receive, send))
    if sent[0]["type"] == "websocket.accept":
        return Answer(101, {}, "")
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(
        sent[0]["status"], told, b"".join(part["body"] for part in sent[1:]).decode()
    )


def sign_in(guard: Guard) -> Headers:
    """The header of a browser with a session."""
    cookie = ask(guard, query=f"token={TOKEN}").headers["set-cookie"]
    return [("cookie", cookie.split(";")[0])]

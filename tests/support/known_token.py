"""A hub on this machine that says whose a token is; it knows one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

GOOD = "hf_good4711canary"


class Answer(BaseHTTPRequestHandler):
    """Says whose a token is; knows one."""

    def do_GET(self) -> None:
        is_good = self.headers["Authorization"] == f"Bearer {GOOD}"
        self.send_response(200 if is_good else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        told = {"name": "ada", "auth": {"accessToken": {"displayName": "train"}}}
        self.wfile.write(json.dumps(told if is_good else {"error": "no"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_that_knows_one() -> Iterator[str]:
    """The address of such a hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

"""A real HTTP server that receives webhooks, and behaves as a test says."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from listener.webhooks import verify


class Request(NamedTuple):
    """One request as it arrived. `peer` is the port that it came from; names of headers are lower-case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: int

    @property
    def id(self) -> str:
        """The idempotency key."""
        return self.headers["webhook-id"]

    @property
    def said(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


Behaviour = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answers with a status at once."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


class Stall:
    """Says nothing, and hangs up when the test says so."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, _handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        self.over.wait(30)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A good status, and a body that never ends."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"x" * 65_536)


def endless_head(handler: BaseHTTPRequestHandler) -> None:
    """A status line, and headers that never end."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X-More: " + b"x" * 1_000 + b"\r\n")


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """A byte of the head now and then: never silent, never done."""
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1_000:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)


def cut(handler: BaseHTTPRequestHandler) -> None:
    """A good status, and a body that breaks off."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer at all."""


def noise(handler: BaseHTTPRequestHandler) -> None:
    """Something that is not HTTP."""
    handler.wfile.write(b"\x00\xff not HTTP\r\n\r\n")


BREAKING: Final = (endless, endless_head, trickle, cut, hang_up, noise)
"""Behaviours after which a connection is of no use."""


class Receiver:
    """The server.

    Attributes:
        requests: all that arrived, in order.
        behave: how the next ones are answered; may be changed at any time.
        url: where it is.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.behave: Behaviour = answer(204)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Request(self.path, headers, body, self.client_address[1]))
                behave = receiver.behave
                self.close_connection = behave in BREAKING or isinstance(behave, Stall)
                behave(self)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
                """Nothing."""

        return Handler

    def events(self, event: str) -> list[Any]:
        """Items of all messages of one event, each message once, in the order of their first arrival."""
        seen: dict[str, list[Any]] = {}
        for request in list(self.requests):
            said = request.said
            if said["event"] == event:
                seen.setdefault(request.id, said["items"])
        return [item for items in seen.values() for item in items]

    def verified(self, secret: str, now_s: float | None = None) -> bool:
        """Whether every request has the signature of a secret, and is fresh, now or at another time."""
        return all(
            verify(secret, request.headers, request.body, now_s=now_s) == request.id
            for request in self.requests
        )

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver until the context ends."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()

"""uvicorn, bounded: the server of the gateway's own process."""

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from listener.application.errors import InvalidConfiguration
from listener.infrastructure.gateway.raw_sockets import RawSocket

HEAD_MAX: Final = 32_768
"""Bytes of a request's line and headers."""
WEBSOCKET_MESSAGE_MAX: Final = 65_536
"""Bytes of a message from a client."""
WEBSOCKET_QUEUE_MAX: Final = 8
"""Messages of a client that wait to be looked at."""
PIPELINED_MAX: Final = 16
"""Requests of a connection that wait for the one before; some 4 KB each."""
HEAD_S: Final = 10.0
"""A request's head must be here so long after its first byte, and the first one after the connection."""
STALLED_S: Final = 20.0
"""A client that reads nothing of its answer for so long is hung up on."""
KEEP_ALIVE_S: Final = 20
STOP_S: Final = 2
"""Requests under way may take so long when the server stops."""
FILES_MAX: Final = 65_536
"""Open files and connections, where the system allows so many."""


class Links:
    """HTTP connections of a server, without the live sockets: these have a bound of their own.

    Args:
        most: at once; further ones get 503.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[asyncio.Protocol] = set()


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 whose request heads end: the parser beneath bounds neither size nor time.

    Args:
        links: of the server.
        uvicorn: what the parser beneath takes.
    """

    _head = 0
    _in_head = True
    _patience: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def __init__(self, links: Links, **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**uvicorn)
        self._links = links

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._links.open.add(self)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._links.open.discard(self)
        self._have_head()
        self._have_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and hang up where a head is too long."""
        self._head += len(data)
        if self._in_head and self._patience is None:
            self._expect_head()
        super().data_received(data)
        if self._in_head and self._head > HEAD_MAX and not self.transport.is_closing():
            self.send_400_response("Request head too long.")

    def on_headers_complete(self) -> None:
        """The body begins.

        Raises:
            ValueError: too many requests were sent without waiting; the parser ends.
        """
        if len(self.pipeline) >= PIPELINED_MAX:
            self.transport.abort()
            raise ValueError("too many requests at once")
        self._in_head = False
        self._have_head()
        self.limit_concurrency = self._links.most + len(self.connections) - len(self._links.open)
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """The connection is a live socket from now on."""
        self._links.open.discard(self)
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        """The next head begins."""
        self._in_head, self._head = True, 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as we answer; not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._have_read()

    def _have_read(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _expect_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_S, self._too_slow)

    def _have_head(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        self.transport.close()


class Server(uvicorn.Server):
    """A server that leaves signals to us.

    Attributes:
        up: set when it serves.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self.up.set()

    def stop(self) -> None:
        """Have `serve` return soon."""
        self.should_exit = True

    def stop_on_signals(self) -> None:
        """SIGINT and SIGTERM have `serve` return."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class ServerOptions(NamedTuple):
    """What operators choose.

    Attributes:
        connections_max: HTTP connections at once, without live sockets; further ones get 503.
        trusted_proxies: addresses and networks whose `X-Forwarded-For` is believed.
        certificate: PEM file; None: no TLS.
        private_key: PEM file.
    """

    connections_max: int
    trusted_proxies: Sequence[str] = ()
    certificate: Path | None = None
    private_key: Path | None = None


def make_server(app: ASGIApp, options: ServerOptions) -> Server:
    """A server of `app`; `serve(sockets=…)` runs it until `should_exit` is set.

    Raises:
        InvalidConfiguration: the certificate cannot be used.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=partial(BoundedHttp, Links(options.connections_max)),  # type: ignore[arg-type]
        ws=RawSocket,
        ws_max_size=WEBSOCKET_MESSAGE_MAX,
        ws_max_queue=WEBSOCKET_QUEUE_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=list(options.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.private_key,
    )
    try:
        config.load()
    except OSError as error:
        raise InvalidConfiguration(f"GATEWAY_TLS_CERT, GATEWAY_TLS_KEY: cannot be used: {error}") from error
    return Server(config)


def run_server(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something on the loop that is best for servers, with many files."""
    _allow_many_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())


def _allow_many_files() -> None:
    """Raise what the system allows this process by default, often 1,024, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed: it takes a third off each request."""
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not on every system

        return uvloop.new_event_loop
    return None

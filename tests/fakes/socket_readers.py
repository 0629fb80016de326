"""Real clients of the live sockets, over either transport, and what they know."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import socketio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.fakes.sockets import Mirrors

BOUND_S: Final = 15.0


class Reader:
    """A client of either transport, and what it knows."""

    def __init__(self) -> None:
        self.mirrors = Mirrors()
        self.heard = asyncio.Event()
        self.ended = False

    def hear(self, event: str, message: dict[str, Any]) -> None:
        """Any message."""
        self.mirrors.hear(event, message)
        self.heard.set()

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(BOUND_S):
            while not check():
                self.heard.clear()
                await self.heard.wait()

    async def other(self, event: str) -> dict[str, Any]:
        """The next message of that name that is not of a room."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            for pair in self.mirrors.others:
                if pair[0] == event:
                    self.mirrors.others.remove(pair)
                    found.append(pair[1])
                    return True
            return False

        await self.until(is_there)
        return found[0]

    async def ask(self, op: str, **fields: object) -> None:
        """Ask something."""
        raise NotImplementedError


class PlainReader(Reader):
    """Over plain WebSocket."""

    def __init__(self, link: ClientConnection) -> None:
        super().__init__()
        self.link = link

    async def read(self) -> None:
        """Read until the end."""
        try:
            async for text in self.link:
                message = orjson.loads(text)
                self.hear(message.pop("event"), message)
        except ConnectionClosed:
            pass
        self.ended = True
        self.heard.set()

    async def ask(self, op: str, **fields: object) -> None:
        """See `Reader.ask`."""
        await self.link.send(orjson.dumps({"op": op, **fields}).decode())


class SocketIoReader(Reader):
    """Over Socket.IO."""

    def __init__(self) -> None:
        super().__init__()
        self.io = socketio.AsyncClient(reconnection=False)
        self.io.on("*", self._heard)
        self.answers: list[Any] = []

    async def _heard(self, event: str, message: dict[str, Any]) -> None:
        self.hear(event, message)

    async def ask(self, op: str, **fields: object) -> None:
        """See `Reader.ask`."""
        self.answers.append(await self.io.call(op, fields, timeout=BOUND_S))


@asynccontextmanager
async def reader(port: int, kind: str = "plain", **options: Any) -> AsyncIterator[Reader]:
    """A client.

    Args:
        port: of a gateway on this host.
        kind: `plain`, `websocket` or `polling` (both Socket.IO).
        options: of the client library's connecting.
    """
    if kind == "plain":
        async with connect(f"ws://127.0.0.1:{port}/ws", **options) as link, asyncio.TaskGroup() as tasks:
            plain_reader = PlainReader(link)
            tasks.create_task(plain_reader.read())
            try:
                yield plain_reader
            finally:
                await link.close()
        return
    io_reader = SocketIoReader()
    transports = ["polling"] if kind == "polling" else None
    await io_reader.io.connect(f"http://127.0.0.1:{port}", transports=transports, **options)
    try:
        yield io_reader
    finally:
        await io_reader.io.disconnect()

"""`/socket.io`: the live sockets over Socket.IO, events in place of `op` and `event`."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import socketio
from engineio.packet import MESSAGE, NOOP, Packet
from starlette.types import ASGIApp, Receive, Scope, Send

from listener.infrastructure.gateway.asking import OPS, Problem, ask, problem
from listener.infrastructure.gateway.clients import Client, Frame
from listener.infrastructure.gateway.hub import Hub
from listener.infrastructure.gateway.plain_socket import Door, shown_key
from listener.infrastructure.gateway.raw_sockets import RawSocket, framed, raw_of
from listener.infrastructure.gateway.security import Refused

PING_S: Final = 20
"""Between two pings, and for the answer to one."""
PAYLOAD_BYTES_MAX: Final = 65_536
"""Of what comes at once: one message, or several by polling."""
PASS_S: Final = 0.02
"""After this what Engine.IO has taken from its queue is sent: it takes one more turn of the loop."""
CLOSE_S: Final = 1.0
"""For saying goodbye."""


class SocketIoConnection:
    """`Connection` on a link of the Socket.IO server.

    Once the link is a WebSocket of our server, frames go past Engine.IO's queue, encoded once for all.

    Args:
        server: the Socket.IO server.
        sid: the client.
        raws: WebSockets by the ids of their links.
    """

    transport = "socketio"

    def __init__(self, server: socketio.AsyncServer, sid: str, raws: Mapping[str, RawSocket]) -> None:
        self._server = server
        self._sid = sid
        self._link = server.eio.sockets[server.manager.eio_sid_from_sid(sid, "/")]
        self._raws = raws
        self._raw: RawSocket | None = None

    def offer(self, frame: Frame) -> bool:
        """See `Connection.offer`."""
        if self._raw:
            if self._raw.ready:
                self._raw.write(_io_wire(frame))
                return True
            return False
        if self._link.closed or self._link.upgraded or not self._link.queue.empty():
            return False
        self._link.queue.put_nowait(_packet(frame))
        return True

    async def send(self, frame: Frame) -> None:
        """See `Connection.send`."""
        if self._link.closed:
            raise OSError("the link is gone")
        if self._link.upgraded and self._raw is None and self._link.sid in self._raws:
            await self._link.queue.join()
            await asyncio.sleep(PASS_S)
            self._raw = self._raws.get(self._link.sid)
        if self._raw is None:
            await self._link.queue.put(_packet(frame))
            await self._link.queue.join()
            return
        await self._raw.drained()
        if not self._raw.open:
            raise OSError("the link is gone")
        self._raw.write(_io_wire(frame))

    async def close(self) -> None:
        """See `Connection.close`."""
        self._link.queue.put_nowait(Packet(NOOP))  # ends a poll that waits for news
        with suppress(TimeoutError, KeyError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._server.disconnect(self._sid)
                await self._link.close(wait=False)
        if self._raw and self._raw.open and not self._raw.ready:
            self._raw.abort()  # it takes nothing, not even a farewell


def _text(frame: Frame) -> bytes:
    return b'2["%b",%b]' % (frame.event.encode(), frame.body)


def _io_wire(frame: Frame) -> bytes:
    """The frame's bytes on a WebSocket: an Engine.IO message (4) of a Socket.IO event (2)."""
    if frame.io_wire is None:
        frame.io_wire = framed(b"4" + _text(frame))
    return frame.io_wire


def _packet(frame: Frame) -> Any:  # noqa: ANN401 - the library has no types
    if frame.packet is None:
        packet = Packet(MESSAGE, data=_text(frame).decode())
        packet.encode()
        frame.packet = packet
    return frame.packet


class SocketIoDoor:
    """A Socket.IO server whose clients are the hub's.

    Args:
        hub: rooms and their members.
        door: lets a key in.
        origins: pages that may connect; `*`: all; none: those of the same host.
    """

    def __init__(self, hub: Hub, door: Door, origins: list[str] | str | None) -> None:
        self._hub = hub
        self._door = door
        self._raws: dict[str, RawSocket] = {}
        self._clients: dict[str, tuple[Client, asyncio.Task[None]]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            async_handlers=False,
            cors_allowed_origins=origins,
            max_http_buffer_size=PAYLOAD_BYTES_MAX,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            http_compression=False,
            logger=False,
            engineio_logger=False,
        )
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        for op in OPS:
            self._server.on(op, partial(self._ask, op))
        self._server.on("*", self._unknown)
        self._app: ASGIApp = socketio.ASGIApp(self._server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        raw = raw_of(scope) if scope["type"] == "websocket" else None
        link = parse_qs(scope["query_string"].decode("latin-1")).get("sid", [""])[0]
        upgrades = raw is not None and link in self._server.eio.sockets
        if raw and upgrades:
            self._raws[link] = raw
        try:
            await self._app(scope, receive, send)
        finally:
            if upgrades:
                self._raws.pop(link, None)

    @property
    def links(self) -> int:
        """How many there are, also those that have not connected yet."""
        return len(self._server.eio.sockets)

    async def run(self) -> None:
        """Write to clients until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            await self._server.shutdown()

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object) -> None:
        scope: Scope = environ["asgi.scope"]
        try:
            self._door(_key(auth) or shown_key(scope), scope)
        except Refused as refused:
            raise socketio.exceptions.ConnectionRefusedError(refused.code) from None
        if raw := raw_of(scope):
            self._raws[self._server.manager.eio_sid_from_sid(sid, "/")] = raw
        connection = SocketIoConnection(self._server, sid, self._raws)
        client = self._hub.join(connection) if self._tasks else None
        if client is None or self._tasks is None:
            raise socketio.exceptions.ConnectionRefusedError("too_many_clients")
        self._clients[sid] = client, self._tasks.create_task(client.write(), name="socket.io")

    async def _disconnect(self, sid: str, _reason: str = "") -> None:
        self._raws.pop(self._server.manager.eio_sid_from_sid(sid, "/"), None)
        client, _ = self._clients.pop(sid, (None, None))
        if client:
            self._hub.leave(client)

    async def _ask(self, op: str, sid: str, fields: object = None) -> dict[str, object]:
        client, _ = self._clients.get(sid, (None, None))
        if client is None:
            return {"ok": False, "code": "closed"}
        said = fields if isinstance(fields, dict) else {}
        return self._answer(client, await ask(self._hub, client, op, said))

    async def _unknown(self, _event: str, sid: str, *_args: object) -> dict[str, object]:
        client, _ = self._clients.get(sid, (None, None))
        if client is None:
            return {"ok": False, "code": "closed"}
        return self._answer(client, problem("unknown_op" if client.may_ask() else "too_many_requests"))

    def _answer(self, client: Client, refused: Problem | None) -> dict[str, object]:
        if refused is None:
            return {"ok": True}
        self._hub.push(client, [Frame("error", refused.body())])
        return {"ok": False, "code": refused.code}


def _key(auth: object) -> str | None:
    key = auth.get("key") if isinstance(auth, dict) else None
    return key if isinstance(key, str) else None

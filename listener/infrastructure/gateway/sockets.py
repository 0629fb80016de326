"""The live sockets, an ASGI application in front of another: `/ws`, `/socket.io`; the rest is passed on."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listener.infrastructure.gateway.guard import address_of
from listener.infrastructure.gateway.hub import Hub
from listener.infrastructure.gateway.keys import Scope as KeyScope
from listener.infrastructure.gateway.plain_socket import PlainSocket, refuse
from listener.infrastructure.gateway.raw_sockets import raw_of
from listener.infrastructure.gateway.replies import refusal
from listener.infrastructure.gateway.security import Refused, Security
from listener.infrastructure.gateway.socketio_door import PAYLOAD_BYTES_MAX, SocketIoDoor

PLAIN: Final = "/ws"
SOCKET_IO: Final = "/socket.io"
STALLED_S: Final = 20.0
"""A link that takes nothing for so long is ended, whoever writes to it."""
REQUEST_S: Final = 60.0
"""A poll waits for some 40 s for news."""
LINKS_PER_CLIENT: Final = 2
"""Links that have not connected yet: as many again as clients."""


class Sockets:
    """Dispatches by path.

    Args:
        hub: rooms and their members.
        security: keys and rates.
        origins: pages that may connect; `*`: all; none: those of the same host.
        clients_max: as the hub's.
        other: gets everything else.
    """

    def __init__(
        self,
        hub: Hub,
        security: Security,
        other: ASGIApp,
        *,
        origins: Sequence[str] = (),
        clients_max: int = 5_000,
    ) -> None:
        self._security = security
        self._origins = frozenset(origins)
        self._links_max = clients_max * LINKS_PER_CLIENT
        self._links = 0
        self._other = other
        allowed = "*" if "*" in self._origins else sorted(self._origins) or None
        self._plain = PlainSocket(hub, self._door, needs_key=security.needs_key)
        self._socket_io = SocketIoDoor(hub, self._door, allowed)

    async def run(self) -> None:
        """What Socket.IO needs beside; until cancelled."""
        await self._socket_io.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        path = scope.get("path", "")
        plain = scope["type"] == "websocket" and path == PLAIN
        socket_io = scope["type"] in {"http", "websocket"} and (path + "/").startswith(SOCKET_IO + "/")
        if not plain and not socket_io:
            await self._other(scope, receive, send)
            return
        try:
            self._admit(scope, plain=plain)
        except Refused as refused:
            await (
                refuse(send, refused)
                if scope["type"] == "websocket"
                else refusal(refused)(scope, receive, send)
            )
            return
        if scope["type"] == "websocket":
            await self._link(scope, receive, send, self._plain if plain else self._socket_io)
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of Socket.IO's polling. Engine.IO may wait for ever for a link that nobody polls."""
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(REQUEST_S):
                await self._socket_io(scope, receive, noticed)
        except TimeoutError:
            if not started:
                late = Refused(503, "unavailable", "this took too long, connect again")
                await refusal(late)(scope, receive, send)

    async def _link(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        raw = raw_of(scope)

        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(STALLED_S):
                    await send(message)
            except TimeoutError:
                if raw:
                    raw.abort()
                raise OSError("the link takes nothing") from None

        self._links += 1
        try:
            await app(scope, receive, timed)
        finally:
            self._links -= 1

    def _admit(self, scope: Scope, *, plain: bool) -> None:
        """Refuse pages of other hosts, and more links than there may be.

        Raises:
            Refused: 403, 413, 429 or 503.
        """
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > PAYLOAD_BYTES_MAX:
            raise Refused(413, "payload_too_large", "the message is too large")
        if scope["type"] == "websocket":
            if not self._may_connect(scope):
                raise Refused(
                    403, "forbidden", "pages of this origin may not connect: see GATEWAY_CORS_ORIGINS"
                )
            if self._links >= self._links_max:
                raise Refused(503, "too_many_clients", "too many clients, try again later")
        if not plain and b"sid=" not in scope["query_string"]:
            if self._socket_io.links >= self._links_max:
                raise Refused(503, "too_many_clients", "too many clients, try again later")
            self._security.admit(None, address_of(scope), None)

    def _may_connect(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        origin: str = headers.get(b"origin", b"").decode("latin-1")
        if not origin or "*" in self._origins or origin in self._origins:
            return True
        host = headers.get(b"host", b"").decode("latin-1")
        return bool(urlsplit(origin).netloc == host)

    def _door(self, key: str | None, scope: Scope) -> None:
        self._security.admit(key, address_of(scope), KeyScope.STREAM)

"""The live sockets, wired: rows from the feed, rooms, both transports."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from starlette.types import ASGIApp

from listener.infrastructure.gateway.clients import ClientLimits
from listener.infrastructure.gateway.hub import Hub, HubLimits
from listener.infrastructure.gateway.hub_figures import Meter
from listener.infrastructure.gateway.room_reads import RoomReads
from listener.infrastructure.gateway.security import Security
from listener.infrastructure.gateway.sockets import Sockets
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.row_feed import RowFeed


class LiveSockets:
    """All parts of the live sockets. The server must be uvicorn with `ws=RawSocket` for them to be fast.

    Args:
        database: for short reads.
        keys: names of the stream's keys.
        feed: rows; its caller runs it.
        security: keys and rates.
        other: the application that gets what is not of the sockets.
        origins: pages that may connect; `*`: all; none: those of the same host.
        limits: bounds of the hub.
        client_limits: bounds of each client.
        meter: who measures.

    Attributes:
        hub: rooms and their members.
        app: the application to be served.
    """

    def __init__(
        self,
        database: Database,
        keys: Keys,
        feed: RowFeed,
        security: Security,
        other: ASGIApp,
        *,
        origins: Sequence[str] = (),
        limits: HubLimits | None = None,
        client_limits: ClientLimits | None = None,
        meter: Meter | None = None,
    ) -> None:
        limits = limits or HubLimits()
        self.hub = Hub(RoomReads(database, keys), time.monotonic, limits, client_limits, feed.start, meter)
        feed.subscribe(self.hub.take)
        self._sockets = Sockets(self.hub, security, other, origins=origins, clients_max=limits.clients)
        self.app: ASGIApp = self._sockets

    def parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Name and coroutine function of what runs in the background. Each may be started again."""
        yield "hub", self.hub.run
        yield "sockets", self._sockets.run

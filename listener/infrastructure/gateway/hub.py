"""The hub: brings outbox rows to the clients of rooms. Snapshot first, then what follows it, without a hole.

One loop (`Hub.run`) does all reading, so that nothing is told while a snapshot is read. Rows come in between,
by `Hub.take`, and wait in the rooms' logs; while Redis is away they simply wait there.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple

from listener.application.interfaces import RowId
from listener.infrastructure.gateway.clients import Client, ClientLimits, Connection, Frame
from listener.infrastructure.gateway.hub_figures import HubFigures, Meter, Tally, Unmeasured
from listener.infrastructure.gateway.newcomers import Newcomers
from listener.infrastructure.gateway.room_index import RoomIndex
from listener.infrastructure.gateway.room_reads import RoomReads
from listener.infrastructure.gateway.rooms import Room, RoomName
from listener.infrastructure.gateway.schedule import Schedule
from listener.infrastructure.gateway.telling import frames_of, read_plans
from listener.infrastructure.redis.row_feed import START, RowBatch

ROOMS_TOGETHER: Final = 8
"""Rooms that are told in one round; the others follow in the next."""
IDLE_S: Final = 5.0
"""How often rooms and logs are looked after."""
LOGS_BYTES_MAX: Final = 64_000_000
"""Of all rooms together."""
HEAD_S: Final = 1.0
"""Age of the head that clients are told."""


class HubLimits(NamedTuple):
    """Bounds of the hub.

    Attributes:
        coalesce_s: least time between two messages of a room; candles and figures that change in between
            are told once.
        clients: most clients.
        rooms: most rooms.
        linger_s: how long a room without members remembers its rows, for those who come back.
        resume_rows: most rows that are read again for those who come back to a room that nobody was in.
    """

    coalesce_s: float = 0.25
    clients: int = 5_000
    rooms: int = 20_000
    linger_s: float = 60.0
    resume_rows: int = 5_000


class Hub:
    """Rooms, their members, and what they are told.

    Args:
        reads: where data comes from.
        clock: seconds, for measuring.
        limits: bounds of the hub.
        client_limits: bounds of each client.
        begin: finds out from which row on `take` will be given all; None: `start` is called instead.
        meter: who measures.

    Attributes:
        clients: all of them.
        figures: for `/health`.
    """

    def __init__(
        self,
        reads: RoomReads,
        clock: Callable[[], float],
        limits: HubLimits | None = None,
        client_limits: ClientLimits | None = None,
        begin: Callable[[], Awaitable[RowId]] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._begin = begin
        self._reads = reads
        self._clock = clock
        self._limits = limits or HubLimits()
        self._client_limits = client_limits or ClientLimits()
        self._index: RoomIndex[Client] = RoomIndex(START, self.mark)
        self._schedule = Schedule(clock, self._limits.coalesce_s)
        self._started = False
        self._wake = asyncio.Event()
        self._empty: dict[RoomName, float] = {}
        self._head: tuple[float, dict[str, object] | None] = (clock() - HEAD_S, None)
        self._looked_after = clock()
        self.clients: set[Client] = set()
        self.figures = HubFigures()
        self._meter: Meter = meter or Unmeasured()
        self._sent = Tally(self._meter)
        self._newcomers = Newcomers(self._index, reads, clock, self, self._limits.resume_rows)

    @property
    def rooms(self) -> int:
        """How many there are, also those that nobody is in at the moment."""
        return len(self._index)

    def by_transport(self) -> Counter[str]:
        """How many clients there are."""
        return Counter(client.transport for client in self.clients)

    def occupied(self) -> int:
        """Rooms with members."""
        return len(self._index) - len(self._empty)

    def start(self, position: RowId) -> None:
        """Rows come after this one; until then nobody is told anything."""
        self._index.forget(position)
        self._started = True
        self._wake.set()

    def take(self, batch: RowBatch) -> None:
        """Rows from the feed."""
        if not self._started:
            self.start(batch.after)
        if batch.missed:
            self._index.forget(batch.rows[0].id if batch.rows else batch.end)
        self._index.take(batch.rows)

    def mark(self, room: Room[Client]) -> None:
        """A room has something to tell."""
        if self._schedule.add(room.name):
            self._wake.set()

    def join(self, connection: Connection) -> Client | None:
        """A new client; None if there are too many."""
        if len(self.clients) >= self._limits.clients:
            self.figures.refused += 1
            self._meter.dropped("refused")
            return None
        client = Client(connection, self._client_limits, self._clock)
        self.clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """A client is gone."""
        self.clients.discard(client)
        for name in tuple(client.rooms):
            self.unsubscribe(client, name)
        client.close()
        if client.fault:
            self._meter.dropped(client.fault)

    def subscribe(self, client: Client, name: RoomName, after: RowId | None = None) -> str:
        """Tell a client of a room from now on.

        Args:
            client: who.
            name: of the room.
            after: the row up to which the client has everything; None: it has nothing.

        Returns:
            A code that says why not; empty if so.
        """
        if name not in client.rooms and len(client.rooms) >= self._client_limits.subscriptions:
            return "too_many_subscriptions"
        if self._index.find(name) is None and len(self._index) >= self._limits.rooms:
            return "too_many_rooms"
        if client.closed:
            return "closed"
        room = self._index.open(name)
        self._empty.pop(name, None)
        client.forget(name)
        client.rooms.add(name)
        room.members[client] = None
        self._newcomers.add(client, room, after)
        self._wake.set()
        return ""

    def unsubscribe(self, client: Client, name: RoomName) -> None:
        """A client leaves a room."""
        client.rooms.discard(name)
        client.forget(name)
        self._newcomers.drop(client, name)
        room = self._index.find(name)
        if room:
            room.members.pop(client, None)
            if not room.members:
                self._empty[name] = self._clock()

    def push(self, client: Client, frames: Sequence[Frame]) -> None:
        """Send frames to a client, or have them wait; where too much waits, a snapshot will come instead."""
        self.figures.frames += len(frames)
        self.figures.bytes += sum(map(len, frames))
        self._sent.add(client.transport, len(frames))
        for name in client.push(frames):
            self.figures.overflows += 1
            self._meter.dropped("overflow")
            room = self._index.find(name)
            if room and client in room.members:
                room.members[client] = None
                self._newcomers.need(name)
                self._wake.set()

    async def run(self) -> None:
        """Tell clients for ever. After an error it may be called again, and goes on.

        Raises:
            StoreUnavailable: Redis is away; everything waits.
            StoreMisused: Redis refuses to be read.
        """
        if not self._started and self._begin:
            position = await self._begin()
            if not self._started:
                self.start(position)
        while True:
            await self._wait()
            await self.round()

    async def _wait(self) -> None:
        """Return when there is something to do."""
        self._wake.clear()
        waits = [self._schedule.wait_s(), self._newcomers.wait_s()] if self._started else []
        pause = min([wait for wait in waits if wait is not None], default=IDLE_S)
        if pause > 0:
            try:
                async with asyncio.timeout(min(pause, IDLE_S)):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def round(self) -> None:
        """Do what is due now. Raises as `run` does."""
        if self._started:
            await self._tell(self._schedule.take(ROOMS_TOGETHER))
            await self._newcomers.round()
        if self._clock() - self._looked_after >= IDLE_S:
            self._look_after()
        self._sent.tell()

    async def _tell(self, names: Sequence[RoomName]) -> None:
        """Tell the members of rooms what follows their positions."""
        began = self._clock()
        rooms = [room for name in names if (room := self._index.find(name))]
        plans = []
        for room in rooms:
            for position, members in room.behind().items():
                plan = room.plan(position)
                if plan:
                    plans.append((room, position, members, plan))
                else:
                    room.members.update(dict.fromkeys(members))
            if None in room.members.values():
                self._newcomers.need(room.name)
        end = self._index.position
        try:
            found = await read_plans(self._reads, [(room.name, plan) for room, _, _, plan in plans])
        except BaseException:
            for room in rooms:
                self.mark(room)
            raise
        for (room, position, members, plan), items in zip(plans, found, strict=True):
            frames = frames_of(room, plan, items, end)
            self.figures.flushes += 1
            for member in members:
                if room.members.get(member) == position:
                    room.members[member] = end
                    self.push(member, frames)
            self._meter.flushed(self._clock() - began)
            await asyncio.sleep(0)  # let go out what was written

    def _look_after(self) -> None:
        """Drop rooms that nobody came back to, and keep logs within their bound."""
        now = self._looked_after = self._clock()
        self._newcomers.look_after()
        for name, since in list(self._empty.items()):
            if now - since >= self._limits.linger_s or len(self._index) > self._limits.rooms // 2:
                del self._empty[name]
                self._index.drop(name)
                self._schedule.forget(name)
        for shrink in (Room[Client].shrink, lambda room: room.forget(self._index.position)):
            if sum(room.log_bytes for room in self._index.all()) > LOGS_BYTES_MAX:
                for room in self._index.all():
                    shrink(room)
                    self.mark(room)

    def health_check(self) -> dict[str, object]:
        """Clients, rooms, how many rooms wait to be told, and what was done since the start."""
        position = self._index.position
        return {
            "clients": len(self.clients),
            "rooms": len(self._index),
            "waiting": len(self._schedule),
            "position": f"{position.epoch}-{position.seq}" if self._started else "",
            **asdict(self.figures),
        }

    async def status(self, client: Client) -> dict[str, object]:
        """What a client may know of the whole: the head, its rooms, how many others there are."""
        read_at, head = self._head
        if self._clock() - read_at >= HEAD_S:
            self._head = (self._clock(), head)
            head = await self._reads.head()
            self._head = (self._clock(), head)
        return {
            "head": head,
            "clients": len(self.clients),
            "rooms": len(self._index),
            "subscriptions": sorted(map(str, client.rooms)),
            "coalesceMs": round(self._limits.coalesce_s * 1000),
        }

"""Members of rooms that have no position yet: who needs a snapshot, and who came back with a position."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import orjson

from listener.application.interfaces import RowId
from listener.infrastructure.gateway.clients import Client, Frame
from listener.infrastructure.gateway.hub_figures import HubFigures
from listener.infrastructure.gateway.room_index import RoomIndex
from listener.infrastructure.gateway.room_reads import RoomReads
from listener.infrastructure.gateway.rooms import Room, RoomName
from listener.infrastructure.gateway.telling import catch_up

SNAPSHOTS_TOGETHER: Final = 8
"""Rooms whose snapshots are read in one round."""
RESUMED_TOGETHER: Final = 4
"""Positions from which rows are read again in one round."""
POLL_S: Final = 0.1
"""How often it is looked whether clients that were slow can take a snapshot now."""
INTERVALS_S: Final = 5.0
"""How long it is believed which intervals are told."""


class Teller(Protocol):
    """The hub, as far as newcomers matter to it."""

    figures: HubFigures

    def push(self, client: Client, frames: Sequence[Frame]) -> None:
        """Send frames, or have them wait."""
        ...

    def mark(self, room: Room[Client]) -> None:
        """A room has something to tell."""
        ...

    def unsubscribe(self, client: Client, name: RoomName) -> None:
        """A client leaves a room."""
        ...


class Newcomers:
    """Gives each member its first position.

    Args:
        index: all rooms.
        reads: where data comes from.
        clock: seconds, for measuring.
        teller: who sends.
        resume_rows: most rows that are read again for who came back.
    """

    def __init__(
        self,
        index: RoomIndex[Client],
        reads: RoomReads,
        clock: Callable[[], float],
        teller: Teller,
        resume_rows: int,
    ) -> None:
        self._index = index
        self._reads = reads
        self._clock = clock
        self._teller = teller
        self._resume_rows = resume_rows
        self._needy: dict[RoomName, bool] = {}
        """Rooms some of whose members need a snapshot; whether the last try came to nothing."""
        self._returning: dict[tuple[Client, RoomName], RowId] = {}
        self._intervals: tuple[float, frozenset[str] | None] = (0.0, None)

    def need(self, name: RoomName) -> None:
        """A member of the room needs a snapshot."""
        self._needy[name] = False

    def add(self, client: Client, room: Room[Client], after: RowId | None) -> None:
        """A member is new, or says how far it has come.

        The room's log is as good as the outbox where it reaches back so far in the epoch in which we are: a
        position of another epoch may be one of rows that Redis has lost since.
        """
        self._returning.pop((client, room.name), None)
        if after is None:
            self.need(room.name)
        elif after.epoch == self._index.position.epoch and room.since <= after <= self._index.position:
            self._resumed(client, room, after, after, ())
        else:
            self._returning[client, room.name] = after

    def drop(self, client: Client, name: RoomName) -> None:
        """A member has left."""
        self._returning.pop((client, name), None)

    def wait_s(self) -> float | None:
        """Seconds until there is something to do; None: nothing for now."""
        if self._returning or any(not tried and self._takers(name) for name, tried in self._needy.items()):
            return 0
        return POLL_S if self._needy else None

    async def round(self) -> None:
        """Do what can be done. Raises as `RoomReads` does."""
        await self._welcome_back()
        await self._show()

    def look_after(self) -> None:
        """Forget rooms of which nobody needs a snapshot any more."""
        for name in tuple(self._needy):
            room = self._index.find(name)
            if room is None or None not in room.members.values():
                del self._needy[name]

    def _resumed(
        self, client: Client, room: Room[Client], after: RowId, end: RowId, frames: Sequence[Frame]
    ) -> None:
        room.members[client] = end
        self._teller.figures.resumed += 1
        self._teller.push(client, [Frame("resumed", room.resumed(after), room.name), *frames])
        self._teller.mark(room)

    async def _welcome_back(self) -> None:
        """Tell those who came back what they missed, or have them given a snapshot."""
        wanted: dict[RowId, list[tuple[Client, RoomName]]] = {}
        for pair, after in self._returning.items():
            wanted.setdefault(after, []).append(pair)
        for after, pairs in list(wanted.items())[:RESUMED_TOGETHER]:
            missed = await catch_up(self._reads, after, (name for _, name in pairs), self._resume_rows)
            for client, name in pairs:
                if self._returning.get((client, name)) != after:
                    continue  # has left or asked for something else meanwhile
                del self._returning[client, name]
                room, what = self._index.find(name), missed.get(name)
                if room and what and what.end >= room.since:
                    self._resumed(client, room, after, what.end, what.frames)
                else:
                    self.need(name)

    def _takers(self, name: RoomName) -> list[Client]:
        """Members of a room that need a snapshot and can take one."""
        room = self._index.find(name)
        return [
            member
            for member, position in (room.members.items() if room else ())
            if position is None and member.drained and (member, name) not in self._returning
        ]

    async def _show(self) -> None:
        """Give snapshots."""
        wanted = [name for name in self._needy if self._takers(name)][:SNAPSHOTS_TOGETHER]
        told = await self._told_intervals() if any(name.interval for name in wanted) else None
        for name in wanted:
            if told is not None and name.interval and name.interval not in told:
                self._turn_away(name)
            else:
                await self._show_room(name)
                await asyncio.sleep(0)  # let go out what was written

    async def _show_room(self, name: RoomName) -> None:
        snapshot = await self._reads.snapshot(name)
        room = self._index.find(name)
        self._needy.pop(name, None)
        if room is None:
            return
        if snapshot is None or snapshot.position < room.since:
            self._needy[name] = True  # rows are known that it does not hold
            return
        frame = Frame("snapshot", room.snapshot(*snapshot).body, name)
        self._teller.figures.snapshots += 1
        for member in self._takers(name):
            room.members[member] = snapshot.position
            self._teller.push(member, [frame])
        if None in room.members.values():
            self._needy.setdefault(name, False)
        if snapshot.position < room.last:
            self._teller.mark(room)

    async def _told_intervals(self) -> frozenset[str] | None:
        read_at, known = self._intervals
        if known is None or self._clock() - read_at > INTERVALS_S:
            self._intervals = (self._clock(), await self._reads.intervals())
        return self._intervals[1]

    def _turn_away(self, name: RoomName) -> None:
        """Nobody will ever be told of this room."""
        said = "candles of this interval are not told: see OHLCV_INTERVALS"
        body = orjson.dumps({"code": "unknown_interval", "message": said, "room": str(name)})
        room = self._index.find(name)
        for member in tuple(room.members) if room else ():
            self._teller.unsubscribe(member, name)
            self._teller.push(member, [Frame("error", body)])
        self._needy.pop(name, None)

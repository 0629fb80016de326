"""All rooms of a process, and which of them an outbox row concerns. Pure; no input or output."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic

import orjson

from listener.application.interfaces import Row, RowId
from listener.infrastructure.gateway.rooms import Entry, Kind, M, Room, RoomName

TOLD_OF_MARKETS: Final = frozenset({"market_created", "market_graduated"})


class RoomIndex(Generic[M]):
    """Rooms by name.

    Args:
        position: the row that was taken last.
        dirty: called with each room that a row concerns.
    """

    def __init__(self, position: RowId, dirty: Callable[[Room[M]], None]) -> None:
        self.position = position
        self._dirty = dirty
        self._rooms: dict[RoomName, Room[M]] = {}
        self._takers: dict[str, Callable[[RowId, bytes], None]] = {
            "trade_update": self._traded,
            "chart_data": self._charted,
            "market_data": self._figured,
            "candles_closed": self._closed,
            "alert": self._alerted,
            "reorg": self._reorganised,
            "resync": self._resynced,
            **dict.fromkeys(TOLD_OF_MARKETS, self._registered),
        }

    def __len__(self) -> int:
        return len(self._rooms)

    def all(self) -> Iterable[Room[M]]:
        """Every room."""
        return self._rooms.values()

    def find(self, name: RoomName) -> Room[M] | None:
        """The room of that name, if there is one."""
        return self._rooms.get(name)

    def open(self, name: RoomName) -> Room[M]:
        """The room of that name, from now on if it is new."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self.position)
        return room

    def drop(self, name: RoomName) -> None:
        """Forget a room."""
        self._rooms.pop(name, None)

    def take(self, rows: Sequence[Row]) -> None:
        """Rows that follow the position. Rows of kinds that we do not know are passed over."""
        for row in rows:
            taker = self._takers.get(row.event)
            if taker:
                taker(row.id, row.data)
            self.position = row.id

    def forget(self, position: RowId) -> None:
        """Rows were missed: everybody needs a snapshot, not older than `position`."""
        self.position = position
        for room in self._rooms.values():
            room.forget(position)
            self._dirty(room)

    def _traded(self, row: RowId, data: bytes) -> None:
        self._tell(RoomName(Kind.TRADES, orjson.loads(data)["s"]), Entry(row, "update", data))

    def _alerted(self, row: RowId, data: bytes) -> None:
        for market in ("", orjson.loads(data)["s"]):
            self._tell(RoomName(Kind.ALERTS, market), Entry(row, "update", data))

    def _registered(self, row: RowId, data: bytes) -> None:
        self._tell(RoomName(Kind.MARKETS), Entry(row, "update", data))

    def _tell(self, name: RoomName, entry: Entry) -> None:
        if room := self._rooms.get(name):
            room.tell(entry)
            self._dirty(room)

    def _charted(self, row: RowId, data: bytes) -> None:
        mention: dict[str, Any] = orjson.loads(data)
        market = mention["s"]
        for interval, open_time in mention["c"]:
            if room := self._rooms.get(RoomName(Kind.CANDLES, market, interval)):
                room.touch(row, open_time)
                self._dirty(room)

    def _figured(self, row: RowId, data: bytes) -> None:
        if room := self._rooms.get(RoomName(Kind.STATS, data.decode())):
            room.change(row)
            self._dirty(room)

    def _closed(self, row: RowId, data: bytes) -> None:
        mark = orjson.loads(data)
        for room in self._rooms.values():
            if room.name.interval == mark["i"]:
                room.close(row, mark["T"])
                self._dirty(room)

    def _reorganised(self, row: RowId, data: bytes) -> None:
        item = orjson.loads(data)
        markets = set(item["markets"])
        told = orjson.dumps({name: item[name] for name in ("ancestor", "depth", "from")})
        for room in self._rooms.values():
            if not room.name.market or room.name.market in markets:
                room.tell(Entry(row, "reorg", told))
                self._dirty(room)

    def _resynced(self, row: RowId, _data: bytes) -> None:
        self.forget(row)

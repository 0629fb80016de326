"""Rooms: what happened to one series, feed or record, and who is told of it. Pure; no input or output.

A room remembers which outbox rows concern it, its *log*. A member has a *position*, the row up to which it
has everything. What a member gets follows from the log, its position and the current data (`Room.plan`), the
same for whoever has just been given a snapshot, comes back after a while, or was there all the time.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import Final, Generic, Literal, NamedTuple, Self, TypeVar

import orjson

from listener.application.interfaces import RowId
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Interval

MARKET_CHARACTERS_MAX: Final = 128
LOG_ENTRIES_MAX: Final = 2_000
"""Trades, alerts, or markets, that a room remembers: those of one flush, and for who comes back."""
LOG_BYTES_MAX: Final = 1_000_000
TOUCHED_MAX: Final = 500
"""Candles that a room remembers to have changed."""

M = TypeVar("M", bound=Hashable)
Delivery = Literal["snapshot", "update", "reorg"]


class Kind(StrEnum):
    """What a room tells of."""

    CANDLES = "candles"
    TRADES = "trades"
    STATS = "stats"
    MARKETS = "markets"
    ALERTS = "alerts"


FOR_ALL: Final = frozenset({Kind.MARKETS, Kind.ALERTS})
"""Kinds that have a room of all markets."""
OF_ONE: Final = frozenset(Kind) - {Kind.MARKETS}
"""Kinds that have a room of each market."""


class RoomName(NamedTuple):
    """`candles:<market>:<interval>`, `trades:<market>`, `stats:<market>`, `markets`, `alerts[:<market>]`."""

    kind: Kind
    market: str = ""
    interval: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The room of that name.

        Raises:
            InvalidValue, InvalidInterval: there is none.
        """
        kind, _, market = text.partition(":")
        interval = ""
        if kind == Kind.CANDLES:
            market, _, interval = market.rpartition(":")
            Interval.parse(interval)
        if not (kind in FOR_ALL if text == kind else kind in OF_ONE and market):
            raise InvalidValue(
                "no such room: candles:<market>:<interval>, trades:<market>, stats:<market>, markets, "
                "alerts, alerts:<market>"
            )
        if len(market) > MARKET_CHARACTERS_MAX or not market.isprintable() or " " in market:
            raise InvalidValue("a market has up to 128 printable characters")
        return cls(Kind(kind), market, interval)

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


class Entry(NamedTuple):
    """A row of a room's log, told as it is."""

    id: RowId
    what: Literal["update", "reorg"]
    data: bytes


class Plan(NamedTuple):
    """What follows a position.

    Attributes:
        told: rows to be told as they are, ascending.
        touched: open times of candles to be told as they are now, ascending.
        changed: the market's figures are to be told as they are now.
        closed: all candles that close up to this time are closed; None: that has not changed.
        newest: the newest row that speaks of what is told as it is now; None: there is nothing of that.
    """

    told: Sequence[Entry]
    touched: Sequence[int]
    changed: bool
    closed: int | None
    newest: RowId | None


class Message(NamedTuple):
    """What is sent to members.

    Attributes:
        what: how `body` is meant.
        body: JSON, the same for every transport.
    """

    what: Delivery
    body: bytes


class Room(Generic[M]):
    """One room.

    Attributes:
        members: position of each; None: it needs a snapshot.
        since: the log holds every row of the room after this one.
        last: the newest row of the room.
    """

    __slots__ = ("_bytes", "_changed", "_closed", "_quoted", "_told", "_touched", "last", "members", "name",
                 "since")  # fmt: skip

    def __init__(self, name: RoomName, since: RowId) -> None:
        self.name = name
        self.members: dict[M, RowId | None] = {}
        self._quoted = orjson.dumps(str(name))
        self.forget(since)

    def forget(self, since: RowId) -> None:
        """Begin again: all members need a snapshot, not older than `since`."""
        self.since = self.last = since
        self._told: deque[Entry] = deque()
        self._bytes = 0
        self._touched: dict[int, RowId] = {}
        self._changed = since
        self._closed: tuple[RowId, int | None] = (since, None)
        self.members = dict.fromkeys(self.members)

    @property
    def log_bytes(self) -> int:
        """What the log holds, about."""
        return self._bytes

    def tell(self, entry: Entry) -> None:
        """A row that is passed on as it is."""
        self.last = entry.id
        self._told.append(entry)
        self._bytes += len(entry.data)
        while len(self._told) > LOG_ENTRIES_MAX or self._bytes > LOG_BYTES_MAX:
            dropped = self._told.popleft()
            self._bytes -= len(dropped.data)
            self.since = max(self.since, dropped.id)

    def touch(self, row: RowId, open_time: int) -> None:
        """A candle has changed, or is gone."""
        self.last = row
        self._touched.pop(open_time, None)
        self._touched[open_time] = row
        if len(self._touched) > TOUCHED_MAX:
            oldest = next(iter(self._touched))
            self.since = max(self.since, self._touched.pop(oldest))

    def change(self, row: RowId) -> None:
        """The figures have changed, or are gone."""
        self.last = self._changed = row

    def close(self, row: RowId, up_to: int) -> None:
        """All candles up to a time are closed."""
        self.last = row
        self._closed = (row, up_to)

    def shrink(self) -> None:
        """Forget what all members have; who comes back later gets a snapshot."""
        oldest = min((position for position in self.members.values() if position), default=self.last)
        if oldest <= self.since:
            return
        self.since = oldest
        while self._told and self._told[0].id <= oldest:
            self._bytes -= len(self._told.popleft().data)
        self._touched = {time: row for time, row in self._touched.items() if row > oldest}

    def behind(self) -> dict[RowId, list[M]]:
        """Members that have not got everything, by position."""
        found: dict[RowId, list[M]] = {}
        for member, position in self.members.items():
            if position is not None and position < self.last:
                found.setdefault(position, []).append(member)
        return found

    def plan(self, after: RowId) -> Plan | None:
        """What follows a position; None if the log does not reach so far back."""
        if after < self.since:
            return None
        told = []
        for entry in reversed(self._told):
            if entry.id <= after:
                break
            told.append(entry)
        touched = {}
        for open_time, row in reversed(self._touched.items()):
            if row <= after:
                break
            touched[open_time] = row
        marked, up_to = self._closed
        rows = [row for row in (*touched.values(), self._changed, marked) if row > after]
        return Plan(
            told[::-1],
            sorted(touched),
            self._changed > after,
            up_to if marked > after else None,
            max(rows, default=None),
        )

    def update(self, plan: Plan, items: Sequence[bytes], end: RowId) -> list[Message]:
        """The messages of a plan, each with a place of its own, ascending.

        What is told as it is now comes last, unless a reorg is newer than all rows that speak of it: then
        what the reorg corrects is yet to be told.

        Args:
            plan: what follows a position.
            items: candles of `plan.touched`, or the figures.
            end: the row up to which members have everything after that.
        """
        messages: list[Message] = []
        part: list[bytes] = []
        place, now = end, plan.newest
        for entry in plan.told:
            if entry.what == "reorg":
                if now and now < entry.id:
                    messages.append(self._message("update", now, items, plan.closed))
                    now = None
                if part:
                    messages.append(self._message("update", place, part))
                    part = []
                messages.append(Message("reorg", self._head(entry.id) + b"," + entry.data[1:]))
            else:
                part.append(entry.data)
                place = entry.id
        if part or now:
            messages.append(self._message("update", end, [*part, *items] if now else part, plan.closed))
        return messages

    def snapshot(self, position: RowId, items: Sequence[bytes], closed: int | None) -> Message:
        """Everything that the room starts with, as of a position."""
        return self._message("snapshot", position, items, closed)

    def resumed(self, position: RowId) -> bytes:
        """Body of the answer that what follows a position is to come."""
        return self._head(position) + b"}"

    def _message(
        self, what: Delivery, end: RowId, items: Sequence[bytes], closed: int | None = None
    ) -> Message:
        tail = b"" if closed is None else b',"closed":%d' % closed
        return Message(what, b'%b%b,"items":[%b]}' % (self._head(end), tail, b",".join(items)))

    def _head(self, position: RowId) -> bytes:
        return b'{"room":%b,"epoch":%d,"seq":%d' % (self._quoted, *position)

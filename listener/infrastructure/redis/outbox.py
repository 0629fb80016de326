"""The outbox: a Redis stream whose entry ids are `<epoch>-<seq>`."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import orjson

from listener.application.errors import Superseded
from listener.application.interfaces import Cursor, Row, RowId
from listener.domain.value_objects import Interval, MarketId, Timestamp
from listener.infrastructure.redis.client import Database, Word
from listener.infrastructure.redis.codec import FIGURES, STATS_INTEGERS
from listener.infrastructure.redis.keys import Keys

T = TypeVar("T")

COMPARE_AND_SET: Final = """
local found = redis.call('HMGET', KEYS[1], 'acknowledged', 'sending')
for i = 1, 2 do
  if (found[i] or '') ~= ARGV[i] then
    return {0, found[1] or '', found[2] or ''}
  end
end
redis.call('HSET', KEYS[1], 'acknowledged', ARGV[3], 'sending', ARGV[4])
"""
"""ARGV is the cursor as it was ('' if there was none), then as it shall be."""
SAVE: Final = COMPARE_AND_SET + "return {1}"

CANDLES: Final = """
local found = {}
for i = 1, #ARGV, 2 do
  found[#found + 1] = redis.call('ZRANGE', ARGV[i], ARGV[i + 1], ARGV[i + 1], 'BYSCORE')[1] or false
end
return found
"""
"""ARGV are a key and a score for each candle; one answer is much cheaper to read than many."""

STATS: Final = """
local found = {}
for i = 1, #KEYS do
  found[i] = redis.call('HMGET', KEYS[i], unpack(ARGV))
end
return found
"""
"""KEYS are those of the markets, ARGV the names of the figures."""

READ_TOGETHER: Final = 1_000
"""Candles or markets that one script reads: it holds Redis for some two microseconds for each."""

ROW_OVERHEAD: Final = 64
"""Bytes that a row costs beside its event and data, about."""


class OutboxBounds(NamedTuple):
    """What is kept for a backend that is away. The oldest rows go first; a `resync` tells of them."""

    rows: int
    bytes: int


class OutboxSize:
    """Keeps the outbox below a number of bytes: Redis can trim a stream by count, not by size.

    Only the writer appends, so what it has appended is known here; what it found is counted as one piece.

    Attributes:
        bounds: may be changed at any time.
    """

    def __init__(self, bounds: OutboxBounds) -> None:
        self.bounds = bounds
        self._pieces: deque[tuple[RowId, int, int]] = deque()
        self._bytes = 0
        self._rows = 0

    def begin(self, stored: int) -> None:
        """A term begins with `stored` bytes in the outbox."""
        self._pieces = deque([(RowId(0, 0), stored, 0)])
        self._bytes, self._rows = stored, 0

    def after(self, last: RowId, rows: Sequence[tuple[str, bytes]]) -> RowId | None:
        """Rows that end with `last` are appended; the oldest row that may stay, if some must go."""
        size = sum(len(event) + len(data) + ROW_OVERHEAD for event, data in rows)
        if rows:
            self._pieces.append((last, size, len(rows)))
            self._bytes += size
            self._rows += len(rows)
        while len(self._pieces) > 1 and self._rows - self._pieces[0][2] >= 2 * self.bounds.rows:
            self._drop()  # Redis has: it trims by count, about
        oldest: RowId | None = None
        while self._bytes > self.bounds.bytes and len(self._pieces) > 1:
            end = self._drop()
            oldest = RowId(end.epoch, end.seq + 1) if end.epoch else RowId(last.epoch, 0)
        return oldest

    def _drop(self) -> RowId:
        end, size, rows = self._pieces.popleft()
        self._bytes -= size
        self._rows -= rows
        return end


class RedisOutbox:
    """`Outbox` on Redis 7 or Valkey, as one of its consumers sees it.

    Args:
        database: the server.
        keys: names of the keys.
        consumer: whose cursor it is; empty: the backend's.
    """

    def __init__(self, database: Database, keys: Keys, consumer: str = "") -> None:
        self._database = database
        self._keys = keys
        self._cursor = keys.cursor_of(consumer) if consumer else keys.cursor

    async def cursor(self) -> Cursor | None:
        """See `Outbox.cursor`."""
        acknowledged, sending = await self._database.run("HMGET", self._cursor, "acknowledged", "sending")
        if acknowledged is None or sending is None:
            return None
        return Cursor(_parse(acknowledged), _parse(sending))

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """See `Outbox.save`."""
        await self._set(SAVE, [self._cursor], cursor, previous)

    async def _set(
        self,
        script: str,
        keys: Sequence[str],
        cursor: Cursor,
        previous: Cursor | None,
        more: Sequence[Word] = (),
    ) -> None:
        """Run a script that begins with `COMPARE_AND_SET`; `more` are its further arguments."""
        before = _entries(previous) if previous else ["", ""]
        saved, *found = await self._database.run_script(script, keys, [*before, *_entries(cursor), *more])
        if not saved:
            raise Superseded(f"expected the cursor {previous}, found {found}: another instance delivers")

    async def read(self, after: RowId, limit: int) -> list[Row]:
        """See `Outbox.read`."""
        start = "({}-{}".format(*after)
        entries = await self._database.run("XRANGE", self._keys.outbox, start, "+", "COUNT", limit)
        return [Row(_parse(entry), fields[b"e"].decode(), fields[b"d"]) for entry, fields in entries]

    async def holds(self, row: RowId) -> bool:
        """See `Outbox.holds`."""
        entry = "{}-{}".format(*row)
        return bool(await self._database.run("XRANGE", self._keys.outbox, entry, entry))

    async def candles(
        self, references: Sequence[tuple[MarketId, Interval, Timestamp]]
    ) -> list[dict[str, object]]:
        """See `Outbox.candles`."""
        found: list[bytes | None] = []
        for part in _parts(references):
            words: list[Word] = []
            for market, interval, open_time in part:
                words += (self._keys.candles(market, interval.name), open_time)
            found += await self._database.run_script(CANDLES, [self._keys.outbox], words)
        items: list[dict[str, object]] = []
        for (market, interval, open_time), member in zip(references, found, strict=True):
            item: dict[str, object] = {"s": market, "i": interval.name}
            if member:
                item |= orjson.loads(member)
                item["T"] = open_time + interval.ms - 1
            else:
                item |= {"t": open_time, "deleted": True}
            items.append(item)
        return items

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """See `Outbox.stats`."""
        items: list[dict[str, object]] = []
        for part in _parts(markets):
            keys = [self._keys.stats(market) for market in part]
            found = await self._database.run_script(STATS, keys, FIGURES)
            items += map(_stats_item, part, found)
        return items


def _stats_item(market: MarketId, values: Sequence[bytes | None]) -> dict[str, object]:
    item: dict[str, object] = {"s": market}
    for name, value in zip(FIGURES, values, strict=True):
        if value is not None:
            item[name] = int(value) if name in STATS_INTEGERS else value.decode()
    return item if len(item) > 1 else {"s": market, "deleted": True}


def _parts(references: Sequence[T]) -> Iterable[Sequence[T]]:
    return (references[start : start + READ_TOGETHER] for start in range(0, len(references), READ_TOGETHER))


def _entries(cursor: Cursor) -> list[str]:
    return ["{}-{}".format(*row) for row in cursor]


def _parse(entry: bytes) -> RowId:
    epoch, _, seq = entry.decode().partition("-")
    return RowId(int(epoch), int(seq))

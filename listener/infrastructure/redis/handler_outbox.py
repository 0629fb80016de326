"""The outbox as a handler's delivery sees it: open candles that it has heard of are saved with its cursor."""

from collections.abc import Sequence
from typing import Final

from listener.application.interfaces import Cursor
from listener.application.use_cases.close_candles import OpenCandles, Reference
from listener.domain.value_objects import Interval, MarketId
from listener.infrastructure.redis.client import Database, Word
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import COMPARE_AND_SET, RedisOutbox
from listener.infrastructure.redis.store import text

PAGE: Final = 5_000
"""Open candles that are loaded at once."""
CLOSED: Final = "closed:"
"""Before an interval's name, in the cursor: how far the interval is closed for this handler."""

BEGIN: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return {0} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local place = newest and newest[1] or '0-0'
redis.call('HSET', KEYS[1], 'acknowledged', place, 'sending', place)
local closed = redis.call('HGETALL', KEYS[3])
for i = 1, #closed, 2 do
  redis.call('HSET', KEYS[1], ARGV[1] .. closed[i], closed[i + 1])
end
return {1}
"""
"""A cursor behind the newest row, unless there is one. KEYS: cursor, outbox, watermarks; ARGV: `CLOSED`."""

SAVE_CANDLES: Final = (
    COMPARE_AND_SET
    + """
local added = tonumber(ARGV[6])
for i = 7, 6 + 2 * added, 2 do
  redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1])
end
for i = 7 + 2 * added, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[5] .. ARGV[i], ARGV[i + 1])
  local series = ARGV[i] .. ':'
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', ARGV[i + 1], 'BYSCORE')) do
    if string.sub(member, 1, #series) == series then
      redis.call('ZREM', KEYS[2], member)
    end
  end
end
return {1}
"""
)
"""KEYS: cursor, open candles. ARGV after the cursors: `CLOSED`, the number of opened candles, close time and
member of each, then intervals and how far they are closed."""


class HandlerOutbox(RedisOutbox):
    """`Outbox` of a handler. Candles and figures are named and not read: the link reads what it needs.

    Args:
        database: the server.
        keys: names of the keys.
        consumer: whose cursor it is.
        open_candles: loaded with the cursor, and saved with it.
        from_oldest: a cursor that does not exist begins at the oldest row; otherwise behind the newest one.
    """

    def __init__(
        self, database: Database, keys: Keys, consumer: str, open_candles: OpenCandles, *, from_oldest: bool
    ) -> None:
        super().__init__(database, keys, consumer)
        self._open = open_candles
        self._open_key = keys.open_candles_of(consumer)
        self._from_oldest = from_oldest

    async def cursor(self) -> Cursor | None:
        """See `Outbox.cursor`. What was not saved is forgotten."""
        if not self._from_oldest:
            await self._database.run_script(
                BEGIN, [self._cursor, self._keys.outbox, self._keys.closed], [CLOSED]
            )
        found = await super().cursor()
        fields = text(await self._database.run("HGETALL", self._cursor))
        closed = {
            name.removeprefix(CLOSED): int(value) for name, value in fields.items() if name.startswith(CLOSED)
        }
        self._open.load(await self._load(), closed)
        return found

    async def _load(self) -> list[Reference]:
        found: list[Reference] = []
        while True:
            page = await self._database.run("ZRANGE", self._open_key, len(found), len(found) + PAGE - 1)
            found += map(_reference, page)
            if len(page) < PAGE:
                return found

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """See `Outbox.save`."""
        opened, closed = self._open.take_changes()
        words: list[Word] = [CLOSED, len(opened)]
        for market, interval, open_time in opened:
            words += (open_time + interval.ms - 1, f"{interval.name}:{open_time}:{market}")
        for name, up_to in closed.items():
            words += (name, up_to)
        await self._set(SAVE_CANDLES, [self._cursor, self._open_key], cursor, previous, words)

    async def candles(self, references: Sequence[Reference]) -> list[dict[str, object]]:
        """Which candles have changed: `s`, `i` and `t` of `chart_data` items."""
        return [{"s": market, "i": interval.name, "t": time} for market, interval, time in references]

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """Which markets' figures have changed: `s` of `market_data` items."""
        return [{"s": market} for market in markets]


def _reference(member: bytes) -> Reference:
    interval, open_time, market = member.decode().split(":", 2)
    return MarketId(market), Interval.parse(interval), int(open_time)

"""The outbox: a Redis stream whose entry ids are `<epoch>-<seq>`."""

from collections.abc import Sequence

import orjson

from listener.application.interfaces import Cursor, Row, RowId
from listener.domain.value_objects import Interval, MarketId, Timestamp
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.codec import STATS_INTEGERS
from listener.infrastructure.redis.keys import Keys


class RedisOutbox:
    """`Outbox` on Redis 7 or Valkey."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def cursor(self) -> Cursor | None:
        """See `Outbox.cursor`."""
        acknowledged, sending = await self._database.run(
            "HMGET", self._keys.cursor, "acknowledged", "sending"
        )
        if acknowledged is None or sending is None:
            return None
        return Cursor(_parse(acknowledged), _parse(sending))

    async def save(self, cursor: Cursor) -> None:
        """See `Outbox.save`."""
        acknowledged, sending = ("{}-{}".format(*row) for row in cursor)
        await self._database.run("HSET", self._keys.cursor, "acknowledged", acknowledged, "sending", sending)

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
        found = await self._database.run_all(
            ("ZRANGE", self._keys.candles(market, interval.name), open_time, open_time, "BYSCORE")
            for market, interval, open_time in references
        )
        items: list[dict[str, object]] = []
        for (market, interval, open_time), members in zip(references, found, strict=True):
            item: dict[str, object] = {"s": market, "i": interval.name}
            if members:
                item |= orjson.loads(members[0])
                item["T"] = open_time + interval.ms - 1
            else:
                item |= {"t": open_time, "deleted": True}
            items.append(item)
        return items

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """See `Outbox.stats`."""
        found = await self._database.run_all(("HGETALL", self._keys.stats(market)) for market in markets)
        items: list[dict[str, object]] = []
        for market, fields in zip(markets, found, strict=True):
            item: dict[str, object] = {"s": market}
            for name, value in ((n.decode(), v.decode()) for n, v in fields.items()):
                item[name] = int(value) if name in STATS_INTEGERS else value
            items.append(item if fields else {"s": market, "deleted": True})
        return items


def _parse(entry: bytes) -> RowId:
    epoch, _, seq = entry.decode().partition("-")
    return RowId(int(epoch), int(seq))

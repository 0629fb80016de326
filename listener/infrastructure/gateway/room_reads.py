"""What rooms start with, and what their rows refer to, from Redis. Reading commands only."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson

from listener.application.interfaces import RowId
from listener.infrastructure.gateway.rooms import Kind, RoomName
from listener.infrastructure.redis import fired
from listener.infrastructure.redis.client import Command, Database
from listener.infrastructure.redis.codec import FIGURES, MARKET_INTEGERS, STATS_INTEGERS
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.row_feed import START, RowBatch, rows_after

CANDLES_SHOWN: Final = 300
TRADES_SHOWN: Final = 100
MARKETS_SHOWN: Final = 100
ALERTS_SHOWN: Final = 100
"""The newest of each, with which a room starts."""
READ_TOGETHER: Final = 250
"""Commands of one round trip."""
TRIES: Final = 3
"""How often data is read that must be of one instant."""

CandleRef = tuple[str, str, int]
"""Market, interval and open time."""


class Snapshot(NamedTuple):
    """What a room starts with.

    Attributes:
        position: it holds every row up to this one.
        items: JSON of each, candles and markets ascending, trades and alerts newest first.
        closed: all candles that close up to this time are closed.
    """

    position: RowId
    items: Sequence[bytes]
    closed: int | None = None


class RoomReads:
    """Reads for rooms. Every method may raise `StoreUnavailable` and `StoreMisused`.

    Args:
        database: the server; may be a replica, if the row feed reads there, too.
        keys: names of the stream's keys.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def intervals(self) -> frozenset[str] | None:
        """Intervals whose candles are told; None: there is no stream yet."""
        names = await self._database.run("HGET", self._keys.settings, "setting:OHLCV_INTERVALS")
        return frozenset(names.decode().split(",")) if names else None

    async def snapshot(self, name: RoomName) -> Snapshot | None:
        """What a room starts with; None where it changes too fast to be read at one instant.

        The head is read first, so that the data is as new as that at least. Trades and alerts are each told
        once, so that they must not be newer either. What else is newer is told again, as it is then.
        """
        if name.kind is Kind.MARKETS:
            return await self._markets()
        head: Command = ("HMGET", self._keys.head, "epoch", "seq")
        if name.kind is Kind.TRADES:
            return await self._at_once(head, ("LRANGE", self._keys.trades(name.market), 0, TRADES_SHOWN - 1))
        if name.kind is Kind.ALERTS:
            told = await self._at_once(head, fired.reading(self._keys))
            return told and told._replace(items=fired.newest(told.items, ALERTS_SHOWN, name.market))
        if name.kind is Kind.STATS:
            words: Command = ("HMGET", self._keys.stats(name.market), *FIGURES)
            before, figures = await self._database.run_all([head, words])
            return Snapshot(_position(before), _figures(figures))
        before, members, closed = await self._database.run_all(
            [
                head,
                ("ZRANGE", self._keys.candles(name.market, name.interval), -CANDLES_SHOWN, -1),
                ("HGET", self._keys.closed, name.interval),
            ]
        )
        return Snapshot(_position(before), members, int(closed) if closed else None)

    async def _at_once(self, head: Command, words: Command) -> Snapshot | None:
        """What a command reads, exactly as of the head; None where that moves each time."""
        for _ in range(TRIES):
            before, items, after = await self._database.run_all([head, words, head])
            if before == after:
                return Snapshot(_position(before), items)
        return None

    async def _markets(self) -> Snapshot:
        before, newest = await self._database.run_all(
            [
                ("HMGET", self._keys.head, "epoch", "seq"),
                ("ZRANGE", self._keys.markets, 0, MARKETS_SHOWN - 1, "REV"),
            ]
        )
        names = [market.decode() for market in reversed(newest)]
        records = await self._database.run_all(("HGETALL", self._keys.market(name)) for name in names)
        items = [_record(name, fields) for name, fields in zip(names, records, strict=True) if fields]
        return Snapshot(_position(before), items)

    async def candles(self, references: Sequence[CandleRef]) -> dict[CandleRef, bytes]:
        """Candles as they are now; those that are gone say so."""
        commands: list[Command] = [
            ("ZRANGE", self._keys.candles(market, interval), open_time, open_time, "BYSCORE")
            for market, interval, open_time in references
        ]
        found = await self._all(commands)
        return {
            reference: members[0] if members else b'{"t":%d,"deleted":true}' % reference[2]
            for reference, members in zip(references, found, strict=True)
        }

    async def stats(self, markets: Sequence[str]) -> dict[str, list[bytes]]:
        """Figures of markets as they are now: one item, or none where there are none."""
        found = await self._all([("HMGET", self._keys.stats(market), *FIGURES) for market in markets])
        return {market: _figures(values) for market, values in zip(markets, found, strict=True)}

    async def rows_after(self, position: RowId, limit: int) -> RowBatch | None:
        """See `row_feed.rows_after`."""
        return await rows_after(self._database, self._keys, position, limit)

    async def head(self) -> dict[str, object] | None:
        """The committed head as clients are told of it."""
        names = ("number", "hash", "timestamp", "asOf", "epoch", "seq")
        values = await self._database.run("HMGET", self._keys.head, *names)
        if values[0] is None:
            return None
        texts = {name: (value or b"0").decode() for name, value in zip(names, values, strict=True)}
        return {name: text if name == "hash" else int(text) for name, text in texts.items()}

    async def _all(self, commands: Sequence[Command]) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        for at in range(0, len(commands), READ_TOGETHER):
            found += await self._database.run_all(commands[at : at + READ_TOGETHER])
        return found


def _position(fields: Sequence[bytes | None]) -> RowId:
    epoch, seq = fields
    return RowId(int(epoch), int(seq or 0)) if epoch else START


def _figures(values: Iterable[bytes | None]) -> list[bytes]:
    named = zip(FIGURES, values, strict=True)
    fields = {
        name: int(value) if name in STATS_INTEGERS else value.decode()
        for name, value in named
        if value is not None
    }
    return [orjson.dumps(fields)] if fields else []


def _record(market: str, fields: dict[bytes, bytes]) -> bytes:
    record: dict[str, object] = {"s": market}
    for key, value in fields.items():
        name = key.decode()
        record[name] = int(value) if name in MARKET_INTEGERS else value.decode()
    return orjson.dumps(record)

"""`MarketReader` on Redis or Valkey. It sends reading commands only: a user with `+@read` may run them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from listener.application.errors import ForeignData, NewerSchema
from listener.application.reading import (
    CANDLES_MAX,
    MARKETS_MAX,
    NEWEST,
    TRADES_MAX,
    HeadRecord,
    MarketView,
    Stretch,
    bounded,
)
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Interval, Timestamp
from listener.infrastructure.redis.client import Command, Database, Word
from listener.infrastructure.redis.codec import MARKET_INTEGERS, STATS_INTEGERS
from listener.infrastructure.redis.keys import REMOVING, SCHEMA, Keys

VIEWS_TOGETHER: Final = 125
"""Markets that are read in one round trip, two hashes each: an answer holds Redis for a moment only."""
TOGETHER_MAX: Final = 10_000
"""Markets of one creation time: far more than a block has room for."""

_HEAD_FIELDS: Final = ("number", "hash", "timestamp", "asOf", "epoch", "seq", "chainId", "schema")


class RedisReader:
    """`MarketReader` on Redis 7 or Valkey.

    Pieces are read one after the other, not at one instant: who needs to know how new they are reads the head
    first.

    Args:
        database: the server; may be a replica.
        keys: names of the stream's keys.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def head(self) -> HeadRecord | None:
        """See `MarketReader.head`."""
        key = self._keys.head
        fields = _text(await self._database.run("HGETALL", key))
        if not fields or REMOVING in fields:
            return None
        if missing := [name for name in _HEAD_FIELDS if name not in fields]:
            raise ForeignData(f"the key {key} in Redis was not written by this service: no {missing[0]}")
        if int(fields["schema"]) > SCHEMA:
            raise NewerSchema(
                f"Redis holds schema {fields['schema']}, this version knows up to {SCHEMA}: "
                "run the newer version"
            )
        return HeadRecord(
            number=int(fields["number"]),
            hash=fields["hash"],
            timestamp=int(fields["timestamp"]),
            as_of=int(fields["asOf"]),
            epoch=int(fields["epoch"]),
            seq=int(fields["seq"]),
            chain_id=int(fields["chainId"]),
        )

    async def market(self, market: str) -> MarketView | None:
        """See `MarketReader.market`."""
        return (await self.views([market]))[0]

    async def market_ids(self, after: Timestamp, limit: int) -> list[tuple[str, Timestamp]]:
        """See `MarketReader.market_ids`."""
        bounded(limit, MARKETS_MAX, "markets")
        found = await self._created(f"({after}", "+inf", limit)
        if len(found) == limit:
            last = found[-1][1]
            earlier = [pair for pair in found if pair[1] != last]
            found = earlier + await self._created(last, last, TOGETHER_MAX)
        return found

    async def _created(self, first: Word, last: Word, limit: int) -> list[tuple[str, Timestamp]]:
        words = ("ZRANGE", self._keys.markets, first, last, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
        return _scored(await self._database.run(*words))

    async def views(self, markets: Sequence[str]) -> list[MarketView | None]:
        """See `MarketReader.views`."""
        if len(markets) > MARKETS_MAX:
            raise InvalidValue(f"{len(markets)} markets at once: at most {MARKETS_MAX}")
        found: list[MarketView | None] = []
        for at in range(0, len(markets), VIEWS_TOGETHER):
            part = markets[at : at + VIEWS_TOGETHER]
            commands: list[Command] = []
            for market in part:
                commands.append(("HGETALL", self._keys.market(market)))
                commands.append(("HGETALL", self._keys.stats(market)))
            answers = iter(await self._database.run_all(commands))
            found += [_view(*pieces) for pieces in zip(part, answers, answers, strict=True)]
        return found

    async def candles(self, market: str, interval: str, stretch: Stretch = NEWEST) -> list[bytes]:
        """See `MarketReader.candles`."""
        start, end, limit, newest = stretch
        bounded(limit, CANDLES_MAX, "candles")
        key = self._keys.candles(market, interval)
        first: Word = "-inf" if start is None else start
        last: Word = "+inf" if end is None else f"({end}"
        if newest:
            words: Command = ("ZRANGE", key, last, first, "BYSCORE", "REV", "LIMIT", 0, limit)
        else:
            words = ("ZRANGE", key, first, last, "BYSCORE", "LIMIT", 0, limit)
        members: list[bytes] = await self._database.run(*words)
        return members[::-1] if newest else members

    async def trades(self, market: str, limit: int) -> list[bytes]:
        """See `MarketReader.trades`."""
        bounded(limit, TRADES_MAX, "trades")
        found: list[bytes] = await self._database.run("LRANGE", self._keys.trades(market), 0, limit - 1)
        return found

    async def stats(self, market: str) -> dict[str, object] | None:
        """See `MarketReader.stats`."""
        return _typed(await self._database.run("HGETALL", self._keys.stats(market)), STATS_INTEGERS)

    async def intervals(self) -> list[str]:
        """See `MarketReader.intervals`."""
        names = await self._database.run("HGET", self._keys.settings, "setting:OHLCV_INTERVALS")
        found = names.decode().split(",") if names else []
        return sorted(found, key=lambda name: Interval.parse(name).ms)


def _view(market: str, record: Mapping[bytes, bytes], stats: Mapping[bytes, bytes]) -> MarketView | None:
    fields = _typed(record, MARKET_INTEGERS)
    return None if fields is None else MarketView(market, fields, _typed(stats, STATS_INTEGERS))


def _typed(fields: Mapping[bytes, bytes], integers: frozenset[str]) -> dict[str, object] | None:
    """A HASH with its integers as such; None if there is none."""
    if not fields:
        return None
    return {name: int(value) if name in integers else value for name, value in _text(fields).items()}


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _scored(answer: Sequence[Any]) -> list[tuple[str, int]]:
    """Members and scores, whether the client pairs them or not."""
    if answer and not isinstance(answer[0], tuple | list):
        answer = list(zip(answer[::2], answer[1::2], strict=True))
    return [(member.decode(), int(float(score))) for member, score in answer]

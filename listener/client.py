"""For programs in Python that read candles, trades and 24 h figures from Redis.

```python
async with Client("redis://127.0.0.1:6379/0", chain_id=1) as client:
    candles = await client.candles("0x…", "1m", limit=300)
    frame = polars.DataFrame(columns(await client.candles("0x…", "1h", limit=1000, fill=True)))
```

Only keys of the public contract (docs/contract.md) are read, by reading commands. Decimals are text unless a
method says otherwise.
"""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final, Self, TypeVar

import msgspec

from listener.application.errors import ForeignData
from listener.application.reading import HeadRecord, MarketView, Stretch, bounded
from listener.application.rows import AlertRow, CandleRow, TradeRow
from listener.application.use_cases.present_candles import (
    Opening,
    ccxt_row,
    columns,
)
from listener.application.use_cases.read_candles import CandleQuery, read_candles
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Interval, Timestamp
from listener.infrastructure.redis.client import DEFAULT_TIMEOUT_S, Database
from listener.infrastructure.redis.fired import FIRED_KEPT, FiredAlerts
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.reader import RedisReader

__all__ = ["AlertRow", "CandleRow", "Client", "HeadRecord", "MarketView", "TradeRow", "columns"]

R = TypeVar("R")

PAGE: Final = 500
"""Markets that `Client.markets` reads at once."""

Instant = Timestamp | datetime
"""Unix milliseconds, or a time that knows its zone."""


_trade: Final = msgspec.json.Decoder(TradeRow).decode
_alert: Final = msgspec.json.Decoder(AlertRow).decode


class Client:
    """One chain's data in one Redis. Use it as an async context, or call `close`.

    Every method raises `StoreUnavailable` while Redis is away or slow, `StoreMisused` where it refuses us,
    `ForeignData` or `NewerSchema` where the data is not this version's, and `InvalidValue` or
    `InvalidInterval` for arguments that have no answer. Unknown markets are None or an empty list.

    Args:
        redis_url: `redis://`, `rediss://` or `unix://`.
        chain_id: of the chain.
        timeout_s: for each of Redis' answers.
    """

    def __init__(self, redis_url: str, chain_id: int, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._database = Database.connect(redis_url, timeout_s)
        self._reader = RedisReader(self._database, Keys(chain_id))
        self._fired = FiredAlerts(self._database, Keys(chain_id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections."""
        await self._database.close()

    async def head(self) -> HeadRecord | None:
        """The committed head; None while there is none."""
        return await self._reader.head()

    async def market(self, market: str) -> MarketView | None:
        """A market's record and 24 h figures."""
        return await self._reader.market(market.lower())

    async def markets(self, *, after: Instant = 0) -> AsyncIterator[MarketView]:
        """Markets that were created after an instant, oldest first; read a page at a time."""
        last = _ms(after)
        while page := await self._reader.market_ids(last, PAGE):
            for view in await self._reader.views([market for market, _ in page]):
                if view is not None:
                    yield view
            if len(page) < PAGE:
                return
            last = page[-1][1]

    async def candles(
        self,
        market: str,
        interval: str,
        *,
        limit: int = 300,
        start: Instant | None = None,
        end: Instant | None = None,
        fill: bool = False,
        opening: Opening = "first",
    ) -> list[CandleRow]:
        """Candles with `start <= t < end`, ascending.

        Args:
            market: id.
            interval: `1m`, `5m`, `1h` …
            limit: at most so many: the newest ones, or from `start` the first ones.
            start: earliest open time; None: any.
            end: first open time that is not wanted; None: none.
            fill: give a bucket without a trade a candle too, flat, up to the committed head.
            opening: `first` as trades have it, or `previous`: at the close before, without jumps.
        """
        first, until = None if start is None else _ms(start), None if end is None else _ms(end)
        stretch = Stretch(first, until, limit, newest=start is None)
        query = CandleQuery(market.lower(), Interval.parse(interval), stretch, fill, opening)
        return await read_candles(self._reader, query)

    async def ohlcv(
        self,
        market: str,
        timeframe: str = "1m",
        since: Instant | None = None,
        limit: int = 300,
        *,
        fill: bool = False,
    ) -> list[list[float]]:
        """Candles as ccxt's `fetch_ohlcv` gives them: `[[t, open, high, low, close, base volume], …]`.

        Args:
            market: id.
            timeframe: interval.
            since: from there on; None: the newest ones.
            limit: at most so many.
            fill: see `candles`.
        """
        rows = await self.candles(market, timeframe, start=since, limit=limit, fill=fill)
        return [ccxt_row(row) for row in rows]

    async def trades(self, market: str, limit: int = 100) -> list[TradeRow]:
        """The newest trades, newest first; `TRADES_RETENTION` are kept."""
        raw = await self._reader.trades(market.lower(), limit)
        return [_decoded(_trade, trade) for trade in raw]

    async def alerts(self, limit: int = 100, *, market: str = "", rule: str = "") -> list[AlertRow]:
        """The newest alerts as they stand, newest first; the last 1,000 records are kept.

        Args:
            limit: how many at most.
            market: of this one; empty: of any.
            rule: of this one; empty: of any.
        """
        bounded(limit, FIRED_KEPT, "alerts")
        raw = await self._fired.newest(limit, market.lower(), rule)
        return [_decoded(_alert, alert) for alert in raw]

    async def stats(self, market: str) -> dict[str, object] | None:
        """Rolling 24 h figures; None before the first trade."""
        return await self._reader.stats(market.lower())


def _decoded(decode: Callable[[bytes], R], raw: bytes) -> R:
    try:
        return decode(raw)
    except msgspec.MsgspecError as error:
        raise ForeignData(f"Redis holds something else than it should: {error}") from error


def _ms(instant: Instant) -> Timestamp:
    if isinstance(instant, int):
        return instant
    if instant.tzinfo is None:
        raise InvalidValue(f"{instant} has no time zone: write datetime(…, tzinfo=UTC)")
    return int(instant.timestamp() * 1000)

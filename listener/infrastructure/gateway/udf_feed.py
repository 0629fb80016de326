"""TradingView's datafeed: the UDF requests of its charting library.

Source: https://www.tradingview.com/charting-library-docs/latest/connecting_data/UDF. Times are Unix seconds,
prices JSON numbers. What the page leaves open, decided here:

* `countback` comes first: with it, that many bars before `to` are the answer and `from` is ignored. There is
  no data only if there is none at all before `to`, so `nextTime` is never needed then.
* Without it, the bars of `[from, to)`; if there are none, `no_data` with `nextTime`, the last bar before
  `from`, in seconds like `t` (the page has an example of each; the library's own sample server sends seconds,
  and versions that read milliseconds always send `countback`).
* At most `BARS_MOST` bars, the newest of the range: `expectedOrder: 'latestFirst'` for the library.
* Bars are sparse and open with their first trade, like live ones.
* Errors are `{"s": "error", "errmsg": …}` with a fitting HTTP status. The library reads the body only.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import orjson

from listener.application.interfaces import Clock
from listener.application.reading import CANDLES_MAX, MarketReader, Stretch
from listener.domain.value_objects import Interval
from listener.infrastructure.gateway.udf_symbols import (
    TYPE,
    display_name,
    listed,
    quote,
    resolutions,
    search_result,
    symbol_info,
    ticker_of,
)

BARS_MOST: Final = CANDLES_MAX
"""Bars in one answer."""
SEARCH_MOST: Final = 50
"""Symbols in one answer."""
NAMESAKES_MOST: Final = 50
"""Markets of one symbol among which the first is taken when only the symbol is given."""
INTERVALS_FOR_S: Final = 60.0
"""How long the stream's intervals are remembered; they change only when the stream is built anew."""

UNKNOWN: Final = "unknown_symbol"


class SymbolIndex(Protocol):
    """Finds markets by what people type: symbol, name or address."""

    def search(self, text: str, limit: int) -> Sequence[str]:
        """Ids of markets, best first; those that everybody looks at for an empty text."""
        ...


class BadRequest(Exception):
    """A request that cannot be answered, and how to say so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _Bar(msgspec.Struct, gc=False):
    """What a chart needs of a candle. Amounts stay text: a plain decimal is a JSON number as it stands."""

    t: int
    o: str
    h: str
    l: str
    c: str
    v: str


_BARS: Final = msgspec.json.Decoder(list[_Bar])


def columns(candles: Sequence[bytes]) -> bytes:
    """The answer to a request for bars, from candles as they are stored, ascending."""
    bars = _BARS.decode(b"[" + b",".join(candles) + b"]")
    return (
        f'{{"s":"ok","t":[{",".join([str(bar.t // 1000) for bar in bars])}],'
        f'"o":[{",".join([bar.o for bar in bars])}],'
        f'"h":[{",".join([bar.h for bar in bars])}],'
        f'"l":[{",".join([bar.l for bar in bars])}],'
        f'"c":[{",".join([bar.c for bar in bars])}],'
        f'"v":[{",".join([bar.v for bar in bars])}]}}'
    ).encode()


def open_time_s(candle: bytes) -> int:
    """Open time of a stored candle, in seconds."""
    return msgspec.json.decode(candle, type=_Bar).t // 1000


class Datafeed:
    """Answers of the datafeed, as bytes.

    Every method may raise `BadRequest` and the reader's errors.
    """

    def __init__(self, reader: MarketReader, index: SymbolIndex, clock: Clock) -> None:
        self._reader = reader
        self._index = index
        self._clock = clock
        self._known: dict[str, Interval] = {}
        self._known_at = 0.0

    async def resolutions(self) -> dict[str, Interval]:
        """What the stream's candles can be asked for as."""
        now = self._clock.monotonic()
        if not self._known or now - self._known_at > INTERVALS_FOR_S:
            self._known = resolutions(await self._reader.intervals())
            self._known_at = now
        return self._known

    async def config(self) -> bytes:
        """What the datafeed can do."""
        return orjson.dumps(
            {
                "supported_resolutions": listed(await self.resolutions()),
                "supports_search": True,
                "supports_group_request": False,
                "supports_marks": False,
                "supports_timescale_marks": False,
                "supports_time": True,
                "exchanges": [{"value": "", "name": "All venues", "desc": ""}],
                "symbols_types": [
                    {"name": "All types", "value": ""},
                    {"name": "Crypto", "value": TYPE},
                ],
            }
        )

    def time(self) -> bytes:
        """Server time, seconds."""
        return b"%d" % (self._clock.now() // 1000)

    async def symbol(self, symbol: str) -> bytes:
        """What the library wants to know of a market, by ticker or name."""
        market = await self._market(symbol)
        view = await self._reader.market(market)
        if view is None:
            raise BadRequest(UNKNOWN, 404)
        return orjson.dumps(symbol_info(market, view.record, view.stats, await self.resolutions()))

    async def search(self, text: str, kind: str, venue: str, limit: int) -> bytes:
        """Markets that fit a text."""
        if kind not in {"", TYPE}:
            return b"[]"
        found = self._index.search(text.rpartition(":")[2].partition("/")[0], min(limit, SEARCH_MOST))
        views = await self._reader.views(found)
        return orjson.dumps(
            [
                search_result(market, view.record)
                for market, view in zip(found, views, strict=True)
                if view is not None and venue in {"", view.record.get("venue")}
            ]
        )

    async def quotes(self, symbols: Sequence[str]) -> bytes:
        """Rolling 24 h figures of several markets; an unknown one is an error in its place."""
        markets = [await self._found(symbol) for symbol in symbols]
        views = await self._reader.views([market or "" for market in markets])
        rows = [
            {"s": "error", "n": symbol, "v": {}}
            if market is None or view is None
            else quote(symbol, view.record, view.stats)
            for symbol, market, view in zip(symbols, markets, views, strict=True)
        ]
        return orjson.dumps({"s": "ok", "d": rows})

    async def history(
        self, symbol: str, resolution: str, start_s: int | None, end_s: int | None, countback: int | None
    ) -> bytes:
        """Bars; see the module's text for the rules."""
        market = await self._market(symbol)
        known = await self.resolutions()
        interval = known.get(resolution)
        if interval is None:
            raise BadRequest(f"unknown resolution {resolution!r}, there are {', '.join(listed(known))}")
        end = None if end_s is None else max(end_s, 0) * 1000
        start = None if start_s is None or countback is not None else max(start_s, 0) * 1000
        limit = BARS_MOST if countback is None else min(countback, BARS_MOST)
        candles = await self._reader.candles(market, interval.name, Stretch(start, end, limit))
        if candles:
            return columns(candles)
        return await self._nothing(market, interval, start, end)

    async def _nothing(self, market: str, interval: Interval, start: int | None, end: int | None) -> bytes:
        """No bars: none in a gap, none at all, or there is no such market."""
        before = []
        if start is not None:
            earlier = Stretch(end=start if end is None else min(start, end), limit=1)
            before = await self._reader.candles(market, interval.name, earlier)
        if before:
            return b'{"s":"no_data","nextTime":%d}' % open_time_s(before[0])
        if await self._reader.market(market) is None:
            raise BadRequest(UNKNOWN, 404)
        return b'{"s":"no_data"}'

    async def _market(self, symbol: str) -> str:
        market = await self._found(symbol)
        if market is None:
            raise BadRequest(UNKNOWN, 404)
        return market

    async def _found(self, symbol: str) -> str | None:
        """The id of a market; of several with the same name, the one that the index puts first."""
        market = ticker_of(symbol)
        if market is not None:
            return market
        name = symbol.rpartition(":")[2].upper()
        found = self._index.search(name.partition("/")[0], NAMESAKES_MOST)
        for market, view in zip(found, await self._reader.views(found), strict=True):
            if view is not None and name in {
                str(view.record.get("symbol")).upper(),
                display_name(view.record).upper(),
            }:
                return market
        return None

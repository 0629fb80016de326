"""All candles of one market or of all, a page at a time: memory does not grow with what is exported."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple

from listener.application.reading import MarketReader, Stretch
from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import Opening
from listener.application.use_cases.read_candles import CandleQuery, read_candles
from listener.domain.value_objects import Interval, Timestamp

PAGE_CANDLES: Final = 2_000
"""Candles read at once."""
PAGE_MARKETS: Final = 500
"""Markets whose ids are read at once."""


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """What shall be exported.

    Attributes:
        market: id; None: every market, by creation time.
        start: earliest open time, in ms; None: any.
        end: first open time that is not wanted, in ms; None: none.
        filled: buckets without a trade get a candle, from a market's oldest stored one to the head's `as_of`.
    """

    market: str | None
    interval: Interval
    start: Timestamp | None = None
    end: Timestamp | None = None
    filled: bool = False
    opening: Opening = "first"


class Page(NamedTuple):
    """Candles of one market, ascending; `last`: the next page is another market's."""

    market: str
    rows: Sequence[CandleRow]
    last: bool


async def export_pages(reader: MarketReader, query: ExportQuery) -> AsyncGenerator[Page, None]:
    """Pages in order of market and time, one at least for each market.

    Pages are read one after the other while the chain goes on: set `end` for candles that no longer change.

    Raises:
        StoreUnavailable, StoreMisused, ForeignData: see `MarketReader` and `read_candles`.
    """
    async with aclosing(_markets(reader, query.market)) as markets:
        async for market in markets:
            async with aclosing(_pages(reader, query, market)) as pages:
                async for page in pages:
                    yield page


async def _markets(reader: MarketReader, only: str | None) -> AsyncGenerator[str, None]:
    if only is not None:
        yield only
        return
    after = -1
    while found := await reader.market_ids(after, PAGE_MARKETS):
        for market, _ in found:
            yield market
        after = found[-1][1]


async def _pages(reader: MarketReader, query: ExportQuery, market: str) -> AsyncGenerator[Page, None]:
    start = query.start
    while True:
        rows = await read_candles(
            reader,
            CandleQuery(
                market,
                query.interval,
                Stretch(start, query.end, PAGE_CANDLES, newest=False),
                query.filled,
                query.opening,
            ),
        )
        last = len(rows) < PAGE_CANDLES
        yield Page(market, rows, last)
        if last:
            return
        start = rows[-1].t + query.interval.ms

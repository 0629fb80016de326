"""A stretch of a series as somebody asks for it, gaps filled up to now."""

from dataclasses import dataclass

from listener.application.reading import NEWEST, MarketReader, Stretch, bounded
from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import (
    FILLED_MAX,
    Opening,
    fill,
    first_bucket,
    opened,
    parse_candles,
)
from listener.domain.value_objects import Interval


@dataclass(frozen=True, slots=True)
class CandleQuery:
    """Which candles, and how.

    Attributes:
        stretch: its limit counts filled candles, too.
        filled: buckets without a trade get a candle.
        opening: whether candles open at their first trade or at the close before.
    """

    market: str
    interval: Interval
    stretch: Stretch = NEWEST
    filled: bool = False
    opening: Opening = "first"

    @property
    def plain(self) -> bool:
        """The candles are wanted as they are stored."""
        return not self.filled and self.opening == "first"


async def read_candles(reader: MarketReader, query: CandleQuery) -> list[CandleRow]:
    """Candles, ascending.

    A filled series ends with the bucket of the head's `as_of`, and begins with the oldest stored candle at
    the earliest: what lies before it may no longer be kept.

    Raises:
        InvalidValue: `limit` is out of bounds.
        StoreUnavailable, StoreMisused: see `MarketReader`.
        ForeignData: what is stored are not candles.
    """
    if query.filled:
        return opened(await _filled(reader, query), query.opening)
    raw = await reader.candles(query.market, query.interval.name, query.stretch)
    return opened(parse_candles(raw), query.opening)


async def _filled(reader: MarketReader, query: CandleQuery) -> list[CandleRow]:
    """The buckets are settled first; what is stored between them is then at most `limit` candles."""
    start, end, limit, newest = query.stretch
    span_ms = (bounded(limit, FILLED_MAX, "candles") - 1) * query.interval.ms
    head = await reader.head()
    if head is None:
        return []
    last = query.interval.open_time(head.as_of)
    if end is not None:
        last = min(last, first_bucket(query.interval, end) - query.interval.ms)
    first = None if start is None else first_bucket(query.interval, start)
    if newest:
        first = last - span_ms if first is None else max(first, last - span_ms)
    before = None if first is None else await _one(reader, query, Stretch(end=first))
    if not newest:
        if before is None or first is None:
            oldest = await _one(reader, query, Stretch(first, newest=False))
            first = last + 1 if oldest is None else oldest.t
        last = min(last, first + span_ms)
    if first is None or first > last:
        return []
    raw = await reader.candles(query.market, query.interval.name, Stretch(first, last + 1, limit))
    return fill(parse_candles(raw), query.interval, first, last, before)


async def _one(reader: MarketReader, query: CandleQuery, stretch: Stretch) -> CandleRow | None:
    """The newest or oldest stored candle of a stretch."""
    raw = await reader.candles(query.market, query.interval.name, stretch._replace(limit=1))
    return parse_candles(raw)[0] if raw else None

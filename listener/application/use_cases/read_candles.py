"""A stretch of a series as somebody asks for it, gaps filled up to now."""

from dataclasses import dataclass

from listener.application.reading import MarketReader, bounded
from listener.application.use_cases.present_candles import (
    FILLED_MAX,
    CandleRow,
    Opening,
    fill,
    first_bucket,
    opened,
    parse_candles,
)
from listener.domain.value_objects import Interval, Timestamp


@dataclass(frozen=True, slots=True)
class CandleQuery:
    """Which candles, and how.

    Attributes:
        start: earliest open time, in ms; None: any.
        end: first open time that is not wanted, in ms; None: none.
        limit: candles, filled ones included.
        filled: buckets without a trade get a candle.
        opening: whether candles open at their first trade or at the close before.
        newest: which of more than `limit`: the last ones, or the first.
    """

    market: str
    interval: Interval
    start: Timestamp | None = None
    end: Timestamp | None = None
    limit: int = 500
    filled: bool = False
    opening: Opening = "first"
    newest: bool = True


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
    raw = await reader.candles(
        query.market,
        query.interval.name,
        start=query.start,
        end=query.end,
        limit=query.limit,
        newest=query.newest,
    )
    return opened(parse_candles(raw), query.opening)


async def _filled(reader: MarketReader, query: CandleQuery) -> list[CandleRow]:
    """The buckets are settled first; what is stored between them is then at most `limit` candles."""
    span_ms = (bounded(query.limit, FILLED_MAX, "candles") - 1) * query.interval.ms
    head = await reader.head()
    if head is None:
        return []
    last = query.interval.open_time(head.as_of)
    if query.end is not None:
        last = min(last, first_bucket(query.interval, query.end) - query.interval.ms)
    first = None if query.start is None else first_bucket(query.interval, query.start)
    if query.newest:
        first = last - span_ms if first is None else max(first, last - span_ms)
    before = None if first is None else await _one(reader, query, end=first)
    if not query.newest:
        if before is None or first is None:
            oldest = await _one(reader, query, start=first, newest=False)
            first = last + 1 if oldest is None else oldest.t
        last = min(last, first + span_ms)
    if first is None or first > last:
        return []
    raw = await reader.candles(
        query.market, query.interval.name, start=first, end=last + 1, limit=query.limit
    )
    return fill(parse_candles(raw), query.interval, first, last, before)


async def _one(
    reader: MarketReader,
    query: CandleQuery,
    *,
    start: Timestamp | None = None,
    end: Timestamp | None = None,
    newest: bool = True,
) -> CandleRow | None:
    """The newest or oldest stored candle of a stretch."""
    name = query.interval.name
    raw = await reader.candles(query.market, name, start=start, end=end, limit=1, newest=newest)
    return parse_candles(raw)[0] if raw else None

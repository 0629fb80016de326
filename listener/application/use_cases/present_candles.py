"""Candles as readers want them: gaps filled, opened at the previous close, in the shapes of other tools.

Pure functions. What comes in is the JSON of the public contract; decimals stay text until a shape asks for
numbers.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, Literal

import msgspec
import orjson

from listener.application.errors import ForeignData
from listener.application.reading import CANDLES_MAX
from listener.application.rows import CandleRow
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Interval, Timestamp

Opening = Literal["first", "previous"]
"""A candle opens at its first trade, as exchanges have it, or at the close before, without a jump."""

CandleFormat = Literal["objects", "ccxt", "binance"]
"""`objects` as in the contract; `ccxt`: `[t, o, h, l, c, v]`, numbers; `binance`: that API's klines."""

Columns = dict[str, list[int] | list[float] | list[str]]
"""A table by column, as dataframe libraries take it."""

FILLED_MAX: Final = CANDLES_MAX
"""Candles in a filled series."""

NUMBERS: Final = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "quote_volume": "q"}
"""Decimal columns of a table, and the fields they come from, in their order."""
BOUGHT: Final = {"buy_volume": "V", "buy_quote_volume": "Q"}
COUNTS: Final = {"trades": "n", "buys": "N"}


_decode: Final = msgspec.json.Decoder(CandleRow).decode
_encode: Final = msgspec.json.Encoder().encode


def parse_candles(raw: Iterable[bytes]) -> list[CandleRow]:
    """Candles from their JSON.

    Raises:
        ForeignData: one is not as in the contract.
    """
    try:
        return [_decode(candle) for candle in raw]
    except msgspec.MsgspecError as error:
        raise ForeignData(f"Redis holds something else in the place of a candle: {error}") from error


def first_bucket(interval: Interval, start: Timestamp) -> Timestamp:
    """Open time of the first bucket that opens at `start` or later."""
    opened = interval.open_time(start)
    return opened if opened == start else opened + interval.ms


def fill(
    candles: Sequence[CandleRow],
    interval: Interval,
    first: Timestamp,
    last: Timestamp,
    before: CandleRow | None = None,
) -> list[CandleRow]:
    """One candle for each bucket from `first` to `last`, both open times.

    A bucket without a trade gets the previous close and volume 0. Nothing stands before the oldest candle
    that is given: there may have been trades that are no longer kept.

    Args:
        candles: all that are stored between the two, ascending.
        interval: of the series.
        first: open time of the first bucket.
        last: open time of the last bucket.
        before: the newest candle older than `first`, if there is one.

    Raises:
        InvalidValue: there would be more than `FILLED_MAX`.
    """
    if (last - first) // interval.ms >= FILLED_MAX:
        raise InvalidValue(f"more than {FILLED_MAX} {interval} candles between {first} and {last}")
    filled: list[CandleRow] = []
    close, due = (None, first) if before is None else (before.c, first)
    for candle in candles:
        if close is not None:
            filled += (_empty(t, close) for t in range(due, candle.t, interval.ms))
        filled.append(candle)
        close, due = candle.c, candle.t + interval.ms
    if close is not None:
        filled += (_empty(t, close) for t in range(due, last + 1, interval.ms))
    return filled


def _empty(open_time: Timestamp, close: str) -> CandleRow:
    return CandleRow(
        t=open_time, o=close, h=close, l=close, c=close, pc=close, v="0", q="0", V="0", Q="0", n=0, N=0
    )


def continuous(candle: CandleRow) -> CandleRow:
    """The candle opened at the close before it, high and low widened by it."""
    previous = candle.pc
    if previous is None or previous == candle.o:
        return candle
    price = Decimal(previous)
    return msgspec.structs.replace(
        candle,
        o=previous,
        h=previous if price > Decimal(candle.h) else candle.h,
        l=previous if price < Decimal(candle.l) else candle.l,
    )


def opened(candles: Iterable[CandleRow], opening: Opening) -> list[CandleRow]:
    """Candles that open as asked for."""
    return list(candles) if opening == "first" else [continuous(candle) for candle in candles]


def ccxt_row(candle: CandleRow) -> list[float]:
    """`[t, open, high, low, close, base volume]`: ccxt's OHLCV structure, time in ms."""
    return [
        candle.t,
        float(candle.o),
        float(candle.h),
        float(candle.l),
        float(candle.c),
        float(candle.v),
    ]


def binance_row(candle: CandleRow, interval: Interval) -> list[int | str]:
    """A kline as `GET /api/v3/klines` of Binance's spot API gives it, its last, unused field included."""
    return [
        candle.t,
        candle.o,
        candle.h,
        candle.l,
        candle.c,
        candle.v,
        candle.t + interval.ms - 1,
        candle.q,
        candle.n,
        candle.V,
        candle.Q,
        "0",
    ]


def render(candles: Sequence[CandleRow], interval: Interval, form: CandleFormat) -> bytes:
    """A JSON array of candles."""
    if form == "ccxt":
        return orjson.dumps([ccxt_row(candle) for candle in candles])
    if form == "binance":
        return orjson.dumps([binance_row(candle, interval) for candle in candles])
    return _encode(candles)


def join_raw(raw: Iterable[bytes]) -> bytes:
    """A JSON array of values that are JSON already."""
    return b"[" + b",".join(raw) + b"]"


def columns(candles: Sequence[CandleRow], *, exact: bool = False) -> Columns:
    """A table: `time` in ms, prices and volumes, counts.

    Args:
        candles: its rows.
        exact: decimals as text to the last digit; otherwise as the nearest floating-point numbers.
    """
    table: Columns = {"time": [candle.t for candle in candles]}
    for name, field in (NUMBERS | BOUGHT).items():
        texts: list[str] = [getattr(candle, field) for candle in candles]
        table[name] = texts if exact else [float(text) for text in texts]
    for name, field in COUNTS.items():
        table[name] = [getattr(candle, field) for candle in candles]
    return table

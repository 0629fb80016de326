"""Candles in columns: rows of words that sum, compare and follow each other exactly.

What `Candle` is for one, a row is for many. A market's newest candles are kept as the bytes of their rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

import numpy as np

from listener.domain.entities import Candle
from listener.domain.part import Part
from listener.domain.value_objects import TradeId
from listener.infrastructure.exact import Flags, Halves, Integers, added, doubles, halves_of, integers, totals
from listener.infrastructure.prices import Prices, below, decimals_of, highest, lowest, prices_of

WORDS: Final = 25
TIME: Final = 0
OPEN, HIGH, LOW, CLOSE, PREVIOUS = (slice(at, at + 2) for at in range(1, 11, 2))
PRICES: Final = slice(1, 11)
AMOUNTS: Final = slice(11, 19)
COUNTS: Final = slice(19, 21)
FIRST, LAST = slice(21, 23), slice(23, 25)
_BYTES: Final = 8 * WORDS
_NOTHING: Final = bytes(_BYTES)

Rows = Halves
"""A candle in each row: open time; open, high, low, close and previous close as in `Prices`; base, quote,
bought base and bought quote as in `Halves`; trades and buys; block and log index of the first and of the last
trade. A row without trades is no candle."""


def rows_of(candles: Iterable[Candle | None]) -> Rows:
    """Candles as rows.

    Raises:
        OverflowError: an amount is 2**128 or more.
    """
    told = list(candles)
    rows = np.zeros((len(told), WORDS), np.uint64)
    places = [place for place, candle in enumerate(told) if candle is not None]
    some = [candle for candle in told if candle is not None]
    if not some:
        return rows
    amounts = halves_of([amount for candle in some for amount in candle[5:9]])
    prices = prices_of([price for candle in some for price in (*candle[1:5], candle.previous_close)])
    rows[places, TIME] = [candle.open_time for candle in some]
    rows[places, PRICES] = prices.reshape(len(some), -1)
    rows[places, AMOUNTS] = amounts.reshape(len(some), -1)
    rows[places, COUNTS] = [(candle.trades, candle.buys) for candle in some]
    rows[places, FIRST] = [candle.first for candle in some]
    rows[places, LAST] = [candle.last for candle in some]
    return rows


def candles_of(rows: Rows) -> list[Candle]:
    """Rows one by one. Each must be a candle."""
    opened, high, low, close = (decimals_of(rows[:, part]) for part in (OPEN, HIGH, LOW, CLOSE))
    known = rows[:, PREVIOUS.start] > 0
    previous = iter(decimals_of(rows[known, PREVIOUS]))
    return list(
        map(
            Candle,
            rows[:, TIME].tolist(),
            opened,
            high,
            low,
            close,
            *_sums(rows),
            map(TradeId, *rows[:, FIRST].T.tolist()),
            map(TradeId, *rows[:, LAST].T.tolist()),
            [next(previous) if is_known else None for is_known in known.tolist()],
        )
    )


def parts_of(rows: Rows, until: Integers) -> list[Part]:
    """Rows as stretches of a day, each up to the minute `until`."""
    opened, high, low = (decimals_of(rows[:, part]) for part in (OPEN, HIGH, LOW))
    return list(
        map(
            Part,
            rows[:, TIME].tolist(),
            until.tolist(),
            opened,
            high,
            low,
            *_sums(rows),
            map(TradeId, *rows[:, FIRST].T.tolist()),
        )
    )


def amounts_of(rows: Rows) -> Halves:
    """Base, quote, bought base and bought quote of each row."""
    return rows[:, AMOUNTS].reshape(len(rows), 4, 2)


def _sums(rows: Rows) -> tuple[list[int], ...]:
    """Amounts and counts."""
    amounts = amounts_of(rows)
    return (*(integers(amounts[:, kind]) for kind in range(4)), *rows[:, COUNTS].T.tolist())


def joined(rows: Rows, starts: Integers) -> Rows:
    """Runs of candles that follow each other, each folded into one with the first one's open time."""
    ends = np.append(starts[1:], len(rows)) - 1
    wide = rows[starts]
    wide[:, HIGH] = highest(rows[:, HIGH], starts)
    wide[:, LOW] = lowest(rows[:, LOW], starts)
    wide[:, CLOSE] = rows[ends, CLOSE]
    wide[:, AMOUNTS] = totals(amounts_of(rows), starts).reshape(len(starts), 8)
    wide[:, COUNTS] = np.add.reduceat(rows[:, COUNTS], starts, axis=0)
    wide[:, LAST] = rows[ends, LAST]
    return wide


def merged(early: Rows, late: Rows) -> Rows:
    """Each row folded with the row of the other column that follows it in its bucket."""
    both = early.copy()
    both[:, HIGH] = _chosen(below(early[:, HIGH], late[:, HIGH]), late[:, HIGH], early[:, HIGH])
    both[:, LOW] = _chosen(below(late[:, LOW], early[:, LOW]), late[:, LOW], early[:, LOW])
    both[:, CLOSE] = late[:, CLOSE]
    both[:, AMOUNTS] = added(amounts_of(early), amounts_of(late)).reshape(len(early), 8)
    both[:, COUNTS] += late[:, COUNTS]
    both[:, LAST] = late[:, LAST]
    return both


def _chosen(flags: Flags, one: Prices, other: Prices) -> Prices:
    return np.where(flags[:, None], one, other)


@dataclass(frozen=True, slots=True)
class PackedCandles(Sequence[Candle | None]):
    """A market's newest candles, one of each interval, in the bytes of their rows: a third of the memory.

    Attributes:
        data: the rows.
        largest: their largest amount, about.
    """

    data: bytes
    largest: float

    def __len__(self) -> int:
        return len(self.data) // _BYTES

    @overload
    def __getitem__(self, index: int) -> Candle | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Candle | None]: ...

    def __getitem__(self, index: int | slice) -> "Candle | Sequence[Candle | None] | None":
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Candle | None]:
        rows = np.frombuffer(self.data, np.uint64).reshape(-1, WORDS)
        known = rows[:, COUNTS.start] > 0
        candles = iter(candles_of(rows[known]))
        return (next(candles) if is_known else None for is_known in known.tolist())


def largest(live: Sequence[Candle | None]) -> float:
    """The largest amount in some candles, about."""
    if isinstance(live, PackedCandles):
        return live.largest
    return max((float(max(candle.base, candle.quote)) for candle in live if candle), default=0.0)


def unpacked(live: Iterable[Sequence[Candle | None]], intervals: int) -> Rows:
    """Markets' newest candles, `intervals` rows for each.

    Raises:
        OverflowError: see `rows_of`.
    """
    nothing = _NOTHING * intervals
    return np.frombuffer(
        b"".join(
            candles.data
            if isinstance(candles, PackedCandles)
            else rows_of(candles).tobytes()
            if any(candles)
            else nothing
            for candles in live
        ),
        np.uint64,
    ).reshape(-1, intervals, WORDS)


def packed(rows: Rows) -> list[PackedCandles]:
    """Inverse of `unpacked`."""
    size = rows.shape[1] * _BYTES
    data = rows.tobytes()
    most = doubles(rows[:, :, AMOUNTS].reshape(len(rows), -1, 2)).max(axis=1).tolist()
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return list(map(PackedCandles, pieces, most))

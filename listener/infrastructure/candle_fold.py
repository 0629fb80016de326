"""Minutes of many markets folded into their candles of every interval: `fold_minutes` in columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple, overload

import numpy as np

from listener.application.changes import CandleChange, MarketState, outgrown
from listener.domain.entities import Candle, Market
from listener.domain.part import Part
from listener.domain.rolling import MinuteRun
from listener.domain.value_objects import Interval, Price
from listener.infrastructure.candle_columns import (
    CLOSE,
    COUNTS,
    PREVIOUS,
    TIME,
    PackedCandles,
    Rows,
    candles_of,
    joined,
    merged,
    packed,
    parts_of,
    unpacked,
)
from listener.infrastructure.exact import Flags, Integers
from listener.infrastructure.prices import Prices, decimals_of, prices_of


class Series(NamedTuple):
    """Candles of one interval.

    Attributes:
        rows: by market, then ascending.
        market: index of each row's market.
        replaces: where a row is a newer version of a candle that is stored.
    """

    interval: Interval
    rows: Rows
    market: Integers
    replaces: Flags


@dataclass(frozen=True, eq=False)
class FoldedCandles:
    """Candles that a run of history makes or changes. Implements `CandleBatch`.

    Attributes:
        markets: those that have some.
        series: one for each interval, one minute first.
        live: the newest candle of each market and interval.
        outgrown: see `outgrown`, by market and interval.
    """

    markets: Sequence[Market]
    series: Sequence[Series]
    live: Rows
    outgrown: Flags

    def __len__(self) -> int:
        return sum(len(series.rows) for series in self.series)

    def changes(self) -> Iterator[CandleChange]:
        """See `CandleBatch.changes`."""
        for interval, rows, market, _ in self.series:
            for place, candle in zip(market.tolist(), candles_of(rows), strict=True):
                yield CandleChange(self.markets[place].id, interval, candle.open_time, candle, None)

    def told(
        self,
    ) -> tuple[list[MinuteRun], list[PackedCandles], list[Price], list[tuple[Interval, ...]]]:
        """Each market's minutes, newest candles, last price, and intervals that have outgrown theirs."""
        intervals = [series.interval for series in self.series]
        return (
            minute_runs(self.series[0]),
            packed(self.live),
            decimals_of(self.live[:, 0, CLOSE]),
            [tuple(compress(intervals, grown)) if any(grown) else () for grown in self.outgrown.tolist()],
        )


def fold_series(
    minutes: Rows,
    market: Integers,
    states: Sequence[MarketState],
    intervals: Sequence[Interval],
    bases: Sequence[int],
) -> FoldedCandles:
    """Fold minutes into candles of every interval.

    Args:
        minutes: of new trades, by market, then ascending.
        market: index of each row's market; each has some.
        states: of all of them, so far.
        intervals: one minute first.
        bases: see `Rules`.
    """
    stored = unpacked([state.live for state in states], len(intervals))
    last = prices_of([state.last_price for state in states])
    folded: list[tuple[Rows, Integers]] = [(minutes, market)]
    for interval, base in zip(intervals[1:], bases, strict=True):
        folded.append(_wider(*folded[base], interval))
    series: list[Series] = []
    live, grown = np.empty_like(stored), np.zeros(stored.shape[:2], np.bool_)
    for place, (interval, (rows, whose)) in enumerate(zip(intervals, folded, strict=True)):
        own = stored[:, place]
        replaces = _follow(rows, whose, own, last)
        series.append(Series(interval, rows, whose, replaces))
        live[:, place] = rows[_ends(whose)]
        known = own[:, COUNTS.start] > 0
        old: Any = own[:, TIME]
        new: Any = live[:, place, TIME]
        grown[:, place] = known & outgrown(interval, old, new)
    return FoldedCandles([state.market for state in states], series, live, grown)


@dataclass(frozen=True, slots=True, eq=False)
class Minutes(Sequence[Candle]):
    """One-minute candles of one market; they are made where they are looked at."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Candle: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Candle]: ...

    def __getitem__(self, index: int | slice) -> Candle | Sequence[Candle]:
        return candles_of(self.rows)[index]

    def __iter__(self) -> Iterator[Candle]:
        return iter(candles_of(self.rows))


def minute_runs(minutes: Series) -> list[MinuteRun]:
    """Each market's minutes, all but the newest folded into one."""
    rows, market = minutes.rows, minutes.market
    starts, ends = _starts(market), _ends(market)
    last = candles_of(rows[ends])
    several = np.flatnonzero(ends > starts)
    early = np.ones(len(rows), np.bool_)
    early[ends] = False
    before: list[Part | None] = [None] * len(last)
    if len(several):
        begin = starts[several] - several
        parts = parts_of(joined(rows[early], begin), rows[ends[several] - 1, TIME])
        for place, part in zip(several.tolist(), parts, strict=True):
            before[place] = part
    return [
        MinuteRun(Minutes(rows[start : end + 1]), part, one)
        for start, end, part, one in zip(starts.tolist(), ends.tolist(), before, last, strict=True)
    ]


def _wider(rows: Rows, market: Integers, interval: Interval) -> tuple[Rows, Integers]:
    """Candles of a wider interval, made of those of one that fits into it."""
    times: Any = rows[:, TIME].astype(np.int64)
    times = interval.open_time(times)
    starts = np.flatnonzero(np.r_[True, (market[1:] != market[:-1]) | (times[1:] != times[:-1])])
    wide = joined(rows, starts)
    wide[:, TIME] = times[starts]
    return wide, market[starts]


def _follow(rows: Rows, market: Integers, stored: Rows, last: Prices) -> Flags:
    """Merge each market's first candle with the stored one of its bucket, and say what each one follows.

    Modifies `rows`; tells which of them are such.
    """
    first = _starts(market)
    known = stored[:, COUNTS.start] > 0
    same = known & (stored[:, TIME] == rows[first, TIME])
    rows[1:, PREVIOUS] = rows[:-1, CLOSE]
    rows[first, PREVIOUS] = np.where(known[:, None], stored[:, CLOSE], last)
    rows[first[same]] = merged(stored[same], rows[first[same]])
    replaces = np.zeros(len(rows), np.bool_)
    replaces[first[same]] = True
    return replaces


def _ends(market: Integers) -> Integers:
    """Where each market's last row is."""
    return np.flatnonzero(np.r_[market[1:] != market[:-1], True])


def _starts(market: Integers) -> Integers:
    """Where each market's rows begin."""
    return np.flatnonzero(np.r_[True, market[1:] != market[:-1]])

"""Slow, obvious answers that tests hold the fast ones against."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from listener.domain.entities import Candle, Trade
from listener.domain.value_objects import DAY_MS, MINUTE_MS, Interval, Price, Timestamp


class Figures(NamedTuple):
    """The fold of some trades: what a candle and a day have in common."""

    open: Price
    high: Price
    low: Price
    close: Price
    base: int
    quote: int
    bought_base: int
    bought_quote: int
    trades: int
    buys: int


def figures_of(trades: Sequence[Trade]) -> Figures | None:
    """Figures of trades in order; None of none."""
    if not trades:
        return None
    buys = [trade for trade in trades if trade.is_buy]
    return Figures(
        trades[0].price,
        max(trade.price for trade in trades),
        min(trade.price for trade in trades),
        trades[-1].price,
        sum(trade.base for trade in trades),
        sum(trade.quote for trade in trades),
        sum(trade.base for trade in buys),
        sum(trade.quote for trade in buys),
        len(trades),
        len(buys),
    )


def figures_in(candle: Candle | None) -> Figures | None:
    """Figures that a candle holds."""
    if candle is None:
        return None
    return Figures(*candle[1:11])


def minute_of(time: Timestamp) -> Timestamp:
    """Start of the minute."""
    return time // MINUTE_MS * MINUTE_MS


def day_of(trades: Iterable[Trade], as_of: Timestamp) -> list[Trade]:
    """Trades in the 1,440 minutes that end with the minute of `as_of`."""
    oldest = minute_of(as_of) + MINUTE_MS - DAY_MS
    return [trade for trade in trades if minute_of(trade.timestamp) >= oldest]


def changed_minute(trades: Iterable[Trade], as_of: Timestamp) -> Timestamp:
    """The minute in which the 24 h figures last changed: by a trade, or by one falling out."""
    minutes = [minute_of(trade.timestamp) for trade in trades]
    fallen = [minute + DAY_MS for minute in minutes if minute + DAY_MS <= as_of]
    return max([0, *minutes, *fallen])


def series_of(trades: Iterable[Trade], interval: Interval) -> dict[Timestamp, Figures]:
    """Candles of an interval, by open time."""
    buckets: dict[Timestamp, list[Trade]] = {}
    for trade in trades:
        buckets.setdefault(interval.open_time(trade.timestamp), []).append(trade)
    return {time: figures for time, inside in buckets.items() if (figures := figures_of(inside))}

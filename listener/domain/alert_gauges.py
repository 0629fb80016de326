"""What alert rules measure of a market: a function of its trades and nothing else.

Looking back goes by the minute: a window of n minutes that ends at some time is the n one-minute buckets of
which the last holds that time.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple, Self

from listener.domain.alerts import ANNOUNCED, AlertCondition, AlertKind
from listener.domain.entities import Candle, Market, Trade
from listener.domain.value_objects import (
    DAY_MS,
    EXACT,
    MINUTE_MS,
    ONE_MINUTE,
    Price,
    Timestamp,
    percent,
    ratio,
)


class Gauge(NamedTuple):
    """Something that can be measured of every market.

    Attributes:
        kind: `price_above` stands for both kinds of prices.
        window_ms: 0 where it does not look back.
    """

    kind: AlertKind
    window_ms: int

    @classmethod
    def of(cls, condition: AlertCondition) -> Self | None:
        """What a condition is held against; None: it waits for an announcement."""
        if condition.kind in ANNOUNCED:
            return None
        below = condition.kind is AlertKind.PRICE_BELOW
        return cls(AlertKind.PRICE_ABOVE if below else condition.kind, condition.window_ms or 0)

    @property
    def reach_ms(self) -> int:
        """How far back the minutes of a market matter."""
        return DAY_MS if self.kind is AlertKind.VOLUME_SPIKE else self.window_ms


class Reading(NamedTuple):
    """What was measured.

    Attributes:
        trade: with which it was; None: as things stood when the next trade came, before it.
        block: number of that trade's block.
    """

    value: Decimal
    trade: Trade | None
    block: int


class Volumes(NamedTuple):
    """Quote volumes in base units: of a window, and in the `rest_ms` before it."""

    inside: int
    usual: int
    rest_ms: int


class Trail:
    """The minutes of a market in which it was traded, as far back as its rules look.

    Attributes:
        since: there were no others from then on.
    """

    __slots__ = ("_before", "_references", "_times", "_total", "since")

    def __init__(self, since: Timestamp) -> None:
        self.since = since
        self._times: list[Timestamp] = []
        self._references: list[Price] = []
        self._before: list[int] = []
        self._total = 0

    def __len__(self) -> int:
        return len(self._times)

    @classmethod
    def of(cls, minutes: Iterable[Candle], since: Timestamp) -> "Trail":
        """One-minute candles, ascending, all there are from `since` on."""
        trail = cls(since)
        for minute in minutes:
            trail.put(minute)
        return trail

    def copy(self) -> "Trail":
        """The same, to be added to."""
        other = Trail(self.since)
        other._times, other._references = self._times.copy(), self._references.copy()
        other._before, other._total = self._before.copy(), self._total
        return other

    def put(self, minute: Candle) -> bool:
        """A one-minute candle that follows all others, or the newest as it has become; whether it is new."""
        is_new = not self._times or self._times[-1] != minute.open_time
        if is_new:
            price = minute.open if minute.previous_close is None else minute.previous_close
            self._begin(minute.open_time, price)
        self._total = self._before[-1] + minute.quote
        return is_new

    def _begin(self, minute: Timestamp, reference: Price) -> None:
        self._times.append(minute)
        self._references.append(reference)
        self._before.append(self._total)

    def add(self, minute: Timestamp, last_price: Price | None, trade: Trade) -> None:
        """A trade that follows all others; `last_price` is of the one before it, if there is one."""
        if not self._times or self._times[-1] != minute:
            self._begin(minute, trade.price if last_price is None else last_price)
        self._total += trade.quote

    def prune(self, reach_ms: int) -> None:
        """Let go what is too old for a reach."""
        if self._times:
            oldest = self._times[-1] - reach_ms + MINUTE_MS
            gone = bisect_left(self._times, oldest)
            del self._times[:gone], self._references[:gone], self._before[:gone]
            self.since = max(self.since, oldest)

    def reference(self, minute: Timestamp, window_ms: int) -> Price | None:
        """The last price before the window, or the market's first one; None: no trade is in the window."""
        place = bisect_left(self._times, minute - window_ms + MINUTE_MS)
        return self._references[place] if place < len(self._times) else None

    def change(self, minute: Timestamp, window_ms: int, price: Price) -> Decimal:
        """Per cent from `reference` to `price`."""
        reference = self.reference(minute, window_ms)
        if reference is None:
            return Decimal(0)
        return percent(EXACT.subtract(price, reference), reference)

    def volumes(self, minute: Timestamp, window_ms: int, created: Timestamp) -> Volumes | None:
        """Quote volume of the window, and in the day before it.

        The day is the 1,440 minutes of which the window is the last part, or as many of them as the market
        exists. None: without the window they are shorter than it, or there was no trade in them.
        """
        begin = minute - window_ms + MINUTE_MS
        day = max(minute - DAY_MS + MINUTE_MS, created)
        if begin - day < window_ms:
            return None
        before = self._volume_before(begin)
        usual = before - self._volume_before(day)
        return Volumes(self._total - before, usual, begin - day) if usual else None

    def _volume_before(self, minute: Timestamp) -> int:
        place = bisect_left(self._times, minute)
        return self._before[place] if place < len(self._times) else self._total


def read_gauges(
    gauges: Iterable[Gauge],
    market: Market,
    last_price: Price | None,
    trades: Sequence[Trade],
    trail: Trail,
) -> dict[Gauge, list[Reading]]:
    """What the gauges show as `trades` come in.

    Args:
        gauges: those that are wanted.
        market: the market.
        last_price: before these trades; None: they are the first.
        trades: in order.
        trail: as it was before; gets the trades added where a gauge looks back.
    """
    readings: dict[Gauge, list[Reading]] = {gauge: [] for gauge in gauges}
    back = [gauge for gauge in readings if gauge.window_ms]
    created, minute = ONE_MINUTE.open_time(market.created_at), -1
    unit = -market.quote_decimals
    for trade in trades:
        now, price = ONE_MINUTE.open_time(trade.timestamp), trade.price
        if back and now != minute:
            minute = now
            _look_back(back, readings, trail, (now, last_price, created), None, trade.block)
        if back:
            trail.add(now, last_price, trade)
            _look_back(back, readings, trail, (now, price, created), trade, trade.block)
        for gauge, shown in readings.items():
            if gauge.kind is AlertKind.PRICE_ABOVE:
                shown.append(Reading(price, trade, trade.block))
            elif gauge.kind is AlertKind.TRADE_SIZE:
                shown.append(Reading(Decimal(trade.quote).scaleb(unit, EXACT), trade, trade.block))
        last_price = price
    return readings


def _look_back(
    gauges: Iterable[Gauge],
    readings: dict[Gauge, list[Reading]],
    trail: Trail,
    at: tuple[Timestamp, Price | None, Timestamp],
    trade: Trade | None,
    block: int,
) -> None:
    """Read the gauges that look back, at a minute, a price, and with the minute of the market's creation."""
    minute, price, created = at
    for gauge in gauges:
        value: Decimal | None = None
        if gauge.kind is AlertKind.VOLUME_SPIKE:
            if volumes := trail.volumes(minute, gauge.window_ms, created):
                inside, usual, rest_ms = volumes
                value = ratio(inside * rest_ms, usual * gauge.window_ms, 0)
        elif price is not None:
            value = trail.change(minute, gauge.window_ms, price)
        if value is not None:
            readings[gauge].append(Reading(value, trade, block))

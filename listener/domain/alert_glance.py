"""A first look at a block's trades: whether anything may happen to the rules of a gauge.

In most blocks nothing does. Finding that out has to be cheap, so that it is done in floating point, on the
safe side: whoever looks closer, looks at exact numbers.
"""

from math import inf
from typing import Final

from listener.domain.alert_gauges import Gauge, Trail
from listener.domain.alert_index import Ladder
from listener.domain.alerts import AlertKind
from listener.domain.entities import Candle, Market
from listener.domain.value_objects import ONE_MINUTE, Price

MARGIN: Final = 1e-9
"""Per cent by which a change may be missed: two floats that are nearly the same are subtracted."""
Range = tuple[float, float]


class Glance:
    """Trades of one block, folded, and what was before them.

    Args:
        market: whose they are.
        last_price: before them; None: they are the first.
        minute: the trades, folded.
        trail: the minutes before them.
    """

    __slots__ = ("_high", "_last", "_low", "_market", "_minute", "_trail")

    def __init__(self, market: Market, last_price: Price | None, minute: Candle, trail: Trail) -> None:
        self._market = market
        self._minute = minute
        self._trail = trail
        self._last = 0.0 if last_price is None else float(last_price)
        self._low, self._high = float(minute.low), float(minute.high)

    def stirs(self, gauge: Gauge, ladder: Ladder) -> bool:
        """Whether something may happen to rules of a gauge."""
        kind = gauge.kind
        if kind is AlertKind.PRICE_ABOVE:
            low, high = self._low, self._high
        elif kind is AlertKind.CHANGE:
            low, high = self._changes(gauge.window_ms)
        elif kind is AlertKind.VOLUME_SPIKE:
            low, high = self._spikes(gauge.window_ms)
        else:
            low, high = inf, self._minute.quote / 10**self._market.quote_decimals
        return not (low > ladder.calm_above and high < ladder.calm_below)

    def _changes(self, window_ms: int) -> Range:
        """Per cent from the price before the window, at least and at most; the last price is among them."""
        found = self._trail.reference(self._minute.open_time, window_ms)
        reference = self._last if found is None else float(found)
        if not reference or not self._last:
            return -inf, inf
        low, high = min(self._low, self._last), max(self._high, self._last)
        return (low / reference - 1) * 100 - MARGIN, (high / reference - 1) * 100 + MARGIN

    def _spikes(self, window_ms: int) -> Range:
        """The window's volume by what is usual, before and after these trades."""
        created = ONE_MINUTE.open_time(self._market.created_at)
        volumes = self._trail.volumes(self._minute.open_time, window_ms, created)
        if volumes is None:
            return inf, -inf
        inside, usual, rest_ms = volumes
        usual *= window_ms
        return inside * rest_ms / usual, (inside + self._minute.quote) * rest_ms / usual

"""Whether anything may happen to a market's rules: found out once a minute, then a few comparisons a block.

In most blocks nothing does, and that has to be cheap. So it is done in floating point, on the safe side:
whoever looks closer, looks at exact numbers.
"""

from collections.abc import Iterable
from itertools import chain
from math import inf, isfinite
from typing import Final, NamedTuple

from listener.domain.alert_gauges import Gauge, Trail
from listener.domain.alert_ladder import NEVER, Calm, Ladder, Ladders
from listener.domain.alerts import AlertKind
from listener.domain.entities import Market
from listener.domain.value_objects import ONE_MINUTE, Price, Timestamp

MARGIN: Final = 1e-9
"""Per cent by which a change may be missed: two floats that are nearly the same are subtracted."""


class Before(NamedTuple):
    """A market as it was before a block's trades.

    Attributes:
        last_price: None: they are the first.
        minute: in which the trades are.
        quote: what was traded in that minute already.
    """

    market: Market
    last_price: Price | None
    minute: Timestamp
    quote: int
    trail: Trail


def calm_of(before: Before, ladders: Iterable[Ladders]) -> Calm:
    """For which trades of a minute nothing happens."""
    last = 0.0 if before.last_price is None else float(before.last_price)
    if not last or not isfinite(last):
        return NEVER
    low, high, minute_quote, trade_quote = -inf, inf, inf, inf
    for gauge, ladder in chain.from_iterable(some.items() for some in ladders):
        above, below = ladder.calm_above, ladder.calm_below
        if gauge.kind is AlertKind.TRADE_SIZE:
            trade_quote = min(trade_quote, below * 10.0**before.market.quote_decimals)
            continue
        if gauge.kind is AlertKind.VOLUME_SPIKE:
            minute_quote = min(minute_quote, _most_quote(gauge, ladder, before))
            continue
        if gauge.kind is AlertKind.CHANGE:
            found = before.trail.reference(before.minute, gauge.window_ms)
            reference = last if found is None else float(found)
            if not reference or not isfinite(reference):
                return NEVER
            above = reference * (1 + (above + MARGIN) / 100)
            below = reference * (1 + (below - MARGIN) / 100)
        low, high = max(low, above), min(high, below)
    return Calm(before.minute, low, high, minute_quote, trade_quote) if low < last < high else NEVER


def _most_quote(gauge: Gauge, ladder: Ladder, before: Before) -> float:
    """What may be traded in the minute before a rule about volumes is moved."""
    created = ONE_MINUTE.open_time(before.market.created_at)
    volumes = before.trail.volumes(before.minute, gauge.window_ms, created)
    if volumes is None:
        return inf
    usual = volumes.usual * gauge.window_ms / volumes.rest_ms
    if not ladder.calm_above * usual < volumes.inside:
        return -inf
    return ladder.calm_below * usual - (volumes.inside - before.quote)

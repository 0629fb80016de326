"""Rules of one gauge, sorted by threshold, and how far trades may go without moving one."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from decimal import Decimal
from math import inf
from operator import itemgetter
from typing import Final, NamedTuple

from listener.domain.alert_gauges import Gauge
from listener.domain.alerts import AlertRule
from listener.domain.entities import Candle, Trade
from listener.domain.value_objects import Timestamp

Rung = tuple[Decimal, str]
"""A level and the rule that waits for it."""
MARGIN: Final = 1e-9
"""Share of a level by which it may be missed in floating point."""
_level: Final = itemgetter(0)


class Calm(NamedTuple):
    """Trades within these bounds, all left out, move no rule of a market.

    Attributes:
        minute: in which they must be: what looks back sees something else in the next one.
        low: lowest price.
        high: highest price.
        minute_quote: most quote volume of the minute, in base units.
        trade_quote: most quote amount of a trade, in base units.
    """

    minute: Timestamp
    low: float
    high: float
    minute_quote: float
    trade_quote: float

    def holds(self, traded: Sequence[Candle], merged: Sequence[Candle], trades: Sequence[Trade]) -> bool:
        """Whether trades are within.

        Args:
            traded: one-minute candles of these trades alone.
            merged: the whole minutes with them.
            trades: one by one.
        """
        block = traded[0]
        if len(traded) > 1 or self.minute != block.open_time or merged[0].quote >= self.minute_quote:
            return False
        low, high = block.low, block.high
        lowest = float(low)
        if lowest <= self.low or (lowest if low is high else float(high)) >= self.high:
            return False
        return block.quote < self.trade_quote or max([t.quote for t in trades]) < self.trade_quote


NEVER: Final = Calm(-1, inf, -inf, -inf, -inf)


class Ladder:
    """Rules of one gauge, sorted by the level at which something happens to them.

    Attributes:
        calm_above: nothing happens to any of them between this and `calm_below`, both left out. Floating
            point, on the safe side: to find out that nothing happens.
    """

    __slots__ = ("_falls", "_rises", "_rules", "_tops", "_valleys", "calm_above", "calm_below")

    def __init__(self) -> None:
        self._rules: dict[str, AlertRule] = {}
        self._rises: list[Rung] = []
        self._falls: list[Rung] = []
        self._tops: list[Rung] = []
        self._valleys: list[Rung] = []
        self.calm_above, self.calm_below = -inf, inf

    def __len__(self) -> int:
        return len(self._rules)

    def copy(self) -> "Ladder":
        """The same, to be changed."""
        other = Ladder()
        other._rules = self._rules.copy()
        other._rises, other._falls = self._rises.copy(), self._falls.copy()
        other._tops, other._valleys = self._tops.copy(), self._valleys.copy()
        other.calm_above, other.calm_below = self.calm_above, self.calm_below
        return other

    def rules(self) -> Iterable[AlertRule]:
        """All of them."""
        return self._rules.values()

    def put(self, rule: AlertRule, *, fired: bool) -> None:
        """Add a rule, armed or not. It must not be there."""
        self._rules[rule.id] = rule
        insort(self._side(rule, fired=fired), _rung(rule, fired=fired))
        self._find_calm()

    def take(self, rule: AlertRule) -> None:
        """Remove a rule if it is there."""
        if self._rules.pop(rule.id, None) is None:
            return
        for fired in (False, True):
            side, rung = self._side(rule, fired=fired), _rung(rule, fired=fired)
            place = bisect_left(side, rung)
            if place < len(side) and side[place] == rung:
                del side[place]
                break
        self._find_calm()

    def _side(self, rule: AlertRule, *, fired: bool) -> list[Rung]:
        if rule.condition.rises:
            return self._tops if fired else self._rises
        return self._valleys if fired else self._falls

    def _find_calm(self) -> None:
        above = [float(side[-1][0]) for side in (self._falls, self._tops) if side]
        below = [float(side[0][0]) for side in (self._rises, self._valleys) if side]
        self.calm_above = max((level + abs(level) * MARGIN for level in above), default=-inf)
        self.calm_below = min((level - abs(level) * MARGIN for level in below), default=inf)

    def moved_by(self, low: Decimal, high: Decimal) -> list[AlertRule]:
        """Rules to which something may happen between two values."""
        rises, falls, tops, valleys = self._rises, self._falls, self._tops, self._valleys
        rungs: list[Rung] = []
        if rises and rises[0][0] <= high:
            rungs += rises[: bisect_right(rises, high, key=_level)]
        if falls and falls[-1][0] >= low:
            rungs += falls[bisect_left(falls, low, key=_level) :]
        if tops and tops[-1][0] > low:
            rungs += tops[bisect_right(tops, low, key=_level) :]
        if valleys and valleys[0][0] < high:
            rungs += valleys[: bisect_left(valleys, high, key=_level)]
        return [self._rules[rule_id] for _, rule_id in rungs]


Ladders = dict[Gauge, Ladder]
NO_LADDERS: Final[Ladders] = {}


def take(ladders: Ladders, gauge: Gauge, rule: AlertRule) -> None:
    """Remove a rule, and its ladder with the last one."""
    if gauge in ladders:
        ladders[gauge].take(rule)
        if not ladders[gauge]:
            del ladders[gauge]


def _rung(rule: AlertRule, *, fired: bool) -> Rung:
    condition = rule.condition
    return (condition.back_at if fired else condition.threshold or Decimal(0), rule.id)

"""Alert rules by what they wait for: a market's trades cost a comparison, however many rules there are."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from math import inf
from operator import itemgetter
from typing import Final, NamedTuple

from listener.domain.alert_gauges import Gauge
from listener.domain.alerts import AlertKind, AlertRule, StateKey
from listener.domain.entities import Candle, Trade
from listener.domain.value_objects import MarketId, Timestamp

Rung = tuple[Decimal, str]
"""A level and the rule that waits for it."""
MARGIN: Final = 1e-9
"""Share of a level by which it may be missed in floating point."""
REACHES_REMEMBERED: Final = 20_000
"""Markets for which is known how far back their rules look."""
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


class RuleIndex:
    """Rules, and which of them have come true.

    A market's own rules have ladders of their own. Those for all markets share theirs, until one of them has
    come true in a market: that market has a copy from then on.

    Attributes:
        rules: all of them, by id.
        states: of rules that have come true and are not armed again: in which block.
        calm: for which trades nothing happens; forgotten when a market's rules change or stand otherwise.
    """

    def __init__(self) -> None:
        self.rules: dict[str, AlertRule] = {}
        self.states: dict[StateKey, int] = {}
        self.calm: dict[MarketId, Calm] = {}
        self._reach_ms: dict[MarketId, int] = {}
        self._own: dict[MarketId, Ladders] = {}
        self._own_since: dict[MarketId, int] = {}
        self._all: Ladders = {}
        self._copies: dict[MarketId, Ladders] = {}
        self._fired: dict[MarketId, set[str]] = {}
        self._announced: dict[tuple[AlertKind, MarketId | None], dict[str, AlertRule]] = {}

    def __len__(self) -> int:
        return len(self.rules)

    def _changed(self, market: MarketId | None) -> None:
        """Forget what follows from the rules of a market, or (None) of all."""
        for memory in (self.calm, self._reach_ms):
            if market is None:
                memory.clear()
            else:
                memory.pop(market, None)

    def put(self, rule: AlertRule) -> None:
        """Add a rule that is new."""
        self.rules[rule.id] = rule
        self._changed(rule.condition.market)
        condition, market = rule.condition, rule.condition.market
        gauge = Gauge.of(condition)
        if gauge is None:
            self._announced.setdefault((condition.kind, market), {})[rule.id] = rule
        elif market is not None:
            self._place(rule, gauge, market)
        else:
            for ladders in (self._all, *self._copies.values()):
                ladders.setdefault(gauge, Ladder()).put(rule, fired=False)

    def _place(self, rule: AlertRule, gauge: Gauge, market: MarketId) -> None:
        """Put a market's own rule where it belongs as it stands; one that is done with, nowhere."""
        ladders = self._own.setdefault(market, {})
        _take(ladders, gauge, rule)
        fired = StateKey(rule.id, market) in self.states
        if not fired or rule.condition.repeat:
            ladders.setdefault(gauge, Ladder()).put(rule, fired=fired)
            self._own_since[market] = min(self._own_since.get(market, rule.since), rule.since)
        if not ladders:
            self._leave(market)

    def _leave(self, market: MarketId) -> None:
        """A market has no rules of its own any more."""
        self._own.pop(market, None)
        self._own_since.pop(market, None)

    def take(self, rule_id: str) -> list[StateKey]:
        """Remove a rule; its states, which are no longer here."""
        rule = self.rules.pop(rule_id, None)
        if rule is None:
            return []
        condition, market = rule.condition, rule.condition.market
        self._changed(market)
        gauge = Gauge.of(condition)
        if gauge is None:
            self._announced[condition.kind, market].pop(rule_id, None)
            return []
        if market is not None:
            _take(self._own.get(market, {}), gauge, rule)
            if not self._own.get(market):
                self._leave(market)
            keys = [StateKey(rule_id, market)]
        else:
            keys = [StateKey(rule_id, fired) for fired, rules in self._fired.items() if rule_id in rules]
            for ladders in (self._all, *self._copies.values()):
                _take(ladders, gauge, rule)
            for key in keys:
                self._forget_fired(key)
        return [key for key in keys if self.states.pop(key, None) is not None]

    def stand(self, key: StateKey, block: int | None) -> None:
        """A rule has come true in a block, or (None) is armed again. Rules that are gone are passed over."""
        rule = self.rules.get(key.rule)
        gauge = Gauge.of(rule.condition) if rule else None
        if rule is None or gauge is None:
            return
        self._changed(key.market)
        if block is None:
            self.states.pop(key, None)
        else:
            self.states[key] = block
        if rule.condition.market is None:
            self._copy(rule, gauge, key, armed=block is None)
        else:
            self._place(rule, gauge, rule.condition.market)

    def _copy(self, rule: AlertRule, gauge: Gauge, key: StateKey, *, armed: bool) -> None:
        """Note in a market's copy of the ladders for all how one of these rules stands."""
        ladders = self._copies.get(key.market)
        if ladders is None:
            ladders = self._copies[key.market] = {of: ladder.copy() for of, ladder in self._all.items()}
        _take(ladders, gauge, rule)
        if armed or rule.condition.repeat:
            ladders.setdefault(gauge, Ladder()).put(rule, fired=not armed)
        self._fired.setdefault(key.market, set()).add(key.rule)
        if armed:
            self._forget_fired(key)

    def _forget_fired(self, key: StateKey) -> None:
        """A market whose every rule for all is armed needs no copy."""
        fired = self._fired[key.market]
        fired.discard(key.rule)
        if not fired:
            del self._fired[key.market], self._copies[key.market]

    def ladders(self, market: MarketId) -> tuple[Ladders, Ladders]:
        """A market's own rules, and those for all as they stand there."""
        return self._own.get(market, NO_LADDERS), self._copies.get(market, self._all)

    def reach_ms(self, market: MarketId) -> int:
        """How far back its minutes matter."""
        reach_ms = self._reach_ms.get(market)
        if reach_ms is None:
            if len(self._reach_ms) >= REACHES_REMEMBERED:
                self._reach_ms.clear()
            reach_ms = max((gauge.reach_ms for gauge in chain(*self.ladders(market))), default=0)
            self._reach_ms[market] = reach_ms
        return reach_ms

    def announced(self, kind: AlertKind, market: MarketId) -> list[AlertRule]:
        """Rules that wait for an announcement."""
        nobody: Mapping[str, AlertRule] = {}
        return [
            rule for whose in (market, None) for rule in self._announced.get((kind, whose), nobody).values()
        ]

    def counts_for(self, market: MarketId, last: int) -> bool:
        """Whether a rule may come true with a trade of this market in a block up to `last`."""
        return self._own_since.get(market, last) < last

    def counts_for_all(self, last: int) -> bool:
        """The same for any market."""
        return any(rule.since < last for ladder in self._all.values() for rule in ladder.rules())


def _take(ladders: Ladders, gauge: Gauge, rule: AlertRule) -> None:
    """Remove a rule, and its ladder with the last one."""
    if gauge in ladders:
        ladders[gauge].take(rule)
        if not ladders[gauge]:
            del ladders[gauge]


def _rung(rule: AlertRule, *, fired: bool) -> Rung:
    condition = rule.condition
    return (condition.back_at if fired else condition.threshold or Decimal(0), rule.id)

"""Alert rules by what they wait for: a market's trades cost a bisection, however many rules there are."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import Final

from listener.domain.alert_gauges import Gauge, Reading
from listener.domain.alerts import AlertKind, AlertRule, StateKey
from listener.domain.value_objects import MarketId

Rung = tuple[Decimal, str]
"""A level and the rule that waits for it."""
_level: Final = itemgetter(0)
NOBODY: Final[Mapping[str, AlertRule]] = {}


class Ladder:
    """Rules of one gauge, sorted by the level at which something happens to them."""

    __slots__ = ("_falls", "_rises", "_rules", "_tops", "_valleys")

    def __init__(self) -> None:
        self._rules: dict[str, AlertRule] = {}
        self._rises: list[Rung] = []
        self._falls: list[Rung] = []
        self._tops: list[Rung] = []
        self._valleys: list[Rung] = []

    def __len__(self) -> int:
        return len(self._rules)

    def rules(self) -> Iterable[AlertRule]:
        """All of them."""
        return self._rules.values()

    def put(self, rule: AlertRule, *, fired: bool) -> None:
        """Add a rule, armed or not. It must not be there."""
        self._rules[rule.id] = rule
        insort(self._side(rule, fired=fired), _rung(rule, fired=fired))

    def take(self, rule: AlertRule) -> None:
        """Remove a rule if it is there."""
        if self._rules.pop(rule.id, None) is None:
            return
        for fired in (False, True):
            side, rung = self._side(rule, fired=fired), _rung(rule, fired=fired)
            place = bisect_left(side, rung)
            if place < len(side) and side[place] == rung:
                del side[place]
                return

    def _side(self, rule: AlertRule, *, fired: bool) -> list[Rung]:
        if rule.condition.rises:
            return self._tops if fired else self._rises
        return self._valleys if fired else self._falls

    def moved_by(self, low: Decimal, high: Decimal) -> Iterator[AlertRule]:
        """Rules to which something may happen between two values."""
        return map(self._rules.__getitem__, self._ids(low, high))

    def _ids(self, low: Decimal, high: Decimal) -> Iterator[str]:
        rungs = chain(
            self._rises[: bisect_right(self._rises, high, key=_level)],
            self._falls[bisect_left(self._falls, low, key=_level) :],
            self._tops[bisect_right(self._tops, low, key=_level) :],
            self._valleys[: bisect_left(self._valleys, high, key=_level)],
        )
        return (rule_id for _, rule_id in rungs)


Ladders = dict[Gauge, Ladder]


class RuleIndex:
    """Rules, and which of them have come true.

    Attributes:
        rules: all of them, by id.
        states: of rules that have come true and are not armed again: in which block.
    """

    def __init__(self) -> None:
        self.rules: dict[str, AlertRule] = {}
        self.states: dict[StateKey, int] = {}
        self._own: dict[MarketId, Ladders] = {}
        self._own_since: dict[MarketId, int] = {}
        self._all: Ladders = {}
        self._fired: dict[MarketId, dict[str, AlertRule]] = {}
        self._announced: dict[tuple[AlertKind, MarketId | None], dict[str, AlertRule]] = {}

    def __len__(self) -> int:
        return len(self.rules)

    def put(self, rule: AlertRule) -> None:
        """Add a rule that is new."""
        self.rules[rule.id] = rule
        condition, market = rule.condition, rule.condition.market
        gauge = Gauge.of(condition)
        if gauge is None:
            self._announced.setdefault((condition.kind, market), {})[rule.id] = rule
        elif market is None:
            self._all.setdefault(gauge, Ladder()).put(rule, fired=False)
        else:
            self._place(rule, gauge, market)

    def _place(self, rule: AlertRule, gauge: Gauge, market: MarketId) -> None:
        """Put a market's own rule where it belongs as it stands; one that is done with, nowhere."""
        fired = StateKey(rule.id, market) in self.states
        ladders = self._own.get(market, {})
        if gauge in ladders:
            ladders[gauge].take(rule)
        if not fired or rule.condition.repeat:
            ladders.setdefault(gauge, Ladder()).put(rule, fired=fired)
            since = self._own_since.get(market, rule.since)
            self._own_since[market] = min(since, rule.since)
        elif gauge in ladders and not ladders[gauge]:
            del ladders[gauge]
        self._keep(market, ladders)

    def _keep(self, market: MarketId, ladders: Ladders) -> None:
        if ladders:
            self._own[market] = ladders
        else:
            self._own.pop(market, None)
            self._own_since.pop(market, None)

    def take(self, rule_id: str) -> list[StateKey]:
        """Remove a rule; its states, which are no longer here."""
        rule = self.rules.pop(rule_id, None)
        if rule is None:
            return []
        condition, market = rule.condition, rule.condition.market
        gauge = Gauge.of(condition)
        if gauge is None:
            self._announced[condition.kind, market].pop(rule_id, None)
            return []
        ladders = self._all if market is None else self._own.get(market, {})
        if gauge in ladders:
            ladders[gauge].take(rule)
            if not ladders[gauge]:
                del ladders[gauge]
        if market is not None:
            self._keep(market, ladders)
            keys = [StateKey(rule_id, market)]
        else:
            keys = [StateKey(rule_id, fired) for fired, rules in self._fired.items() if rule_id in rules]
        gone = [key for key in keys if self.states.pop(key, None) is not None]
        for key in gone if market is None else ():
            self._disarm(key, rule, armed=True)
        return gone

    def stand(self, key: StateKey, block: int | None) -> None:
        """A rule has come true in a block, or (None) is armed again. Rules that are gone are passed over."""
        rule = self.rules.get(key.rule)
        gauge = Gauge.of(rule.condition) if rule else None
        if rule is None or gauge is None:
            return
        if block is None:
            self.states.pop(key, None)
        else:
            self.states[key] = block
        if rule.condition.market is None:
            self._disarm(key, rule, armed=block is None)
        else:
            self._place(rule, gauge, rule.condition.market)

    def _disarm(self, key: StateKey, rule: AlertRule, *, armed: bool) -> None:
        """Note for which markets a rule for all of them is not armed."""
        rules = self._fired.setdefault(key.market, {})
        if armed:
            rules.pop(key.rule, None)
        else:
            rules[key.rule] = rule
        if not rules:
            del self._fired[key.market]

    def gauges(self, market: MarketId) -> Iterable[Gauge]:
        """What has to be measured of a market."""
        own = self._own.get(market)
        return {**self._all, **own} if own else self._all

    def moved_by(self, market: MarketId, gauge: Gauge, readings: Sequence[Reading]) -> Iterator[AlertRule]:
        """Rules to which something may happen with what a gauge shows. There is a reading."""
        values = [reading.value for reading in readings]
        low, high = min(values), max(values)
        own = self._own.get(market)
        if own and gauge in own:
            yield from own[gauge].moved_by(low, high)
        if gauge in self._all:
            fired = self._fired.get(market, NOBODY)
            for rule in self._all[gauge].moved_by(low, high):
                if rule.id not in fired:
                    yield rule
            for rule in fired.values():
                if rule.condition.repeat and Gauge.of(rule.condition) == gauge:
                    yield rule

    def announced(self, kind: AlertKind, market: MarketId) -> list[AlertRule]:
        """Rules that wait for an announcement."""
        return [
            rule for whose in (market, None) for rule in self._announced.get((kind, whose), NOBODY).values()
        ]

    def counts_for(self, market: MarketId, last: int) -> bool:
        """Whether a rule may come true with a trade of this market in a block up to `last`."""
        return self._own_since.get(market, last) < last

    def counts_for_all(self, last: int) -> bool:
        """The same for any market."""
        return any(rule.since < last for ladder in self._all.values() for rule in ladder.rules())


def _rung(rule: AlertRule, *, fired: bool) -> Rung:
    condition = rule.condition
    return (condition.back_at if fired else condition.threshold or Decimal(0), rule.id)

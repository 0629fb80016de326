"""Alert rules by what they wait for: a market's trades cost a comparison, however many rules there are."""

from collections.abc import Mapping
from itertools import chain
from typing import Final

from listener.domain.alert_gauges import Gauge
from listener.domain.alert_ladder import NO_LADDERS, Calm, Ladder, Ladders, take
from listener.domain.alerts import AlertKind, AlertRule, StateKey
from listener.domain.value_objects import MarketId

REACHES_REMEMBERED: Final = 20_000
"""Markets for which is known how far back their rules look."""


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
        take(ladders, gauge, rule)
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
            take(self._own.get(market, {}), gauge, rule)
            if not self._own.get(market):
                self._leave(market)
            keys = [StateKey(rule_id, market)]
        else:
            keys = [StateKey(rule_id, fired) for fired, rules in self._fired.items() if rule_id in rules]
            for ladders in (self._all, *self._copies.values()):
                take(ladders, gauge, rule)
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
        take(ladders, gauge, rule)
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

"""The alert book: which rules there are and how they stand, for the one who follows the chain."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

from listener.application.changes import ChangeSet
from listener.application.interfaces import AlertStore, Clock, MarketStore, RuleChanges
from listener.application.use_cases.raise_alerts import Watch
from listener.domain.alert_gauges import Trail
from listener.domain.alert_index import RuleIndex
from listener.domain.alerts import AlertRule, StateKey
from listener.domain.value_objects import MINUTE_MS, ONE_MINUTE, BlockRef, MarketId, Timestamp

REFRESH_S: Final = 0.5
"""How often new rules are looked for, at most; between two blocks."""
MOST_MINUTES: Final = 200_000
"""Minutes of trails kept in memory, some 200 bytes each; the least recently used markets' go first."""
PRUNE_EVERY: Final = 64
"""Minutes of a trail between two looks at its oldest ones."""
MARKETS_SLICE: Final = 50
"""Markets whose minutes are read in one round trip."""


class NoAlerts:
    """An `AlertStore` without rules: for a stream that nobody watches."""

    async def rule_changes(self, after: int | None) -> RuleChanges:
        """See `AlertStore.rule_changes`."""
        return RuleChanges(0, {}, complete=after is None)

    async def alert_states(self) -> Mapping[StateKey, int]:
        """See `AlertStore.alert_states`."""
        return {}

    async def forget_alert_states(self, states: Iterable[StateKey]) -> None:
        """See `AlertStore.forget_alert_states`."""


class AlertBook:
    """Rules, states and trails as they are after the last change set that was followed.

    Args:
        store: where rules and states are kept.
        minutes: where one-minute candles are committed.
        clock: for how long rules are believed.
        settle: waits for a commit that is under way.
    """

    def __init__(
        self,
        store: AlertStore,
        minutes: MarketStore,
        clock: Clock,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._minutes = minutes
        self._clock = clock
        self._settle = settle
        self._index = RuleIndex()
        self._version: int | None = None
        self._looked_at = 0.0
        self._trails: OrderedDict[MarketId, Trail] = OrderedDict()
        self._sizes: dict[MarketId, int] = {}
        self._kept = 0

    @property
    def rules(self) -> Mapping[str, AlertRule]:
        """All rules, by id."""
        return self._index.rules

    def clear(self) -> None:
        """Forget everything: the store has it."""
        self._index = RuleIndex()
        self._version = None
        self._trails.clear()
        self._sizes.clear()
        self._kept = 0

    async def refresh(self) -> None:
        """Learn of rules that were made or removed; everything, if nothing is known.

        States are read with the first rules: nobody else writes them from then on. Those whose rule is gone
        are removed. A commit that was under way may bring one of these back, until the next start.
        """
        now = self._clock.monotonic()
        if self._version is not None and now - self._looked_at < REFRESH_S:
            return
        changes = await self._store.rule_changes(self._version)
        gone = self._adopt(changes)
        if self._version is None:
            states = await self._store.alert_states()
            for key, block in states.items():
                self._index.stand(key, block)
            gone = [key for key in states if key not in self._index.states]
        if gone:
            await self._store.forget_alert_states(gone)
        self._version, self._looked_at = changes.version, now

    def _adopt(self, changes: RuleChanges) -> list[StateKey]:
        """Follow changes of rules; states of those that are gone."""
        known = self._index.rules
        removed = set(known) - set(changes.rules) if changes.complete else set[str]()
        removed.update(rule_id for rule_id, rule in changes.rules.items() if rule is None)
        gone = [key for rule_id in sorted(removed) for key in self._index.take(rule_id)]
        for rule in changes.rules.values():
            if rule is not None and rule.id not in known:
                self._index.put(rule)
        return gone

    def watched(self, last: BlockRef) -> Callable[[MarketId], bool]:
        """Tells markets whose every trade up to a block counts."""
        if self._index.counts_for_all(last.number):
            return lambda _market: True
        return lambda market: self._index.counts_for(market, last.number)

    async def watch(self, touched: Collection[MarketId], first: BlockRef, head: Timestamp) -> Watch:
        """What the next blocks are held against.

        Args:
            touched: the markets that they touch and that exist already.
            first: the first of these blocks.
            head: time of the block before.
        """
        if not self._index:
            return Watch(self._index, {})
        minute = ONE_MINUTE.open_time(first.timestamp)
        missing: dict[MarketId, tuple[Timestamp, Timestamp]] = {}
        trails: dict[MarketId, Trail] = {}
        for market in touched:
            if reach_ms := self._index.reach_ms(market):
                start = minute - reach_ms + MINUTE_MS
                trail = self._trails.get(market)
                if trail is None or trail.since > start:
                    missing[market] = start, max(head, start)
                else:
                    trails[market] = trail
        if missing:
            trails |= await self._read(missing)
        return Watch(self._index, trails)

    async def _read(self, spans: Mapping[MarketId, tuple[Timestamp, Timestamp]]) -> dict[MarketId, Trail]:
        """Trails made of what is committed."""
        await self._settle()
        trails: dict[MarketId, Trail] = {}
        markets = list(spans)
        for at in range(0, len(markets), MARKETS_SLICE):
            part = {market: spans[market] for market in markets[at : at + MARKETS_SLICE]}
            found = await self._minutes.load_minutes(part)
            trails |= {market: Trail.of(found.get(market, ()), since) for market, (since, _) in part.items()}
        return trails

    def follow(self, changes: ChangeSet) -> None:
        """Take over what a change set makes of rules and trails."""
        for key, block in changes.alert_states.items():
            self._index.stand(key, block)
        if changes.reorg:
            for market in changes.reorg.markets:
                self._drop(market)
                self._index.calm.pop(market, None)
            return
        for market in changes.created if self._index else ():
            if self._index.reach_ms(market):
                self._keep(market, Trail(0))
        if self._trails:
            self._lengthen(changes)
        while self._kept > MOST_MINUTES:
            self._drop(next(iter(self._trails)))

    def _lengthen(self, changes: ChangeSet) -> None:
        """Follow the minutes of a change set; markets that were folded in bulk are read when wanted."""
        for market, minutes in changes.minutes.items():
            trail = self._trails.get(market)
            grown = [trail.put(minute) for minute in minutes] if trail is not None else ()
            if trail is not None and any(grown):
                self._grown(market, trail, len(minutes))
        if len(changes.newest) > len(changes.minutes):
            for market in changes.newest.keys() - changes.minutes.keys():
                self._drop(market)

    def _grown(self, market: MarketId, trail: Trail, most: int) -> None:
        """A trail has got up to so many minutes."""
        self._kept -= self._sizes[market]
        if len(trail) % PRUNE_EVERY < most:
            trail.prune(self._index.reach_ms(market))
        self._sizes[market] = len(trail) + 1
        self._kept += self._sizes[market]
        self._trails.move_to_end(market)

    def _keep(self, market: MarketId, trail: Trail) -> None:
        self._drop(market)
        self._trails[market], self._sizes[market] = trail, len(trail) + 1
        self._kept += self._sizes[market]

    def _drop(self, market: MarketId) -> None:
        self._trails.pop(market, None)
        self._kept -= self._sizes.pop(market, 0)

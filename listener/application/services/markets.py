"""What is known of markets: the newest states in memory, all others in the store."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from listener.application.changes import ChangeSet, Head, MarketState
from listener.application.errors import ListenerError, Superseded, TornData
from listener.application.interfaces import MarketStore
from listener.domain.errors import MinutesMissing
from listener.domain.value_objects import MINUTE_MS, MarketId, Timestamp

MINUTES_SLICE: Final = 200
"""Markets whose minutes that roll off are read in one round trip."""


class Markets:
    """States of markets as they are after the last change set that was followed.

    Args:
        store: where they are committed.
        most: states kept in memory; the least recently used go first.
        head: what we have committed, or are committing.
        settle: waits for a commit that is under way.
    """

    def __init__(
        self,
        store: MarketStore,
        most: int,
        head: Callable[[], Head],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._most = most
        self._head = head
        self._settle = settle
        self._kept: OrderedDict[MarketId, MarketState] = OrderedDict()
        self._followed_from: Timestamp = 0

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all of them: the store has them."""
        self._kept.clear()

    def follow(self, changes: ChangeSet) -> None:
        """Take over what a change set makes of them."""
        self._followed_from = changes.base.timestamp
        if changes.reorg:
            for market in changes.reorg.markets:
                self._kept.pop(market, None)
            return
        for market, state in changes.states.items():
            self._kept[market] = state
            self._kept.move_to_end(market)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def load(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """States of those that are stored, from memory or from the store."""
        known = {market: self._kept[market] for market in markets if market in self._kept}
        missing = [market for market in markets if market not in known]
        if missing:
            await self._settle()
            known |= await self._store.load_markets(missing)
        return known

    async def load_ours(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """States of markets that we have committed.

        Raises:
            TornData, Superseded: they are not stored any more.
        """
        wanted = set(markets)
        found = await self.load(wanted)
        if missing := wanted - found.keys():
            raise await self._lost(f"{len(missing)} markets that were committed: {min(missing)}, …")
        return found

    async def able_to_advance(
        self, markets: dict[MarketId, MarketState], as_of: Timestamp
    ) -> dict[MarketId, MarketState]:
        """The same states, their days able to advance to `as_of`.

        The minutes are a day old, so that what is being written need not be waited for, as a rule.

        Raises:
            TornData, Superseded: their minutes are not stored any more.
        """
        spans = [(market, span) for market, state in markets.items() if (span := state.day.wanted(as_of))]
        if any(last + MINUTE_MS > self._followed_from for _, (_, last) in spans):
            await self._settle()
        for at in range(0, len(spans), MINUTES_SLICE):
            found = await self._store.load_minutes(dict(spans[at : at + MINUTES_SLICE]))
            for market, _ in spans[at : at + MINUTES_SLICE]:
                state = markets[market]
                try:
                    day = state.day.with_minutes(as_of, found.get(market, ()))
                except MinutesMissing as error:
                    raise await self._lost(f"one-minute candles of {market}: {error}") from error
                markets[market] = state._replace(day=day)
        return markets

    async def _lost(self, what: str) -> ListenerError:
        """What it means that something we have committed is not stored: we were overtaken, or it was lost."""
        await self._settle()
        if await self._store.head() == self._head():
            return TornData(
                f"not stored any more: {what}: somebody has changed keys of ours; run `listener resync`"
            )
        return Superseded(f"not stored any more: {what}")

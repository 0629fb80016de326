"""Final blocks from the node, as listing services see them: the one way from logs to listed events."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from listener.application.errors import InconsistentReply, RangeTooLarge
from listener.application.listing import (
    Listed,
    ListingChain,
    ListingStore,
    LocatedFacts,
    PoolTerms,
)
from listener.application.rules import Rules
from listener.application.use_cases.list_events import emitters, list_events

TERMS_KEPT: Final = 10_000
"""Pools whose terms are remembered."""


class ListingReader:
    """Reads ranges for the one who records them, and for the gateway where they are not recorded.

    Args:
        chain: the node.
        store: committed markets.
        rules: what is known of the chain's own coin. Whose announcements count is read from the store: a
            process that only reads need not be told.
    """

    def __init__(self, chain: ListingChain, store: ListingStore, rules: Rules) -> None:
        self._chain = chain
        self._store = store
        self._rules = rules
        self._terms: dict[str, PoolTerms] = {}

    async def read(self, first: int, last: int) -> Listed:
        """Events of blocks that are final and committed.

        Raises:
            RangeTooLarge: the node refuses even a single block.
            Retryable: the node or Redis is away.
        """
        blocks = await self._blocks(first, last)
        lowest, newest = blocks[0].block, blocks[-1].block
        pools = emitters(blocks)
        markets = await self._store.markets(pools, ()) if pools else {}
        if not markets:
            return Listed(lowest, newest, ())
        rules = replace(self._rules, factories=await self._store.factories())
        terms = await self.terms(market.source for market in markets.values())
        return Listed(lowest, newest, list_events(blocks, markets, terms, rules, self._chain.shown))

    async def terms(self, pools: Iterable[str]) -> dict[str, PoolTerms]:
        """What pools were made with; asked for once."""
        wanted = set(pools)
        missing = sorted(wanted - self._terms.keys())
        found = {pool: self._terms[pool] for pool in wanted if pool in self._terms}
        if missing:
            found.update(zip(missing, await self._chain.terms(missing), strict=True))
            if len(self._terms) + len(missing) > TERMS_KEPT:
                self._terms.clear()
            self._terms.update(found)
        return found

    async def _blocks(self, first: int, last: int) -> Sequence[LocatedFacts]:
        """A range, in halves where the node refuses it for its size."""
        try:
            return await self._chain.blocks(first, last)
        except RangeTooLarge:
            if first == last:
                raise
        middle = (first + last) // 2
        lower, upper = await self._blocks(first, middle), await self._blocks(middle + 1, last)
        if upper[0].block.parent_hash != lower[-1].block.hash:
            raise InconsistentReply(f"block {middle + 1} does not follow block {middle}")
        return [*lower, *upper]

"""`ListingChain` on a `LocalChain`, and `ListingRecords` in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from listener.application.errors import RangeTooLarge
from listener.application.listing import Coverage, Listed, ListedBlock, LocatedFacts, PoolTerms
from listener.domain.entities import Market
from listener.domain.value_objects import Address, MarketId
from tests.fakes.build import FACTORY, curve, market, token
from tests.fakes.chain import LocalChain


@dataclass
class FakeListingChain:
    """`ListingChain` on a `LocalChain`.

    Attributes:
        most: more blocks at once are refused.
        asked: ranges.
        pools: those whose terms were asked for.
    """

    chain: LocalChain = field(default_factory=LocalChain)
    most: int = 1_000
    asked: list[tuple[int, int]] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)

    async def blocks(self, first: int, last: int) -> Sequence[LocatedFacts]:
        """See `ListingChain.blocks`."""
        self.asked.append((first, last))
        if last - first >= self.most:
            raise RangeTooLarge("too many")
        return [
            LocatedFacts(block, facts, {fact.log_index: 0 for fact in facts})
            for block, facts, _ in self.chain.blocks[first : last + 1]
            if facts or block.number in {first, last}
        ]

    async def terms(self, pools: Sequence[str]) -> Sequence[PoolTerms]:
        """See `ListingChain.terms`."""
        self.pools += pools
        return [PoolTerms() for _ in pools]

    async def supply(self, token: Address) -> int | None:
        """See `ListingChain.supply`."""
        raise NotImplementedError(token)

    def shown(self, name: str) -> str:
        """See `ListingChain.shown`."""
        return name


@dataclass
class FakeRecords:
    """`ListingRecords` in memory.

    Attributes:
        head: number of the committed head.
        stored: what is recorded.
        writes: first, last, oldest time kept, and whether all was begun anew.
    """

    head: int = 0
    stored: Coverage | None = None
    writes: list[tuple[int, int, int, bool]] = field(default_factory=list)

    async def committed(self) -> int:
        """See `ListingStore.committed`."""
        return self.head

    async def factories(self) -> frozenset[Address]:
        """See `ListingStore.factories`."""
        return frozenset({FACTORY})

    async def markets(self, pools: Iterable[str], ids: Iterable[str]) -> Mapping[MarketId, Market]:
        """See `ListingStore.markets`."""
        known = {token(0): market(0, created_block=1)}
        return known if curve(0) in pools or token(0) in ids else {}

    async def coverage(self) -> Coverage | None:
        """See `ListingStore.coverage`."""
        return self.stored

    async def recorded(self, first: int, last: int) -> Sequence[ListedBlock] | None:
        """See `ListingStore.recorded`."""
        raise NotImplementedError(first, last)

    async def record(
        self, listed: Listed, previous: Coverage | None, *, oldest_s: int, anew: bool
    ) -> Coverage:
        """See `ListingRecords.record`."""
        if self.stored == previous:
            first, last = listed.first, listed.last
            self.writes.append((first.number, last.number, oldest_s, anew or previous is None))
            begin = first.number if anew or previous is None else previous.first
            self.stored = Coverage(begin, last.number, last.hash, last.timestamp // 1000)
        assert self.stored
        return self.stored

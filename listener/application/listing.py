"""What listing services index: trades and exits of final blocks, pairs and assets; and the ports behind.

Names are theirs: a pair is a market, its asset 0 the base token and its asset 1 the quote token.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from listener.domain.entities import Market
from listener.domain.facts import Fact
from listener.domain.value_objects import Address, BlockRef, MarketId

EventKind = Literal["buy", "sell", "exit"]
"""A buy takes asset 0 out for asset 1 in; an exit is liquidity that leaves the market."""


class ListedEvent(NamedTuple):
    """One event of a pair. Amounts are plain decimals in whole tokens, addresses as they are shown.

    Attributes:
        txn_index: place of the transaction in its block.
        event_index: place of the log in its block; unique there, and it grows within a transaction.
        amount0: of asset 0: in or out of the pool, whichever `kind` says.
        price: of asset 0 in asset 1, never zero; empty for an exit.
        reserves: of both assets after the event; None where nobody knows.
    """

    kind: EventKind
    txn_index: int
    event_index: int
    txn_id: str
    maker: str
    pair: str
    amount0: str
    amount1: str
    price: str
    reserves: tuple[str, str] | None


class ListedBlock(NamedTuple):
    """A final block and its events, in order. Time in seconds."""

    number: int
    time_s: int
    events: Sequence[ListedEvent]


class Listed(NamedTuple):
    """A range of final blocks as the node gave it; `blocks` are those with events."""

    first: BlockRef
    last: BlockRef
    blocks: Sequence[ListedBlock]

    @property
    def size(self) -> int:
        """How many events there are."""
        return sum(len(block.events) for block in self.blocks)


class Coverage(NamedTuple):
    """The recorded blocks, without a gap: every event of `first`…`last` is stored.

    Attributes:
        first: above `last` where bounds have left nothing.
        hash: of block `last`.
        time_s: of block `last`.
    """

    first: int
    last: int
    hash: str
    time_s: int


class Asset(NamedTuple):
    """A token, or the chain's own coin. The supply is in whole tokens, empty where it cannot be read."""

    id: str
    name: str
    symbol: str
    decimals: int
    supply: str


class Pair(NamedTuple):
    """A market. It never changes.

    Attributes:
        txn_id: the transaction that created it; empty: not known.
        fee_bps: of a trade, in hundredths of a percent; None: not known.
    """

    id: str
    dex: str
    asset0: str
    asset1: str
    block: int
    time_s: int
    txn_id: str
    creator: str
    fee_bps: int | None


class LocatedFacts(NamedTuple):
    """A block, what its logs say, and the place of each log's transaction in the block, by log index."""

    block: BlockRef
    facts: tuple[Fact, ...]
    transactions: Mapping[int, int]


class PoolTerms(NamedTuple):
    """What a pool was made with, for ever.

    Attributes:
        fee_bps: of a trade; None: the pool does not say.
        virtual: the parts of the base and quote reserves that its events state and that do not exist.
    """

    fee_bps: int | None = None
    virtual: tuple[int, int] = (0, 0)


class ListingChain(Protocol):
    """What a node says of final blocks and of contracts. Every method raises `Retryable` errors."""

    async def blocks(self, first: int, last: int) -> Sequence[LocatedFacts]:
        """Final blocks: the first, the last, and each with logs of ours, ascending.

        Raises:
            RangeTooLarge: the node refuses so many blocks or logs at once.
            InconsistentReply: logs and headers contradict each other.
        """
        ...

    async def terms(self, pools: Sequence[str]) -> Sequence[PoolTerms]:
        """Of each pool, in their order."""
        ...

    async def supply(self, token: Address) -> int | None:
        """Total supply in base units now; None where the token does not say."""
        ...

    def shown(self, name: str) -> str:
        """An address as it is shown, with its checksum (EIP-55); any other name as it is."""
        ...


class ListingStore(Protocol):
    """Committed markets and recorded events. Every method may raise `StoreUnavailable`."""

    async def committed(self) -> int:
        """Number of the committed head; -1 while there is none."""
        ...

    async def factories(self) -> frozenset[Address]:
        """Whose announcements count in what is committed."""
        ...

    async def markets(self, pools: Iterable[str], ids: Iterable[str]) -> Mapping[MarketId, Market]:
        """Committed markets: those of these pools, and those of these ids; unknown ones are absent."""
        ...

    async def coverage(self) -> Coverage | None:
        """What is recorded; None: nothing yet."""
        ...

    async def recorded(self, first: int, last: int) -> Sequence[ListedBlock] | None:
        """Events of a range, ascending by block; None unless all of it is recorded."""
        ...


class ListingRecords(ListingStore, Protocol):
    """The same, for the one who records."""

    async def record(
        self, listed: Listed, previous: Coverage | None, *, oldest_s: int, anew: bool
    ) -> Coverage:
        """Add a range behind what is recorded, if that is still `previous`; what is recorded after that.

        Blocks before `oldest_s` go, and the oldest ones where all take more than their bound.

        Args:
            listed: the range.
            previous: as it was read last.
            oldest_s: time of the oldest block that is kept, in seconds.
            anew: forget what was recorded before; so it is in any case where that is nothing.
        """
        ...

"""What a block's logs say, before anyone has decided whether to believe the emitter."""

from typing import NamedTuple

from listener.domain.value_objects import Address, BlockRef, MarketId


class MarketAnnounced(NamedTuple):
    """A factory says that it created a market.

    Attributes:
        announcer: the emitter; counts only if it is a configured factory.
        source: whose events will count as the market's: an address, or `address:pool id`.
    """

    announcer: Address
    log_index: int
    tx_hash: str
    venue: str
    market: MarketId
    token: Address
    quote: Address
    source: str
    creator: Address


class Swapped(NamedTuple):
    """A trade as its venue states it. Amounts and reserves in base units.

    Attributes:
        market: the market that the event names, where it names one; must be the source's.
        reserves: base and quote after the trade, where the event carries them.
    """

    source: str
    log_index: int
    tx_hash: str
    market: MarketId | None
    is_buy: bool
    trader: Address
    base: int
    quote: int
    fee: int | None
    reserves: tuple[int, int] | None


class Graduated(NamedTuple):
    """A curve has ended; `successor` is the pool that takes over, or empty.

    Attributes:
        liquidity: base and quote that left the market, in base units, where the event tells them.
    """

    source: str
    log_index: int
    tx_hash: str
    market: MarketId | None
    successor: str
    liquidity: tuple[int, int] | None = None


class Malformed(NamedTuple):
    """A log with one of our topics that does not decode."""

    source: str
    log_index: int
    tx_hash: str
    reason: str


Fact = MarketAnnounced | Swapped | Graduated | Malformed


class BlockFacts(NamedTuple):
    """One block and what its logs say, in log order.

    Attributes:
        digest: stands for the logs that the facts were read from; two accounts of a block agree if
            their digests do. Empty where nobody will compare.
    """

    block: BlockRef
    facts: tuple[Fact, ...]
    digest: str = ""

"""Loading the chain anew beside the live data: to put it in its place, or to compare.

One head cannot commit backwards, and stored candles cannot change their meaning. So a lower first block,
other settings or a damaged store are answered by a second generation, which readers do not see until it is
complete.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from listener.application.errors import (
    ChainRestarted,
    InconsistentReply,
    InvalidConfiguration,
    ListenerError,
    ReorgTooDeep,
    SettingsChanged,
    Superseded,
)
from listener.application.interfaces import ChainSource, Clock, Contents, Generations
from listener.application.services.follower import Follower
from listener.domain.facts import BlockFacts, Fact, MarketAnnounced
from listener.domain.value_objects import BlockRef, MarketId

SLICE: Final = 50
"""Markets compared at one head."""
TRIES: Final = 20
RETRY_S: Final = 0.5


class OrphanedHead(ListenerError):
    """The stored head is not on the node's chain, and nobody rolls it back."""


class Difference(NamedTuple):
    """A piece of a market's data as it is stored, and as the chain says; None: there is none."""

    market: MarketId
    piece: str
    stored: object
    right: object


async def resync(follower: Follower, generations: Generations, clock: Clock) -> int:
    """Load the chain to its tip beside the live data and switch over; the number of the new head.

    Args:
        follower: writes to the generation beside the live one.
        generations: both.
        clock: for numbers that only grow.

    Raises:
        Superseded: the live head moved at every try to switch.
    """
    try:
        await follower.catch_up()
    except (ChainRestarted, ReorgTooDeep, SettingsChanged):  # what an earlier attempt left, not ours
        await generations.clear()
        follower.forget()
    for _ in range(TRIES - 1):
        await follower.catch_up()
        live = await generations.head()
        if live is not None and live.number > follower.state.head.number:
            continue
        try:
            return (await generations.switch(clock.now())).number
        except Superseded:
            continue
    await follower.catch_up()
    return (await generations.switch(clock.now())).number


async def verify(
    follower: Follower,
    chain: ChainSource,
    generations: Generations,
    clock: Clock,
    markets: Iterable[MarketId] | None,
) -> AsyncIterator[Sequence[Difference]]:
    """Load the chain beside the live data and compare, a slice of markets at a time.

    The live data may move on meanwhile: each slice is compared at the head at which it was read.

    Args:
        follower: writes to the generation beside the live one.
        chain: to find the live head's place.
        generations: both.
        clock: to wait for a rollback that is under way.
        markets: those to compare; None: all.

    Raises:
        InvalidConfiguration: there is no live data.
        OrphanedHead: it cannot be compared, because its head is not on the chain.
    """
    if await generations.head() is None:
        raise InvalidConfiguration("there is nothing to verify: the stream is not in Redis")
    wanted = sorted(markets if markets is not None else await generations.markets(live=True))
    for start in range(0, max(len(wanted), 1), SLICE):
        part = wanted[start : start + SLICE]
        yield await _compare(follower, chain, generations, clock, part)
    if markets is None:
        await follower.catch_up()
        missing = await generations.markets(live=False) - await generations.markets(live=True)
        if missing:
            yield await _compare(follower, chain, generations, clock, sorted(missing)[:SLICE])


async def _compare(
    follower: Follower,
    chain: ChainSource,
    generations: Generations,
    clock: Clock,
    markets: Sequence[MarketId],
) -> Sequence[Difference]:
    """One slice, at one head."""
    for _ in range(TRIES):
        head, stored = await generations.contents(markets, live=True)
        block = await chain.block(head.number)
        if block.hash != head.hash:
            await clock.sleep(RETRY_S)
            continue
        try:
            await follower.load_to(block, head.as_of)
        except InconsistentReply:
            continue
        _, right = await generations.contents(markets, live=False)
        return [*differences(stored, right)]
    raise OrphanedHead(f"the stored head {head.number} {head.hash} is not on the node's chain")


def differences(
    stored: Mapping[MarketId, Contents], right: Mapping[MarketId, Contents]
) -> Iterable[Difference]:
    """Pieces that are not the same, by market and name."""
    for market in sorted({*stored, *right}):
        here, there = stored.get(market, {}), right.get(market, {})
        for piece in sorted({*here, *there}):
            if here.get(piece) != there.get(piece):
                yield Difference(market, piece, here.get(piece), there.get(piece))


class OneMarket:
    """A `ChainSource` that shows one market's events only: verifying it needs no others.

    Args:
        chain: the whole.
        market: its id.
        emitter: whose events count as the market's.
    """

    def __init__(self, chain: ChainSource, market: MarketId, emitter: str) -> None:
        self._chain = chain
        self._market = market
        self._emitter = emitter
        self.identity = chain.identity
        self.tip = chain.tip
        self.finalized = chain.finalized
        self.block = chain.block
        self.tokens = chain.tokens
        self.deployment_block = chain.deployment_block

    async def facts(self, block: BlockRef) -> BlockFacts:
        """See `ChainSource.facts`."""
        return self._only(await self._chain.facts(block))

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """See `ChainSource.facts_between`."""
        return [self._only(facts) for facts in await self._chain.facts_between(first, last)]

    def _only(self, block: BlockFacts) -> BlockFacts:
        return block._replace(facts=tuple(fact for fact in block.facts if self._concerns(fact)))

    def _concerns(self, fact: Fact) -> bool:
        if isinstance(fact, MarketAnnounced):
            return fact.market == self._market
        return fact.source == self._emitter

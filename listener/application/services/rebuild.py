"""Loading the chain anew beside the live data: to put it in its place, or to compare.

One head cannot commit backwards, and stored candles cannot change their meaning. So a lower first block,
other settings or a damaged store are answered by a second generation, which readers do not see until it is
complete.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, TypeVar

from listener.application.changes import Head
from listener.application.errors import (
    ChainRestarted,
    InterruptedReset,
    InvalidConfiguration,
    OrphanedHead,
    ReorgTooDeep,
    SettingsChanged,
    Superseded,
    TornData,
)
from listener.application.history import History
from listener.application.interfaces import ChainSource, Clock, Contents, Generations, Observer
from listener.application.services.follower import Follower
from listener.application.services.supervisor import keep_running
from listener.domain.facts import BlockFacts, Fact, MarketAnnounced
from listener.domain.value_objects import BlockRef, MarketId

T = TypeVar("T")

SLICE: Final = 50
"""Markets compared at one head."""
TRIES: Final = 20
RETRY_S: Final = 0.5
LOOKS: Final = 3
SETTLE_S: Final = 1.0
"""A difference is one if it is found so many times, so long apart."""


class Difference(NamedTuple):
    """A piece of a market's data as it is stored, and as the chain says; None: there is none."""

    market: MarketId
    piece: str
    stored: object
    right: object


class Rebuilder:
    """Fills a generation beside the live one. What passes is waited out, as in the service.

    Args:
        follower: writes to the generation beside the live one.
        chain: to find the live head's place.
        generations: both.
        clock: to wait, and for numbers that only grow.
        observer: told of what is waited out.
    """

    def __init__(
        self,
        *,
        follower: Follower,
        chain: ChainSource,
        generations: Generations,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._follower = follower
        self._chain = chain
        self._generations = generations
        self._clock = clock
        self._observer = observer

    async def clear(self) -> None:
        """Remove the generation beside the live one."""
        await self._steadily(self._generations.clear)

    async def resync(self) -> int:
        """Load the chain to its tip beside the live data and switch over; the number of the new head.

        Raises:
            Superseded: the live head moved at every try to switch.
        """
        try:
            await self._approach()
        except (ChainRestarted, InterruptedReset, ReorgTooDeep, SettingsChanged, TornData):
            await self._begin_anew()  # what an earlier attempt left
        for _ in range(TRIES - 1):
            in_step = await self._approach()
            live = await self._steadily(self._generations.head)
            if live is not None and live.number > self._follower.state.head.number:
                await self._clock.sleep(RETRY_S)
                continue
            with suppress(Superseded):
                return await self._switch(in_step=in_step)
        return await self._switch(in_step=await self._approach())

    async def _approach(self) -> bool:
        """Load to the node's tip; where alert rules watch the stream, to the live head, and say so.

        Alerts are raised by the service alone. If it goes on at the very block at which it was, none of their
        blocks is left out, and none comes twice.
        """
        watched = await self._steadily(self._generations.watched)
        live = await self._steadily(self._generations.head) if watched else None
        if live is not None:
            with suppress(OrphanedHead):
                await self._steadily(partial(self._reach, live))
                return True
        await self._steadily(self._follower.catch_up)
        return False

    async def _reach(self, live: Head) -> None:
        """Load to a block of the live data; what an earlier attempt has left beyond it goes.

        Raises:
            OrphanedHead: it is not on the node's chain.
        """
        if (await self._chain.tip()).number < live.number:
            raise OrphanedHead(f"the node has no block {live.number}")
        try:
            await self._load_to(live)
        except OrphanedHead:
            if (await self._chain.block(live.number)).hash != live.hash:
                raise
            await self._begin_anew()
            await self._load_to(live)

    async def _begin_anew(self) -> None:
        await self.clear()
        self._follower.forget()

    async def _switch(self, *, in_step: bool) -> int:
        switch = partial(self._generations.switch, self._clock.now(), in_step=in_step)
        return (await self._steadily(switch)).number

    async def verify(self, markets: Iterable[MarketId] | None) -> AsyncIterator[Sequence[Difference]]:
        """Load the chain beside the live data and compare, a slice of markets at a time.

        The live data may move on meanwhile: each slice is compared at the head at which it was read.

        Args:
            markets: those to compare; None: all.

        Raises:
            InvalidConfiguration: there is no live data.
            OrphanedHead: it cannot be compared, because its head is not on the chain.
        """
        if await self._steadily(self._generations.head) is None:
            raise InvalidConfiguration("there is nothing to verify: the stream is not in Redis")
        wanted = sorted(markets if markets is not None else await self._markets(live=True))
        for start in range(0, max(len(wanted), 1), SLICE):
            yield await self._certain(wanted[start : start + SLICE])
        if markets is None:
            missing = sorted(await self._markets(live=False) - await self._markets(live=True))
            for start in range(0, len(missing), SLICE):
                yield await self._certain(missing[start : start + SLICE])

    async def _certain(self, markets: Sequence[MarketId]) -> Sequence[Difference]:
        """Differences that stay: figures that roll off follow a block by a moment."""
        found = await self._compare(markets)
        for _ in range(LOOKS - 1):
            if not found:
                break
            await self._clock.sleep(SETTLE_S)
            seen = {(difference.market, difference.piece) for difference in found}
            again = await self._compare(sorted({difference.market for difference in found}))
            found = [difference for difference in again if (difference.market, difference.piece) in seen]
        return found

    async def _compare(self, markets: Sequence[MarketId]) -> Sequence[Difference]:
        """One slice, at one head."""
        attempt = 0
        while True:
            attempt += 1
            head, stored = await self._contents(markets, live=True)
            try:
                await self._steadily(partial(self._load_to, head))
            except OrphanedHead:
                if attempt == TRIES:
                    raise
                await self._clock.sleep(RETRY_S)
                continue
            _, right = await self._contents(markets, live=False)
            return [*differences(stored, right)]

    async def _load_to(self, head: Head) -> None:
        block = await self._chain.block(head.number)
        if block.hash != head.hash:
            raise OrphanedHead(f"the stored head {head.number} {head.hash} is not on the node's chain")
        await self._follower.load_to(block, head.as_of)

    async def _markets(self, *, live: bool) -> set[MarketId]:
        return await self._steadily(partial(self._generations.markets, live=live))

    async def _contents(
        self, markets: Sequence[MarketId], *, live: bool
    ) -> tuple[Head, Mapping[MarketId, Contents]]:
        return await self._steadily(partial(self._generations.contents, markets, live=live))

    async def _steadily(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again while it fails by what passes."""
        results: list[T] = []

        async def attempt() -> None:
            results.append(await work())

        await keep_running(attempt, self._clock, self._observer)
        return results[0]


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

    async def history(self, first: int, last: int) -> History:
        """See `ChainSource.history`. All trades one by one."""
        history = await self._chain.history(first, last)
        emitters = history.trades.emitters() if history.trades else ()
        ours = {emitter for emitter in emitters if emitter.source == self._emitter}
        return History([self._only(block) for block in history.with_swaps(ours)])

    def _only(self, block: BlockFacts) -> BlockFacts:
        return block._replace(facts=tuple(fact for fact in block.facts if self._concerns(fact)))

    def _concerns(self, fact: Fact) -> bool:
        if isinstance(fact, MarketAnnounced):
            return fact.market == self._market
        return fact.source == self._emitter

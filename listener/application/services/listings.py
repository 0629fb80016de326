"""What listing services ask: the newest queryable block, assets, pairs, and events of ranges."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from listener.application.errors import BlockNotFinal, NodeSlow
from listener.application.interfaces import Clock
from listener.application.listing import (
    Asset,
    Coverage,
    ListedBlock,
    ListingChain,
    ListingStore,
    Pair,
)
from listener.application.rules import Rules
from listener.application.services.listing_reader import ListingReader
from listener.domain.entities import Market
from listener.domain.errors import InvalidValue
from listener.domain.facts import MarketAnnounced
from listener.domain.value_objects import ZERO_ADDRESS, Address, MarketId, format_units

BLOCKS_MAX: Final = 1_000
"""Blocks in one answer."""
EVENTS_MAX: Final = 10_000
"""Events in one answer of more than one block: about 5 MB, and 50 ms of the gateway's loop."""
BLOCKS_TOGETHER: Final = 100
"""Blocks read at once."""
SUPPLY_AGE_S: Final = 60.0
SUPPLIES_KEPT: Final = 10_000
"""Tokens whose supply is remembered."""
PAIRS_KEPT: Final = 10_000
"""Pairs that are remembered: they never change."""


@dataclass(frozen=True, slots=True)
class NodeBounds:
    """How much of the node readers may take.

    Attributes:
        at_once: answers that ask it at the same time.
        wait_s: how long one may take, waiting for its turn included.
    """

    at_once: int = 2
    wait_s: float = 30.0


class Listings:
    """Answers from what is recorded, and from the node where that is not enough.

    Args:
        store: markets and recorded events.
        chain: the node.
        reader: gives events from the node.
        rules: what is known of the chain's own coin.
        clock: to tell the age of a supply.
        bounds: of questions to the node.
    """

    def __init__(
        self,
        store: ListingStore,
        chain: ListingChain,
        reader: ListingReader,
        rules: Rules,
        clock: Clock,
        bounds: NodeBounds | None = None,
    ) -> None:
        self._store = store
        self._chain = chain
        self._reader = reader
        self._rules = rules
        self._clock = clock
        self._bounds = bounds or NodeBounds()
        self._turns = asyncio.Semaphore(self._bounds.at_once)
        self._newest: Coverage | None = None
        self._pairs: dict[str, Pair] = {}
        self._supplies: dict[Address, tuple[float, int | None]] = {}

    async def latest(self) -> ListedBlock:
        """The newest block that is final and can be asked for; it never goes back.

        Raises:
            BlockNotFinal: nothing is recorded yet.
        """
        stored = await self._store.coverage()
        if stored is not None and (self._newest is None or stored.last > self._newest.last):
            self._newest = stored
        if self._newest is None:
            raise BlockNotFinal("no final block is recorded yet")
        return ListedBlock(self._newest.last, self._newest.time_s, ())

    async def events(self, first: int, last: int) -> list[ListedBlock]:
        """Events of blocks `first` to `last`, both included, ascending; blocks without any are left out.

        Raises:
            InvalidValue: the range is not one, or holds too much.
            BlockNotFinal: its end is above the newest queryable block.
        """
        if not first <= last < first + BLOCKS_MAX:
            raise InvalidValue(f"fromBlock and toBlock: ascending, at most {BLOCKS_MAX} blocks")
        if last > (newest := await self.latest()).number:
            raise BlockNotFinal(f"block {last} was asked for, {newest.number} is the newest final one")
        found: list[ListedBlock] = []
        events = 0
        for start in range(first, last + 1, BLOCKS_TOGETHER):
            part = await self._events(start, min(last, start + BLOCKS_TOGETHER - 1))
            events += sum(len(block.events) for block in part)
            if events > EVENTS_MAX and first < last:
                raise InvalidValue(f"more than {EVENTS_MAX} events: ask for fewer blocks")
            found += part
        return found

    async def _events(self, first: int, last: int) -> Sequence[ListedBlock]:
        recorded = await self._store.recorded(first, last)
        if recorded is not None:
            return recorded
        async with self._turn():
            return (await self._reader.read(first, last)).blocks

    async def asset(self, name: str) -> Asset | None:
        """A market's base token, or the chain's own coin by the zero address; None: neither."""
        token = name.lower()
        if token == ZERO_ADDRESS:
            symbol = self._rules.native_symbol
            return Asset(ZERO_ADDRESS, symbol, symbol, self._rules.native_decimals, "")
        market = (await self._store.markets((), (token,))).get(MarketId(token))
        if market is None:
            return None
        supply = await self._supply(market.token)
        return Asset(
            id=self._chain.shown(market.token),
            name=market.name or market.id,
            symbol=market.symbol or market.id,
            decimals=market.base_decimals,
            supply="" if supply is None else format_units(supply, market.base_decimals),
        )

    async def _supply(self, token: Address) -> int | None:
        """Total supply, as it was a minute ago at most."""
        now = self._clock.monotonic()
        known = self._supplies.get(token)
        if known is None or now >= known[0]:
            async with self._turn():
                known = now + SUPPLY_AGE_S, await self._chain.supply(token)
            if len(self._supplies) >= SUPPLIES_KEPT:
                self._supplies.clear()
            self._supplies[token] = known
        return known[1]

    async def pair(self, name: str) -> Pair | None:
        """A market, by its pool; None: there is none in final blocks.

        Raises:
            BlockNotFinal: nothing is recorded yet.
        """
        pool = name.lower()
        if pool not in self._pairs:
            market = next(iter((await self._store.markets((pool,), ())).values()), None)
            if market is None or market.created_block > (await self.latest()).number:
                return None
            async with self._turn():
                pair = await self._pair(market)
            if len(self._pairs) >= PAIRS_KEPT:
                self._pairs.clear()
            self._pairs[pool] = pair
        return self._pairs[pool]

    async def _pair(self, market: Market) -> Pair:
        """What the node has to say of a market besides its record."""
        shown, number = self._chain.shown, market.created_block
        (located, *_), terms = (
            await self._chain.blocks(number, number),
            (await self._reader.terms([market.source]))[market.source],
        )
        announced = (
            fact.tx_hash
            for fact in located.facts
            if isinstance(fact, MarketAnnounced) and fact.source == market.source
        )
        return Pair(
            id=shown(market.source),
            dex=market.venue,
            asset0=shown(market.token),
            asset1=shown(market.quote),
            block=number,
            time_s=market.created_at // 1000,
            txn_id=next(announced, ""),
            creator=shown(market.creator),
            fee_bps=terms.fee_bps,
        )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A turn at the node.

        Raises:
            NodeSlow: it did not come, or took too long.
        """
        try:
            async with asyncio.timeout(self._bounds.wait_s), self._turns:
                yield
        except TimeoutError as error:
            raise NodeSlow(f"no turn at the node, or no answer, in {self._bounds.wait_s:g} s") from error

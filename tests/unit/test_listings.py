"""What listing services are answered when Redis, the node or they themselves are not as usual."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed

import pytest

from listener.application.errors import BlockNotFinal, NodeSlow, NodeUnavailable
from listener.application.listing import Coverage, ListedBlock, ListedEvent, LocatedFacts, PoolTerms
from listener.application.services import listings
from listener.application.services.listing_reader import ListingReader
from listener.application.services.listings import (
    BLOCKS_MAX,
    BLOCKS_TOGETHER,
    EVENTS_MAX,
    SUPPLY_AGE_S,
    Listings,
    NodeBounds,
)
from listener.domain.entities import Market
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import ZERO_ADDRESS, Address, MarketId
from tests.fakes.build import created, curve, market, rules, swap, token
from tests.fakes.clock import FakeClock
from tests.fakes.listing import FakeListingChain, FakeRecords

EVENT = ListedEvent("buy", 0, 0, "0x", "0x", "0x", "1", "1", "1", None)


@dataclass
class Store(FakeRecords):
    """Recorded blocks with one event each.

    Attributes:
        reads: ranges that were asked for.
        each: events in a block.
    """

    reads: list[tuple[int, int]] = field(default_factory=list)
    each: int = 1

    async def recorded(self, first: int, last: int) -> Sequence[ListedBlock] | None:
        """See `ListingStore.recorded`."""
        self.reads.append((first, last))
        if self.stored is None or first < self.stored.first:
            return None
        return [ListedBlock(number, number, [EVENT] * self.each) for number in range(first, last + 1)]


@dataclass
class Node(FakeListingChain):
    """A node whose contracts answer.

    Attributes:
        supplies: what is answered, one after the other; None: the token does not say.
        gate: it answers when this is set.
    """

    supplies: list[int | None] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def supply(self, token: Address) -> int | None:  # noqa: ARG002 - of the port
        """See `ListingChain.supply`."""
        await self.gate.wait()
        if not self.supplies:
            raise NodeUnavailable("away")
        return self.supplies.pop(0)

    async def terms(self, pools: Sequence[str]) -> Sequence[PoolTerms]:
        """See `ListingChain.terms`."""
        await self.gate.wait()
        return [PoolTerms(30) for _ in await super().terms(pools)]


class World:
    """Answers, and what they are made of."""

    def __init__(self, bounds: NodeBounds | None = None) -> None:
        self.store, self.node, self.clock = Store(stored=Coverage(100, 2_000, "0x", 7)), Node(), FakeClock()
        self.node.gate.set()
        self.node.chain.mine(created(0), swap(0))
        self.node.chain.mine_empty(150)
        reader = ListingReader(self.node, self.store, rules())
        self.listings = Listings(self.store, self.node, reader, rules(), self.clock, bounds)


@pytest.fixture
def world() -> World:
    """Blocks 100…2,000 are recorded."""
    return World()


async def test_the_newest_block_never_goes_back(world: World) -> None:
    """Not even where Redis does: what was told stays queryable."""
    assert (await world.listings.latest())[:2] == (2_000, 7)
    world.store.stored = Coverage(100, 1_990, "0x", 6)
    assert (await world.listings.latest()).number == 2_000
    world.store.stored = None
    assert (await world.listings.latest()).number == 2_000
    world.store.stored = Coverage(100, 2_001, "0x", 8)
    assert (await world.listings.latest())[:2] == (2_001, 8)


async def test_nothing_is_told_before_anything_is_recorded(world: World) -> None:
    """Neither the newest block nor events."""
    world.store.stored = None
    with pytest.raises(BlockNotFinal):
        await world.listings.latest()
    with pytest.raises(BlockNotFinal):
        await world.listings.events(1, 1)


async def test_ranges_are_read_piece_by_piece(world: World) -> None:
    """What is recorded from Redis, what lies before from the node, each block once and in order."""
    blocks = await world.listings.events(0, 349)
    assert [block.number for block in blocks] == [1, *range(100, 350)]
    assert all(last - first < BLOCKS_TOGETHER for first, last in world.store.reads)
    assert world.node.asked == [(0, 99)]
    assert [block.number for block in await world.listings.events(349, 349)] == [349]


@pytest.mark.parametrize(("first", "last"), [(5, 4), (0, BLOCKS_MAX), (1, 10**9)])
async def test_ranges_that_are_none_are_refused(world: World, first: int, last: int) -> None:
    """Backwards, or too wide."""
    with pytest.raises(InvalidValue, match="fromBlock"):
        await world.listings.events(first, last)


async def test_the_widest_range_and_the_newest_block(world: World) -> None:
    """Both ends count; one block more is not final yet."""
    assert len(await world.listings.events(1_001, 2_000)) == BLOCKS_MAX
    with pytest.raises(BlockNotFinal, match="2001"):
        await world.listings.events(1_500, 2_001)


async def test_too_many_events_are_refused_but_for_a_single_block(world: World) -> None:
    """Else a service could never get beyond that block."""
    world.store.each = EVENTS_MAX // 2 + 1
    with pytest.raises(InvalidValue, match="fewer blocks"):
        await world.listings.events(200, 201)
    world.store.each = EVENTS_MAX + 1
    assert len((await world.listings.events(200, 200))[0].events) == EVENTS_MAX + 1


async def test_supplies_are_a_minute_old_at_most(world: World) -> None:
    """One question a minute, whoever asks; a token that does not say has none."""
    world.node.supplies = [5 * 10**18, None]
    for _ in range(2):
        asset = await world.listings.asset(token(0).upper().replace("0X", "0x"))
        assert asset
        assert (asset.id, asset.supply, asset.decimals) == (token(0), "5", 18)
    world.clock.pass_ms(int(SUPPLY_AGE_S * 1000))
    asset = await world.listings.asset(token(0))
    assert asset
    assert asset.supply == ""
    world.clock.pass_ms(int(SUPPLY_AGE_S * 1000))
    with pytest.raises(NodeUnavailable):
        await world.listings.asset(token(0))


async def test_assets_that_are_no_market(world: World) -> None:
    """The chain's own coin is one, a stranger's address is none; neither costs the node a question."""
    coin = await world.listings.asset(ZERO_ADDRESS)
    assert coin
    assert (coin.name, coin.symbol, coin.decimals, coin.supply) == ("ETH", "ETH", 18, "")
    assert await world.listings.asset("0x" + "9" * 40) is None
    assert await world.listings.pair("0x" + "9" * 40) is None
    assert world.node.asked == []


async def test_names_are_never_empty(world: World) -> None:
    """A service stops at an empty name: the id stands in."""
    world.node.supplies = [1]
    known = dict(await world.store.markets([curve(0)], ()))
    nameless = {one: changed(market, name="", symbol="") for one, market in known.items()}

    async def markets(*_: object) -> object:
        return nameless

    world.store.markets = markets  # type: ignore[method-assign, assignment]
    asset = await world.listings.asset(token(0))
    assert asset
    assert asset.name == asset.symbol == token(0)


async def test_a_pair_is_asked_for_once(world: World) -> None:
    """It never changes. Its transaction is the announcement's."""
    for _ in range(2):
        pair = await world.listings.pair(curve(0))
        assert pair
        assert (pair.id, pair.asset0, pair.asset1, pair.fee_bps) == (curve(0), token(0), ZERO_ADDRESS, 30)
        assert pair.txn_id == world.node.chain.blocks[1].facts[0].tx_hash
    assert world.node.asked == [(1, 1)]


async def test_a_pair_that_may_still_vanish_is_none(world: World) -> None:
    """A reorg could give it another transaction, and nobody asks for a pair twice."""
    world.store.stored = Coverage(0, 0, "0x", 0)
    assert await world.listings.pair(curve(0)) is None
    world.store.stored = Coverage(0, 1, "0x", 0)
    assert await world.listings.pair(curve(0))


async def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many supplies and pairs, those of before are asked for anew."""
    for bound in ("SUPPLIES_KEPT", "PAIRS_KEPT"):
        monkeypatch.setattr(listings, bound, 1)
    other = market(1, created_block=1)
    known = {token(0): market(0, created_block=1), token(1): other}

    async def markets(pools: Iterable[str], ids: Iterable[str]) -> Mapping[MarketId, Market]:
        wanted = {*pools, *ids}
        return {s: one for s, one in known.items() if wanted & {s, one.source}}

    world.store.markets = markets  # type: ignore[method-assign]
    world.node.supplies = [1, 2, 3]
    for number in (0, 1, 0):
        assert await world.listings.asset(token(number))
        assert await world.listings.pair(curve(number))
    assert world.node.supplies == []
    assert world.node.asked == [(1, 1)] * 3


async def test_the_node_is_asked_by_so_many_at_once() -> None:
    """Who waits for a turn too long, or for an answer, is told to come again; then the turn is free."""
    world = World(NodeBounds(at_once=1, wait_s=0.05))
    world.node.supplies = [1, 1]
    world.node.gate.clear()
    outcomes = await asyncio.gather(
        world.listings.asset(token(0)), world.listings.pair(curve(0)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [NodeSlow, NodeSlow]
    world.node.gate.set()
    assert await world.listings.asset(token(0))


async def test_a_range_that_is_away_is_an_error(world: World) -> None:
    """Never an empty answer: a service asks for each block once."""

    async def blocks(first: int, last: int) -> Sequence[LocatedFacts]:
        raise NodeUnavailable(f"{first}, {last}")

    world.node.blocks = blocks  # type: ignore[method-assign]
    with pytest.raises(NodeUnavailable):
        await world.listings.events(50, 150)

"""Loading the chain anew beside the live data, on a scripted chain and stores in memory."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import Head
from listener.application.errors import (
    InvalidConfiguration,
    NodeUnavailable,
    OrphanedHead,
    StoreUnavailable,
    Superseded,
    WrongChain,
)
from listener.application.interfaces import ChainSource, Contents
from listener.application.rules import Finality
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import Follower, FollowerLimits
from listener.application.services.rebuild import (
    LOOKS,
    RETRY_S,
    SETTLE_S,
    SLICE,
    TRIES,
    Difference,
    OneMarket,
    Rebuilder,
    differences,
)
from listener.domain.value_objects import Address, MarketId
from tests.fakes.build import (
    CHAIN_ID,
    FACTORY,
    MONDAY_MS,
    created,
    curve,
    graduate,
    malformed,
    rules,
    swap,
    token,
    token_info,
)
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import FakeClock, FakeHints, FakeSignal
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer, finish
from tests.simulation.alerts import RULES, rule_of

BY = rules("5m", "1d", finality=Finality(4))


class FakeGenerations:
    """`Generations` on two stores.

    Attributes:
        refusals: so many switches to come find that the live head has moved.
        meanwhile: called before a switch, or before the contents of a generation are read.
        switched: floors of the switches that were tried.
        cleared: how often the generation beside was removed.
    """

    def __init__(self, live: FakeStore) -> None:
        self.live = live
        self.beside = FakeStore(BY)
        self.refusals = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.switched: list[int] = []
        self.cleared = 0
        self.read: list[tuple[bool, int]] = []

    def _store(self, *, live: bool) -> FakeStore:
        return self.live if live else self.beside

    async def head(self) -> Head | None:
        """See `Generations.head`."""
        return self.live.committed

    async def markets(self, *, live: bool) -> set[MarketId]:
        """See `Generations.markets`."""
        return set(self._store(live=live).markets)

    async def contents(
        self, markets: Sequence[MarketId], *, live: bool
    ) -> tuple[Head, Mapping[MarketId, Contents]]:
        """See `Generations.contents`."""
        if live:
            self.meanwhile()
        self.read.append((live, len(markets)))
        store = self._store(live=live)
        return await store.head(), {market: self._of(store, market) for market in markets}

    def _of(self, store: FakeStore, market: MarketId) -> Contents:
        found: dict[str, object] = {
            f"candle {interval} {time}": candle
            for (owner, interval), candles in store.series.items()
            for time, candle in candles.items()
            if owner == market
        }
        pieces = {"record": store.markets.get(market), "24 h": store.figures.get(market)}
        return found | {name: piece for name, piece in pieces.items() if piece is not None}

    async def clear(self) -> None:
        """See `Generations.clear`."""
        self.cleared += 1
        self.beside.__init__(BY)  # type: ignore[misc]

    async def watched(self) -> bool:
        """See `Generations.watched`."""
        return bool(self.live.alert_rules)

    async def switch(self, floor: int, *, in_step: bool = False) -> Head:
        """See `Generations.switch`."""
        self.meanwhile()
        self.switched.append(floor)
        if in_step and self.live.committed and self.live.committed.hash != (await self.beside.head()).hash:
            raise Superseded("the live head has moved on")
        if self.refusals:
            self.refusals -= 1
            raise Superseded("the live head moved")
        return await self.beside.head()


class World:
    """A chain, live data, and a generation beside it."""

    def __init__(self) -> None:
        self.chain = LocalChain()
        self.node = FakeChain(self.chain)
        self.clock = FakeClock(MONDAY_MS)
        self.live = FakeStore(BY)
        self.generations = FakeGenerations(self.live)
        self.observer = RecordingObserver()
        self.service = self.follower(self.live)

    def follower(
        self, store: FakeStore, chain: ChainSource | None = None, fingerprint: Mapping[str, str] | None = None
    ) -> Follower:
        """One that writes to a store."""
        return Follower(
            chain=chain or self.node,
            hints=FakeHints(),
            store=store,
            clock=self.clock,
            observer=RecordingObserver(),
            signal=FakeSignal(),
            audit_wanted=FakeSignal(),
            rules=BY,
            limits=FollowerLimits(1, FetchLimits(100), 100, 100),
            chain_id=CHAIN_ID,
            start=1,
            fingerprint=fingerprint or {},
            tell_backend=store is self.live,
        )

    def beside(self, **changes: Any) -> Follower:
        """The follower of the other generation."""
        return self.follower(self.generations.beside, **changes)

    async def serve(self) -> None:
        """The running service follows to the tip."""
        await self.service.catch_up()

    async def live_writes(self) -> None:
        """The service commits one more block."""
        writer = Writer(self.chain, self.live, BY)
        stored = await self.live.load()
        assert stored
        writer._state = stored.state
        self.chain.mine(swap(0, 1, 78))
        await writer.follow()

    def rebuilder(self, follower: Follower | None = None, chain: ChainSource | None = None) -> Rebuilder:
        """What loads anew beside the live data."""
        return Rebuilder(
            follower=follower or self.beside(chain=chain),
            chain=chain or self.node,
            generations=self.generations,
            clock=self.clock,
            observer=self.observer,
        )

    async def resync(self, follower: Follower | None = None) -> int:
        """Load anew and switch."""
        return await self.rebuilder(follower).resync()

    async def verify(
        self, markets: Collection[MarketId] | None = None, chain: ChainSource | None = None
    ) -> list[Sequence[Difference]]:
        """Slices of differences."""
        return [part async for part in self.rebuilder(chain=chain).verify(markets)]


@pytest.fixture
async def world() -> World:
    """Two markets that trade, and a service that has followed them."""
    made = World()
    made.chain.mine(created(0), swap(0, 1, 5), created(1))
    for number in range(8):
        made.chain.mine(swap(0, 1, number + 1), swap(1, 1, number + 2))
    await made.serve()
    return made


async def test_all_is_loaded_and_switched(world: World) -> None:
    """At the node's tip the new generation is put in place, above the wall clock's numbers."""
    assert await world.resync() == world.chain.tip.number
    assert world.generations.switched == [world.clock.time]
    assert world.generations.beside.contents() == world.live.contents()
    assert world.generations.cleared == 0


async def test_without_live_data_it_is_switched_too(world: World) -> None:
    """Then it is the first generation."""
    world.live.committed = None
    assert await world.resync() == world.chain.tip.number


async def test_it_goes_on_where_an_attempt_was_broken_off(world: World) -> None:
    """What an earlier attempt has loaded is not loaded again."""
    await world.beside().catch_up()
    world.chain.mine(swap(0, 1, 9))
    world.node.calls.clear()
    assert await world.resync() == world.chain.tip.number
    assert [call[1] for call in world.node.calls if call[0] == "facts"] == [world.chain.tip.number]
    assert [call for call in world.node.calls if call[0] == "facts_between"] == []


@pytest.mark.parametrize("left_by", ["another chain", "other settings", "a fork too deep"])
async def test_what_does_not_fit_is_removed(world: World, left_by: str) -> None:
    """What an attempt under other circumstances left is no obstacle: it is cleared, and all loaded."""
    other = World()
    other.generations = world.generations
    if left_by == "another chain":
        other.chain = LocalChain(salt="another")
        other.chain.mine_empty(3)
        other.node.chain = other.chain
        await other.beside().catch_up()
    elif left_by == "other settings":
        await world.beside(fingerprint={"FROM": "5"}).catch_up()
    else:
        await world.beside().catch_up()
        world.chain.fork(7)
        world.chain.mine_empty(9)
    follower = world.beside(fingerprint={"FROM": "1"} if left_by == "other settings" else {})
    assert await world.resync(follower) == world.chain.tip.number
    assert world.generations.cleared == 1
    assert world.generations.beside.committed is not None
    assert world.generations.beside.committed.hash == world.chain.tip.hash


async def test_it_does_not_switch_backwards(world: World) -> None:
    """While the live data is ahead, it follows on instead of taking blocks away from readers."""
    world.node.behind = 1
    tries = 0

    def catch_up() -> None:
        world.node.behind = 0

    heads = world.generations.head

    async def head() -> Head | None:
        nonlocal tries
        tries += 1
        if tries == 3:
            catch_up()
        return await heads()

    world.generations.head = head  # type: ignore[method-assign]
    assert await world.resync() == world.chain.tip.number
    assert len(world.generations.switched) == 1
    assert tries == 4


async def test_a_live_head_that_moves_is_caught_up_with(world: World) -> None:
    """A commit of the running service between two steps: the switch is tried again, at the new tip."""
    world.generations.refusals = 2
    world.generations.meanwhile = lambda: world.chain.mine(swap(0)) if world.generations.refusals else None
    assert await world.resync() == world.chain.tip.number
    assert len(world.generations.switched) == 3


async def test_a_live_head_that_never_rests_is_an_error(world: World) -> None:
    """After so many tries it is given up, and can be begun again."""
    world.generations.refusals = TRIES
    with pytest.raises(Superseded):
        await world.resync()
    assert len(world.generations.switched) == TRIES
    assert await world.resync() == world.chain.tip.number


@pytest.mark.parametrize("error", [NodeUnavailable("away"), StoreUnavailable("away")])
async def test_what_passes_is_waited_out(world: World, error: Exception) -> None:
    """Nothing is cleared because somebody did not answer: it is told, and tried again."""
    world.node.errors.extend([error, None, error])
    assert await world.resync() == world.chain.tip.number
    assert [told for _, told, _ in world.observer.troubles] == [error, error]
    assert world.generations.cleared == 0
    assert len(world.generations.switched) == 1


@pytest.mark.parametrize("method", ["head", "switch", "markets", "contents"])
async def test_a_store_that_is_away_between_two_steps_is_waited_for(
    world: World, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of loading is not thrown away because one look at the live data found no connection."""
    real = getattr(world.generations, method)
    errors = [StoreUnavailable("no connection")]

    async def away_once(*args: Any, **named: Any) -> object:
        if errors:
            raise errors.pop()
        return await real(*args, **named)

    monkeypatch.setattr(world.generations, method, away_once)
    if method in {"head", "switch"}:
        assert await world.resync() == world.chain.tip.number
    else:
        assert await world.verify() == [[]]


async def test_a_comparison_waits_for_a_node_that_is_away(world: World) -> None:
    """What was read of the live data is kept meanwhile, and compared at its head."""
    error = NodeUnavailable("away")
    world.node.errors.append(error)
    assert await world.verify() == [[]]
    assert [told for _, told, _ in world.observer.troubles] == [error]


async def test_what_does_not_pass_is_for_the_caller(world: World) -> None:
    """A node of another chain is no reason to remove what was loaded, nor to switch to it."""
    await world.beside().catch_up()
    world.chain.chain_id += 1
    with pytest.raises(WrongChain):
        await world.resync()
    assert (world.generations.cleared, world.generations.switched) == (0, [])


async def test_it_may_be_cleared(world: World) -> None:
    """What nobody needs any more is removed; the live data stays."""
    before = world.live.contents()
    await world.beside().catch_up()
    await world.rebuilder().clear()
    assert world.generations.beside.committed is None
    assert world.live.contents() == before


async def test_data_that_is_right_has_no_differences(world: World) -> None:
    """Both generations are read at the same head, and agree in every piece."""
    assert await world.verify() == [[]]
    assert world.generations.read == [(True, 2), (False, 2)]


@pytest.mark.parametrize("damage", ["candle", "missing candle", "surplus candle", "24 h", "record"])
async def test_what_differs_is_named(world: World, damage: str) -> None:
    """The market, the piece, what is stored and what the chain says."""
    series = world.live.series[token(1), "5m"]
    time = max(series)
    right: object = series[time]
    wrong: object = None
    if damage == "candle":
        wrong = series[time] = series[time]._replace(trades=99)
    elif damage == "missing candle":
        del series[time]
    elif damage == "surplus candle":
        time += 300_000
        right, wrong = None, series[max(series)]
        series[time] = series[max(series)]
    elif damage == "24 h":
        right = world.live.figures[token(1)]
        wrong = world.live.figures[token(1)] = world.live.figures[token(0)]
    else:
        right = world.live.markets[token(1)]
        wrong = world.live.markets[token(1)] = replace(world.live.markets[token(1)], name="Other")
    piece = f"candle 5m {time}" if "candle" in damage else damage
    assert await world.verify() == [[Difference(token(1), piece, wrong, right)]]


def as_if_wrong(world: World, wrong_at: Mapping[int, MarketId]) -> None:
    """Live figures of these markets are wrong at these readings, counted from one, and right at others."""
    figures = dict(world.live.figures)
    readings = 0

    def bend() -> None:
        nonlocal readings
        readings += 1
        world.live.figures = dict(figures)
        if readings in wrong_at:
            wrong = wrong_at[readings]
            world.live.figures[wrong] = figures[wrong]._replace(changed_minute=0)

    world.generations.meanwhile = bend


async def test_a_difference_is_looked_at_several_times(world: World) -> None:
    """One that stays is told of once, after some time, and only its market was read again."""
    as_if_wrong(world, dict.fromkeys(range(1, 10), token(1)))
    ((difference,),) = await world.verify()
    assert (difference.market, difference.piece) == (token(1), "24 h")
    assert world.clock.slept == [SETTLE_S] * (LOOKS - 1)
    assert [count for live, count in world.generations.read if live] == [2] + [1] * (LOOKS - 1)


@pytest.mark.parametrize("last", range(1, LOOKS))
async def test_a_difference_that_passes_is_none(world: World, last: int) -> None:
    """Figures roll off a moment after a block: what is right at a later look was never wrong."""
    as_if_wrong(world, dict.fromkeys(range(1, last + 1), token(1)))
    assert await world.verify() == [[]]
    assert world.clock.slept == [SETTLE_S] * last


async def test_another_difference_is_not_the_same(world: World) -> None:
    """What a later look finds anew is not what the first has found: each has to stay."""
    as_if_wrong(world, {1: token(0)})
    candles = world.live.series[token(0), "5m"]
    time = max(candles)
    bend = world.generations.meanwhile

    def bend_another() -> None:
        bend()
        if len(world.clock.slept) == 1:
            candles[time] = candles[time]._replace(trades=99)

    world.generations.meanwhile = bend_another
    assert await world.verify() == [[]]


async def test_a_market_that_is_not_stored_is_named(world: World) -> None:
    """What the live data does not know at all is found in the end, with every piece of it."""
    del world.live.markets[token(1)]
    del world.live.figures[token(1)]
    for name in ("1m", "5m", "1d"):
        del world.live.series[token(1), name]
    first, last = await world.verify()
    assert first == []
    assert {difference.market for difference in last} == {token(1)}
    assert {difference.stored for difference in last} == {None}
    assert {difference.piece.split()[0] for difference in last} == {"record", "24", "candle"}


async def test_a_market_that_the_chain_does_not_know_is_named(world: World) -> None:
    """A stored market that no factory ever announced."""
    world.live.markets[token(7)] = world.live.markets[token(0)]
    ((difference,),) = await world.verify()
    assert difference == Difference(token(7), "record", world.live.markets[token(0)], None)


async def test_many_markets_are_compared_in_slices(world: World) -> None:
    """So many at one head, all of them; the live data may move on between two slices."""
    numbers = range(10, 10 + 2 * SLICE)
    world.chain.tokens.update({Address(token(n)): token_info(n) for n in numbers})
    world.chain.mine(*[maker for n in numbers for maker in (created(n), swap(n))])
    await world.serve()
    parts = 0
    async for part in world.rebuilder().verify(None):
        assert part == []
        parts += 1
        world.chain.mine(swap(0, 1, parts), swap(12, 1, parts), graduate(11))
        world.clock.pass_ms(40_000)
        await world.serve()
    assert parts == 3
    assert [count for live, count in world.generations.read if live] == [SLICE, SLICE, 2]


async def test_only_the_wanted_markets_are_compared(world: World) -> None:
    """Those that were named, and no search for others."""
    del world.live.markets[token(0)]
    assert await world.verify([token(1)]) == [[]]
    assert world.generations.read == [(True, 1), (False, 1)]


async def test_a_stream_without_markets_is_compared() -> None:
    """Nothing is stored of any market: that is right, or all of them are missing."""
    empty = World()
    empty.chain.mine_empty(3)
    await empty.serve()
    assert await empty.verify() == [[]]


async def test_without_live_data_there_is_nothing_to_verify(world: World) -> None:
    """That is a mistake in the call, not a difference."""
    world.live.committed = None
    with pytest.raises(InvalidConfiguration, match="nothing to verify"):
        await world.verify()


async def test_a_rollback_under_way_is_waited_for(world: World) -> None:
    """The live head is not on the chain for a moment: then the service has rolled back, and all agrees."""
    world.chain.fork(2)
    world.chain.mine(swap(0, 1, 77))
    world.chain.mine(swap(0, 1, 78))
    reads = 0

    def roll_back() -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            world.live.__dict__.update(later.__dict__)

    later = FakeStore(BY)
    await world.follower(later).catch_up()
    world.generations.meanwhile = roll_back
    assert await world.verify() == [[]]
    assert world.clock.slept == [RETRY_S] * 2


async def test_a_head_that_nobody_rolls_back_is_an_error(world: World) -> None:
    """The service has stopped at a fork: there is no place of the chain to compare at."""
    world.chain.fork(2)
    world.chain.mine_empty(4)
    with pytest.raises(OrphanedHead, match=world.service.state.head.hash):
        await world.verify()
    assert world.clock.slept == [RETRY_S] * (TRIES - 1)


async def test_a_reorg_between_two_slices_is_followed(world: World) -> None:
    """What was loaded for the last slice is rolled back where the live data was."""
    numbers = range(10, 10 + SLICE)
    world.chain.tokens.update({Address(token(n)): token_info(n) for n in numbers})
    world.chain.mine(*[created(n) for n in numbers])
    await world.serve()
    parts = 0
    async for part in world.rebuilder().verify(None):
        assert part == []
        parts += 1
        world.chain.fork(3)
        world.chain.mine(swap(0, 1, 50), swap(1, 1, 51))
        world.chain.mine(*[created(n) for n in numbers], swap(1, 1, 52))
        world.chain.mine_empty(2)
        await world.serve()
    assert parts >= 2


async def test_a_live_head_below_what_was_loaded_is_read_again(world: World) -> None:
    """The live data went back on its own branch, as while it rolls back: one waits until it comes again."""
    ahead = world.beside()
    await ahead.catch_up()
    target = world.chain.blocks[-3]
    now = await world.live.head()
    low = replace(now, number=target.block.number, hash=target.block.hash, timestamp=target.block.timestamp)
    reads = 0

    def move() -> None:
        nonlocal reads
        reads += 1
        world.live.committed = low if reads < 3 else now

    world.generations.meanwhile = move
    assert [part async for part in world.rebuilder(ahead).verify([token(0)])] == [[]]
    assert reads == 3
    assert world.clock.slept == [RETRY_S] * 2


async def test_live_data_that_lags_behind_can_be_verified(world: World) -> None:
    """The service is stopped, or a block behind, and a market is new since: that is no difference."""
    world.chain.mine(created(2), swap(2))
    assert [difference for part in await world.verify() for difference in part] == []


async def test_a_live_head_that_lags_is_not_asked_for_in_a_hurry(world: World) -> None:
    """Between two looks at a live head that has to come up first there is a pause."""
    ahead = world.beside()
    await ahead.catch_up()
    target = world.chain.blocks[-3]
    world.live.committed = replace(
        await world.live.head(), number=target.block.number, hash=target.block.hash
    )
    with pytest.raises(OrphanedHead):
        async for _ in world.rebuilder(ahead).verify([token(0)]):
            pass
    assert world.clock.slept == [RETRY_S] * (TRIES - 1)


PIECES = st.dictionaries(st.sampled_from(["record", "24 h", "trade 1-2", "candle 1m 0"]), st.integers(0, 2))
DATA = st.dictionaries(st.sampled_from([token(0), token(1), token(2)]), PIECES)


@given(DATA, DATA)
def test_differences_are_all_and_only_those(
    stored: dict[MarketId, dict[str, object]], right: dict[MarketId, dict[str, object]]
) -> None:
    """Putting each difference right makes the stored data the right one; equal data has none."""
    found = list(differences(stored, right))
    for market, piece, wrong, correct in found:
        pieces = stored.setdefault(market, {})
        assert pieces.get(piece) == wrong != correct
        pieces.pop(piece, None)
        if correct is not None:
            pieces[piece] = correct
    assert {m: p for m, p in stored.items() if p} == {m: p for m, p in right.items() if p}
    assert len({(difference.market, difference.piece) for difference in found}) == len(found)
    assert [*differences(right, right)] == []


async def test_one_market_is_loaded_alone(world: World) -> None:
    """Its announcement and its own events; the same data as beside all the others."""
    world.chain.mine(graduate(1), swap(0), malformed(curve(0)), malformed(FACTORY))
    await world.serve()
    one = OneMarket(world.node, token(1), curve(1))
    assert await world.verify([token(1)], chain=one) == [[]]
    assert set(world.generations.beside.markets) == {token(1)}
    sources = {
        fact.source
        for part in ((await one.history(1, 10)).facts(), [await one.facts(world.chain.tip)])
        for block in part
        for fact in block.facts
        if hasattr(fact, "source") and not hasattr(fact, "announcer")
    }
    assert sources == {curve(1)}


async def test_one_market_is_of_the_same_chain(world: World) -> None:
    """Everything but the events is the chain's own."""
    one = OneMarket(world.node, token(1), curve(1))
    world.chain.codes[FACTORY] = 1
    world.node.final = 2
    assert await one.identity() == await world.node.identity()
    assert await one.tip() == world.chain.tip
    assert await one.finalized() == world.chain.blocks[2].block
    assert await one.block(3) == world.chain.blocks[3].block
    assert await one.tokens([Address(token(0))]) == {Address(token(0)): token_info(0)}
    assert await one.deployment_block(FACTORY) == 1


async def test_with_alert_rules_it_switches_where_the_live_head_is(world: World) -> None:
    """Whoever raises alerts leaves no block out and takes none twice, whether the service runs or not."""
    world.live.put_rules(map(rule_of, RULES))
    head = world.chain.tip
    world.chain.mine(swap(0, 1, 77))
    assert await world.resync() == head.number
    assert (await world.generations.beside.head()).hash == head.hash

    def service_goes_on() -> None:
        world.generations.meanwhile = lambda: None
        finish(world.live_writes())

    world.generations.meanwhile = service_goes_on
    assert await world.resync() == world.chain.tip.number
    assert len(world.generations.switched) == 3, "one found that the live head had moved on"


async def test_what_an_attempt_left_beyond_the_live_head_goes(world: World) -> None:
    """A generation that is ahead of the live one is loaded again up to there."""
    follower = world.beside()
    world.chain.mine(swap(0, 1, 77))
    await follower.catch_up()
    world.live.put_rules(map(rule_of, RULES))
    assert await world.resync(follower) == world.chain.tip.number - 1
    assert world.generations.cleared == 1


async def test_where_the_live_head_is_orphaned_the_tip_is_loaded(world: World) -> None:
    """There is no block at which one could go on."""
    world.live.put_rules(map(rule_of, RULES))
    world.chain.fork(6)
    world.chain.mine_empty(7)
    assert await world.resync() == world.chain.tip.number

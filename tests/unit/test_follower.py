"""The follower on a scripted chain, virtual time, and the real store on a Redis in memory."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fakeredis
import orjson
import pytest

from listener.application.errors import (
    ChainRestarted,
    Fatal,
    InconsistentReply,
    ListenerError,
    NodeBehind,
    NodeUnavailable,
    OrphanedHead,
    RangeTooLarge,
    ReorgTooDeep,
    Retryable,
    SettingsChanged,
    StoreUnavailable,
    Superseded,
    WrongChain,
)
from listener.application.interfaces import MarketStore, RowId
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import Follower, FollowerLimits
from listener.application.state import ChangeSet, Finality, Head, Rules
from listener.domain.value_objects import DAY_MS, MINUTE_MS, BlockRef
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, FACTORY, MONDAY_MS, created, graduate, rules, swap, token
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import Done, FakeClock, FakeHints, FakeSignal, Step
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FlakyStore, Outcome

KEYS = Keys(CHAIN_ID)
BY = rules("5m", "1d", finality=Finality(6))
Content = dict[str, Any]


class World:
    """A chain, a Redis, and followers that come and go."""

    def __init__(self, by: Rules = BY) -> None:
        self.redis = fakeredis.FakeAsyncRedis()
        self.database = Database(self.redis)
        self.rules = by
        self.chain = LocalChain()
        self.node = FakeChain(self.chain)
        self.clock = FakeClock(MONDAY_MS)
        self.store = FlakyStore(RedisStore(self.database, KEYS, by, OutboxBounds(100_000, 100_000_000)))
        self.settings: dict[str, Any] = {"start": 1, "fingerprint": {"PRICE_MODE": "execution"}}
        self.limits = FollowerLimits(poll_s=1, fetch=FetchLimits(100), commit_trades=100, cached_markets=100)
        self.follower = self.new_follower()

    def new_follower(self) -> Follower:
        """A follower that remembers nothing: the process was started anew."""
        self.hints = FakeHints()
        self.observer = RecordingObserver()
        self.signal = FakeSignal()
        store: MarketStore = self.store  # type: ignore[assignment]
        usual: dict[str, Any] = {
            "chain": self.node,
            "hints": self.hints,
            "store": store,
            "clock": self.clock,
            "observer": self.observer,
            "signal": self.signal,
            "audit_wanted": FakeSignal(),
            "rules": self.rules,
            "limits": self.limits,
            "chain_id": CHAIN_ID,
            "tell_backend": True,
        }
        self.follower = Follower(**usual | self.settings)
        return self.follower

    async def run(self, *steps: Step) -> None:
        """Follow, take these steps while waiting for hints, and stop."""
        self.hints.then(*steps)
        with pytest.raises(Done):
            await self.follower.run()

    async def fails(self, error: type[ListenerError], match: str | None = None) -> None:
        """Following ends with this error."""
        with pytest.raises(error, match=match):
            await self.follower.run()

    async def settle(self) -> None:
        """Run again after retryable errors, as the supervisor does."""
        while True:
            try:
                await self.run()
            except Retryable:
                continue
            return

    async def dump(self) -> Content:
        """Everything in Redis."""
        found: Content = {}
        for key in sorted([key async for key in self.redis.scan_iter(count=1_000)]):
            kind = await self.redis.type(key)
            name = key.decode()
            if kind == b"hash":
                found[name] = await self.redis.hgetall(key)
            elif kind == b"zset":
                found[name] = await self.redis.zrange(key, 0, -1, withscores=True)
            elif kind == b"list":
                found[name] = await self.redis.lrange(key, 0, -1)
            elif kind == b"stream":
                found[name] = await self.redis.xrange(key)
            else:
                found[name] = await self.redis.get(key)
        return found

    async def readable(self) -> Content:
        """What readers see of the chain: not the delivery, not the fence, not what is closed or due."""
        private = {KEYS.outbox, KEYS.cursor, KEYS.undo, KEYS.closed, KEYS.settings, KEYS.due}
        found = {name: value for name, value in (await self.dump()).items() if name not in private}
        head = found.get(KEYS.head, {})
        for fence in (b"gen", b"epoch", b"seq"):
            head.pop(fence, None)
        return found

    async def head(self) -> tuple[int, str]:
        """Number and hash of the committed head."""
        head = await self.store.head()  # type: ignore[operator]
        return head.number, head.hash

    async def rows(self) -> list[tuple[str, str, Any]]:
        """Outbox rows: id, event, data."""
        entries = await self.redis.xrange(KEYS.outbox)
        return [
            (
                entry.decode(),
                fields[b"e"].decode(),
                None if fields[b"e"] == b"market_data" else orjson.loads(fields[b"d"]),
            )
            for entry, fields in entries
        ]

    def at_tip(self) -> tuple[int, str]:
        """Number and hash of the node's newest block."""
        return self.chain.tip.number, self.chain.tip.hash


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A new chain of one market that has traded, and an empty Redis."""
    made = World()
    made.chain.mine(created(0), swap(0, 1, 5))
    yield made
    await made.database.close()


async def check(world: World) -> None:
    """Some minutes later, what is stored is what a new follower makes of the canonical chain."""
    behind_ms = max(world.follower.state.head.as_of - world.clock.time, 0)
    world.clock.pass_ms(behind_ms + 3 * MINUTE_MS)
    await world.run()
    assert await world.head() == world.at_tip()
    assert await world.readable() == await fresh(world)


async def fresh(world: World) -> Content:
    """What a new follower makes of the canonical chain, on another Redis, at the same time."""
    other = World(world.rules)
    other.chain, other.clock = world.chain, world.clock
    other.node = FakeChain(world.chain)
    other.settings = world.settings
    other.new_follower()
    await other.run()
    found = await other.readable()
    await other.database.close()
    return found


async def test_it_starts_below_the_first_block_that_matters(world: World) -> None:
    """The base is the block before START_BLOCK; everything after it is committed."""
    world.chain.mine_empty(3)
    world.settings["start"] = 3
    world.new_follower()
    await world.run()
    assert world.follower.state.base == 2
    assert await world.head() == world.at_tip()
    assert world.observer.syncs[-1] == (True, world.chain.tip.number)


@pytest.mark.parametrize(("deployed", "base"), [(0, 0), (1, 0), (4, 3)])
async def test_it_starts_at_the_deployment(world: World, deployed: int, base: int) -> None:
    """Without START_BLOCK the oldest factory's deployment decides."""
    world.chain.mine_empty(5)
    world.chain.codes[FACTORY] = deployed
    world.settings["start"] = None
    world.new_follower()
    await world.run()
    assert world.follower.state.base == base


async def test_it_reads_its_state_before_it_is_asked_for(world: World) -> None:
    """Before recovery there is no state to show."""
    with pytest.raises(RuntimeError, match="recovered"):
        _ = world.follower.state
    await world.run()
    assert world.follower.state.head.number == 1


async def test_it_goes_on_where_it_stopped(world: World) -> None:
    """A restart reads the committed head, takes the stream over and commits only what is new."""
    await world.run()
    before = await world.store.head()  # type: ignore[operator]
    world.chain.mine(swap(0, 1, 7))
    world.new_follower()
    world.node.calls.clear()
    await world.run()
    after = await world.store.head()  # type: ignore[operator]
    assert after.gen > before.gen
    assert after.epoch > before.epoch
    assert await world.head() == world.at_tip()
    assert ("facts", 1) not in world.node.calls
    await check(world)


async def test_old_blocks_come_by_ranges_then_one_by_one(world: World) -> None:
    """What is final is loaded in ranges, what can be undone block by block; then a resync is told, once."""
    world.limits = replace(world.limits, fetch=FetchLimits(7))
    world.new_follower()
    for _ in range(20):
        world.chain.mine(swap(0, 1, 5))
    await world.run()
    ranges = [call[1:] for call in world.node.calls if call[0] == "facts_between"]
    assert ranges == [(1, 7), (8, 14), (15, 15)]
    assert [call[1] for call in world.node.calls if call[0] == "facts"] == list(range(16, 22))
    rows = await world.rows()
    assert [event for _, event, _ in rows].count("resync") == 1
    assert rows[0][1] == "resync"
    assert min(data["b"] for _, event, data in rows if event == "trade_update") == 16
    await check(world)
    assert [number for number, _, _ in world.observer.progressed] == [7, 14, 15]


async def test_history_is_what_single_blocks_would_give(world: World) -> None:
    """How a chain was loaded cannot be seen in what is stored."""
    for number in range(30):
        world.chain.mine(swap(0, number % 5 + 1, 7), after_ms=[1_000, 70_000, 3_600_000][number % 3])
    await world.run()
    single = World(world.rules)
    single.chain, single.node = world.chain, FakeChain(world.chain, behind=30)
    single.new_follower()

    def one_more() -> None:
        single.node.behind -= 1

    await single.run(*[one_more] * 30)
    assert not [call for call in single.node.calls if call[0] == "facts_between"]
    assert await single.readable() == await world.readable()
    await single.database.close()


async def test_commits_of_history_are_bounded(world: World) -> None:
    """A run of blocks with many trades is committed in parts, each complete."""
    world.limits = replace(world.limits, commit_trades=5)
    world.new_follower()
    for _ in range(12):
        world.chain.mine(swap(0), swap(0))
    world.chain.mine_empty(6)
    await world.run()
    history = [changes for changes in world.observer.commits if not changes.live]
    assert len(history) > 4
    assert all(len(changes.trades) <= 5 for changes in history)
    await check(world)


async def test_a_range_that_is_too_large_is_halved(world: World) -> None:
    """Halves are tried down to what the node takes, and grow again afterwards."""
    world.chain.mine_empty(40)
    world.node.range_blocks = 6
    world.limits = replace(world.limits, fetch=FetchLimits(16))
    world.new_follower()
    await world.run()
    sizes = [call[2] - call[1] + 1 for call in world.node.calls if call[0] == "facts_between"]  # type: ignore[operator]
    assert sizes[:4] == [16, 8, 4, 4]
    assert 8 in sizes[4:]
    assert await world.head() == world.at_tip()


async def test_a_single_block_that_is_too_large_is_an_error(world: World) -> None:
    """One block cannot be halved: the error is told and tried again, nothing is skipped."""
    world.chain.mine_empty(20)
    world.node.range_blocks = 0
    await world.fails(RangeTooLarge)
    assert (await world.head())[0] == 0


async def test_a_new_tip_is_followed(world: World) -> None:
    """Blocks that come while it waits are committed, with a hint or without, one or several."""

    def hinted() -> BlockRef:
        return world.chain.mine(swap(0, 1, 6))

    def unseen() -> None:
        world.chain.mine(swap(0, 1, 7))
        world.chain.mine(created(1))

    await world.run(hinted, unseen, None)
    assert await world.head() == world.at_tip()
    assert world.chain.tip.number == 4
    assert [changes.head.number for changes in world.observer.commits if changes.blocks] == [1, 2, 3, 4]
    await check(world)


async def test_a_hint_beyond_a_gap_fills_it(world: World) -> None:
    """The blocks before a hint are fetched first, each once and in order."""

    def leap() -> BlockRef:
        world.chain.mine_empty(3)
        return world.chain.mine(swap(0))

    await world.run(leap)
    assert [call[1] for call in world.node.calls if call[0] == "facts"] == [1, 2, 3, 4, 5]
    assert await world.head() == world.at_tip()


@pytest.mark.parametrize("number", [0, 1])
async def test_a_stale_hint_changes_nothing(world: World, number: int) -> None:
    """An old head, or the same one twice, is looked at and forgotten."""
    await world.run()
    before = await world.dump()
    await world.run(world.chain.blocks[number].block, world.chain.blocks[number].block)
    assert await world.dump() == before


async def test_a_hint_of_a_losing_fork_changes_nothing(world: World) -> None:
    """A hint may come late: that a block was orphaned is for the node's own chain to say."""
    world.chain.mine(swap(0, 1, 9))
    loser = world.chain.tip
    world.chain.fork(1)
    world.chain.mine(swap(0, 1, 8))
    await world.run()
    before = await world.dump()
    child = BlockRef(loser.number + 1, loser.hash[:-1] + "0", loser.hash, loser.timestamp)
    await world.run(loser, child)
    assert await world.dump() == before
    assert not [changes for changes in world.observer.commits if changes.reorg]


async def test_a_node_that_is_behind_is_waited_for(world: World) -> None:
    """A lower tip on our own chain is no reorg, and a hint that the node does not know yet is retryable."""
    world.chain.mine_empty(4)
    await world.run()
    before = await world.dump()
    world.node.behind = 3
    await world.run(None, None)
    assert await world.dump() == before
    ahead = world.chain.mine(swap(0))
    world.hints.then(ahead)
    await world.fails(NodeBehind)
    assert await world.dump() == before
    world.node.behind = 0
    await world.run()
    assert await world.head() == world.at_tip()


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("longer", [-1, 0, 1, 9])
async def test_a_reorg_of_every_depth(world: World, depth: int, longer: int) -> None:
    """Up to the finality window, and whatever the new branch's length, Redis equals a fresh run on it."""
    world.chain.mine_empty(2)
    for number in range(6):
        world.chain.mine(swap(0, 1, number + 1), created(number + 1), swap(number + 1), after_ms=31_000)
    await world.run()
    world.chain.fork(depth)
    for number in range(max(depth + longer, 1)):
        world.chain.mine(swap(0, 2, number + 1), after_ms=29_000)
    if depth + longer < 1:
        world.chain.mine_empty(1)
    await world.settle()
    assert await world.head() == world.at_tip()
    await check(world)
    (reorg,) = [data for _, event, data in await world.rows() if event == "reorg"]
    assert reorg["depth"] == depth
    assert reorg["ancestor"]["number"] == 9 - depth


async def test_reorg_after_reorg(world: World) -> None:
    """Each is undone and told; what stays is the last branch."""
    for number in range(5):
        world.chain.mine(swap(0, 1, number + 1), after_ms=31_000)
    await world.run()
    for depth in (2, 1, 3, 3):

        def turn(depth: int = depth) -> None:
            world.chain.fork(depth)
            for number in range(depth + 1):
                world.chain.mine(swap(0, 3, depth + number), graduate(0), after_ms=25_000)

        await world.run(turn)
    await check(world)
    assert len([1 for _, event, _ in await world.rows() if event == "reorg"]) == 4


async def test_a_reorg_while_it_was_away(world: World) -> None:
    """Start-up is recovery: the fork is found by the committed parents."""
    world.chain.mine(swap(0, 1, 2))
    world.chain.mine(swap(0, 1, 3))
    await world.run()
    world.chain.fork(2)
    for number in range(4):
        world.chain.mine(swap(0, 1, number + 5))
    world.new_follower()
    await world.run()
    await check(world)


async def test_a_reorg_while_far_behind(world: World) -> None:
    """Ranges begin on our head: another parent there is a reorg, found before anything is committed."""
    world.chain.mine(swap(0, 1, 2))
    world.chain.mine(swap(0, 1, 3))
    await world.run()
    world.chain.fork(1)
    for _ in range(20):
        world.chain.mine(swap(0, 1, 9))
    world.new_follower()
    await world.run()
    await check(world)


async def test_a_reorg_that_is_too_deep_is_fatal(world: World) -> None:
    """A fork below the finality window stops the service, says what to do, and changes nothing."""
    for _ in range(12):
        world.chain.mine(swap(0))
    await world.run()
    before = await world.dump()
    world.chain.fork(9)
    for _ in range(10):
        world.chain.mine(swap(0, 1, 3))
    await world.fails(ReorgTooDeep, "FINALITY_WINDOW")
    assert await world.dump() == before
    world.new_follower()
    with pytest.raises(ReorgTooDeep, match="verify --repair"):
        await world.follower.run()
    assert set(await world.readable()) == set(before) - {
        KEYS.outbox,
        KEYS.undo,
        KEYS.closed,
        KEYS.due,
        KEYS.settings,
    }


async def test_a_fork_below_the_beginning_is_a_restarted_chain(world: World) -> None:
    """Where stored data begins there is nothing to undo: a dev chain was reverted. It names the way out."""
    world.settings["start"] = 3
    world.new_follower()
    world.chain.mine_empty(3)
    await world.run()
    before = await world.dump()
    world.chain.fork(4)
    world.chain.mine_empty(6)
    await world.fails(ChainRestarted, "listener reset")
    assert await world.dump() == before


async def test_another_chain_is_refused_before_any_write(world: World) -> None:
    """The node's chain id must be CHAIN_ID: at the start nothing is written, not even the stream's head."""
    world.chain.chain_id = 1
    await world.fails(WrongChain, "CHAIN_ID")
    assert await world.dump() == {}


async def test_another_chain_is_refused_after_a_reconnect(world: World) -> None:
    """A provider may switch the chain behind one URL: each new attempt asks again."""
    await world.run()
    before = await world.dump()
    world.node.errors.append(NodeUnavailable("connection reset"))
    await world.fails(NodeUnavailable)
    world.chain.chain_id = 1
    world.chain.mine(swap(0))
    await world.fails(WrongChain)
    assert await world.dump() == before


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("blocks", [0, 1, 30])
async def test_a_restarted_dev_chain_is_told_apart(world: World, *, restart: bool, blocks: int) -> None:
    """Same chain id, another genesis: refused at a start and after a reconnect, whatever its height."""
    world.chain.mine_empty(9)
    await world.run()
    before = await world.dump()
    world.chain = LocalChain(salt="again")
    world.chain.mine_empty(blocks)
    world.node.chain = world.chain
    if restart:
        world.new_follower()
    await world.fails(ChainRestarted, "listener reset")
    assert await world.dump() == before


@pytest.mark.parametrize(
    "change", [{"PRICE_MODE": "spot"}, {"PRICE_MODE": "execution", "OHLCV_INTERVALS": "1m"}]
)
async def test_changed_settings_are_refused(world: World, change: dict[str, str]) -> None:
    """Settings that give stored data its meaning cannot change under it; the error names old and new."""
    await world.run()
    before = await world.dump()
    world.settings["fingerprint"] = change
    world.new_follower()
    await world.fails(SettingsChanged, next(name for name in change if change[name] != "execution"))
    assert await world.dump() == before


async def test_an_earlier_start_is_refused(world: World) -> None:
    """What lies before the stored data cannot be added to it; the same start, or a later one, is fine."""
    world.chain.mine_empty(5)
    world.settings["start"] = 4
    world.new_follower()
    await world.run()
    before = await world.readable()
    for start in (4, 5):
        world.settings["start"] = start
        world.new_follower()
        await world.run()
        assert await world.readable() == before
    world.settings["start"] = 3
    world.new_follower()
    await world.fails(SettingsChanged, "START_BLOCK=3")


async def test_a_stream_that_vanishes_at_once_is_retryable(world: World) -> None:
    """A server that forgets what it has just been told is not to be trusted, but may recover."""

    class Forgetful(FlakyStore):
        async def load(self) -> None:
            return None

    world.store = Forgetful(world.store)  # type: ignore[arg-type]
    world.new_follower()
    await world.fails(StoreUnavailable)


@pytest.mark.parametrize("error", [NodeUnavailable("x"), NodeBehind("x"), InconsistentReply("x")])
async def test_it_may_run_again_after_any_call_failed(world: World, error: Retryable) -> None:
    """Whichever call to the node fails, the next run goes on and ends where an undisturbed one ends."""
    for number in range(12):
        world.chain.mine(created(1), swap(0, 1, number + 1), swap(1))
    expected = await fresh(world)
    for at in range(40):
        await world.redis.flushall()
        world.new_follower()
        world.node.calls.clear()
        world.node.errors.clear()
        world.node.errors.extend([*[None] * at, error])
        try:
            await world.run()
        except Retryable:
            await world.run()
        else:
            break
        assert await world.head() == world.at_tip()
        assert await world.readable() == expected
    else:
        raise AssertionError("the error was never skipped")
    world.node.errors.clear()


@pytest.mark.parametrize("outcome", ["away", "lost"])
@pytest.mark.parametrize("at", range(6))
async def test_an_unknown_outcome_is_settled(world: World, outcome: Outcome, at: int) -> None:
    """Whether a commit whose answer was lost has happened is read from the store: nothing counts twice."""
    world.chain.mine(created(1), swap(0, 1, 2), swap(1))
    world.chain.mine(swap(1, 1, 3), after_ms=2 * MINUTE_MS)
    world.store.outcomes.extend([*["ok"] * at, outcome])  # type: ignore[list-item]
    steps: list[Callable[[], object]] = [
        lambda: world.chain.mine(swap(0, 1, 9)),
        lambda: world.chain.fork(1) and world.chain.mine(swap(0, 1, 8)) and world.chain.mine(),
    ]
    world.hints.then(*steps)
    with pytest.raises(StoreUnavailable):
        await world.follower.run()
    await world.run()
    assert not world.store.outcomes
    assert await world.head() == world.at_tip()
    await check(world)
    numbers = [RowId(*map(int, entry.split("-"))) for entry, _, _ in await world.rows()]
    for before, after in pairwise(numbers):
        assert after in {before._replace(seq=before.seq + 1), RowId(after.epoch, 1)}
        assert after > before
    trades = [(data["bh"], data["id"]) for _, event, data in await world.rows() if event == "trade_update"]
    assert len(trades) == len(set(trades)) == 6


async def test_a_lost_rollback_is_settled(world: World) -> None:
    """A rollback changes the fence itself: whether it happened is seen all the same."""
    for outcome in ("lost", "away"):
        world.chain.mine(swap(0, 1, 2))
        await world.settle()
        world.chain.fork(1)
        world.chain.mine(swap(0, 1, 3))
        world.chain.mine()
        world.store.outcomes.append(outcome)  # type: ignore[arg-type]
        await world.fails(StoreUnavailable)
        await world.run()
        await check(world)


async def test_a_second_instance_stops_the_first(world: World) -> None:
    """Who was taken over from can commit nothing more, and stops."""
    await world.run()
    first, hints = world.follower, world.hints
    world.new_follower()
    await world.run()
    before = await world.dump()
    world.chain.mine(swap(0))
    world.follower, world.hints = first, hints
    await world.fails(Superseded, "another instance")
    assert await world.dump() == before


async def test_a_late_commit_is_fenced_off(world: World) -> None:
    """A commit that arrives after its outcome was given up is refused: `gen` was raised before going on."""
    await world.run()
    world.chain.mine(swap(0))
    late: list[ChangeSet] = []

    async def lost(changes: ChangeSet) -> Head:
        late.append(changes)
        raise StoreUnavailable("no answer")

    world.store.commit = lost  # type: ignore[method-assign]
    await world.fails(StoreUnavailable)
    del world.store.commit
    await world.run()
    before = await world.dump()
    with pytest.raises(Superseded):
        await world.store.commit(late[0])
    assert await world.dump() == before
    await check(world)


async def test_a_flushed_redis_is_noticed(world: World) -> None:
    """Data that vanishes under a running service stops it; it does not begin anew on its own."""
    await world.run()
    await world.redis.flushall()
    world.chain.mine(swap(0))
    await world.fails(Superseded)
    assert await world.dump() == {}


async def test_time_passes_without_blocks(world: World) -> None:
    """While the chain is quiet, candles close after the grace, and figures roll off on the minute."""
    await world.run()

    def pass_ms(milliseconds: int) -> Callable[[], None]:
        return lambda: world.clock.pass_ms(milliseconds)

    await world.run(pass_ms(MINUTE_MS + 4_000))
    closed = await world.redis.hgetall(KEYS.closed)
    assert closed[b"1m"] == str(MONDAY_MS - 1).encode()
    await world.run(pass_ms(1_000))
    closed = await world.redis.hgetall(KEYS.closed)
    assert closed[b"1m"] == str(MONDAY_MS + MINUTE_MS - 1).encode()
    await world.run(pass_ms(DAY_MS))
    stats = await world.redis.hgetall(KEYS.stats(token(0)))
    assert (stats[b"count"], stats[b"lastPrice"]) == (b"0", b"5")
    head = await world.store.head()  # type: ignore[operator]
    assert head.as_of == world.clock.time - world.clock.time % MINUTE_MS
    assert head.number == 1


async def test_most_polls_ask_nobody(world: World) -> None:
    """Within a minute there is nothing to refresh: no commit, no question to the store."""
    await world.run()
    commits = len(world.observer.commits)
    await world.run(*[lambda: world.clock.pass_ms(1_000)] * 3)
    assert len(world.observer.commits) == commits


async def test_a_due_market_is_refreshed_after_a_restart(world: World) -> None:
    """A market that is in nobody's memory rolls off like any other, though a block has moved time on."""
    await world.run()
    world.chain.mine(created(1), after_ms=DAY_MS + MINUTE_MS)
    world.clock.pass_ms(DAY_MS + 2 * MINUTE_MS)
    world.new_follower()
    await world.run()
    assert (await world.redis.hgetall(KEYS.stats(token(0))))[b"count"] == b"0"
    await check(world)


@pytest.mark.parametrize("restart", [False, True])
async def test_a_minute_that_fell_out_unseen_survives_a_reorg(world: World, *, restart: bool) -> None:
    """A market may be due when an orphaned block touches it: the time of its change must not be lost."""
    world.chain.mine(swap(0, 1, 6), after_ms=7 * 3_600_000)
    world.clock.pass_ms(7 * 3_600_000)
    await world.run()
    world.chain.mine(created(1), swap(1), after_ms=17 * 3_600_000 + 5 * MINUTE_MS)
    world.chain.mine(swap(0, 1, 7))
    if restart:
        world.new_follower()
    await world.run()
    world.chain.fork(1)
    world.chain.mine()
    world.chain.mine()
    await world.run()
    await check(world)


async def test_many_due_markets_come_in_slices(world: World) -> None:
    """More markets than one commit may refresh are refreshed in several, all of them."""
    for start in range(0, 450, 50):
        makers = [maker for n in range(start, start + 50) for maker in (created(n), swap(n))]
        world.chain.tokens.update({token(n): world.chain.tokens[token(0)] for n in range(start, start + 50)})  # type: ignore[misc]
        world.chain.mine(*makers)
    await world.run()
    before = len(world.observer.commits)
    await world.run(lambda: world.clock.pass_ms(DAY_MS + 2 * MINUTE_MS))
    slices = [changes for changes in world.observer.commits[before:] if changes.states]
    assert [len(changes.states) for changes in slices] == [200, 200, 50]
    assert await world.store.due(world.follower.state.head.as_of, 10) == []  # type: ignore[operator]


async def test_memory_is_bounded(world: World) -> None:
    """Only so many markets are kept; the others are read again when they trade, and nothing differs."""
    world.limits = replace(world.limits, cached_markets=2)
    world.new_follower()
    for number in range(8):
        world.chain.mine(created(number + 1), swap(number + 1), swap(number), swap(0, 1, number + 1))
    await world.run()
    assert len(world.follower._markets) <= 2
    await check(world)


async def test_without_a_backend_no_rows_are_written(world: World) -> None:
    """Nobody would read them; and whoever is told later gets a resync first."""
    world.settings["tell_backend"] = False
    world.new_follower()
    world.chain.mine(swap(0))
    await world.run()
    assert await world.rows() == []
    world.settings["tell_backend"] = True
    world.new_follower()
    world.chain.mine(swap(0))
    await world.run()
    events = [event for _, event, _ in await world.rows()]
    assert events[0] == "resync"
    assert events.count("trade_update") == 1


async def test_the_publisher_is_told_of_commits(world: World) -> None:
    """Each commit is signalled: the publisher need not poll."""
    await world.run()
    assert world.signal.notified == len(world.observer.commits) > 0


async def test_errors_are_of_two_kinds() -> None:
    """Every error either passes, stops or ends a term; fatal ones have an exit code of their own."""

    def below(error: type[ListenerError]) -> list[type[ListenerError]]:
        return [error, *(e for child in error.__subclasses__() for e in below(child))]

    every = set(below(ListenerError)) - {ListenerError, OrphanedHead, Superseded}
    assert all(issubclass(error, Retryable) != issubclass(error, Fatal) for error in every)
    assert all(error.exit_code != 0 for error in every if issubclass(error, Fatal))


async def test_unreadable_tokens_do_not_stop_it(world: World) -> None:
    """A token that reverts gets no market; the block is committed and the rejection counted."""
    world.chain.tokens[token(1)] = None  # type: ignore[index]
    world.chain.mine(created(1), swap(1), swap(0))
    await world.run()
    assert await world.head() == world.at_tip()
    assert world.observer.commits[-1].rejected or any(c.rejected for c in world.observer.commits)
    assert not await world.redis.exists(KEYS.market(token(1)))

"""The follower on a scripted chain, virtual time, and the real store on a Redis in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fakeredis
import orjson
import pytest

from listener.application import rules as rules_module
from listener.application.changes import ChangeSet, Head
from listener.application.errors import (
    ChainRestarted,
    Displaced,
    Fatal,
    InconsistentReply,
    InterruptedReset,
    ListenerError,
    NodeBehind,
    NodeLimited,
    NodeUnavailable,
    OrphanedHead,
    RangeTooLarge,
    ReorgTooDeep,
    Retryable,
    SettingsChanged,
    StoreUnavailable,
    Superseded,
    TornData,
    WebhookConflict,
    WrongChain,
)
from listener.application.interfaces import MarketStore, RowId
from listener.application.rules import Finality, Rules
from listener.application.services import finality
from listener.application.services.auditor import AuditLimits, Auditor
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import (
    AUDIT_PATIENCE_S,
    AUDIT_POLL_S,
    Follower,
    FollowerLimits,
)
from listener.application.services.loading import Runs
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import DAY_MS, MINUTE_MS, BlockRef
from listener.infrastructure.redis import maintenance
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import (
    CHAIN_ID,
    FACTORY,
    MONDAY_MS,
    Maker,
    created,
    digest,
    graduate,
    rules,
    swap,
    token,
)
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import Done, FakeClock, FakeHints, FakeSignal, Step
from tests.fakes.lease import Board, FakeLease
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
    assert [number for number, _, _ in world.observer.progressed] == [15]


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
    assert all(changes.counted <= 5 for changes in history)
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


async def day_old(world: World) -> None:
    """The market trades every five minutes for two hours, the rest of the day is quiet and about to end."""
    for number in range(24):
        world.chain.mine(swap(0, number % 5 + 1, 7), after_ms=5 * MINUTE_MS)
    world.chain.mine_empty(10)
    await world.run()
    world.clock.pass_ms(DAY_MS - MINUTE_MS)
    await world.run()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("with_blocks", [False, True])
async def test_minutes_roll_off_one_by_one(world: World, *, restart: bool, with_blocks: bool) -> None:
    """Folded minutes are told apart when they fall out of the day, by blocks or by time alone."""
    await day_old(world)
    if with_blocks:
        world.chain.mine(after_ms=world.clock.time - world.chain.tip.timestamp)
    seen = []
    for _ in range(12):
        if restart:
            world.new_follower()
        world.clock.pass_ms(11 * MINUTE_MS)
        if with_blocks:
            world.chain.mine(swap(0, 1, 9), after_ms=11 * MINUTE_MS)
        await world.run()
        assert await world.readable() == await fresh(world)
        seen.append(int((await world.redis.hgetall(KEYS.stats(token(0))))[b"count"]))
    assert seen[:3] == ([23, 22, 21] if with_blocks else [22, 20, 18])
    assert seen[-1] == (12 if with_blocks else 0)


@pytest.mark.parametrize("later_ms", [0, 9 * MINUTE_MS, 33 * MINUTE_MS, 3 * 60 * MINUTE_MS])
async def test_a_reorg_while_minutes_roll_off(world: World, later_ms: int) -> None:
    """Time may have passed since the block that is undone, and minutes of the same hour with it."""
    await day_old(world)
    world.clock.pass_ms(11 * MINUTE_MS)
    world.chain.mine(swap(0, 1, 9), after_ms=world.clock.time - world.chain.tip.timestamp)
    await world.run()
    world.clock.pass_ms(later_ms)
    await world.run()
    world.chain.fork(1)
    world.chain.mine(created(1))
    world.chain.mine(swap(0, 1, 8))
    await world.run()
    await check(world)


async def test_minutes_that_roll_off_while_history_loads(world: World) -> None:
    """A run of final blocks may end a day after minutes that were committed before it."""
    await day_old(world)
    for _ in range(40):
        world.chain.mine(swap(0, 1, 9), after_ms=7 * MINUTE_MS)
    world.chain.mine(swap(0), after_ms=DAY_MS - 4 * 60 * MINUTE_MS)
    for _ in range(40):
        world.chain.mine(swap(0, 1, 8), after_ms=3 * MINUTE_MS)
    await world.run()
    assert [changes for changes in world.observer.commits if len(changes.blocks) > 1]
    await check(world)


async def test_history_may_be_a_day_behind_the_clock(world: World) -> None:
    """Of the minutes of one run some may be older than a day already, when figures hold up to now."""
    await world.run()
    world.clock.pass_ms(DAY_MS + 60 * MINUTE_MS)
    await world.run()
    for _ in range(40):
        world.chain.mine(swap(0, 1, 9), after_ms=3 * MINUTE_MS)
    await world.run()
    assert [changes for changes in world.observer.commits if len(changes.blocks) > 1]
    assert (await world.redis.hgetall(KEYS.stats(token(0))))[b"count"] == b"20"
    await check(world)


@pytest.mark.parametrize(("others", "error"), [(0, TornData), (1, Superseded)])
async def test_a_store_that_lost_a_minute_is_not_built_upon(
    world: World, others: int, error: type[ListenerError]
) -> None:
    """Minutes that roll off are those that were committed; unless somebody else has written since."""
    await day_old(world)
    await world.redis.zremrangebyrank(KEYS.candles(token(0), "1m"), 3, 3)
    await world.redis.hincrby(KEYS.head, "gen", others)
    world.clock.pass_ms(8 * MINUTE_MS)
    before = await world.dump()
    await world.fails(error, "not stored")
    assert await world.dump() == before


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
    """Every error either passes, stops, ends a term or is about a webhook; fatal ones have an exit code."""

    def below(error: type[ListenerError]) -> list[type[ListenerError]]:
        return [error, *(e for child in error.__subclasses__() for e in below(child))]

    every = set(below(ListenerError)) - {ListenerError, OrphanedHead, Superseded}
    every -= {Displaced, WebhookConflict}
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


# Terms that end, a chain that stands still, finality, and what the audit asks for.


class Named(Database):
    """A Redis that says who it is; the one in memory does not."""

    async def server(self) -> str:
        """See `Database.server`."""
        return "always the same"


class AuditedNode(FakeChain):
    """A node that leaves out logs, and says by digests which it gave.

    Attributes:
        left_out: so many logs at the end of a block, by its number.
        finality_asked: how often it was asked which block is final.
    """

    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.left_out: dict[int, int] = {}
        self.finality_asked = 0

    def account(self, facts: BlockFacts) -> BlockFacts:
        """What it says of a block."""
        given = facts.facts[: len(facts.facts) - self.left_out.get(facts.block.number, 0)]
        return facts._replace(facts=given, digest=digest(*given))

    async def facts(self, block: BlockRef) -> BlockFacts:
        """See `ChainSource.facts`."""
        return self.account(await super().facts(block))

    async def facts_between(self, first: int, last: int) -> list[BlockFacts]:
        """See `FakeChain.facts_between`."""
        found = await super().facts_between(first, last)
        return [self.account(facts)._replace(digest="") for facts in found]

    async def finalized(self) -> BlockRef | None:
        """See `ChainSource.finalized`."""
        self.finality_asked += 1
        return await super().finalized()


class FullWitness:
    """`Witness` that knows every log of the chain; `meanwhile` happens while it is asked."""

    def __init__(self, chain: LocalChain) -> None:
        self._node = AuditedNode(chain)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def facts(self, blocks: Sequence[BlockRef]) -> Sequence[BlockFacts]:
        """See `Witness.facts`."""
        found = [await self._node.facts(block) for block in blocks]
        if self.meanwhile:
            await self.meanwhile()
        return found


class AuditedWorld(World):
    """A world with an audit, on a Redis that says who it is."""

    def __init__(self, audit_blocks: int = 10) -> None:
        super().__init__(rules("5m", "1d", finality=Finality(2), audit_blocks=audit_blocks))
        self.database = Named(self.redis)
        self.store = FlakyStore(RedisStore(self.database, KEYS, self.rules, OutboxBounds(100_000, 10**8)))
        self.node = self.audited = AuditedNode(self.chain)
        self.witness = FullWitness(self.chain)
        self.new_follower()

    async def follow(self, *blocks: Maker) -> None:
        """Blocks with a fact each, one by one."""
        for maker in blocks:
            await self.run(lambda maker=maker: self.chain.mine(maker))  # type: ignore[misc]

    async def audit(self) -> None:
        """One look."""

        class Once(FakeSignal):
            async def wait(self, timeout_s: float) -> None:
                raise Done(timeout_s)

        auditor = Auditor(
            ledger=self.follower,
            chain=self.node,
            witness=self.witness,
            store=self.store,  # type: ignore[arg-type]
            wanted=Once(),
            observer=self.observer,
            limits=AuditLimits(100, blocks_per_s=1),
        )
        with pytest.raises(Done):
            await auditor.run()

    async def events(self, event: str) -> int:
        """How many rows of that kind there are."""
        return len([1 for _, found, _ in await self.rows() if found == event])

    async def trades(self) -> int:
        """How many trades of the first market are stored."""
        return int(await self.redis.llen(KEYS.trades(token(0))))


@pytest.fixture
async def audited() -> AsyncIterator[AuditedWorld]:
    """A market that trades in each of six blocks, all followed one by one."""
    made = AuditedWorld()
    await made.run()
    await made.follow(created(0), *[swap(0, 1, number + 1) for number in range(6)])
    yield made
    await made.database.close()


async def keep(world: World) -> dict[bytes, bytes]:
    """A copy of the whole Redis."""
    keys = [key async for key in world.redis.scan_iter(count=1_000)]
    return {key: await world.database.run("DUMP", key) for key in keys}


async def go_back(world: World, kept: dict[bytes, bytes]) -> None:
    """Redis is again what it was, as after a crash without its last writes."""
    await world.redis.flushall()
    for key, value in kept.items():
        await world.redis.restore(key, 0, value)


async def lose_a_block(world: World) -> None:
    """Redis forgets the newest block, and the follower finds out at its next commit."""
    kept = await keep(world)
    await world.follow(swap(0, 1, 30), created(1))
    await go_back(world, kept)
    world.chain.mine(swap(0, 1, 31))
    await world.fails(Superseded)


async def test_a_store_that_went_back_is_recovered_from(audited: AuditedWorld) -> None:
    """It ends the term; the next one replays what was lost, and owes the backend a `resync`."""
    await lose_a_block(audited)
    resyncs = await audited.events("resync")
    await audited.run()
    assert await audited.events("resync") > resyncs
    await check(audited)


async def test_a_term_that_ended_otherwise_owes_nothing(audited: AuditedWorld) -> None:
    """Where nothing was lost the next term goes on, and the backend needs not read all again."""
    await audited.follow(swap(0, 1, 30))
    resyncs = await audited.events("resync")
    audited.follower.forget()
    await audited.follow(swap(0, 1, 31))
    assert await audited.events("resync") == resyncs
    await check(audited)


@pytest.mark.parametrize("clock_ms", [-DAY_MS, 0, 1])
async def test_numbers_never_repeat(audited: AuditedWorld, clock_ms: int) -> None:
    """Store and clock both went back: epoch and gen still rise above all that this process has used."""
    kept = await keep(audited)
    used = audited.follower.state.head
    for _ in range(3):
        audited.follower.forget()
        await audited.run()
        now = audited.follower.state.head
        assert now.epoch > used.epoch
        assert now.gen > used.gen
        used = now
        await go_back(audited, kept)
        audited.clock.pass_ms(clock_ms)


async def test_generations_of_rollbacks_never_repeat(audited: AuditedWorld) -> None:
    """A rollback uses a generation, too: what the store has forgotten of it is not given out again."""
    kept = await keep(audited)
    audited.follower.forget()
    await audited.run()
    for number in range(3):
        audited.chain.fork(1)
        audited.chain.mine(swap(0, 1, 40 + number))
        audited.chain.mine_empty(1)
        await audited.run()
    used = audited.follower.state.head.gen
    await go_back(audited, kept)
    audited.clock.pass_ms(-DAY_MS)
    audited.follower.forget()
    await audited.run()
    assert audited.follower.state.head.gen > used


async def test_a_lost_takeover_is_made_again(audited: AuditedWorld) -> None:
    """Its answer did not come: the next one takes numbers above those that it may have used."""

    class Lost(FlakyStore):
        answers = False

        async def take_over(self, head: Head, floor: int, **told: Any) -> Head:
            taken: Head = await real.take_over(head, floor, **told)
            if not self.answers:
                self.answers = True
                raise StoreUnavailable("no answer")
            return taken

    real: Any = audited.store
    before = audited.follower.state.head
    audited.store = Lost(real)
    audited.new_follower()
    await audited.fails(StoreUnavailable)
    taken = await real.head()
    assert taken.epoch > before.epoch
    await audited.run()
    assert audited.follower.state.head.epoch > taken.epoch


async def test_without_the_lease_the_stream_is_not_taken_over(audited: AuditedWorld) -> None:
    """Another instance got it while this one was to begin: nothing is written, and its writer goes on."""
    board = Board(audited.clock)
    board.hand_to("another", 60_000)
    before = await audited.dump()
    first = audited.follower
    audited.settings["lease"] = FakeLease(board)
    audited.new_follower()
    await audited.fails(Superseded, "lease")
    assert await audited.dump() == before
    board.hand_to("", 0)
    await audited.run()
    assert board.current() == "first"
    assert audited.follower.state.head.epoch > first.state.head.epoch


async def test_a_flushed_redis_is_filled_again_by_the_next_term(audited: AuditedWorld) -> None:
    """Everything is loaded anew, under numbers above the old ones."""
    used = audited.follower.state.head
    await audited.redis.flushall()
    audited.chain.mine(swap(0))
    await audited.fails(Superseded)
    await audited.run()
    assert audited.follower.state.head.epoch > used.epoch
    assert await audited.events("resync") == 1
    await check(audited)


async def test_a_store_that_lost_a_before_image_ends_the_term(audited: AuditedWorld) -> None:
    """What was committed is not there: nothing is written on top of that, now or in the next term."""
    await audited.redis.hdel(KEYS.undo, audited.follower.state.head.number)
    audited.follower._undos.clear()
    audited.chain.fork(1)
    audited.chain.mine_empty(2)
    before = await audited.dump()
    await audited.fails(Superseded)
    await audited.fails(TornData)
    assert await audited.dump() == before


async def test_a_store_that_lost_a_market_is_not_built_upon(audited: AuditedWorld) -> None:
    """Nobody else has written, so it will not come back."""
    await audited.redis.delete(KEYS.market(token(0)))
    audited.follower._markets.clear()
    audited.chain.mine(swap(0))
    before = await audited.dump()
    await audited.fails(TornData)
    assert await audited.dump() == before


async def test_a_market_that_another_instance_removed_ends_the_term(audited: AuditedWorld) -> None:
    """The head has moved as well: that is no damage."""
    await audited.redis.delete(KEYS.market(token(0)))
    await audited.redis.hincrby(KEYS.head, "gen", 1)
    audited.follower._markets.clear()
    audited.chain.mine(swap(0))
    await audited.fails(Superseded, "not stored")


@pytest.mark.parametrize("key", [KEYS.undo, KEYS.settings, KEYS.sources, KEYS.markets])
async def test_a_store_that_lost_a_key_is_not_built_upon(audited: AuditedWorld, key: str) -> None:
    """Keys that somebody removed are named by an error that says what to do."""
    await audited.redis.delete(key)
    audited.follower.forget()
    before = await audited.dump()
    await audited.fails(TornData)
    assert await audited.dump() == before


async def test_a_commit_that_lands_while_the_state_is_read_is_no_damage(world: World) -> None:
    """What was read does not fit together then; the next term reads it again."""
    world.chain.mine(created(0), swap(0))
    await world.run()
    old = world.follower

    class Racing(Database):
        raced = False

        async def server(self) -> str:
            if not self.raced:
                self.raced = True
                with pytest.raises(Done):
                    await old.run()
            return await super().server()

    world.chain.mine(swap(0))
    old._hints = FakeHints()
    world.store = FlakyStore(RedisStore(Racing(world.redis), KEYS, world.rules, OutboxBounds(1_000, 10**8)))
    world.new_follower()
    await world.fails(Superseded)
    await world.run()
    await check(world)


async def test_a_reset_while_markets_are_read_ends_the_term(world: World) -> None:
    """The head that is being removed has none of its fields."""
    world.chain.mine(created(0), swap(0))
    await world.run()
    world.follower._markets.clear()
    await world.database.run_script(maintenance.MARK, [KEYS.head], ["removing"])
    await world.redis.delete(KEYS.market(token(0)))
    world.chain.mine(swap(0))
    await world.fails(Superseded)
    await world.fails(InterruptedReset)


async def test_a_node_that_lags_after_a_restart_shows_no_reorg_too_deep(world: World) -> None:
    """A tip below our own head is enough to know that it lags."""
    world.chain.mine_empty(24)
    before = list(world.chain.blocks)
    world.chain.fork(22)
    world.chain.mine_empty(25)
    await world.run()
    world.chain.blocks, after = before, world.chain.blocks
    world.new_follower()
    await world.fails(NodeBehind)
    world.chain.blocks = after
    await world.run()


@pytest.mark.parametrize("by_hint", [True, False])
async def test_candles_are_not_closed_before_the_blocks_in_them(world: World, by_hint: bool) -> None:
    """Blocks that we have not seen yet may trade in minutes that are over by the wall clock."""
    world.chain.mine(created(0), swap(0))
    world.clock.time = world.chain.tip.timestamp
    await world.run()

    def later() -> BlockRef | None:
        for _ in range(15):
            world.chain.mine(swap(0))
        world.clock.time = world.chain.tip.timestamp
        return world.chain.tip if by_hint else None

    await world.run(later)
    for changes in world.observer.commits:
        for up_to in changes.closed.values():
            assert up_to < max(changes.head.timestamp, world.chain.tip.timestamp - 5_000)
            assert up_to < changes.head.timestamp or changes.head.number == world.chain.tip.number


async def test_a_block_that_can_no_longer_be_undone_is_not_corrected(audited: AuditedWorld) -> None:
    """The auditor may come too late, and says so."""
    (facts,) = await audited.witness.facts([audited.chain.tip])
    for _ in range(40):
        audited.chain.mine(swap(0))
    await audited.run()
    assert facts.block not in audited.follower.state.recent()
    assert not audited.follower.correct(facts)
    audited.follower.forget()
    assert not audited.follower.correct(facts)


async def test_it_may_be_asked_to_forget_before_it_knows_anything(world: World) -> None:
    """A first term begins like any other."""
    world.follower.forget()
    assert world.follower.unaudited(10) == ()
    assert not world.follower.confirm(world.chain.tip)
    await world.run()
    assert await world.head() == world.at_tip()


def passing(world: World, seconds: float) -> Callable[[], None]:
    """A step in which time passes."""
    return lambda: world.clock.pass_ms(round(seconds * 1000))


async def test_a_chain_that_stands_still_is_told_of_once(world: World) -> None:
    """With the age of its newest block; and once when blocks come again, for as often as that happens."""
    world.limits = replace(world.limits, stall_s=60)
    world.new_follower()
    still = world.chain.tip
    world.clock.time = still.timestamp + 5_000
    await world.run(passing(world, 60))
    assert world.observer.stalls == []
    await world.run(passing(world, 1), passing(world, 100))
    assert world.observer.stalls == [(still, 66_000)]
    again = world.chain.mine_empty
    await world.run(lambda: again(1), passing(world, 30))
    tip = world.chain.tip
    assert world.observer.stalls[1:] == [(tip, None)]
    await world.run(passing(world, 61), None, lambda: again(1))
    assert [age is None for _, age in world.observer.stalls] == [False, True, False, True]


async def test_a_chain_ahead_of_the_clock_has_no_negative_age(world: World) -> None:
    """Clocks differ: a block from the future is as old as one of now."""
    world.limits = replace(world.limits, stall_s=60)
    world.new_follower()
    world.clock.time = world.chain.tip.timestamp - DAY_MS
    await world.run(passing(world, 61))
    assert world.observer.stalls == [(world.chain.tip, 0)]


async def test_a_quiet_chain_need_not_be_told_of(world: World) -> None:
    """Chains that make blocks on demand stand still as a rule: 0 turns the watch off."""
    await world.run(*[passing(world, 86_400)] * 3)
    assert world.observer.stalls == []


async def test_a_tip_without_a_hint_is_told_to_whoever_hints(world: World) -> None:
    """A subscription that says nothing while the chain moves on may be dead; one that does is not."""
    await world.run()
    world.hints.overtaken_by.clear()

    def hinted() -> BlockRef:
        return world.chain.mine(swap(0))

    await world.run(hinted, hinted, None)
    assert world.hints.overtaken_by == []
    await world.run(lambda: world.chain.mine_empty(1))
    assert world.hints.overtaken_by == [world.chain.tip]


def by_ranges(world: World) -> int:
    """The last block that was loaded as history; 0: none was."""
    return max([call[2] for call in world.node.calls if call[0] == "facts_between"], default=0)  # type: ignore[type-var, return-value]


@pytest.mark.parametrize("step_ms", [1_000, 7_000, 12_000, 61_000])
@pytest.mark.parametrize("seconds", [0, 1, 60, 299, 86_400])
async def test_finality_in_seconds_is_found_by_time(step_ms: int, seconds: int) -> None:
    """History ends with the newest block that is deep and old enough; one asks for few blocks to find it."""
    world = World(rules("1h", finality=Finality(2, seconds * 1000)))
    world.chain.mine_empty(40, after_ms=step_ms)
    await world.run()
    tip = world.chain.tip
    final = [
        facts.block.number
        for facts in world.chain.blocks
        if tip.number - facts.block.number >= 2 and tip.timestamp - facts.block.timestamp >= seconds * 1000
    ]
    assert by_ranges(world) == max(final, default=0)
    last = by_ranges(world)
    asked = [call for call in world.node.calls if call[0] == "block" and call[1] not in range(last + 1, 41)]
    assert len(asked) <= 8
    assert await world.head() == world.at_tip()
    await world.database.close()


@pytest.mark.parametrize(("tag", "expected"), [(None, 36), (40, 36), (36, 36), (10, 10), (1, 1), (0, 0)])
async def test_history_ends_where_the_node_says_final(world: World, tag: int | None, expected: int) -> None:
    """What it does not call final stays undoable, however deep; a number of blocks bounds it as well."""
    world.chain.mine_empty(41)
    world.node.final = tag
    await world.run()
    assert by_ranges(world) == expected
    assert world.follower.state.recent()[0].number == expected


async def test_a_tag_that_moves_lets_before_images_go() -> None:
    """They stay while the node does not call their successors final; it is asked now and then only."""
    world = AuditedWorld(audit_blocks=0)
    world.audited.final = 0
    await world.run()
    await world.follow(created(0), *[swap(0)] * 9)
    assert [block.number for block in world.follower.state.recent()] == list(range(11))
    assert world.audited.finality_asked == 1
    world.audited.final = 7
    await world.follow(swap(0))
    assert world.audited.finality_asked == 1
    world.clock.pass_ms(15_000)
    await world.follow(swap(0))
    assert world.audited.finality_asked == 2
    assert [block.number for block in world.follower.state.recent()] == [7, 8, 9, 10, 11, 12]
    await check(world)
    await world.database.close()


@pytest.fixture
def few_undoable(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many before-images are kept at most."""
    for module in (finality, rules_module):
        monkeypatch.setattr(module, "MOST_UNDOABLE", 12)
    return 12


async def test_finality_that_stalls_is_bounded(world: World, few_undoable: int) -> None:
    """A node that calls nothing final for ever does not make before-images pile up for ever."""
    world.chain.mine_empty(40)
    world.node.final = 0
    await world.run()
    assert by_ranges(world) == world.chain.tip.number - few_undoable
    for _ in range(30):
        await world.run(lambda: world.chain.mine(swap(0)))
    assert len(world.follower.state.window) <= few_undoable + 2
    assert await world.redis.hlen(KEYS.undo) == len(world.follower.state.window)


async def test_finality_in_seconds_is_bounded(few_undoable: int) -> None:
    """Fast blocks: history ends not deeper than what can be undone, however long finality takes."""
    world = World(rules("1h", finality=Finality(2, DAY_MS)))
    world.chain.mine_empty(40, after_ms=1_000)
    await world.run()
    assert by_ranges(world) == 40 - few_undoable


async def test_no_block_is_called_final_while_history_is_loaded(world: World) -> None:
    """What is folded may not be committed yet."""
    told: list[object] = []
    commit = world.store.commit

    async def watched(changes: ChangeSet) -> Head:
        told.append(world.follower.final)
        return await commit(changes)

    world.store.commit = watched  # type: ignore[method-assign]
    for number in range(30):
        world.chain.mine(*[swap(0, 1, number + 1)] * 20)
    await world.run()
    loaded = [one for one in told if one is None]
    assert len(loaded) > 1
    assert world.follower.final == world.chain.blocks[-1 - BY.finality.blocks].block


async def test_the_audit_confirms_what_is_right(audited: AuditedWorld) -> None:
    """Final blocks are looked at once, oldest first, and remembered; then their before-images may go."""
    assert [written.block.number for written in audited.follower.unaudited(100)] == [1, 2, 3, 4, 5]
    assert [written.block.number for written in audited.follower.unaudited(2)] == [1, 2]
    await audited.audit()
    assert audited.follower.unaudited(100) == []
    assert audited.observer.audits == [(audited.chain.blocks[5].block, 0)]
    await audited.follow(swap(0))
    assert [written.block.number for written in audited.follower.unaudited(100)] == [6]
    assert audited.follower.state.recent()[0].number == 5
    final = audited.follower.final
    assert final
    assert final.number == 5
    audited.new_follower()
    assert audited.follower.final is None
    await audited.run()
    assert audited.follower.final == final
    assert [written.block.number for written in audited.follower.unaudited(100)] == [6]


async def test_only_blocks_that_are_ours_are_confirmed(audited: AuditedWorld) -> None:
    """A block that was rolled back meanwhile is not; and the place of the audit never goes back."""
    gone = audited.chain.tip
    audited.chain.fork(1)
    audited.chain.mine_empty(2)
    await audited.run()
    assert not audited.follower.confirm(gone)
    assert audited.follower.state.audited == -1
    assert audited.follower.confirm(audited.chain.blocks[5].block)
    assert audited.follower.confirm(audited.chain.blocks[3].block)
    assert audited.follower.state.audited == 5


async def test_a_reorg_takes_the_audit_back(audited: AuditedWorld) -> None:
    """Blocks of the new branch are looked at, although their numbers were before."""
    await audited.audit()
    audited.chain.fork(2)
    for number in range(2):
        audited.chain.mine(swap(0, 1, 60 + number))
    await audited.run()
    assert audited.follower.state.audited == 5
    await audited.follow(*[swap(0)] * 4)
    assert [written.block.number for written in audited.follower.unaudited(100)] == [6, 7, 8, 9]
    await audited.audit()
    assert audited.follower.state.audited == 9
    audited.chain.fork(4)
    audited.chain.mine_empty(4)
    await audited.run()
    assert audited.follower.state.audited == 7


async def test_logs_that_came_late_are_folded_in(audited: AuditedWorld) -> None:
    """The node left some out when it was asked first, and has them when the audit finds out: as if never."""
    audited.audited.left_out = {8: 1, 9: 1}
    await audited.follow(*[swap(0, 1, number + 20) for number in range(6)])
    assert await audited.trades() == 10
    audited.audited.left_out.clear()
    for _ in range(4):
        await audited.audit()
        await audited.run()
    assert await audited.trades() == 12
    assert {block.number for block, _, repaired in audited.observer.differences if repaired} == {8}
    assert await audited.events("reorg") == 1
    await check(audited)


async def test_logs_that_only_the_witness_has_are_folded_in(audited: AuditedWorld) -> None:
    """The node never gives them: the account that the audit found to be the fuller counts instead."""
    audited.audited.left_out = {8: 1}
    await audited.follow(*[swap(0, 1, number + 20) for number in range(6)])
    for _ in range(4):
        await audited.audit()
        await audited.run()
    assert await audited.trades() == 12


async def test_a_correction_counts_instead_of_what_the_node_says(audited: AuditedWorld) -> None:
    """A block near the head is undone and folded anew, with the facts that the audit gave."""
    audited.audited.left_out = {8: 1}
    await audited.follow(swap(0, 1, 20))
    (right,) = await audited.witness.facts([audited.chain.tip])
    audited.follower.correct(right)
    await audited.run()
    assert await audited.trades() == 7
    assert await audited.head() == audited.at_tip()
    assert await audited.events("reorg") == 1
    await check(audited)


async def test_the_lowest_of_several_corrections_decides(audited: AuditedWorld) -> None:
    """One rollback is enough: what lies above is folded anew with it."""
    for number in (7, 6):
        audited.follower.correct(audited.chain.blocks[number])
    await audited.run()
    (reorg,) = [data for _, event, data in await audited.rows() if event == "reorg"]
    assert reorg["ancestor"]["number"] == 5
    await check(audited)


async def test_a_correction_of_a_block_that_is_gone_changes_nothing(audited: AuditedWorld) -> None:
    """The chain has decided otherwise meanwhile."""
    orphan = audited.chain.blocks[-1]
    audited.chain.fork(1)
    audited.chain.mine_empty(2)
    await audited.run()
    before = await audited.dump()
    audited.follower.correct(orphan)
    await audited.run()
    assert await audited.dump() == before


async def test_a_correction_that_cannot_be_made_any_more_is_told(audited: AuditedWorld) -> None:
    """The block has become final between the auditor's word and the follower's next step."""
    await audited.follow(swap(0), swap(0), swap(0))
    wrong = audited.chain.blocks[-3]
    assert audited.follower.correct(wrong)
    window = audited.follower.state.window
    while window[0].block.number < wrong.block.number:
        window.popleft()
    before = await audited.dump()
    await audited.run()
    assert audited.observer.missed == [(wrong.block.number, wrong.block.number)]
    assert await audited.dump() == before


async def test_a_correction_that_was_made_already_changes_nothing(audited: AuditedWorld) -> None:
    """The auditor judged what had been committed before the repair: that is no second reorg."""
    (committed,) = await audited.witness.facts([audited.chain.tip])
    assert audited.follower.state.window[-1].digest == committed.digest
    audited.follower.correct(committed)
    await audited.run()
    assert await audited.events("reorg") == 0


async def test_corrections_are_forgotten_when_they_are_confirmed(audited: AuditedWorld) -> None:
    """Memory does not grow with the number of repairs."""
    audited.follower.correct(audited.chain.blocks[7])
    await audited.run()
    await audited.follow(*[swap(0)] * 6)
    await audited.audit()
    assert audited.follower.state.audited > 7
    assert audited.follower._corrections.next_above(-1) is None


async def test_a_fork_point_that_is_wrong_does_not_hold_up_the_audit() -> None:
    """The audit was away for long: what it comes too late for is not called repaired, again and again."""
    world = AuditedWorld(audit_blocks=2)
    await world.run()
    await world.follow(created(0))
    world.audited.left_out = {5: 1}
    await world.follow(*[swap(0)] * 8)
    assert world.follower.state.recent()[0].number == 5
    for _ in range(3):
        await world.audit()
        await world.run()
    assert world.follower.state.audited > 5
    assert [repaired for _, _, repaired in world.observer.differences if repaired] == []


async def test_an_audit_that_is_slower_than_the_chain_comes_along() -> None:
    """While the oldest blocks fall out of the window, those that are still in it are confirmed."""
    world = AuditedWorld(audit_blocks=3)
    await world.run()
    await world.follow(created(0), *[swap(0)] * 8)

    async def go_on() -> None:
        await world.follow(swap(0))

    world.witness.meanwhile = go_on
    for _ in range(5):
        await world.audit()
    assert world.follower.state.audited > 0


async def test_it_may_follow_to_the_tip_once(world: World) -> None:
    """All that is there is committed, and figures are brought to the wall clock; then it is done."""
    world.chain.mine_empty(12)
    world.clock.time = world.chain.tip.timestamp + 3 * MINUTE_MS
    await world.follower.catch_up()
    assert await world.head() == world.at_tip()
    head = world.follower.state.head
    assert head.as_of == world.clock.time - world.clock.time % MINUTE_MS
    world.chain.mine(swap(0))
    await world.follower.catch_up()
    assert await world.head() == world.at_tip()
    await check(world)


@pytest.mark.parametrize("number", [1, 3, 6, 14, 15])
async def test_it_may_load_to_a_block(world: World, number: int) -> None:
    """It stops there, though the node has more, with figures as of the time that was asked for."""
    for n in range(14):
        world.chain.mine(swap(0, 1, n + 1))
    target = world.chain.blocks[number].block
    as_of = world.chain.tip.timestamp + DAY_MS
    await world.follower.load_to(target, as_of)
    assert await world.head() == (target.number, target.hash)
    assert world.follower.state.head.as_of == as_of
    assert (await world.redis.hgetall(KEYS.stats(token(0))))[b"count"] == b"0"
    await world.follower.load_to(target, as_of)
    assert await world.head() == (target.number, target.hash)


async def test_it_follows_a_fork_to_the_block(world: World) -> None:
    """Where the target lies on another branch, what is not on it is rolled back."""
    for n in range(5):
        world.chain.mine(swap(0, 1, n + 1))
    await world.follower.load_to(world.chain.tip, world.clock.time)
    world.chain.fork(3)
    for n in range(2):
        world.chain.mine(swap(0, 1, n + 7))
    target = world.chain.tip
    world.chain.mine_empty(3)
    await world.follower.load_to(target, world.follower.state.head.as_of)
    assert await world.head() == (target.number, target.hash)


async def test_it_does_not_load_backwards(world: World) -> None:
    """A target below what was loaded already is refused, and nothing is changed."""
    world.chain.mine_empty(5)
    await world.follower.load_to(world.chain.tip, world.clock.time)
    before = await world.dump()
    with pytest.raises(OrphanedHead, match="block 4"):
        await world.follower.load_to(world.chain.blocks[4].block, world.clock.time)
    assert await world.dump() == before


async def test_it_loads_to_no_block_of_another_branch(world: World) -> None:
    """A target that the node's chain does not have is refused before anything is committed."""
    world.chain.mine_empty(5)
    orphan = world.chain.tip
    world.chain.fork(1)
    world.chain.mine_empty(2)
    with pytest.raises(OrphanedHead, match=orphan.hash):
        await world.follower.load_to(orphan, world.clock.time)
    assert world.follower.state.head.number == 0


@pytest.mark.parametrize("how", ["history", "first live block"])
async def test_one_wrong_reply_is_no_fork(world: World, how: str) -> None:
    """Right after history there is nothing to undo: a reply that does not fit is asked for once more."""

    class OnceWrong(FakeChain):
        wrong = 1

        def _bend(self, facts: BlockFacts) -> BlockFacts:
            if not self.wrong:
                return facts
            self.wrong -= 1
            return facts._replace(block=replace(facts.block, parent_hash="0x" + "ab" * 32))

        async def facts(self, block: BlockRef) -> BlockFacts:
            found = await super().facts(block)
            return self._bend(found) if how == "first live block" else found

        async def facts_between(self, first: int, last: int) -> list[BlockFacts]:
            found = list(await super().facts_between(first, last))
            return [self._bend(found[0]), *found[1:]] if how == "history" and first > 1 else found

    world.chain.mine_empty(20)
    world.limits = replace(world.limits, fetch=FetchLimits(5))
    world.node = OnceWrong(world.chain)
    world.new_follower()
    await world.settle()
    assert await world.head() == world.at_tip()


async def test_a_node_that_lags_shows_no_reorg_too_deep(world: World) -> None:
    """It may still have what was there before a reorg: only a chain as long as the one seen can tell."""
    world.chain.mine_empty(20)
    await world.run()
    seen = world.chain.tip.number
    before = await world.dump()
    world.chain.fork(12)
    world.chain.mine_empty(8)
    await world.fails(NodeBehind, f"{seen} were seen")
    world.chain.mine_empty(4)
    await world.fails(ReorgTooDeep)
    assert await world.dump() == before


async def test_a_node_of_two_minds_shows_no_reorg_too_deep(world: World) -> None:
    """What decides whether the service stops is asked twice: two answers are no reorg."""
    world.chain.mine_empty(20)
    await world.run()
    oldest = world.follower.state.recent()[0]

    class TwoMinds(FakeChain):
        asked = 0

        async def block(self, number: int) -> BlockRef:
            found = await super().block(number)
            self.asked += number == oldest.number
            return oldest if number == oldest.number and self.asked > 1 else found

    world.chain.fork(12)
    world.chain.mine_empty(13)
    world.follower._chain = TwoMinds(world.chain)
    await world.fails(InconsistentReply, "in two ways")


def test_runs_of_nothing_are_nothing() -> None:
    """Where nothing was fetched, nothing is committed."""
    assert list(Runs(5).rest()) == []


def test_a_limit_says_when_to_come_again() -> None:
    """What an endpoint said of its own limit travels with the error."""
    assert NodeLimited("429", 1.5).retry_after_s == 1.5
    assert NodeLimited("429").retry_after_s is None


class AuditingClock(FakeClock):
    """While somebody waits, the audit looks."""

    def __init__(self, world: AuditedWorld) -> None:
        super().__init__(world.clock.time)
        self._world = world

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await super().sleep(seconds)
        await self._world.audit()


async def test_history_waits_for_the_audit(audited: AuditedWorld) -> None:
    """Blocks of before a pause are looked at, the head too, before history makes them final for ever."""
    head = audited.follower.state.head
    audited.settings["audit_wanted"] = wanted = FakeSignal()
    audited.clock = AuditingClock(audited)
    audited.new_follower()
    audited.chain.mine_empty(40)
    await audited.run()
    assert await audited.head() == audited.at_tip()
    assert audited.observer.audits[0] == (audited.chain.blocks[head.number].block, 0)
    assert audited.clock.slept == [AUDIT_POLL_S]
    assert wanted.notified == 1
    assert audited.observer.missed == []


async def test_what_is_wrong_before_history_is_put_right(audited: AuditedWorld) -> None:
    """Logs that are missing in the last blocks before a pause are folded in, and history follows them."""
    audited.audited.left_out = {8: 1}
    await audited.follow(swap(0, 1, 20))
    audited.clock = AuditingClock(audited)
    audited.new_follower()
    audited.chain.mine_empty(40)
    await audited.run()
    assert await audited.trades() == 7
    assert await audited.head() == audited.at_tip()
    await check(audited)


async def test_after_a_correction_history_goes_on(audited: AuditedWorld) -> None:
    """Only the corrected block has to be folded alone: a long gap above it is loaded by ranges."""
    audited.audited.left_out = {8: 1}
    await audited.follow(swap(0, 1, 20))
    audited.clock = AuditingClock(audited)
    audited.new_follower()
    audited.chain.mine_empty(300)
    await audited.run()
    assert await audited.trades() == 7
    assert len(audited.observer.commits) < 100


async def test_history_is_told_once(audited: AuditedWorld) -> None:
    """What is owed for a store that went back is told when history is loaded, not before it, too."""
    await lose_a_block(audited)
    resyncs = await audited.events("resync")
    await audited.run()
    assert await audited.events("resync") == resyncs + 1


async def test_history_does_not_wait_for_an_audit_that_does_not_come(audited: AuditedWorld) -> None:
    """After some patience it is loaded, and what nobody looked at is told."""
    audited.new_follower()
    audited.chain.mine_empty(40)
    started = audited.clock.monotonic()
    await audited.run()
    assert await audited.head() == audited.at_tip()
    assert audited.clock.monotonic() - started == pytest.approx(AUDIT_PATIENCE_S, abs=2 * AUDIT_POLL_S)
    assert audited.observer.missed == [(1, 7)]


async def test_history_without_an_audit_waits_for_nobody() -> None:
    """Where none is wanted nothing is missed."""
    world = AuditedWorld(audit_blocks=0)
    await world.run()
    await world.follow(created(0), *[swap(0)] * 6)
    world.chain.mine_empty(40)
    await world.run()
    assert await world.head() == world.at_tip()
    assert (world.clock.slept, world.observer.missed) == ([], [])


async def test_blocks_that_nobody_looks_at_are_told() -> None:
    """One by one, when their before-images go: each block once, and none that was looked at."""
    world = AuditedWorld(audit_blocks=2)
    await world.run()
    await world.follow(created(0), *[swap(0)] * 7)
    assert world.observer.missed == [(number, number) for number in range(1, 5)]
    await world.audit()
    await world.follow(swap(0))
    assert world.observer.missed == [(number, number) for number in range(1, 5)]


async def test_blocks_that_a_reorg_takes_were_not_missed(audited: AuditedWorld) -> None:
    """The audit has time for all that is still in the window."""
    audited.chain.fork(2)
    audited.chain.mine_empty(2)
    await audited.run()
    assert audited.observer.missed == []


async def test_a_resync_that_is_owed_outlives_its_writer(audited: AuditedWorld) -> None:
    """The store went back, and the process ends before it has told: the next one tells."""
    kept = await keep(audited)
    await audited.follow(swap(0, 1, 30))
    await go_back(audited, kept)
    audited.chain.mine(swap(0, 1, 31))
    await audited.fails(Superseded)
    audited.node.errors.extend([None, NodeUnavailable("away")])
    await audited.fails(NodeUnavailable)
    resyncs = await audited.events("resync")
    audited.new_follower()
    await audited.run()
    assert await audited.events("resync") == resyncs + 1

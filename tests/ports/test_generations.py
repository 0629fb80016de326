"""Contract of `Generations`: in memory, on Valkey and on Redis."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import fakeredis
import orjson
import pytest
from redis.asyncio import Redis

from listener.application.errors import InconsistentReply, StoreUnavailable, Superseded
from listener.application.interfaces import Cursor, RowId
from listener.application.rules import Finality, Rules
from listener.domain.value_objects import DAY_MS, MINUTE_MS
from listener.infrastructure.redis.client import Command, Database
from listener.infrastructure.redis.generations import RedisGenerations
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from listener.infrastructure.redis.outbox import OutboxBounds, RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, created, graduate, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.servers import proxy_to
from tests.fakes.writer import Writer

LIVE = Keys(CHAIN_ID)
BESIDE = LIVE.beside("resync")
OTHER = LIVE.beside("verify")
NEIGHBOUR = Keys(1)
OLD = rules("5m", "1h", finality=Finality(4), trades_kept=3)
NEW = rules("15m", "1h", finality=Finality(4), trades_kept=3)
BOUNDS = OutboxBounds(1_000, 1_000_000)
Content = Mapping[bytes, object]


class Bench:
    """A stream with one generation beside it.

    Attributes:
        live: writer of the live generation, by the old rules.
        beside: writer of the other one, by the new rules.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.database = Database(redis)
        self.chain = LocalChain()
        self.live = self.writer(LIVE, OLD)
        self.beside = self.writer(BESIDE, NEW)
        self.generations = RedisGenerations(self.database, LIVE, BESIDE, NEW)

    def writer(self, keys: Keys, by: Rules) -> Writer:
        """One that writes to a generation."""
        store = RedisStore(self.database, keys, by, BOUNDS)
        return Writer(self.chain, store, by, live=not keys.generation)

    async def fill(self) -> None:
        """Two markets in both generations, a third one in the newer only, rows that wait, and a cursor."""
        self.chain.mine(created(0), swap(0, 1, 5), created(1))
        self.chain.mine(swap(0, 1, 6), swap(1, 1, 7), after_ms=20 * MINUTE_MS)
        await self.live.start(now=1_000)
        await self.redis.hset(LIVE.settings, "setting:OHLCV_INTERVALS", "1m,5m,1h")
        await self.live.follow()
        self.chain.mine(created(2), swap(2), graduate(1))
        await self.beside.start(now=1_000)
        await self.beside.follow()
        outbox = RedisOutbox(self.database, LIVE)
        await outbox.save(Cursor(RowId(1_000, 1), RowId(1_000, 2)), None)

    async def dump(self) -> Content:
        """Everything on the server but leases."""
        found: dict[bytes, object] = {}
        for key in sorted([key async for key in self.redis.scan_iter(count=1_000)]):
            if b"lease:" not in key:
                found[key] = await self._value(key)
        return found

    async def _value(self, key: bytes) -> object:
        match await self.redis.type(key):
            case b"hash":
                return await self.redis.hgetall(key)
            case b"zset":
                return await self.redis.zrange(key, 0, -1, withscores=True)
            case b"list":
                return await self.redis.lrange(key, 0, -1)
            case b"stream":
                return await self.redis.xrange(key)
            case _:
                return await self.redis.get(key)


SERVERS = ("fakeredis", "valkey", "redis")


@pytest.fixture(params=SERVERS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every kind of Redis, filled."""
    redis: Redis = (
        fakeredis.FakeAsyncRedis()
        if request.param == "fakeredis"
        else Redis(port=request.getfixturevalue(f"{request.param}_port"), protocol=2)
    )
    await redis.flushall()
    made = Bench(redis)
    await made.fill()
    yield made
    await made.database.close()


def of(keys: Keys, content: Content) -> dict[str, object]:
    """Content of one generation, by the names that it has as the live one."""
    prefix = f"{keys.generation}:" if keys.generation else ""
    others = () if prefix else ("resync:", "verify:")
    return {
        name.removeprefix(prefix): value
        for name, value in ((key.decode(), value) for key, value in content.items())
        if name.startswith(prefix) and not name.startswith(others) and f"{{{keys.stream}}}" in name
    }


def without(content: Mapping[str, object], *names: str) -> dict[str, object]:
    """Content without these keys."""
    return {name: value for name, value in content.items() if name not in names}


async def test_the_new_generation_takes_the_place_of_the_old(bench: Bench) -> None:
    """Every key that was beside is live, under the same name and with the same value; nothing else is."""
    before = await bench.dump()
    head = await bench.generations.switch(0)
    after = await bench.dump()
    assert of(BESIDE, after) == {}
    delivery = (LIVE.outbox, LIVE.cursor, LIVE.head, LIVE.settings, LIVE.partitions)
    assert without(of(LIVE, after), *delivery) == without(of(BESIDE, before), *delivery)
    assert (head.number, head.hash) == (bench.chain.tip.number, bench.chain.tip.hash)
    assert await bench.live.store.head() == head
    assert head.as_of == bench.beside.state.head.as_of


async def test_intervals_change_with_the_generation(bench: Bench) -> None:
    """Candles of an interval that only the old one had are gone, those that only the new one has are in."""
    await bench.generations.switch(0)
    for market in (0, 1):
        assert not await bench.redis.exists(LIVE.candles(token(market), "5m"))
        for name in ("1m", "15m", "1h"):
            assert await bench.redis.zcard(LIVE.candles(token(market), name)) >= 1
    candles = await bench.database.run("ZRANGE", LIVE.candles(token(0), "15m"), 0, -1)
    assert [orjson.loads(candle)["c"] for candle in candles] == ["5", "6"]


async def test_what_only_the_old_generation_had_is_gone(bench: Bench) -> None:
    """A market that the new one does not know leaves nothing behind."""
    bench.chain.fork(1)
    bench.chain.mine(created(3), swap(3), created(4))
    await bench.live.follow()
    before = of(LIVE, await bench.dump())
    assert {LIVE.market(token(3)), LIVE.market(token(4)), LIVE.trades(token(3))} <= before.keys()
    await bench.generations.switch(0)
    after = of(LIVE, await bench.dump())
    assert [name for name in after if token(3) in name or token(4) in name] == []
    assert set(await bench.generations.markets(live=True)) == {token(0), token(1), token(2)}


async def test_delivery_goes_on_where_it_was(bench: Bench) -> None:
    """Outbox and cursor belong to the backend, not to a generation; a `resync` is owed to it."""
    before = await bench.dump()
    await bench.generations.switch(0)
    after = await bench.dump()
    for key in (LIVE.outbox, LIVE.cursor):
        assert after[key.encode()] == before[key.encode()]
    stored = await bench.live.store.load()
    assert stored is not None
    assert stored.state.resync_owed


async def test_numbers_rise_above_both_generations(bench: Bench) -> None:
    """Epoch and gen are new ones: what was read or sent before is told apart from what comes."""
    bench.chain.fork(1)
    bench.chain.mine()
    for _ in range(5):
        await bench.beside.roll_back(2)
        await bench.beside.follow()
    highest = max(
        number
        for writer in (bench.live, bench.beside)
        for number in (writer.state.head.gen, writer.state.head.epoch)
    )
    head = await bench.generations.switch(0)
    assert head.epoch == head.gen == highest + 1
    assert head.seq == 0


async def test_numbers_are_not_below_the_floor(bench: Bench) -> None:
    """The wall clock is above everything that a store that lost its tail has forgotten."""
    head = await bench.generations.switch(1_700_000_000_000)
    assert head.epoch == head.gen == 1_700_000_000_000


async def test_the_running_writer_is_superseded(bench: Bench) -> None:
    """Its commits are refused; what is stored can be taken over and followed by the new rules."""
    await bench.generations.switch(0)
    changes = await bench.live.changes(bench.chain.blocks[3:])
    with pytest.raises(Superseded):
        await bench.live.store.commit(changes)
    successor = bench.writer(LIVE, NEW)
    await successor.start(now=5_000)
    bench.chain.mine(swap(0, 1, 9), swap(2, 1, 9))
    await successor.follow()
    fresh = bench.writer(OTHER, NEW)
    await fresh.start(now=1_000)
    await fresh.follow()
    content = await bench.dump()
    private = (LIVE.outbox, LIVE.cursor, LIVE.head, LIVE.settings, LIVE.partitions)
    assert without(of(LIVE, content), *private) == without(of(OTHER, content), *private)


async def test_the_leader_loses_the_lease_for_a_moment(bench: Bench) -> None:
    """It has to read what is stored now; nobody else gets ahead of it meanwhile, and it is soon over."""
    leader, standby = (RedisLease(bench.database, LIVE, 60_000) for _ in range(2))
    assert await leader.hold()
    await bench.generations.switch(0)
    assert not await leader.hold()
    assert not await standby.hold()
    assert 0 < await bench.redis.pttl(LIVE.lease) <= 1_500


class Intruding(Database):
    """Lets somebody act right before a script runs.

    Attributes:
        act: what happens then.
    """

    act: Any = None

    async def run_script(self, script: str, keys: Any, words: Any) -> list[Any]:
        """See `Database.run_script`."""
        act, self.act = self.act, None
        if act:
            await act()
        return await super().run_script(script, keys, words)


@pytest.mark.parametrize("field", ["hash", "gen", "seq"])
async def test_another_live_head_is_refused(bench: Bench, field: str) -> None:
    """A commit, a rollback or rows of the running service between two steps: nothing is switched."""
    database = Intruding(bench.redis)
    generations = RedisGenerations(database, LIVE, BESIDE, NEW)
    content: Content = {}

    async def move() -> None:
        nonlocal content
        await bench.redis.hset(LIVE.head, field, "0x" + "ab" * 32 if field == "hash" else "77")
        content = await bench.dump()

    database.act = move
    with pytest.raises(Superseded):
        await generations.switch(0)
    assert await bench.dump() == content
    assert not await bench.redis.exists(LIVE.lease)


@pytest.mark.parametrize("field", ["hash", "gen"])
async def test_another_new_head_is_refused(bench: Bench, field: str) -> None:
    """A generation that somebody else writes to meanwhile is not put in place."""
    database = Intruding(bench.redis)
    generations = RedisGenerations(database, LIVE, BESIDE, NEW)
    live = of(LIVE, await bench.dump())

    async def move() -> None:
        await bench.redis.hset(BESIDE.head, field, "0x" + "ab" * 32 if field == "hash" else "77")

    database.act = move
    with pytest.raises(Superseded):
        await generations.switch(0)
    assert of(LIVE, await bench.dump()) == live


async def test_a_refused_switch_may_be_tried_again(bench: Bench) -> None:
    """The running service committed meanwhile: the next try finds its new head."""
    database = Intruding(bench.redis)
    generations = RedisGenerations(database, LIVE, BESIDE, NEW)
    database.act = bench.live.follow
    with pytest.raises(Superseded):
        await generations.switch(0)
    assert (await generations.switch(0)).number == bench.chain.tip.number


async def test_without_a_new_generation_nothing_is_switched(bench: Bench) -> None:
    """There is nothing to put in place: it was cleared, or never begun."""
    await bench.generations.clear()
    before = await bench.dump()
    with pytest.raises(Superseded):
        await bench.generations.switch(0)
    assert await bench.dump() == before


async def test_a_first_generation_may_be_switched_to(bench: Bench) -> None:
    """Where there is no live data the new one becomes it."""
    live = [key async for key in bench.redis.scan_iter(count=1_000) if not key.startswith(b"resync:")]
    await bench.redis.delete(*live)
    assert await bench.generations.head() is None
    before = await bench.dump()
    head = await bench.generations.switch(0)
    assert await bench.generations.head() == head
    after = of(LIVE, await bench.dump())
    assert without(after, LIVE.head, LIVE.settings) == without(of(BESIDE, before), LIVE.head, LIVE.settings)


async def test_clearing_removes_the_generation_beside_only(bench: Bench) -> None:
    """Not the live one, not another one beside it, not the stream of another chain."""
    for keys in (OTHER, NEIGHBOUR, NEIGHBOUR.beside("resync"), Keys(313370), Keys(3133)):
        writer = bench.writer(keys, NEW)
        await writer.start(now=1_000)
        await writer.follow()
    before = await bench.dump()
    await bench.generations.clear()
    after = await bench.dump()
    assert of(BESIDE, after) == {}
    gone = {f"{BESIDE.generation}:{name}".encode() for name in of(BESIDE, before)}
    assert gone
    assert after == {key: value for key, value in before.items() if key not in gone}
    await bench.generations.clear()
    assert await bench.dump() == after


async def test_many_keys_are_cleared_and_switched(bench: Bench) -> None:
    """More than one scan gives: none is forgotten."""
    for start in range(10, 260, 50):
        numbers = range(start, start + 50)
        bench.chain.tokens.update({token(n): bench.chain.tokens[token(0)] for n in numbers})  # type: ignore[index, misc]
        bench.chain.mine(*[maker for n in numbers for maker in (created(n), swap(n))])
    await bench.beside.follow()
    assert len(of(BESIDE, await bench.dump())) > 1_200
    await bench.generations.switch(0)
    assert len(await bench.generations.markets(live=True)) == 253
    assert of(BESIDE, await bench.dump()) == {}
    other = bench.writer(BESIDE, NEW)
    await other.start(now=1_000)
    await other.follow()
    live = of(LIVE, await bench.dump())
    await bench.generations.clear()
    after = await bench.dump()
    assert of(BESIDE, after) == {}
    assert of(LIVE, after) == live


async def test_contents_are_what_readers_see(bench: Bench) -> None:
    """Record, figures, trades and candles by name; of both generations alike, where they agree."""
    markets = [token(0), token(1), token(9)]
    generations = RedisGenerations(bench.database, LIVE, BESIDE, rules("1h", trades_kept=3))
    head, live = await generations.contents(markets, live=True)
    assert head == bench.live.state.head
    assert live.keys() == {*markets}
    assert live[token(9)] == {}
    assert {piece.split()[0] for piece in live[token(0)]} == {"record", "24", "trade", "candle"}
    new_head, beside = await generations.contents(markets, live=False)
    assert new_head == bench.beside.state.head
    assert beside[token(0)] == live[token(0)]
    assert [piece for piece in live[token(1)] if beside[token(1)][piece] != live[token(1)][piece]] == [
        "record"
    ]


@pytest.mark.parametrize(
    ("key", "piece"),
    [
        (LIVE.stats(token(0)), "24 h"),
        (LIVE.market(token(0)), "record"),
        (LIVE.trades(token(0)), "trade"),
        (LIVE.candles(token(0), "1h"), "candle 1h"),
    ],
)
async def test_contents_show_what_is_missing(bench: Bench, key: str, piece: str) -> None:
    """A key that is gone is seen in its pieces, and in no other."""
    generations = RedisGenerations(bench.database, LIVE, BESIDE, rules("1h", trades_kept=3))
    _, before = await generations.contents([token(0)], live=True)
    await bench.redis.delete(key)
    _, after = await generations.contents([token(0)], live=True)
    lost = before[token(0)].keys() - after[token(0)].keys()
    assert lost
    assert all(name.startswith(piece) for name in lost)
    assert after[token(0)].items() <= before[token(0)].items()


async def test_contents_are_of_one_head(bench: Bench) -> None:
    """A commit while they are read makes them be read again: pieces of two heads are never mixed."""

    class Moving(Database):
        reads = 0

        async def run_all(self, commands: Any) -> list[Any]:
            self.reads += 1
            wanted: list[Command] = list(commands)
            answers = await super().run_all(wanted)
            if self.reads == 1:
                await bench.live.follow()
            return answers

    database = Moving(bench.redis)
    before = bench.live.state.head
    generations = RedisGenerations(database, LIVE, BESIDE, OLD)
    head, found = await generations.contents([token(1), token(2)], live=True)
    assert database.reads == 2
    assert head == bench.live.state.head != before
    assert found[token(1)]["record"]["status"] == "graduated"  # type: ignore[index]
    assert found[token(2)]


async def test_a_head_that_never_rests_is_an_error() -> None:
    """Reading again has an end."""
    redis = fakeredis.FakeAsyncRedis()

    class Moving(Database):
        async def run_all(self, commands: Any) -> list[Any]:
            await redis.hincrby(LIVE.head, "seq", 1)
            return await super().run_all(commands)

    bench = Bench(redis)
    await bench.fill()
    generations = RedisGenerations(Moving(redis), LIVE, BESIDE, OLD)
    with pytest.raises(InconsistentReply):
        await generations.contents([token(0)], live=True)
    await redis.aclose()


async def test_candles_beyond_retention_are_not_compared(bench: Bench) -> None:
    """When the fine candles of an idle market go depends on how the data came in: they may still be there."""
    bench.chain.mine(swap(1), after_ms=3 * DAY_MS)
    await bench.live.follow()
    await bench.beside.follow()
    kept = replace(rules("1h", trades_kept=3), retention_ms={"1m": DAY_MS, "1h": 2 * DAY_MS})
    generations = RedisGenerations(bench.database, LIVE, BESIDE, kept)
    assert await bench.redis.zcard(LIVE.candles(token(0), "1m")) == 2
    _, found = await generations.contents([token(0), token(1)], live=True)
    assert [piece for piece in found[token(0)] if piece.startswith("candle")] == []
    assert [piece.split()[1] for piece in found[token(1)] if piece.startswith("candle")] == ["1m", "1h"]
    forever = RedisGenerations(bench.database, LIVE, BESIDE, replace(kept, retention_ms={"1m": DAY_MS}))
    _, found = await forever.contents([token(0)], live=True)
    assert {piece.split()[1] for piece in found[token(0)] if piece.startswith("candle")} == {"1h"}


async def test_a_candle_at_the_edge_of_retention_is_compared(bench: Bench) -> None:
    """Exactly as old as is kept is kept."""
    head, found = await bench.generations.contents([token(0)], live=False)
    times = sorted(int(piece.split()[2]) for piece in found[token(0)] if piece.startswith("candle 1m"))
    for shift, expected in ((0, times), (-1, times[1:])):
        kept = replace(NEW, retention_ms={"1m": head.timestamp - times[0] + shift})
        generations = RedisGenerations(bench.database, LIVE, BESIDE, kept)
        _, seen = await generations.contents([token(0)], live=False)
        assert sorted(int(p.split()[2]) for p in seen[token(0)] if p.startswith("candle 1m")) == expected


async def test_only_the_newest_trades_are_compared(bench: Bench) -> None:
    """Blocks that can still be undone keep more of them than the rules say."""
    bench.chain.mine(*[swap(0, 1, number + 1) for number in range(6)])
    await bench.live.follow()
    assert await bench.redis.llen(LIVE.trades(token(0))) > 3
    _, found = await bench.generations.contents([token(0)], live=True)
    assert len([piece for piece in found[token(0)] if piece.startswith("trade ")]) == 3


async def test_markets_of_each_generation(bench: Bench) -> None:
    """Those that are registered in it."""
    assert await bench.generations.markets(live=True) == {token(0), token(1)}
    assert await bench.generations.markets(live=False) == {token(0), token(1), token(2)}


async def test_a_server_that_is_away_is_retryable() -> None:
    """Nobody listens: nothing is known, nothing is done."""
    async with proxy_to(1) as proxy:
        port = proxy.port
    database = Database.connect(f"redis://127.0.0.1:{port}/0", 0.3)
    generations = RedisGenerations(database, LIVE, BESIDE, NEW)
    for call in (generations.head(), generations.switch(0), generations.clear()):
        with pytest.raises(StoreUnavailable):
            await call
    await database.close()

"""Contract of `MarketStore` and `Outbox`: the same on a fake, in memory, on Valkey and on Redis."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import fakeredis
import orjson
import pytest
from redis.asyncio import Redis

from listener.application.changes import ChangeSet, Head
from listener.application.errors import (
    Fatal,
    ForeignData,
    NewerSchema,
    StoreMisused,
    StoreUnavailable,
    Superseded,
    TornData,
)
from listener.application.interfaces import ChainIdentity, Cursor, MarketStore, Outbox, RowId
from listener.application.rules import Finality, Rules
from listener.domain.entities import Candle
from listener.domain.value_objects import DAY_MS, MINUTE_MS, Address, Interval, MarketId
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.codec import decode_candle, encode_trade, stats_fields
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds, RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import (
    CHAIN_ID,
    ETHER,
    MONDAY_MS,
    RETENTION,
    created,
    curve,
    graduate,
    rules,
    swap,
    token,
    token_info,
)
from tests.fakes.chain import LocalChain
from tests.fakes.servers import proxy_to
from tests.fakes.store import FakeOutbox, FakeStore
from tests.fakes.writer import Writer

BY = rules("5m", "1d", finality=Finality(4), trades_kept=3)
KEYS = Keys(CHAIN_ID)
FINGERPRINT = {"PRICE_MODE": "execution", "OHLCV_INTERVALS": "1m,5m"}
OUTBOX_ROWS = 500
OUTBOX = OutboxBounds(OUTBOX_ROWS, 100_000_000)


class Bench:
    """One stream on one kind of store, and what is in it."""

    store: MarketStore
    outbox: Outbox

    async def candles(self, market: MarketId, interval: str) -> list[Candle]:
        """A series, ascending."""
        raise NotImplementedError

    async def trades(self, market: MarketId) -> list[bytes]:
        """Trades, newest first."""
        raise NotImplementedError

    async def stats(self, market: MarketId) -> dict[str, str]:
        """24 h figures as text."""
        raise NotImplementedError

    async def registered(self) -> list[str]:
        """Market ids by creation."""
        raise NotImplementedError

    async def own(self, **changes: str) -> None:
        """Change fields of the head as somebody else might."""
        raise NotImplementedError

    async def restarted(self) -> None:
        """From now on it is another server than the one that the last writer used."""
        raise NotImplementedError


class FakeBench(Bench):
    """In plain dictionaries."""

    def __init__(self, by: Rules) -> None:
        self.fake = FakeStore(by, OUTBOX_ROWS)
        self.store: MarketStore = self.fake
        self.outbox: Outbox = FakeOutbox(self.fake)

    async def restarted(self) -> None:
        """See `Bench.restarted`."""
        self.fake.incarnation = "second"

    async def candles(self, market: MarketId, interval: str) -> list[Candle]:
        """See `Bench.candles`."""
        return [candle for _, candle in sorted(self.fake.series.get((market, interval), {}).items())]

    async def trades(self, market: MarketId) -> list[bytes]:
        """See `Bench.trades`."""
        return [encode_trade(trade, self.fake.markets[market]) for trade in self.fake.trades.get(market, [])]

    async def stats(self, market: MarketId) -> dict[str, str]:
        """See `Bench.stats`."""
        figures = self.fake.figures.get(market)
        fields = stats_fields(figures, self.fake.markets[market]) if figures else {}
        return {name: str(value) for name, value in fields.items()}

    async def registered(self) -> list[str]:
        """See `Bench.registered`."""
        return sorted(self.fake.markets, key=lambda market: self.fake.markets[market].created_at)

    async def own(self, **changes: str) -> None:
        """See `Bench.own`."""
        if "schema" in changes:
            self.fake.schema = int(changes["schema"])
        else:
            self.fake.foreign = True


class Unnamed(Database):
    """fakeredis does not tell who it is; this one is always the same."""

    async def server(self) -> str:
        """See `Database.server`."""
        return "fakeredis"


class RedisBench(Bench):
    """On a server, or on one in memory."""

    def __init__(self, redis: Redis, by: Rules) -> None:
        self.redis = redis
        self.database = (Unnamed if isinstance(redis, fakeredis.FakeAsyncRedis) else Database)(redis)
        self.store: MarketStore = RedisStore(self.database, KEYS, by, OUTBOX)
        self.outbox: Outbox = RedisOutbox(self.database, KEYS)

    async def restarted(self) -> None:
        """See `Bench.restarted`."""
        await self.redis.hset(KEYS.settings, "server", "the one before")

    async def candles(self, market: MarketId, interval: str) -> list[Candle]:
        """See `Bench.candles`."""
        record = await self.redis.hgetall(KEYS.market(market))
        if not record:
            return []
        decimals = int(record[b"baseDecimals"]), int(record[b"quoteDecimals"])
        members = await self.redis.zrange(KEYS.candles(market, interval), 0, -1, withscores=True)
        assert all(orjson.loads(member)["t"] == score for member, score in members)
        return [decode_candle(member, *decimals) for member, _ in members]

    async def trades(self, market: MarketId) -> list[bytes]:
        """See `Bench.trades`."""
        return list(await self.redis.lrange(KEYS.trades(market), 0, -1))

    async def stats(self, market: MarketId) -> dict[str, str]:
        """See `Bench.stats`."""
        fields = await self.redis.hgetall(KEYS.stats(market))
        return {name.decode(): value.decode() for name, value in fields.items()}

    async def registered(self) -> list[str]:
        """See `Bench.registered`."""
        return [member.decode() for member in await self.redis.zrange(KEYS.markets, 0, -1)]

    async def own(self, **changes: str) -> None:
        """See `Bench.own`."""
        await self.redis.hset(KEYS.head, mapping=changes)


SERVERS = ("fakeredis", "valkey", "redis")


async def _on(kind: str, request: pytest.FixtureRequest, by: Rules) -> Bench:
    if kind == "fake":
        return FakeBench(by)
    if kind == "fakeredis":
        return RedisBench(fakeredis.FakeAsyncRedis(), by)
    port = request.getfixturevalue(f"{kind}_port")
    bench = RedisBench(Redis(port=port, protocol=2), by)
    await bench.redis.flushall()
    return bench


@pytest.fixture(params=["fake", *SERVERS])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every kind of store."""
    made = await _on(request.param, request, BY)
    yield made
    if isinstance(made, RedisBench):
        await made.database.close()


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisBench]:
    """Every kind of Redis."""
    made = await _on(request.param, request, BY)
    assert isinstance(made, RedisBench)
    yield made
    await made.database.close()


async def started(bench: Bench, by: Rules = BY, now: int = 1_000) -> Writer:
    """A writer on a new stream."""
    writer = Writer(LocalChain(), bench.store, by)
    await writer.start(now=now)
    return writer


async def traded(bench: Bench, by: Rules = BY) -> Writer:
    """A stream with two markets that have traded over some minutes."""
    writer = await started(bench, by)
    writer.chain.mine(created(0), swap(0, 2 * ETHER, 3 * ETHER, fee=7), created(1))
    writer.chain.mine(swap(0, ETHER, 5 * ETHER, buy=False), swap(1, 10**6, ETHER), after_ms=MINUTE_MS)
    await writer.follow()
    return writer


def empty(writer: Writer, **changes: Any) -> ChangeSet:
    """A change set that changes nothing but what is given."""
    head = writer.state.head
    return replace(ChangeSet(base=head, head=head, live=True), **changes)


async def test_a_new_stream_is_nothing(bench: Bench) -> None:
    """Before the first start there is no state, no head, no cursor and no row."""
    assert await bench.store.load() is None
    assert await bench.outbox.cursor() is None
    assert await bench.outbox.read(RowId(0, 0), 10) == []
    with pytest.raises(Superseded):
        await bench.store.head()


async def test_a_stream_is_created_once(bench: Bench) -> None:
    """The first writer decides where it begins; a second one changes nothing."""
    chain = LocalChain()
    chain.mine_empty(3)
    identity = ChainIdentity(CHAIN_ID, chain.blocks[0].block.hash)
    await bench.store.initialise(identity, chain.blocks[2].block, FINGERPRINT, 1_000)
    await bench.store.initialise(ChainIdentity(1, "0x"), chain.blocks[3].block, {}, 2_000)
    stored = await bench.store.load()
    assert stored is not None
    assert (stored.chain_id, stored.genesis, stored.schema) == (*identity, 1)
    assert stored.fingerprint == FINGERPRINT
    base = chain.blocks[2].block
    assert stored.state.base == 2
    assert stored.state.head == Head(2, base.hash, base.timestamp, base.timestamp, 1_000, 1_000, 0)
    assert stored.state.recent() == [base]
    assert stored.state.resync_owed
    assert (stored.state.sources, stored.state.closed) == ({}, {})


async def test_loading_gives_what_was_committed(bench: Bench) -> None:
    """After any commits a new process reads exactly what the old one knew."""
    writer = await traded(bench)
    writer.chain.mine(graduate(0), swap(1, 10**6, 2 * ETHER))
    await writer.follow()
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state == writer.state
    assert await bench.store.head() == writer.state.head


async def test_markets_survive_a_round_trip(bench: Bench) -> None:
    """Newest candles, record, last price and day come back as they were folded."""
    writer = await traded(bench)
    loaded = await bench.store.load_markets([token(0), token(1), token(9)])
    assert loaded.keys() == {token(0), token(1)}
    for market, kept in writer.kept.items():
        assert loaded[market].market == kept.market
        assert loaded[market].live == kept.live
        assert loaded[market].last_price == kept.last_price
        assert loaded[market].day.total() == kept.day.total()
        assert loaded[market].day.changed == kept.day.changed
    assert await bench.store.load_markets([]) == {}


async def test_many_markets_are_read_together(bench: Bench) -> None:
    """Each market gets its own day, however many are asked for at once."""
    writer, tokens = await started(bench), 70
    writer.chain.tokens.update({Address(token(n)): token_info(n % 3) for n in range(tokens)})
    for n in range(tokens):
        writer.chain.mine(created(n), swap(n, n + 1, 7))
    writer.chain.mine(created(tokens))
    await writer.follow()
    loaded = await bench.store.load_markets([token(n) for n in range(tokens)])
    assert {market: state.day.total() for market, state in loaded.items()} == {
        token(n): writer.kept[token(n)].day.total() for n in range(tokens)
    }
    assert all(state.live == writer.kept[market].live for market, state in loaded.items())


async def test_extreme_amounts_survive_a_round_trip(bench: Bench) -> None:
    """The largest and the smallest amounts are stored to the last unit."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0, 2**256 - 1, 1), swap(0, 1, 2**256 - 1, buy=False))
    await writer.follow()
    loaded = (await bench.store.load_markets([token(0)]))[token(0)]
    assert loaded.live == writer.kept[token(0)].live
    assert loaded.live[0] is not None
    assert loaded.live[0].base == 2**256


async def test_a_market_without_trades_has_no_figures(bench: Bench) -> None:
    """A record alone is a state: no candle, no price."""
    writer = await started(bench)
    writer.chain.mine(created(0))
    await writer.follow()
    state = (await bench.store.load_markets([token(0)]))[token(0)]
    assert state.live == (None, None, None)
    assert state.last_price is None
    assert await bench.stats(token(0)) == {}
    assert await bench.registered() == [token(0)]


@pytest.mark.parametrize("fence", [{"hash": "0x" + "0" * 64}, {"gen": 7}, {"seq": 7}])
async def test_a_commit_on_another_head_is_refused(bench: Bench, fence: dict[str, Any]) -> None:
    """Hash, generation and row number must each be the stored ones; otherwise nothing is written."""
    writer = await traded(bench)
    before = await bench.store.load()
    rows = await bench.outbox.read(RowId(0, 0), 1_000)
    writer.chain.mine(swap(0), created(2))
    changes = await writer.changes(writer.chain.blocks[3:])
    changes.base = replace(changes.base, **fence)
    with pytest.raises(Superseded):
        await bench.store.commit(changes)
    assert await bench.store.load() == before
    assert await bench.outbox.read(RowId(0, 0), 1_000) == rows
    assert token(2) not in await bench.registered()


async def test_a_commit_sent_twice_is_applied_once(bench: Bench) -> None:
    """A resend finds the head moved and is refused: no candle, trade or row is doubled."""
    writer = await traded(bench)
    writer.chain.mine(swap(0))
    changes = await writer.changes(writer.chain.blocks[3:])
    await bench.store.commit(changes)
    trades, rows = await bench.trades(token(0)), await bench.outbox.read(RowId(0, 0), 1_000)
    with pytest.raises(Superseded):
        await bench.store.commit(changes)
    assert await bench.trades(token(0)) == trades
    assert await bench.outbox.read(RowId(0, 0), 1_000) == rows


async def test_an_old_commit_is_refused_after_a_rollback(bench: Bench) -> None:
    """The parent is the head again, but the generation tells the late commit apart."""
    writer = await traded(bench)
    writer.chain.mine(swap(0))
    late = await writer.changes(writer.chain.blocks[3:])
    await writer.commit(await writer.changes(writer.chain.blocks[3:]))
    await writer.roll_back(2)
    late.base = replace(late.base, seq=writer.state.head.seq)
    assert late.base.hash == writer.state.head.hash
    with pytest.raises(Superseded):
        await bench.store.commit(late)


@pytest.mark.parametrize("now", [5, 10**15])
async def test_a_takeover_rises_above_everything(bench: Bench, now: int) -> None:
    """Generation and epoch exceed all before, whatever the clock says; numbers begin anew."""
    writer = await traded(bench)
    old = writer.state.head
    new = await bench.store.take_over(old, now, resync_owed=False)
    assert new.gen > old.gen
    assert new.epoch > old.epoch
    assert min(new.gen, new.epoch) >= now
    assert new.seq == 0
    assert (new.number, new.hash, new.as_of) == (old.number, old.hash, old.as_of)
    assert await bench.store.head() == new
    with pytest.raises(Superseded):
        await bench.store.take_over(old, now, resync_owed=False)
    with pytest.raises(Superseded):
        await bench.store.commit(empty(writer))


async def test_candles_are_replaced(bench: Bench) -> None:
    """Two commits into one bucket leave one candle."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0))
    writer.chain.mine(swap(0), after_ms=1_000)
    await writer.follow()
    (minute,) = await bench.candles(token(0), "1m")
    assert minute.trades == 2
    assert minute == writer.kept[token(0)].live[0]
    assert len(await bench.candles(token(0), "1d")) == 1


async def test_trades_are_kept_newest_first_and_bounded(bench: Bench) -> None:
    """The newest come first; beyond what is kept and what can be undone they are trimmed."""
    writer = await started(bench)
    writer.chain.mine(created(0))
    for _ in range(20):
        writer.chain.mine(swap(0), swap(0))
    await writer.follow()
    trades = [orjson.loads(trade) for trade in await bench.trades(token(0))]
    assert [trade["id"] for trade in trades[:3]] == ["21-1", "21-0", "20-1"]
    assert len(trades) <= 3 + 2 * (4 + 2)
    assert len({trade["id"] for trade in trades}) == len(trades)


async def test_history_keeps_the_newest_trades(bench: Bench) -> None:
    """A run with more trades than are kept stores the newest of them only."""
    writer = await started(bench)
    writer.chain.mine(created(0), *[swap(0)] * 1_200)
    writer.chain.mine(swap(0))
    await writer.load_history(writer.chain.blocks[1:])
    ids = [orjson.loads(trade)["id"] for trade in await bench.trades(token(0))]
    assert ids == ["2-0", "1-1200", "1-1199"]
    (day,) = await bench.candles(token(0), "1d")
    assert day.trades == 1_201


async def test_old_candles_are_trimmed(bench: Bench) -> None:
    """A new candle takes those beyond the retention away; unlimited intervals keep theirs."""
    by = replace(BY, retention_ms=RETENTION, finality=Finality(1))
    writer = await started(bench, by)
    writer.chain.mine(created(0), swap(0))
    for _ in range(3):
        writer.chain.mine(after_ms=2 * DAY_MS)
        writer.chain.mine(swap(0))
    await writer.follow()
    days, minutes = await bench.candles(token(0), "1d"), await bench.candles(token(0), "1m")
    assert len(days) == 4
    assert [candle.first for candle in minutes] == [candle.first for candle in days[1:]]


async def test_minutes_of_a_span_are_read(bench: Bench) -> None:
    """Minutes come in order, from the first to the last one asked for; there may be none."""
    writer = await traded(bench)
    await writer.follow()
    minutes = await bench.candles(token(0), "1m")
    assert len(minutes) > 1
    first, last = minutes[0].open_time, minutes[-1].open_time
    for span, inside in (
        ((0, last), minutes),
        ((first, last), minutes),
        ((first + 1, last), minutes[1:]),
        ((first, last - 1), minutes[:-1]),
        ((last + 1, last + 2), []),
    ):
        assert await bench.store.load_minutes({token(0): span}) == {token(0): inside}
    assert await bench.store.load_minutes({}) == {}


async def test_undos_survive_a_round_trip(bench: Bench) -> None:
    """Before-images come back newest first, with every candle, record and price as it was."""
    writer = await traded(bench)
    writer.chain.mine(swap(0), graduate(0), created(2), swap(2, 3, 2**256 - 1))
    changes = await writer.changes(writer.chain.blocks[3:])
    undo = changes.undo
    await writer.commit(changes)
    loaded = await bench.store.load_undos(2)
    assert loaded == [undo]
    assert [one.block.number for one in await bench.store.load_undos(0)] == [3, 2, 1]
    assert await bench.store.load_undos(3) == []


async def test_a_rollback_leaves_what_was_before(bench: Bench) -> None:
    """Candles, trades, records and registry are as they were, new markets are gone, all in one commit."""
    writer = await traded(bench)
    before = [await _seen(bench, token(0)), await _seen(bench, token(1)), await bench.registered()]
    writer.chain.mine(swap(0), graduate(0), created(2), swap(2), after_ms=90_000)
    await writer.follow()
    await writer.roll_back(2)
    after = [await _seen(bench, token(0)), await _seen(bench, token(1)), await bench.registered()]
    assert after == before
    assert await bench.candles(token(2), "1m") == []
    assert await bench.trades(token(2)) == []
    assert await bench.stats(token(2)) == {}
    assert curve(2) not in writer.state.sources
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state == writer.state
    assert await bench.store.load_undos(2) == []


async def _seen(bench: Bench, market: MarketId) -> list[object]:
    """What readers see of a market."""
    series = [await bench.candles(market, name) for name in ("1m", "5m", "1d")]
    state = (await bench.store.load_markets([market]))[market]
    return [series, await bench.trades(market), await bench.stats(market), state.market]


async def test_figures_are_whole(bench: Bench) -> None:
    """What is stored of the 24 h figures has every field of the contract, and none twice."""
    await traded(bench)
    stats = await bench.stats(token(0))
    assert stats["lastPrice"] == "5"
    assert (stats["openPrice"], stats["highPrice"], stats["lowPrice"]) == ("1.5", "5", "1.5")
    assert (stats["priceChange"], stats["priceChangePercent"]) == ("3.5", "233.333333333333333333333")
    assert (stats["volume"], stats["quoteVolume"], stats["count"]) == ("3", "8", "2")
    assert (stats["buyVolume"], stats["sellVolume"]) == ("2", "1")
    assert (stats["buyCount"], stats["sellCount"]) == ("1", "1")
    assert stats["weightedAvgPrice"] == "2.66666666666666666666667"
    assert int(stats["closeTime"]) - int(stats["openTime"]) == DAY_MS - 1


async def test_an_empty_day_has_no_average(bench: Bench) -> None:
    """When the last minute falls out, the average disappears and the last price stays."""
    writer = await traded(bench)
    await writer.pass_time(MONDAY_MS + 2 * DAY_MS)
    stats = await bench.stats(token(0))
    assert "weightedAvgPrice" not in stats
    assert (stats["lastPrice"], stats["openPrice"], stats["count"], stats["priceChange"]) == (
        "5",
        "5",
        "0",
        "0",
    )


async def test_due_markets_come_longest_due_first(bench: Bench) -> None:
    """Only what is due, in order, and no more than asked for."""
    writer = await started(bench)
    for number in range(4):
        writer.chain.mine(created(number), swap(number), after_ms=MINUTE_MS)
    await writer.follow()
    day = MONDAY_MS + DAY_MS
    assert await bench.store.due(day, 10) == []
    assert await bench.store.due(day + 2 * MINUTE_MS, 10) == [token(0), token(1)]
    assert await bench.store.due(day + DAY_MS, 3) == [token(0), token(1), token(2)]
    await writer.pass_time(day + 2 * MINUTE_MS)
    assert await bench.store.due(day + 3 * MINUTE_MS, 10) == [token(2)]


async def test_what_is_closed_is_remembered(bench: Bench) -> None:
    """Watermarks of all intervals come back after a restart."""
    writer = await traded(bench)
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state.closed == writer.state.closed
    assert set(stored.state.closed) == {"1m", "5m", "1d"}


async def test_rows_are_numbered_without_a_gap(bench: Bench) -> None:
    """Every commit continues the numbers, the head knows the last, and a new epoch begins with one."""
    writer = await traded(bench)
    rows = await bench.outbox.read(RowId(0, 0), 1_000)
    epoch = writer.state.head.epoch
    assert [row.id for row in rows] == [RowId(epoch, n) for n in range(1, len(rows) + 1)]
    assert (await bench.store.head()).seq == len(rows)
    await writer.start(now=2_000)
    writer.chain.mine(swap(0))
    await writer.follow()
    later = await bench.outbox.read(rows[-1].id, 1_000)
    assert [row.id for row in later] == [RowId(writer.state.head.epoch, n) for n in range(1, len(later) + 1)]


async def test_rows_say_what_happened(bench: Bench) -> None:
    """Payloads are those of the contract; candles and statistics are references."""
    await traded(bench)
    rows = await bench.outbox.read(RowId(0, 0), 1_000)
    events = [row.event for row in rows]
    assert events[0] == "resync"
    made = orjson.loads(next(row.data for row in rows if row.event == "market_created"))
    assert (made["s"], made["status"], made["symbol"]) == (token(0), "trading", "T0")
    trade = orjson.loads(next(row.data for row in rows if row.event == "trade_update"))
    assert (trade["p"], trade["side"], trade["v"], trade["q"]) == ("1.5", "buy", "2", "3")
    reference = orjson.loads(next(row.data for row in rows if row.event == "chart_data"))
    assert reference == {"s": token(0), "c": [["1m", MONDAY_MS], ["5m", MONDAY_MS], ["1d", MONDAY_MS]]}
    assert next(row.data for row in rows if row.event == "market_data") == token(0).encode()


async def test_rows_are_read_in_parts(bench: Bench) -> None:
    """Reading on from the last row gives the rest, without overlap."""
    await traded(bench)
    rows = await bench.outbox.read(RowId(0, 0), 1_000)
    first = await bench.outbox.read(RowId(0, 0), 3)
    assert first == rows[:3]
    assert await bench.outbox.read(first[-1].id, 1_000) == rows[3:]
    assert await bench.outbox.read(rows[-1].id, 10) == []
    assert await bench.outbox.holds(rows[-1].id)
    assert not await bench.outbox.holds(RowId(rows[-1].id.epoch, len(rows) + 1))


async def test_the_outbox_is_bounded(bench: Bench) -> None:
    """Old rows go when there are too many, the newest stay, and numbers go on."""
    writer = await started(bench)
    writer.chain.mine(created(0))
    for _ in range(8):
        writer.chain.mine(*[swap(0)] * 200)
    await writer.follow()
    rows = await bench.outbox.read(RowId(0, 0), 10_000)
    assert OUTBOX_ROWS <= len(rows) < OUTBOX_ROWS + 250
    assert rows[-1].id.seq == writer.state.head.seq
    assert [row.id.seq for row in rows] == list(range(rows[0].id.seq, rows[-1].id.seq + 1))


async def test_the_cursor_survives_a_round_trip(bench: Bench) -> None:
    """Where delivery stands is remembered, the newest word counts."""
    first, second = Cursor(RowId(0, 0), RowId(5, 6)), Cursor(RowId(10**15, 10**9), RowId(10**15, 10**9))
    await bench.outbox.save(first, None)
    assert await bench.outbox.cursor() == first
    await bench.outbox.save(second, first)
    assert await bench.outbox.cursor() == second


@pytest.mark.parametrize("previous", [None, Cursor(RowId(1, 1), RowId(1, 2))])
async def test_a_cursor_that_somebody_else_moved_stays(bench: Bench, previous: Cursor | None) -> None:
    """Two publishers: the one whose knowledge is old learns of it and changes nothing."""
    moved = Cursor(RowId(1, 2), RowId(1, 2))
    await bench.outbox.save(moved, None)
    with pytest.raises(Superseded):
        await bench.outbox.save(Cursor(RowId(1, 3), RowId(1, 3)), previous)
    assert await bench.outbox.cursor() == moved


async def test_references_are_read_as_stored_now(bench: Bench) -> None:
    """Candles as in the contract with market, interval and close time; what is gone is marked."""
    await traded(bench)
    minute, week = Interval.parse("1m"), Interval.parse("1w")
    wanted = [
        (token(0), minute, MONDAY_MS),
        (token(0), minute, MONDAY_MS - MINUTE_MS),
        (token(9), week, MONDAY_MS),
    ]
    first, gone, unknown = await bench.outbox.candles(wanted)
    assert (first["s"], first["i"], first["t"], first["T"]) == (
        token(0),
        "1m",
        MONDAY_MS,
        MONDAY_MS + MINUTE_MS - 1,
    )
    assert (first["o"], first["c"], first["v"], first["n"], first["f"]) == ("1.5", "1.5", "2", 1, "1-1")
    assert gone == {"s": token(0), "i": "1m", "t": MONDAY_MS - MINUTE_MS, "deleted": True}
    assert unknown == {"s": token(9), "i": "1w", "t": MONDAY_MS, "deleted": True}
    assert await bench.outbox.candles([]) == []


async def test_figures_are_read_as_stored_now(bench: Bench) -> None:
    """Counts and times are numbers, amounts are texts; a market without figures is marked."""
    await traded(bench)
    first, gone = await bench.outbox.stats([token(0), token(9)])
    assert (first["s"], first["count"], first["lastPrice"]) == (token(0), 2, "5")
    assert isinstance(first["closeTime"], int)
    assert gone == {"s": token(9), "deleted": True}
    assert await bench.outbox.stats([]) == []


async def test_a_newer_schema_is_refused(bench: Bench) -> None:
    """What a newer version wrote is not read as if it were ours."""
    await started(bench)
    await bench.own(schema="2")
    with pytest.raises(NewerSchema):
        await bench.store.load()


async def test_foreign_data_is_refused(server: RedisBench) -> None:
    """A key of ours that somebody else wrote is named, and not touched."""
    await server.redis.hset(KEYS.head, mapping={"name": "x"})
    with pytest.raises(ForeignData, match="head:"):
        await server.store.load()
    assert await server.redis.hgetall(KEYS.head) == {b"name": b"x"}


async def test_a_foreign_key_of_another_type_is_fatal(server: RedisBench) -> None:
    """A text where the head should be stops the service; it is not overwritten."""
    await server.redis.set(KEYS.head, "x")
    with pytest.raises(Fatal):
        await server.store.load()
    with pytest.raises(Fatal):
        await server.store.initialise(ChainIdentity(1, "0x"), LocalChain().tip, {}, 1)
    assert await server.redis.get(KEYS.head) == b"x"


async def test_a_refused_command_leaves_the_head(server: RedisBench) -> None:
    """If a key of another type stops a commit half way, the head still says that it is not done."""
    writer = await traded(server)
    head = await server.store.head()
    await server.redis.delete(KEYS.stats(token(0)))
    await server.redis.set(KEYS.stats(token(0)), "x")
    writer.chain.mine(swap(0))
    changes = await writer.changes(writer.chain.blocks[3:])
    with pytest.raises(StoreMisused):
        await server.store.commit(changes)
    assert await server.store.head() == head


async def test_keys_are_those_of_the_contract(server: RedisBench) -> None:
    """Every key carries the stream's tag, except the number of partitions; names are as documented."""
    await traded(server)
    keys = {key.decode() async for key in server.redis.scan_iter(count=1_000)}
    assert all("{31337}" in key for key in keys - {"partitions:31337"})
    assert {
        f"candles:{{31337}}:{token(0)}:1m",
        f"stats:{{31337}}:{token(0)}",
        f"trades:{{31337}}:{token(0)}",
        f"market:{{31337}}:{token(0)}",
        "markets:{31337}",
        "head:{31337}",
        "partitions:31337",
    } <= keys
    assert await server.redis.get("partitions:31337") == b"1"
    head = await server.redis.hgetall("head:{31337}")
    assert set(head) == {
        *(b"number", b"hash", b"timestamp", b"asOf", b"gen", b"epoch", b"seq"),
        *(b"schema", b"chainId", b"genesis"),
    }


async def test_a_very_large_commit_fits(server: RedisBench) -> None:
    """Thousands of trades, candles and markets in one commit stay within what a script may do."""
    writer = await started(server)
    writer.chain.tokens.update({token(n): writer.chain.tokens[token(0)] for n in range(400)})  # type: ignore[misc]
    writer.chain.mine(
        *[created(n) for n in range(400)], *[swap(n % 400) for n in range(2_500)], *[swap(0)] * 9_000
    )
    await writer.follow()
    assert len(await server.registered()) == 400
    assert (await server.store.head()).number == 1


async def test_after_a_restart_of_the_server_a_resync_is_owed(bench: Bench) -> None:
    """It may have lost rows that were delivered. Who takes over writes it down: others may have to pay."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0))
    await writer.follow()
    stored = await bench.store.load()
    assert stored is not None
    assert not stored.state.resync_owed
    await bench.restarted()
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state.resync_owed
    await bench.store.take_over(stored.state.head, 1, resync_owed=True)
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state.resync_owed


async def test_who_takes_over_owes_only_what_is_said(bench: Bench) -> None:
    """Nothing is owed after a takeover on the same server, if nothing was before."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0))
    await writer.follow()
    await bench.store.take_over(await bench.store.head(), 1, resync_owed=False)
    stored = await bench.store.load()
    assert stored is not None
    assert not stored.state.resync_owed


async def test_where_the_audit_stands_is_remembered_by_hash(bench: Bench) -> None:
    """The number of an audited block counts only while the block is ours."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0))
    writer.chain.mine(swap(0))
    await writer.follow()
    await bench.store.save_audited(writer.chain.blocks[1].block)
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state.audited == 1
    await bench.store.save_audited(replace(writer.chain.blocks[1].block, hash="0x" + "ab" * 32))
    stored = await bench.store.load()
    assert stored is not None
    assert stored.state.audited == -1


async def test_a_part_of_a_commit_is_noticed(server: RedisBench) -> None:
    """A script that ran in part, as when Redis replays a file cut inside a transaction, is found at load."""
    writer = await started(server)
    writer.chain.mine(created(0), swap(0))
    await writer.follow()
    assert await server.store.load() is not None
    await server.redis.hincrby(KEYS.settings, "begun", 1)
    with pytest.raises(TornData, match="resync"):
        await server.store.load()


async def test_a_part_of_a_commit_is_noticed_by_a_writer_that_has_loaded(server: RedisBench) -> None:
    """A server may be cut, replay a part, and be up again before the writer has noticed that it was away."""
    writer = await started(server)
    writer.chain.mine(created(0), swap(0))
    await writer.follow()
    await server.redis.hincrby(KEYS.settings, "begun", 1)
    before = await server.store.head()
    writer.chain.mine(swap(0))
    with pytest.raises(Superseded):
        await writer.follow()
    assert await server.store.head() == before


async def test_a_lost_refresh_is_noticed(bench: Bench) -> None:
    """A commit that only let time pass moves neither block nor row: `asOf` tells that it was lost."""
    writer = await started(bench)
    writer.chain.mine(created(0), swap(0))
    await writer.follow()
    head = await bench.store.head()
    later = replace(head, as_of=head.as_of + MINUTE_MS)
    await bench.store.commit(ChangeSet(base=head, head=later, live=False))
    with pytest.raises(Superseded):
        await bench.store.commit(ChangeSet(base=head, head=later, live=False))


async def test_the_outbox_is_bounded_by_bytes(server: RedisBench) -> None:
    """The oldest rows go when the whole is too large; what stays has no hole and ends with the newest."""
    server.store = RedisStore(server.database, KEYS, BY, OutboxBounds(10_000, 40_000))
    writer = await started(server)
    writer.chain.mine(created(0))
    for _ in range(20):
        writer.chain.mine(*[swap(0)] * 10)
    await writer.follow()
    rows = await server.outbox.read(RowId(0, 0), 10_000)
    size = sum(len(row.event) + len(row.data) + 64 for row in rows)
    assert 20_000 < size <= 40_000
    assert [row.id.seq for row in rows] == list(range(rows[0].id.seq, writer.state.head.seq + 1))


async def test_the_largest_finality_window_fits(server: RedisBench) -> None:
    """Dropping every before-image of the largest window that settings allow is one commit."""
    writer = await started(server)
    writer.chain.mine()
    changes = await writer.changes(writer.chain.blocks[1:], undoable=False)
    changes.undo_dropped = [0, *range(10_000, 15_001)]
    assert (await server.store.commit(changes)).number == 1


@pytest.fixture(params=["valkey", "redis"])
def real_port(request: pytest.FixtureRequest) -> int:
    """Port of a real server."""
    return int(request.getfixturevalue(f"{request.param}_port"))


def store_at(port: int, timeout_s: float = 0.3, userinfo: str = "") -> tuple[Database, RedisStore]:
    """A store on a port."""
    database = Database.connect(f"redis://{userinfo}127.0.0.1:{port}/0", timeout_s)
    return database, RedisStore(database, KEYS, BY, OUTBOX)


async def test_a_server_that_is_away_is_retryable() -> None:
    """Nobody listens: wait and try again."""
    async with proxy_to(1) as proxy:
        port = proxy.port
    database, store = store_at(port)
    for call in (store.load(), store.head(), store.due(1, 1), store.load_markets([token(0)])):
        with pytest.raises(StoreUnavailable):
            await call
    await database.close()


async def test_a_wrong_password_is_fatal(real_port: int) -> None:
    """Trying again would not help; the error names the setting."""
    client: Redis = Redis(port=real_port)
    await client.acl_setuser(
        "guest", enabled=True, passwords=["+right"], commands=["+@all"], keys=["other:*"]
    )
    for userinfo in ("guest:wrong@", "nobody:x@", "guest:right@"):
        database, store = store_at(real_port, userinfo=userinfo)
        with pytest.raises(StoreMisused, match="REDIS_URL"):
            await store.load()
        await database.close()
    await client.acl_deluser("guest")
    await client.aclose()


async def test_a_lost_answer_is_unknown_and_harmless(real_port: int) -> None:
    """The commit was applied, its answer lost: the error is retryable, the head tells, nothing is doubled."""
    admin: Redis = Redis(port=real_port)
    await admin.flushall()
    async with proxy_to(real_port) as proxy:
        database, store = store_at(proxy.port)
        writer = Writer(LocalChain(), store, BY)
        await writer.start()
        writer.chain.mine(created(0), swap(0))
        changes = await writer.changes(writer.chain.blocks[1:])
        proxy.swallow = True
        with pytest.raises(StoreUnavailable):
            await store.commit(changes)
        proxy.swallow = False
        assert (await store.head()).hash == changes.head.hash
        with pytest.raises(Superseded):
            await store.commit(changes)
        assert await admin.llen(KEYS.trades(token(0))) == 1
        await database.close()
    await admin.aclose()


async def test_an_answer_that_came_too_late_is_not_the_next_ones(real_port: int) -> None:
    """After a timeout or a cut the connection is not used again: answers are never shifted by one."""
    async with proxy_to(real_port) as proxy:
        database = Database.connect(f"redis://127.0.0.1:{proxy.port}/0", 0.3)
        await database.run("SET", "shift", "first")
        proxy.swallow = True
        with pytest.raises(StoreUnavailable):
            await database.run("GET", "shift")
        proxy.swallow = False
        assert await database.run("ECHO", "second") == b"second"
        await proxy.cut()
        for _ in range(2):
            try:
                assert await database.run("ECHO", "third") == b"third"
            except StoreUnavailable:
                continue
        assert await database.run_all([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]
        await database.run("DEL", "shift")
        await database.close()


async def test_a_cancelled_command_does_not_shift_answers(real_port: int) -> None:
    """A caller that gives up leaves no answer behind for the next one."""
    async with proxy_to(real_port) as proxy:
        database = Database.connect(f"redis://127.0.0.1:{proxy.port}/0", 5)
        assert await database.run("ECHO", "first") == b"first"
        proxy.swallow = True
        for call in (database.run("ECHO", "lost"), database.run_all([("ECHO", "lost")])):
            task = asyncio.create_task(call)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        proxy.swallow = False
        assert await database.run("ECHO", "second") == b"second"
        await database.close()


async def test_scripts_survive_a_flush(real_port: int) -> None:
    """A server that forgot its scripts is sent them again."""
    database, _ = store_at(real_port, timeout_s=5)
    for _ in range(2):
        assert await database.run_script("return {ARGV[1]}", ["k"], ["x"]) == [b"x"]
        await database.run("SCRIPT", "FLUSH")
    await database.close()

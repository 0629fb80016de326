"""Contract of `MarketReader`: on Redis in memory, on Valkey and on Redis."""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import fakeredis
import orjson
import pytest
from redis.asyncio import Redis

from listener.application.errors import ForeignData, NewerSchema, StoreMisused, StoreUnavailable
from listener.application.reading import (
    CANDLES_MAX,
    MARKETS_MAX,
    TRADES_MAX,
    HeadRecord,
    MarketReader,
    Stretch,
)
from listener.application.use_cases.read_candles import CandleQuery, read_candles
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import MINUTE_MS, Address, Interval
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import REMOVING, Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.reader import RedisReader
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, MONDAY_MS, created, rules, swap, token, token_info
from tests.fakes.chain import BLOCK_MS, LocalChain
from tests.fakes.servers import proxy_to
from tests.fakes.writer import Writer
from tests.ports.sides import contents

BY = rules("5m", "1d")
KEYS = Keys(CHAIN_ID)
MINUTE = Interval.parse("1m")
MISSING = "0x" + "9" * 40


@dataclass
class Bench:
    """A reader, what writes to the same stream, and a plain client."""

    redis: Redis
    database: Database
    reader: MarketReader
    writer: Writer

    async def raw(self, market: str, interval: str = "1m") -> list[bytes]:
        """A whole series as it is stored."""
        return list(await self.redis.zrange(KEYS.candles(market, interval), 0, -1))


@pytest.fixture(params=["fakeredis", "valkey", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """An empty stream on every kind of Redis."""
    if request.param == "fakeredis":
        redis: Redis = fakeredis.FakeAsyncRedis()
    else:
        redis = Redis(port=request.getfixturevalue(f"{request.param}_port"), protocol=2)
        await redis.flushall()
    database = Database(redis)
    store = RedisStore(database, KEYS, BY, OutboxBounds(500, 100_000_000))
    yield Bench(redis, database, RedisReader(database, KEYS), Writer(LocalChain(), store, BY))
    await database.close()


async def traded(bench: Bench) -> None:
    """Market 0 trades in the minutes 0, 1, 2, 7 and 9 after its creation, market 1 in none."""
    await bench.writer.start(now=1_000)
    chain = bench.writer.chain
    chain.mine(created(0), swap(0, ETHER, 2 * ETHER), created(1), after_ms=MINUTE_MS)
    for minutes, quote in ((1, 3), (1, 4), (5, 5), (2, 6)):
        chain.mine(swap(0, ETHER, quote * ETHER, buy=False), after_ms=minutes * MINUTE_MS)
    await bench.writer.follow()


def at(minute: int) -> int:
    """A minute after the creation of the markets of `traded`."""
    return MONDAY_MS + (minute + 1) * MINUTE_MS


def minutes_of(raw: list[bytes]) -> list[int]:
    """Open times of candles, in minutes after the creation."""
    return [(orjson.loads(candle)["t"] - at(0)) // MINUTE_MS for candle in raw]


async def test_an_empty_stream_is_nothing(bench: Bench) -> None:
    """Before the first start there is no head, no market, no candle and no interval."""
    reader = bench.reader
    assert await reader.head() is None
    assert await reader.market(MISSING) is None
    assert await reader.market_ids(0, 10) == []
    assert await reader.views([]) == []
    assert await reader.candles(MISSING, "1m") == []
    assert await reader.trades(MISSING, 10) == []
    assert await reader.stats(MISSING) is None
    assert await reader.intervals() == []


async def test_head_is_the_committed_one(bench: Bench) -> None:
    """Block, instant and the number of the newest row, as the writer knows them."""
    await traded(bench)
    head = bench.writer.state.head
    expected = HeadRecord(head.number, head.hash, head.timestamp, head.as_of, head.epoch, head.seq, CHAIN_ID)
    assert await bench.reader.head() == expected
    assert head.seq > 0


async def test_a_head_of_another_making_is_named(bench: Bench) -> None:
    """A foreign or newer stream is an error with a name; one that is being removed is none."""
    await bench.redis.hset(KEYS.head, "number", "1")
    with pytest.raises(ForeignData, match="head:"):
        await bench.reader.head()
    await bench.redis.delete(KEYS.head)
    await traded(bench)
    await bench.redis.hset(KEYS.head, "schema", "99")
    with pytest.raises(NewerSchema, match="99"):
        await bench.reader.head()
    await bench.redis.delete(KEYS.head)
    await bench.redis.hset(KEYS.head, REMOVING, "1")
    assert await bench.reader.head() is None


async def test_a_market_is_its_record_and_its_figures(bench: Bench) -> None:
    """Counts and times are integers, amounts stay text; a market without a trade has no figures."""
    await traded(bench)
    view = await bench.reader.market(token(0))
    assert view is not None
    stored = await bench.redis.hgetall(KEYS.market(token(0)))
    assert {name: str(value) for name, value in view.record.items()} == {
        name.decode(): value.decode() for name, value in stored.items()
    }
    assert (view.market, view.record["symbol"], view.record["createdAt"]) == (token(0), "T0", at(0))
    assert view.stats == await bench.reader.stats(token(0))
    assert view.stats is not None
    assert (view.stats["count"], view.stats["lastPrice"], view.stats["buyVolume"]) == (5, "6", "1")
    quiet = await bench.reader.market(token(1))
    assert quiet is not None
    assert quiet.stats is None


async def test_views_keep_the_order_they_were_asked_in(bench: Bench) -> None:
    """Over several round trips each market gets its own place, unknown ones None."""
    await bench.writer.start(now=1_000)
    chain, count = bench.writer.chain, 300
    chain.tokens.update({Address(token(n)): token_info(n) for n in range(count)})
    chain.mine(*(created(n) for n in range(count)), swap(7))
    await bench.writer.follow()
    wanted = [token(n) for n in reversed(range(count))]
    wanted.insert(150, token(count))
    views = await bench.reader.views(wanted)
    assert [view and view.market for view in views] == [
        *wanted[:150], None, *wanted[151:],
    ]  # fmt: skip
    assert [view.market for view in views if view and view.stats] == [token(7)]


async def test_pages_of_ids_miss_nobody(bench: Bench) -> None:
    """By creation time; markets of one block are never torn apart by the end of a page."""
    await bench.writer.start(now=1_000)
    chain = bench.writer.chain
    chain.tokens.update({Address(token(n)): token_info(n) for n in range(12)})
    for block in ((0,), (1, 2, 3, 4), (5,), (6, 7, 8, 9, 10, 11)):
        chain.mine(*(created(n) for n in block))
    await bench.writer.follow()
    times = [MONDAY_MS + n * BLOCK_MS for n in range(5)]
    for limit in range(1, 14):
        seen: list[tuple[str, int]] = []
        after = 0
        while page := await bench.reader.market_ids(after, limit):
            seen += page
            after = page[-1][1]
            assert len(page) <= limit + 5
        assert [market for market, _ in seen] == [token(n) for n in range(12)], limit
        assert [time for _, time in seen] == [times[1], *times[2:3] * 4, times[3], *times[4:] * 6]


@pytest.mark.parametrize(
    ("start", "end", "limit", "newest", "expected"),
    [
        (None, None, 10, True, [0, 1, 2, 7, 9]),
        (None, None, 2, True, [7, 9]),
        (None, None, 2, False, [0, 1]),
        (1, 7, 10, True, [1, 2]),
        (1, 8, 2, True, [2, 7]),
        (1, 8, 2, False, [1, 2]),
        (None, 7, 1, True, [2]),
        (8, None, 9, False, [9]),
        (3, 7, 9, True, []),
        (7, 3, 9, True, []),
    ],
)
async def test_a_range_is_right_open_and_cut_at_one_end(
    bench: Bench, start: int | None, end: int | None, limit: int, newest: bool, expected: list[int]
) -> None:
    """`start <= t < end`, ascending; of too many, the last or the first ones."""
    await traded(bench)
    found = await bench.reader.candles(
        token(0),
        "1m",
        Stretch(None if start is None else at(start), None if end is None else at(end), limit, newest),
    )
    assert minutes_of(found) == expected


async def test_candles_and_trades_are_the_bytes_that_are_stored(bench: Bench) -> None:
    """Nothing is decoded on the way."""
    await traded(bench)
    assert await bench.reader.candles(token(0), "5m") == await bench.raw(token(0), "5m")
    stored = await bench.redis.lrange(KEYS.trades(token(0)), 0, -1)
    assert len(stored) == 5
    assert await bench.reader.trades(token(0), 3) == stored[:3]


async def test_every_answer_is_bounded(bench: Bench) -> None:
    """More than the bound, or nothing at all, is refused rather than cut without a word."""
    for wrong in (0, -1):
        with pytest.raises(InvalidValue):
            await bench.reader.candles(token(0), "1m", Stretch(limit=wrong))
    with pytest.raises(InvalidValue, match=str(CANDLES_MAX)):
        await bench.reader.candles(token(0), "1m", Stretch(limit=CANDLES_MAX + 1))
    with pytest.raises(InvalidValue, match=str(TRADES_MAX)):
        await bench.reader.trades(token(0), TRADES_MAX + 1)
    with pytest.raises(InvalidValue, match=str(MARKETS_MAX)):
        await bench.reader.market_ids(0, MARKETS_MAX + 1)
    with pytest.raises(InvalidValue, match=str(MARKETS_MAX)):
        await bench.reader.views([MISSING] * (MARKETS_MAX + 1))


async def test_intervals_are_those_the_stream_was_made_with(bench: Bench) -> None:
    """Shortest first, whatever the order they were configured in."""
    await bench.redis.hset(KEYS.settings, "setting:OHLCV_INTERVALS", "1d,5m,1m,1w")
    assert await bench.reader.intervals() == ["1m", "5m", "1d", "1w"]


@pytest.mark.parametrize(
    ("start", "end", "limit", "newest", "expected"),
    [
        (None, None, 100, True, range(12)),
        (None, None, 4, True, range(8, 12)),
        (None, None, 4, False, range(4)),
        (3, 6, 10, True, range(3, 6)),
        (3, 6, 2, False, range(3, 5)),
        (3, 6, 2, True, range(4, 6)),
        (-5, 3, 10, False, range(3)),
        (-5, 3, 2, False, range(2)),
        (-9, -2, 10, True, range(0)),
        (10, 50, 10, True, range(10, 12)),
        (11, None, 1, False, range(11, 12)),
        (12, None, 10, True, range(0)),
    ],
)
async def test_a_filled_series_reaches_from_the_first_trade_to_now(
    bench: Bench, start: int | None, end: int | None, limit: int, newest: bool, expected: range
) -> None:
    """One candle a minute, up to the head's minute, never before the first one that is stored."""
    await traded(bench)
    bench.writer.chain.mine(after_ms=2 * MINUTE_MS)
    await bench.writer.follow()
    rows = await read_candles(
        bench.reader,
        CandleQuery(
            token(0),
            MINUTE,
            Stretch(None if start is None else at(start), None if end is None else at(end), limit, newest),
            filled=True,
        ),
    )
    assert [row.t for row in rows] == [at(minute) for minute in expected]
    closes = ["2", "3", "4", "4", "4", "4", "4", "5", "5", "6", "6", "6"]
    assert [row.c for row in rows] == [closes[minute] for minute in expected]


async def test_a_series_is_not_filled_back_beyond_what_is_kept(bench: Bench) -> None:
    """Candles that retention let go are not replaced by a flat line."""
    await traded(bench)
    await bench.redis.zremrangebyscore(KEYS.candles(token(0), "1m"), "-inf", at(2))
    query = CandleQuery(token(0), MINUTE, Stretch(at(0), at(9)), filled=True)
    rows = await read_candles(bench.reader, query)
    assert [row.t for row in rows] == [at(7), at(8)]
    assert await read_candles(bench.reader, CandleQuery(MISSING, MINUTE, filled=True)) == []


async def test_continuous_candles_join(bench: Bench) -> None:
    """Opened at the previous close, each candle begins where the last one ended."""
    await traded(bench)
    rows = await read_candles(bench.reader, CandleQuery(token(0), MINUTE, filled=True, opening="previous"))
    assert [row.o for row in rows[1:]] == [row.c for row in rows[:-1]]
    plain = await read_candles(bench.reader, CandleQuery(token(0), MINUTE))
    assert [row.o for row in plain] == ["2", "3", "4", "5", "6"]


async def test_a_user_who_may_only_read_is_enough(valkey_port: int) -> None:
    """Every method works for an ACL user without one writing command, and that user cannot write."""
    redis = Redis(port=valkey_port, protocol=2)
    await redis.flushall()
    await redis.execute_command("ACL", "SETUSER", "reader", "on", ">secret", f"~*{{{CHAIN_ID}}}*", "+@read")  # type: ignore[no-untyped-call]
    store = RedisStore(Database(redis), KEYS, BY, OutboxBounds(500, 100_000_000))
    bench = Bench(redis, Database(redis), RedisReader(Database(redis), KEYS), Writer(LocalChain(), store, BY))
    await traded(bench)
    await redis.hset(KEYS.settings, "setting:OHLCV_INTERVALS", "1m")
    before = await contents(redis)
    database = Database.connect(f"redis://reader:secret@127.0.0.1:{valkey_port}/0", 5)
    reader = RedisReader(database, KEYS)
    try:
        head = await reader.head()
        assert head is not None
        assert head.number == 5
        assert [market for market, _ in await reader.market_ids(0, 1)] == [token(0), token(1)]
        assert (await reader.market(token(0))) is not None
        assert len(await reader.candles(token(0), "1m")) == 5
        assert len(await reader.trades(token(0), 9)) == 5
        assert await reader.stats(token(0))
        assert await reader.intervals() == ["1m"]
        with pytest.raises(StoreMisused):
            await database.run("DEL", KEYS.head)
        assert await contents(redis) == before
    finally:
        await database.close()
        await redis.execute_command("ACL", "DELUSER", "reader")  # type: ignore[no-untyped-call]
        await redis.aclose()


async def test_a_silent_server_is_given_up(valkey_port: int) -> None:
    """An answer that never comes is `StoreUnavailable` after the timeout, for every method."""
    calls: tuple[Callable[[MarketReader], Coroutine[Any, Any, object]], ...] = (
        lambda reader: reader.head(),
        lambda reader: reader.market(token(0)),
        lambda reader: reader.market_ids(0, 1),
        lambda reader: reader.candles(token(0), "1m"),
        lambda reader: reader.trades(token(0), 1),
        lambda reader: reader.stats(token(0)),
        lambda reader: reader.intervals(),
    )
    async with proxy_to(valkey_port) as proxy:
        proxy.swallow = True
        for call in calls:
            database = Database.connect(f"redis://127.0.0.1:{proxy.port}/0", 0.1)
            with pytest.raises(StoreUnavailable):
                await call(RedisReader(database, KEYS))
            await database.close()
        assert proxy.connections == len(calls)

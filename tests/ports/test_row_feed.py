"""Contract of the row feed: every row once and in order, or word that some were missed. On a real Valkey."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from listener.application.errors import StoreMisused, StoreUnavailable
from listener.application.interfaces import Row, RowId
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.row_feed import RowBatch, RowFeed, head_position, rows_after
from tests.fakes.build import CHAIN_ID, created, swap
from tests.fakes.servers import proxy_to
from tests.ports.sides import Side, side_on

KEYS = Keys(CHAIN_ID)
BLOCK_MS = 100
BOUND_S = 10.0
DATABASE = 11
"""Number of the logical database that these tests use."""


@pytest.fixture
async def side(valkey_port: int) -> AsyncIterator[Side]:
    """A stream with two markets, in an otherwise empty database."""
    async with side_on(valkey_port, DATABASE) as side:
        yield side


def feed_of(side: Side, after: RowId | None = None, batch_rows: int = 1_000) -> RowFeed:
    """A feed of the stream."""
    return RowFeed(side.database, KEYS, after, batch_rows=batch_rows, block_ms=BLOCK_MS)


async def trade(side: Side, blocks: int = 1) -> None:
    """Commit so many blocks with two trades each."""
    for _ in range(blocks):
        side.writer.chain.mine(swap(0), swap(1))
    await side.writer.follow()


async def stored(side: Side) -> list[Row]:
    """Every row that is kept."""
    return await side.outbox.read(RowId(0, 0), 100_000)


async def drain(feed: RowFeed) -> list[RowBatch]:
    """Batches until none comes."""
    batches: list[RowBatch] = []
    async with asyncio.timeout(BOUND_S):
        while batch := await feed.next():
            batches.append(batch)
    return batches


async def test_from_now_on(side: Side) -> None:
    """A feed without a position begins behind what is committed, and gives each later row once, in order."""
    feed = feed_of(side)
    assert await feed.start() == (await stored(side))[-1].id == await head_position(side.database, KEYS)
    assert await drain(feed) == []
    before = len(await stored(side))
    await trade(side, 5)
    batches = await drain(feed)
    assert [row for batch in batches for row in batch.rows] == (await stored(side))[before:]
    assert not any(batch.missed for batch in batches)
    assert feed.position == await head_position(side.database, KEYS)


async def test_from_a_position(side: Side) -> None:
    """A feed with a position gives what follows it, in batches that are not larger than they may be."""
    await trade(side, 5)
    rows = await stored(side)
    batches = await drain(feed_of(side, rows[3].id, batch_rows=4))
    assert [row for batch in batches for row in batch.rows] == rows[4:]
    assert max(len(batch.rows) for batch in batches) == 4
    assert [batch.after for batch in batches] == [rows[3].id, *(batch.end for batch in batches[:-1])]
    assert not any(batch.missed for batch in batches)


async def test_a_waiting_feed_hands_out_at_once(side: Side) -> None:
    """`run` gives a commit's rows to every consumer, and none to one that has left."""
    feed = RowFeed(side.database, KEYS, block_ms=4_000)
    got: list[Row] = []
    left: list[RowBatch] = []
    arrived = asyncio.Event()

    def take(batch: RowBatch) -> None:
        got.extend(batch.rows)
        arrived.set()

    feed.subscribe(take)
    feed.subscribe(left.append)()
    await feed.start()
    before = len(await stored(side))
    running = asyncio.create_task(feed.run())
    await asyncio.sleep(0.05)
    await trade(side)
    async with asyncio.timeout(2):
        await arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert got == (await stored(side))[before:]
    assert left == []


async def test_rows_that_were_trimmed_are_missed(side: Side) -> None:
    """Where rows behind the position are gone, the first batch says so, and later ones do not."""
    feed = feed_of(side)
    await feed.start()
    await trade(side, 5)
    rows = await stored(side)
    await side.admin.xtrim(KEYS.outbox, maxlen=4, approximate=False)
    [batch] = await drain(feed)
    assert batch.missed
    assert list(batch.rows) == rows[-4:]
    await trade(side)
    assert [batch.missed for batch in await drain(feed)] == [False]


async def test_all_rows_gone_are_missed(side: Side) -> None:
    """Rows that came and went before they were read are missed, though there is nothing to read."""
    feed = feed_of(side)
    await feed.start()
    await trade(side, 2)
    await side.admin.xtrim(KEYS.outbox, maxlen=0, approximate=False)
    [batch] = await drain(feed)
    assert batch == RowBatch(batch.after, (), await head_position(side.database, KEYS), missed=True)
    await trade(side)
    assert [batch.missed for batch in await drain(feed)] == [False]


async def test_a_takeover_loses_nothing(side: Side) -> None:
    """Rows of the next epoch follow those of the last one: nothing was missed."""
    feed = feed_of(side)
    await feed.start()
    await trade(side)
    await side.writer.start(now=5_000)
    await trade(side)
    before, after = (await stored(side))[-1].id.epoch, [row.id.epoch for row in await stored(side)]
    assert len(set(after)) == 2
    batches = await drain(feed)
    assert batches[-1].end.epoch == before
    assert not any(batch.missed for batch in batches)


async def test_takeovers_without_rows_lose_nothing(side: Side) -> None:
    """An epoch that had no rows at all is passed over without an alarm."""
    feed = feed_of(side)
    await feed.start()
    await side.writer.start(now=5_000)
    assert await drain(feed) == []
    await side.writer.start(now=6_000)
    await trade(side)
    assert [batch.missed for batch in await drain(feed)] == [False]


async def test_a_feed_that_begins_in_an_empty_epoch(side: Side) -> None:
    """A feed that starts right after a takeover misses nothing, also where the next takeover comes first."""
    await side.writer.start(now=5_000)
    feed = feed_of(side)
    assert (await feed.start()).seq == 0
    await side.writer.start(now=6_000)
    await trade(side)
    assert [batch.missed for batch in await drain(feed)] == [False]


async def test_a_lost_tail_is_missed(side: Side) -> None:
    """Rows that a reader got and Redis then lost make it read again, before and after the next takeover."""
    for seen_before_takeover in (True, False):
        feed = feed_of(side)
        await feed.start()
        await trade(side)
        last = (await stored(side))[-1].id
        assert [batch.end for batch in await drain(feed)] == [last]
        entry = "{}-{}".format(*last)
        await side.admin.xdel(KEYS.outbox, entry)
        await side.admin.hset(KEYS.head, "seq", last.seq - 1)
        if seen_before_takeover:
            [batch] = await drain(feed)
            assert batch.missed
            assert batch.end == RowId(last.epoch, last.seq - 1)
        await side.writer.start(now=last.epoch + 1)
        await trade(side)
        assert [batch.missed for batch in await drain(feed)] == [not seen_before_takeover]


async def test_an_emptied_redis_is_missed(side: Side) -> None:
    """A reader of a stream that is gone is told so, and follows the one that takes its place."""
    feed = feed_of(side)
    await feed.start()
    await side.admin.flushdb()
    [batch] = await drain(feed)
    assert batch.missed
    assert batch.end == RowId(0, 0)
    assert await drain(feed) == []
    other = Side(int(side.admin.connection_pool.connection_kwargs["port"]), side.admin, DATABASE)
    await other.writer.start(now=9_000)
    other.writer.chain.mine(created(0), swap(0))
    await other.writer.follow()
    batches = await drain(feed)
    await other.database.close()
    assert batches[0].missed
    assert [row for batch in batches for row in batch.rows] == await stored(side)


async def test_redis_goes_away_and_comes_back(side: Side, valkey_port: int) -> None:
    """A broken link is `StoreUnavailable`; afterwards the same feed goes on, and nothing was missed."""
    async with proxy_to(valkey_port) as proxy:
        database = Database.connect(f"redis://127.0.0.1:{proxy.port}/{DATABASE}", 2.0)
        feed = RowFeed(database, KEYS, block_ms=1_000)
        first = await feed.start()
        waiting = asyncio.create_task(feed.next())
        await asyncio.sleep(0.1)
        await proxy.cut()
        with pytest.raises(StoreUnavailable):
            await waiting
        await trade(side)
        batch = await feed.next()
        await database.close()
    assert batch is not None
    assert not batch.missed
    assert batch.rows == [row for row in await stored(side) if row.id > first]


@pytest.mark.usefixtures("side")
async def test_a_silent_redis_is_unavailable(valkey_port: int) -> None:
    """A Redis that no longer answers ends the read when its time is up, whatever a read may wait."""
    async with proxy_to(valkey_port) as proxy:
        database = Database.connect(f"redis://127.0.0.1:{proxy.port}/{DATABASE}", 0.3)
        feed = RowFeed(database, KEYS, block_ms=50)
        await feed.start()
        proxy.swallow = True
        started = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable):
            await feed.next()
        assert asyncio.get_running_loop().time() - started < 2
        await database.close()


async def test_another_type_is_refused(side: Side) -> None:
    """A key of another type in the outbox's place is somebody's to look at, not to be retried."""
    feed = feed_of(side)
    await feed.start()
    await side.admin.delete(KEYS.outbox)
    await side.admin.set(KEYS.outbox, "something else")
    with pytest.raises(StoreMisused):
        await feed.next()


async def test_what_followed_a_position(side: Side) -> None:
    """A reader that comes back gets what it has not seen; none where that is too much, gone or unheard of."""
    await trade(side, 3)
    rows = await stored(side)
    batch = await rows_after(side.database, KEYS, rows[2].id, 1_000)
    assert batch == RowBatch(rows[2].id, rows[3:], rows[-1].id, missed=False)
    end = await rows_after(side.database, KEYS, rows[-1].id, 1_000)
    assert end == RowBatch(rows[-1].id, (), rows[-1].id, missed=False)
    assert await rows_after(side.database, KEYS, rows[2].id, len(rows) - 4) is None
    unheard = RowId(rows[-1].id.epoch, rows[-1].id.seq + 1)
    assert await rows_after(side.database, KEYS, unheard, 1_000) is None
    await side.admin.xtrim(KEYS.outbox, maxlen=2, approximate=False)
    assert await rows_after(side.database, KEYS, rows[2].id, 1_000) is None

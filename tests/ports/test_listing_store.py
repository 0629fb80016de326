"""Recorded events for listing services on real Redis servers: bounds, gaps, and two who write."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
from redis.asyncio import Redis

from listener.application.errors import ForeignData
from listener.application.listing import Coverage, Listed, ListedBlock, ListedEvent
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.listing import RedisListing, decode_block, encode_block
from tests.fakes.build import CHAIN_ID, block

KEYS: Final = Keys(CHAIN_ID)
MOST_BYTES: Final = 10_000_000


def listed(first: int, *blocks: int, last: int, minutes: int = 1, hash_of: str = "") -> Listed:
    """A range with an event in some blocks, each so many minutes after the one before."""
    ends = [block(number, hash_of, time=number * minutes * 60_000) for number in (first, last)]
    made = [ListedBlock(number, number * minutes * 60, [event(number)]) for number in blocks]
    return Listed(ends[0], ends[1], made)


def event(number: int, reserves: tuple[str, str] | None = ("1", "0.5")) -> ListedEvent:
    """A buy."""
    return ListedEvent("buy", 0, number, "0x", "0xm", "0xp", "1.5", "2", "0.75", reserves)


@pytest.fixture(params=["valkey", "redis"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An empty server of each kind."""
    port = request.getfixturevalue(f"{request.param}_port")
    plain = Redis(port=port)
    await plain.flushall()
    await plain.aclose()
    connected = Database.connect(f"redis://127.0.0.1:{port}/0", 5)
    yield connected
    await connected.close()


async def record(
    records: RedisListing, what: Listed, previous: Coverage | None, *, oldest_s: int = 0, anew: bool = False
) -> Coverage:
    """Record with what most tests do not care about."""
    return await records.record(what, previous, oldest_s=oldest_s, anew=anew)


async def test_what_was_recorded_is_read_whole_or_not_at_all(database: Database) -> None:
    """A range that is not covered to both of its ends is None; empty blocks inside are nothing."""
    records = RedisListing(database, KEYS, MOST_BYTES)
    assert await records.coverage() is None
    assert await records.recorded(0, 0) is None
    first = listed(5, 5, 7, last=8)
    covered = await record(records, first, None)
    assert covered == Coverage(5, 8, first.last.hash, 480)
    covered = await record(records, listed(9, 10, last=10), covered)
    assert [b.number for b in await records.recorded(5, 10) or ()] == [5, 7, 10]
    assert await records.recorded(5, 10) == [*first.blocks, ListedBlock(10, 600, [event(10)])]
    assert await records.recorded(6, 6) == []
    assert await records.recorded(4, 8) is None
    assert await records.recorded(5, 11) is None
    assert await records.coverage() == covered


class Trimmed:
    """A `Database` where the oldest blocks go, and new ones come, while a range is read."""

    async def run_all(self, _commands: object) -> list[list[bytes]]:
        """What was covered before, blocks, what was covered after."""
        return [[b"1", b"5", b"0x", b"0"], [], [b"3", b"9", b"0x", b"0"]]


async def test_a_range_that_is_trimmed_while_it_is_read() -> None:
    """What was covered before and after counts: nothing that went, nothing that may have come too late."""
    records = RedisListing(Trimmed(), KEYS, MOST_BYTES)  # type: ignore[arg-type]
    ranges = [(1, 5), (2, 5), (3, 5), (3, 6), (3, 9)]
    assert [await records.recorded(*one) is not None for one in ranges] == [False, False, True, False, False]


async def test_of_two_who_record_one_does(database: Database) -> None:
    """A range behind something else than was read is refused; the answer says what is there."""
    records = RedisListing(database, KEYS, MOST_BYTES)
    first = await record(records, listed(1, 1, last=2), None)
    assert await record(records, listed(1, 1, 2, last=3), None) == first
    second = await record(records, listed(3, last=4), first)
    assert await record(records, listed(3, 3, last=9), first) == second
    stranger = Coverage(1, 4, "0xother", 0)
    assert await record(records, listed(5, last=5), stranger) == second
    assert await records.recorded(1, 4) == [ListedBlock(1, 60, [event(1)])]


@pytest.mark.parametrize("kind", ["time", "bytes"])
async def test_only_so_much_is_kept(database: Database, kind: str) -> None:
    """The oldest blocks go when they are too old or all are too much, and are not said to be covered."""
    size = len(encode_block(ListedBlock(100, 6_000, [event(100)])))
    records = RedisListing(database, KEYS, 10 * size + 5 if kind == "bytes" else MOST_BYTES)
    covered: Coverage | None = None
    for number in range(100, 140):
        oldest_s = (number - 9) * 60 if kind == "time" else 0
        covered = await record(records, listed(number, number, last=number), covered, oldest_s=oldest_s)
    assert covered
    assert (covered.first, covered.last) == (130, 139)
    assert await records.recorded(129, 139) is None
    assert len(await records.recorded(130, 139) or ()) == 10
    assert await database.run("ZCARD", KEYS.listing) == 10
    assert int(await database.run("HGET", KEYS.coverage, "bytes")) == 10 * size


async def test_a_range_beyond_all_bounds_is_not_kept(database: Database) -> None:
    """Then nothing is covered, and the next range goes on behind it."""
    records = RedisListing(database, KEYS, 10)
    covered = await record(records, listed(1, 1, 2, last=2), None)
    assert covered.first > covered.last
    assert await records.recorded(1, 2) is None
    covered = await record(records, listed(3, last=4), covered)
    assert await records.recorded(3, 4) == []


async def test_anew(database: Database) -> None:
    """What was recorded before goes at once."""
    records = RedisListing(database, KEYS, MOST_BYTES)
    covered = await record(records, listed(1, 1, 2, last=2), None)
    again = await record(records, listed(50, 50, last=50), covered, anew=True)
    assert (again.first, again.last) == (50, 50)
    assert await records.recorded(1, 2) is None
    assert await database.run("ZCARD", KEYS.listing) == 1


async def test_foreign_data_is_refused(database: Database) -> None:
    """A key of ours that somebody else wrote is an error that says so."""
    await database.run("HSET", KEYS.coverage, "last", 5)
    with pytest.raises(ForeignData, match="coverage"):
        await RedisListing(database, KEYS, MOST_BYTES).coverage()


@pytest.mark.parametrize("reserves", [("0", "12.5"), None])
def test_blocks_are_decoded_as_they_were_encoded(reserves: tuple[str, str] | None) -> None:
    """Nothing is lost on the way."""
    one = ListedBlock(2**40, 2**33, [event(1, reserves)])
    assert decode_block(encode_block(one)) == one

"""Contract of `Lease`: the same on a fake, in memory, on Valkey and on Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import fakeredis
import pytest
from redis.asyncio import Redis

from listener.application.errors import StoreMisused, StoreUnavailable
from listener.application.interfaces import Lease
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from tests.fakes.build import CHAIN_ID
from tests.fakes.clock import FakeClock
from tests.fakes.lease import Board, FakeLease
from tests.fakes.servers import proxy_to

KEYS = Keys(CHAIN_ID)
LONG_MS = 60_000
SHORT_MS = 40


class Bench:
    """Leases of one stream on one kind of store."""

    def lease(self, duration_ms: int = LONG_MS) -> Lease:
        """The lease of one more instance."""
        raise NotImplementedError

    async def holder(self) -> bytes | None:
        """What stands where the holder's name stands."""
        raise NotImplementedError

    async def remaining_ms(self) -> int:
        """How long it lasts if nobody renews it."""
        raise NotImplementedError

    async def take(self, duration_ms: int) -> None:
        """Somebody else takes it, whoever has it."""
        raise NotImplementedError

    async def moment(self) -> None:
        """A little time passes."""
        raise NotImplementedError


class FakeBench(Bench):
    """In memory, in virtual time."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._board = Board(self._clock)
        self._instances = 0

    def lease(self, duration_ms: int = LONG_MS) -> Lease:
        """See `Bench.lease`."""
        self._instances += 1
        return FakeLease(self._board, f"instance {self._instances}", duration_ms)

    async def holder(self) -> bytes | None:
        """See `Bench.holder`."""
        return self._board.current().encode() or None

    async def remaining_ms(self) -> int:
        """See `Bench.remaining_ms`."""
        return self._board.until - self._clock.time

    async def take(self, duration_ms: int) -> None:
        """See `Bench.take`."""
        self._board.hand_to("somebody", duration_ms)

    async def moment(self) -> None:
        """See `Bench.moment`."""
        self._clock.pass_ms(5)


class RedisBench(Bench):
    """On a server, or on one in memory."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.database = Database(redis)

    def lease(self, duration_ms: int = LONG_MS) -> Lease:
        """See `Bench.lease`."""
        return RedisLease(self.database, KEYS, duration_ms)

    async def holder(self) -> bytes | None:
        """See `Bench.holder`."""
        found: bytes | None = await self.database.run("GET", KEYS.lease)
        return found

    async def remaining_ms(self) -> int:
        """See `Bench.remaining_ms`."""
        return int(await self.redis.pttl(KEYS.lease))

    async def take(self, duration_ms: int) -> None:
        """See `Bench.take`."""
        await self.redis.set(KEYS.lease, "somebody", px=duration_ms)

    async def moment(self) -> None:
        """See `Bench.moment`."""
        await asyncio.sleep(0.005)


SERVERS = ("fakeredis", "valkey", "redis")


async def _on(kind: str, request: pytest.FixtureRequest) -> RedisBench:
    if kind == "fakeredis":
        return RedisBench(fakeredis.FakeAsyncRedis())
    made = RedisBench(Redis(port=request.getfixturevalue(f"{kind}_port"), protocol=2))
    await made.redis.flushall()
    return made


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisBench]:
    """Every kind of Redis."""
    made = await _on(request.param, request)
    yield made
    await made.database.close()


@pytest.fixture(params=["fake", *SERVERS])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every kind of store."""
    if request.param == "fake":
        yield FakeBench()
        return
    made = await _on(request.param, request)
    yield made
    await made.database.close()


async def until(bench: Bench, happened: Callable[[], Awaitable[bool]]) -> None:
    """Let time pass until it has happened."""
    async with asyncio.timeout(10):
        while not await happened():
            await bench.moment()


async def test_one_instance_holds_it(bench: Bench) -> None:
    """Who comes first gets it; the others are told, and change nothing."""
    first, second = bench.lease(), bench.lease()
    assert await first.hold()
    name = await bench.holder()
    assert name
    assert not await second.hold()
    assert await first.hold()
    assert not await second.hold()
    assert await bench.holder() == name


async def test_of_many_at_once_one_gets_it(bench: Bench) -> None:
    """Taking it is atomic."""
    leases = [bench.lease() for _ in range(10)]
    held = await asyncio.gather(*(lease.hold() for lease in leases))
    assert sorted(held) == [False] * 9 + [True]
    again = await asyncio.gather(*(lease.hold() for lease in leases))
    assert again == held


async def test_it_is_held_for_its_duration(bench: Bench) -> None:
    """It never lasts for ever, and not longer than was asked for."""
    assert await bench.lease(LONG_MS).hold()
    assert LONG_MS // 2 < await bench.remaining_ms() <= LONG_MS


async def test_holding_renews_it(bench: Bench) -> None:
    """Its time begins anew with each call of its holder."""
    lease = bench.lease()
    assert await lease.hold()
    await bench.moment()
    before = await bench.remaining_ms()
    assert before < LONG_MS
    assert await lease.hold()
    assert await bench.remaining_ms() > before


async def test_others_do_not_renew_it(bench: Bench) -> None:
    """Whoever is refused does not make the wait longer."""
    first, second = bench.lease(), bench.lease()
    await first.hold()
    before = await bench.remaining_ms()
    await bench.moment()
    assert not await second.hold()
    assert await bench.remaining_ms() < before


async def test_it_is_lost_when_it_is_not_renewed(bench: Bench) -> None:
    """A holder that died is followed by another; should it come back, it is told."""
    first, second = bench.lease(SHORT_MS), bench.lease()
    assert await first.hold()
    await until(bench, second.hold)
    assert not await first.hold()


async def test_a_lost_one_is_taken_again_when_it_is_free(bench: Bench) -> None:
    """Whoever took it meanwhile may lose it, too."""
    lease = bench.lease()
    await lease.hold()
    await bench.take(SHORT_MS)
    assert not await lease.hold()
    await until(bench, lease.hold)


async def test_a_released_one_is_free_at_once(bench: Bench) -> None:
    """After a clean stop nobody waits for the end of its time."""
    first, second = bench.lease(), bench.lease()
    await first.hold()
    await first.release()
    assert await bench.holder() is None
    assert await second.hold()
    assert not await first.hold()


async def test_only_its_holder_releases_it(bench: Bench) -> None:
    """Who never had it, or has lost it, takes nothing from anybody."""
    first, second = bench.lease(), bench.lease()
    await first.hold()
    name = await bench.holder()
    await second.release()
    assert await bench.holder() == name
    await bench.take(LONG_MS)
    await first.release()
    assert await bench.holder() not in {None, name}


async def test_releasing_what_nobody_holds_is_no_error(bench: Bench) -> None:
    """A stop before the first claim, or a second one."""
    lease = bench.lease()
    await lease.release()
    await lease.hold()
    await lease.release()
    await lease.release()
    assert await bench.holder() is None


async def test_each_stream_has_its_own(server: RedisBench) -> None:
    """Listeners of different chains on one Redis do not know of each other."""
    others = RedisLease(server.database, Keys(CHAIN_ID + 1), LONG_MS)
    assert await server.lease().hold()
    assert await others.hold()


async def test_a_foreign_key_in_its_place_is_fatal(server: RedisBench) -> None:
    """A key of another type is nobody's lease: somebody has to act."""
    await server.redis.hset(KEYS.lease, "not", "ours")
    for call in (server.lease().hold, server.lease().release):
        with pytest.raises(StoreMisused):
            await call()


async def test_a_server_that_is_away_is_retryable() -> None:
    """Nobody listens: whether it is ours cannot be known, and giving it up fails, too."""
    async with proxy_to(1) as proxy:
        port = proxy.port
    database = Database.connect(f"redis://127.0.0.1:{port}/0", 0.3)
    lease = RedisLease(database, KEYS, LONG_MS)
    for call in (lease.hold, lease.release):
        with pytest.raises(StoreUnavailable):
            await call()
    await database.close()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_lost_answer_does_not_lock_its_holder_out(request: pytest.FixtureRequest, kind: str) -> None:
    """It was taken, the answer did not come: the next call of the same instance finds that it is its own."""
    async with proxy_to(request.getfixturevalue(f"{kind}_port")) as proxy:
        database = Database.connect(f"redis://127.0.0.1:{proxy.port}/0", 1.0)
        try:
            await database.run("DEL", KEYS.lease)
            lease, other = RedisLease(database, KEYS, LONG_MS), RedisLease(database, KEYS, LONG_MS)
            assert await other.hold()  # the server knows the script from here on
            await other.release()
            proxy.swallow = True
            with pytest.raises(StoreUnavailable):
                await lease.hold()
            proxy.swallow = False
            assert not await other.hold()
            assert await lease.hold()
            await lease.release()
        finally:
            await database.close()

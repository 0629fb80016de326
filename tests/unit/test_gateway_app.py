"""The application with parts that fail or speak: what callers are told."""

import asyncio
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from listener.application.errors import StoreMisused, StoreUnavailable
from listener.application.reading import HeadRecord
from listener.infrastructure.gateway.app import create_app
from listener.infrastructure.gateway.market_index import MarketIndex
from listener.infrastructure.gateway.operations import STALE_S, Operations, Upstream
from listener.infrastructure.gateway.position import HEAD_AGE_S, Position
from listener.infrastructure.gateway.security import Security
from listener.infrastructure.observability.health import Health, HealthServer
from tests.fakes.asgi import get
from tests.fakes.clock import FakeClock

HEAD = HeadRecord(7, "0x07", 1_000, 2_000, 3, 4, 31337)


class Reader:
    """A `MarketReader` that has a head, or fails.

    Attributes:
        heads: how often it was asked for.
        gate: it answers when this is set.
    """

    def __init__(self, error: Exception | None = None, head: HeadRecord | None = HEAD) -> None:
        self.error = error
        self.stored = head
        self.heads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def head(self) -> HeadRecord | None:
        """See `MarketReader.head`."""
        self.heads += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        return self.stored

    async def intervals(self) -> list[str]:
        """See `MarketReader.intervals`."""
        return ["1m"]


class App:
    """An application; asks it without a network."""

    def __init__(self, reader: Any, upstream: Upstream | None = None, clock: FakeClock | None = None) -> None:
        clock = clock or FakeClock()
        security = Security()
        self._app = create_app(
            reader,
            security,
            index=MarketIndex(reader, clock),
            position=Position(reader, clock),
            operations=Operations(reader, clock, {"security": security}, upstream),
        )

    async def ask(self, path: str) -> tuple[int, Any]:
        """Status and body of a GET."""
        reply = await get(self._app, path)
        return reply.status, orjson.loads(reply.body)


async def test_a_defect_tells_nothing() -> None:
    """An error that nobody foresaw: 500 without a word of it; the log has it."""
    with capture_logs() as logs:
        status, body = await App(Reader(RuntimeError("secret of ours"))).ask("/api/v1/config")
    assert (status, body) == (500, {"error": {"code": "internal", "message": "internal error"}})
    assert any(line["event"] == "Error in a request, a defect" for line in logs)


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreUnavailable("at 10.0.0.1"), "unavailable"), (StoreMisused("password"), "unusable")],
)
async def test_redis_in_trouble(error: Exception, code: str) -> None:
    """503; which Redis it is, and what is wrong with it, is for the operator."""
    with capture_logs() as logs:
        status, body = await App(Reader(error)).ask("/api/v1/config")
    assert (status, body["error"]["code"]) == (503, code)
    assert str(error) not in str(body)
    assert any(str(error) in line.get("error", "") for line in logs)


async def test_nothing_stored_yet() -> None:
    """Before the first commit there is nothing to answer from, and `/ready` says so."""
    app = App(Reader(head=None))
    assert (await app.ask("/api/v1/config"))[0] == 503
    assert (await app.ask("/ready"))[1]["reasons"] == ["nothing is stored yet"]


async def test_an_old_head_is_not_ready() -> None:
    """Alone, the gateway sees from the head's age that nobody writes, or that the writer is behind."""
    clock = FakeClock(2_000 + int(STALE_S * 1000))
    app = App(Reader(), clock=clock)
    assert await app.ask("/ready") == (
        200,
        {"ready": True, "reasons": [], "degraded": [], "role": "reader", "block": 7},
    )
    clock.pass_ms(1_000)
    status, body = await app.ask("/ready")
    assert (status, body["ready"], body["reasons"]) == (503, False, ["the head is 181 s old"])


async def test_the_head_is_not_read_for_each_request() -> None:
    """A head of a moment ago is a true lower bound; an older one is read anew."""
    clock, reader = FakeClock(), Reader()
    app = App(reader, clock=clock)
    for _ in range(20):
        assert (await app.ask("/api/v1/config"))[1]["seq"] == 4
    assert reader.heads == 1
    reader.stored = HEAD._replace(seq=5)
    clock.pass_ms(int(HEAD_AGE_S * 1000))
    assert (await app.ask("/api/v1/config"))[1]["seq"] == 5


async def test_who_comes_while_the_head_is_read_does_not_wait() -> None:
    """One request reads it, or fails to; the others go on with the last one, and nobody waits in a row."""
    clock = FakeClock()
    reader: Any = Reader()
    position = Position(reader, clock)
    await position.head()
    clock.pass_ms(int(HEAD_AGE_S * 1000))
    reader.gate.clear()
    reading = asyncio.create_task(position.head())
    await asyncio.sleep(0)
    assert [await position.head() for _ in range(5)] == [HEAD] * 5
    assert reader.heads == 2
    reader.error = StoreUnavailable("away")
    reader.gate.set()
    with pytest.raises(StoreUnavailable):
        await reading
    with pytest.raises(StoreUnavailable):
        await position.head()


async def test_beside_a_follower() -> None:
    """Its health and readiness are passed on, ours added; when it is silent, that is what is said."""
    health = Health.expecting("node")
    server = HealthServer(health, "127.0.0.1", 0)
    await server.start()
    upstream = Upstream(await server.start_internal())
    app = App(Reader(), upstream)
    try:
        status, body = await app.ask("/health")
        assert (status, body["status"], body["role"]) == (200, "alive", "starting")
        assert set(body["gateway"]) == {"security"}
        assert await app.ask("/ready") == (
            503,
            {"ready": False, "reasons": ["node: starting"], "degraded": [], "role": "starting", "block": -1},
        )
        health.troubles.clear()
        health.synced = health.leads = True
        assert (await app.ask("/ready"))[0] == 200
    finally:
        await server.close()
    assert (await app.ask("/health"))[0] == 503
    assert (await app.ask("/ready"))[1]["reasons"] == ["the follower does not answer"]
    await upstream.close()

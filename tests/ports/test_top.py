"""`listener top` on a real Valkey: what it shows, and what it does without `/metrics` or Redis."""

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from rich.console import Console

from listener.infrastructure.observability.health import Health, HealthServer
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.reader import RedisReader
from listener.infrastructure.redis.store import RedisStore
from listener.top import (
    MARKETS_SHOWN,
    Snapshot,
    View,
    Watch,
    newest_markets,
    parsed,
    per_second,
    quantile,
    show,
)
from tests.fakes.build import CHAIN_ID, ETHER, created, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.clock import FakeClock
from tests.fakes.writer import Writer

KEYS = Keys(CHAIN_ID)
BY = rules("5m")


class Scene:
    """A stream, and a service's figures over HTTP."""

    def __init__(self, redis: Redis, writer: Writer, metrics: Metrics, clock: FakeClock, url: str) -> None:
        self.redis = redis
        self.writer = writer
        self.metrics = metrics
        self.clock = clock
        self.url = url

    def watch(self, url: str | None = None) -> Watch:
        """What looks at it."""
        return Watch(RedisReader(Database(self.redis), KEYS), self.clock, url or self.url)

    async def trade(self, *markets: int) -> None:
        """A block with a trade in each of these markets."""
        self.writer.chain.mine(*(swap(number, quote=2 * ETHER) for number in markets))
        changes = await self.writer.commit(await self.writer.changes([self.writer.chain.blocks[-1]]))
        self.metrics.committed(changes, 0.004)
        self.clock.time = changes.head.timestamp + 5_000


@pytest.fixture
async def scene(valkey_port: int) -> AsyncIterator[Scene]:
    """Three markets."""
    redis = Redis(port=valkey_port, protocol=2)
    await redis.flushall()
    store = RedisStore(Database(redis), KEYS, BY, OutboxBounds(500, 100_000_000))
    writer = Writer(LocalChain(), store, BY)
    await writer.start()
    writer.chain.mine(created(0), created(1), created(2))
    await writer.follow()
    clock = FakeClock()
    health = Health(synced=True, leads=True)
    metrics = Metrics(health, clock)
    server = HealthServer(health, "127.0.0.1", 0)

    async def exposition() -> bytes:
        return metrics.render()

    server.metrics = exposition
    port = await server.start()
    yield Scene(redis, writer, metrics, clock, f"http://127.0.0.1:{port}/metrics")
    await server.close()
    await redis.aclose()


def drawn(view: View, snapshot: Snapshot) -> str:
    """The screen as text."""
    console = Console(file=io.StringIO(), width=120)
    console.print(view.draw(snapshot))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


async def test_one_look(scene: Scene) -> None:
    """Head, state and figures, and markets in the order of their trades."""
    for markets in ((1, 2), (1,), (1,)):
        await scene.trade(*markets)
    console = Console(file=io.StringIO(), width=120)
    await show(scene.watch(), console, 1, once=True)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"block {scene.writer.state.head.number}  5 s old" in text
    assert "ready" in text
    assert "≤ 5 ms" in text
    lines = text.splitlines()
    first, second = (next(n for n, line in enumerate(lines) if f"T{number}/ETH" in line) for number in (1, 2))
    assert first < second
    assert "T0/ETH" not in text
    assert "3" in lines[first]


async def test_rates_are_between_two_looks(scene: Scene) -> None:
    """Trades of the last seconds, not of all times."""
    watch = scene.watch()
    await scene.trade(0, 1, 2)
    first = await watch.look()
    await scene.trade(0, 1)
    second = await watch.look()
    passed = second.at - first.at
    assert per_second("listener_trades_total", second, first) == pytest.approx(2 / passed)
    restarted = second._replace(samples={("listener_trades_total", ""): 1.0}, at=second.at + 2)
    assert per_second("listener_trades_total", restarted, second) == 0.5


async def test_without_metrics_redis_is_shown(scene: Scene) -> None:
    """The service may run on another host: head and markets are there, and it says what is missing."""
    await scene.trade(0)
    for url in ("http://127.0.0.1:1/metrics", scene.url.replace("/metrics", "/nothing"), scene.url + "x"):
        text = drawn(View(), await scene.watch(url).look())
        assert "/metrics does not answer" in text
        assert "T0/ETH" in text


async def test_without_redis_the_figures_are_shown(scene: Scene) -> None:
    """What does not answer is named, and the rest goes on."""
    away = Watch(RedisReader(Database.connect("redis://127.0.0.1:1/0", 1), KEYS), scene.clock, scene.url)
    text = drawn(View(), await away.look())
    assert "Redis: " in text
    assert "trades/s" in text


async def test_an_empty_redis(scene: Scene) -> None:
    """Before the service has started there is nothing to see, and that is no error."""
    await scene.redis.flushall()
    assert "no stream in Redis yet" in drawn(View(), await scene.watch().look())


async def test_troubles_are_named(scene: Scene) -> None:
    """Which service is in trouble stands in the first line."""
    snapshot = await scene.watch().look()
    found = parsed('listener_trouble{service="node"} 1.0\nlistener_ready 0.0\n')
    line = drawn(View(), snapshot._replace(samples=found)).splitlines()[0]
    assert "node!" in line
    assert "not ready" in line


async def test_many_markets_are_bounded(scene: Scene) -> None:
    """The newest are looked at, however old they are, and few are shown."""
    month = 30 * 86_400_000
    await scene.redis.zadd(KEYS.markets, {token(number): number * month for number in range(100, 1_400)})
    reader = RedisReader(Database(scene.redis), KEYS)
    found = await newest_markets(reader, 1_500 * month)
    assert len(found) == 1_000
    assert found[-1] == token(1_399)
    assert len((await scene.watch().look()).markets) <= MARKETS_SHOWN


def test_quantiles_are_bounds_of_buckets() -> None:
    """The smallest bound that enough samples lie within; nothing without samples."""
    found = parsed(
        'x_bucket{le="0.1"} 90\nx_bucket{le="1.0"} 99\nx_bucket{le="+Inf"} 100\nx_count 100\nx_sum 1\n'
        'y_bucket{le="+Inf"} 0\n'
    )
    assert quantile(found, "x", 0.5) == 0.1
    assert quantile(found, "x", 0.99) == 1
    assert quantile(found, "x", 1) == float("inf")
    assert quantile(found, "y", 0.5) is None
    assert quantile(found, "z", 0.5) is None


async def test_live_until_it_is_cancelled(scene: Scene) -> None:
    """It draws again and again, and ends at once when it is told to."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    task = asyncio.ensure_future(show(scene.watch(), console, 0.1, once=False))
    async with asyncio.timeout(10):
        while console.file.getvalue().count("busiest") < 2:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

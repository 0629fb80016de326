"""What is counted, and what a count costs."""

import asyncio
import mmap
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import fakeredis
import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from listener.application.changes import ChangeSet
from listener.application.errors import NodeUnavailable, StoreUnavailable
from listener.application.interfaces import RowId
from listener.application.webhooks import Failing, Status
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.observability.health import Health, HealthServer
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metered import (
    LoopLag,
    MeteredDatabase,
    MeteredHints,
    MeteredObserver,
    MeteredRpc,
)
from listener.infrastructure.observability.metrics import PENDING_MOST, Metrics
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.observability.system import get_system_metrics
from tests.fakes.build import block, swap
from tests.fakes.chain import LocalChain
from tests.fakes.clock import FakeClock
from tests.fakes.node import FakeNode, serving
from tests.fakes.webhooks import ENABLED, endpoint
from tests.fakes.writer import Writer, following

COMMIT_US_MOST = 100
"""What counting a commit may cost, in microseconds; it takes some 5."""


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, as a monitor reads it."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
def health() -> Health:
    """Of a service that follows its head."""
    return Health(synced=True, leads=True)


@pytest.fixture
def metrics(health: Health, clock: FakeClock) -> Metrics:
    """With a backend."""
    return Metrics(health, clock)


async def next_commit(made: Writer, trades: int = 1) -> ChangeSet:
    """A block with so many trades, committed."""
    made.chain.mine(*[swap(0)] * trades)
    return await made.commit(await made.changes([made.chain.blocks[-1]]))


async def test_commits_are_counted_by_kind(metrics: Metrics) -> None:
    """Blocks near the head, time that passes, history and reorgs, with their trades."""
    made = await following()
    metrics.committed(await next_commit(made, 3), 0.02)
    metrics.committed(await next_commit(made, 2), 0.02)
    late = await made.pass_time(made.state.head.as_of + 25 * 3_600_000)
    assert late is not None
    metrics.committed(late, 0.001)
    metrics.committed(await made.roll_back(made.state.head.number - 2), 0.03)
    made.chain.fork(2)
    made.chain.mine(swap(0))
    metrics.committed(await made.load_history([made.chain.blocks[-1]]), 1.5)
    found = samples(metrics)
    assert {
        kind: found[f"listener_commits_total{{kind={kind}}}"] for kind in ("live", "time", "reorg", "history")
    } == {
        "live": 2,
        "time": 1,
        "reorg": 1,
        "history": 1,
    }
    assert found["listener_trades_total"] == 6
    assert found["listener_blocks_total"] == 3
    assert (found["listener_reorg_depth_blocks_count"], found["listener_reorg_depth_blocks_sum"]) == (1, 2)
    assert found["listener_commit_seconds_count"] == 5
    assert found["listener_commit_seconds_bucket{le=1.0}"] == 4


async def test_rejected_logs_have_their_reasons(metrics: Metrics) -> None:
    """Each reason is a series of its own."""
    changes = replace(await next_commit(await following()), rejected=Counter(stranger=3, malformed=1))
    metrics.committed(changes, 0.01)
    metrics.committed(replace(changes, rejected=Counter(stranger=2)), 0.01)
    found = samples(metrics)
    assert found["listener_rejected_logs_total{reason=stranger}"] == 5
    assert found["listener_rejected_logs_total{reason=malformed}"] == 1


async def test_lag_is_that_of_the_newest_block(metrics: Metrics, clock: FakeClock) -> None:
    """In blocks against the node's newest, in seconds against the clock; nothing before both are known."""
    made = await following()
    assert (metrics.lag_blocks, metrics.lag_s) == (0, 0)
    changes = await next_commit(made)
    metrics.committed(changes, 0.01)
    clock.time = changes.blocks[-1].timestamp + 90_000
    metrics.heard(block(changes.head.number + 7))
    found = samples(metrics)
    assert (found["listener_head_lag_blocks"], found["listener_head_lag_seconds"]) == (7, 90)
    assert found["listener_tip_block"] == changes.head.number + 7
    clock.time = 0
    assert metrics.lag_s == 0


async def test_head_to_commit_is_timed_once_for_each_head(metrics: Metrics, clock: FakeClock) -> None:
    """From the first word of it; a head that is told twice, or caught up with as history, does not count."""
    made = await following()
    number = made.state.head.number + 1
    metrics.heard(block(number))
    clock.pass_ms(40)
    metrics.heard(block(number))
    clock.pass_ms(40)
    metrics.committed(await next_commit(made), 0.01)
    found = samples(metrics)
    assert found["listener_head_to_commit_seconds_count"] == 1
    assert found["listener_head_to_commit_seconds_sum"] == pytest.approx(0.08)
    metrics.heard(block(number + 1))
    made.chain.mine(swap(0))
    metrics.committed(await made.load_history([made.chain.blocks[-1]]), 1.5)
    assert samples(metrics)["listener_head_to_commit_seconds_count"] == 1


async def test_rows_wait_until_they_are_acknowledged(metrics: Metrics, clock: FakeClock) -> None:
    """How many, and since when; a new epoch counts from its first row."""
    base = await next_commit(await following())

    def commit(epoch: int, seq: int) -> None:
        metrics.committed(replace(base, head=replace(base.head, epoch=epoch, seq=seq)), 0.01)

    commit(1, 10)
    assert (metrics.undelivered_rows, metrics.undelivered_s) == (0, 0)
    commit(1, 14)
    clock.pass_ms(3_000)
    commit(1, 20)
    assert (metrics.undelivered_rows, metrics.undelivered_s) == (10, 3)
    metrics.delivered(RowId(1, 14), 2, 0.5)
    assert (metrics.undelivered_rows, metrics.undelivered_s) == (6, 0)
    commit(2, 3)
    assert metrics.undelivered_rows == 3
    metrics.delivered(RowId(2, 3), 1, 0.5)
    found = samples(metrics)
    assert (found["listener_outbox_undelivered_rows"], found["listener_outbox_age_seconds"]) == (0, 0)
    assert found["listener_commit_to_delivery_seconds_count"] == 3
    assert (found["listener_messages_total"], found["listener_delivery_seconds_sum"]) == (3, 1)


async def test_a_backend_that_is_away_for_long_takes_no_memory(metrics: Metrics, clock: FakeClock) -> None:
    """The age stays that of the oldest row."""
    base = await next_commit(await following())
    for seq in range(1, PENDING_MOST + 50):
        metrics.committed(replace(base, head=replace(base.head, epoch=1, seq=seq)), 0)
    clock.pass_ms(60_000)
    assert len(metrics._pending) == PENDING_MOST
    assert (metrics.undelivered_rows, metrics.undelivered_s) == (PENDING_MOST + 48, 60)


async def test_without_a_backend_nothing_waits(health: Health, clock: FakeClock) -> None:
    """Rows are written for readers, and nobody acknowledges them."""
    metrics = Metrics(health, clock, delivers=False)
    base = await next_commit(await following())
    metrics.committed(base, 0.01)
    metrics.committed(replace(base, head=replace(base.head, seq=base.head.seq + 9)), 0.01)
    clock.pass_ms(9_000)
    assert (metrics.undelivered_rows, metrics.undelivered_s) == (0, 0)


def test_states_are_those_of_the_health(metrics: Metrics, health: Health) -> None:
    """Read when they are asked for, troubles by service."""
    assert samples(metrics)["listener_ready"] == 1
    health.troubles["node"] = "away"
    health.breakers = lambda: {"one.example.org": "ok", "redis": "half-open"}
    health.differences["repaired"] = 2
    health.stalled, health.audited, health.synced = "still", 41, False
    found = samples(metrics)
    assert found["listener_ready"] == 0
    assert found["listener_trouble{service=node}"] == 1
    assert found["listener_breaker_open{service=redis}"] == 1
    assert found["listener_breaker_open{service=one.example.org}"] == 0
    assert found["listener_audit_differences_total{outcome=repaired}"] == 2
    assert (found["listener_chain_stalled"], found["listener_audited_block"]) == (1, 41)
    assert (found["listener_synced"], found["listener_leader"]) == (0, 1)


async def test_the_observer_counts_and_logs(metrics: Metrics, health: Health) -> None:
    """What it is told reaches both the figures and the health."""
    observer = MeteredObserver(metrics, health, ProgressDisplay(), SecretMask(()))
    changes = await next_commit(await following())
    observer.committed(changes, 0.01)
    observer.delivered(RowId(1, 1), 4, 0.01)
    observer.trouble("node", NodeUnavailable("away"), 1)
    observer.superseded(StoreUnavailable("gone"))
    found = samples(metrics)
    assert health.block == changes.head.number
    assert found["listener_trades_total"] == 1
    assert found["listener_messages_total"] == 4
    assert found["listener_retries_total{service=node}"] == 1
    assert found["listener_terms_ended_total"] == 1
    assert "node" in health.troubles


def test_hints_are_heard(metrics: Metrics) -> None:
    """A head of the subscription is the newest that is known."""
    MeteredHints(1, metrics).put(block(12))
    assert metrics.tip == 12


@pytest.fixture
async def node_url() -> AsyncIterator[str]:
    """A node."""
    async with serving(FakeNode(LocalChain())) as url:
        yield url


async def test_calls_have_method_and_outcome(metrics: Metrics, node_url: str) -> None:
    """Single calls, each call of a batch, and failures by their error's name."""
    rpc = MeteredRpc(node_url, 5, metrics)
    await rpc.call("eth_chainId", (), str)
    await rpc.batch([("eth_chainId", ()), ("eth_chainId", ()), ("eth_noSuchMethod", ())])
    await rpc.close()
    gone = MeteredRpc("http://127.0.0.1:1", 5, metrics)
    with pytest.raises(NodeUnavailable):
        await gone.call("eth_chainId", (), str)
    with pytest.raises(NodeUnavailable):
        await gone.batch([("eth_getLogs", ())] * 2)
    await gone.close()
    found = samples(metrics)
    assert found["listener_rpc_calls_total{method=eth_chainId,outcome=ok}"] == 3
    assert found["listener_rpc_calls_total{method=eth_noSuchMethod,outcome=error}"] == 1
    assert found["listener_rpc_calls_total{method=eth_chainId,outcome=NodeUnavailable}"] == 1
    assert found["listener_rpc_calls_total{method=eth_getLogs,outcome=NodeUnavailable}"] == 2
    assert found["listener_rpc_request_seconds_count{method=batch}"] == 2


async def test_round_trips_to_redis_are_timed(metrics: Metrics) -> None:
    """By kind, failures too: a server that is slow to refuse is slow."""
    database = MeteredDatabase(fakeredis.FakeAsyncRedis())
    await database.run("PING")
    database.metrics = metrics
    await database.run("PING")
    await database.run_all([("PING",), ("PING",)])
    await database.run_script("return {1}", [], [])
    await database.close()
    found = samples(metrics)
    for operation in ("command", "pipeline", "script"):
        assert found[f"listener_redis_seconds_count{{operation={operation}}}"] == 1


async def test_a_blocked_loop_is_seen(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that does not return keeps everybody waiting, and the lag says how long."""
    monkeypatch.setattr("listener.infrastructure.observability.metered.LOOP_EVERY_S", 0.01)
    lag = LoopLag(SystemClock(), metrics)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lag.run())
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - that is what is looked for
        await asyncio.sleep(0.005)
        seen = lag.seconds
        task.cancel()
    assert seen >= 0.15
    assert samples(metrics)["listener_loop_lag_seconds_count"] >= 1


def test_system_metrics_are_of_this_process() -> None:
    """Plausible figures: this process has memory, files and a past."""
    found = get_system_metrics(0.25)
    assert found.memory_bytes > 10_000_000
    assert found.open_files > 2
    assert found.threads >= 1
    assert found.uptime_s > 0
    assert found.loop_lag_s == 0.25
    with mmap.mmap(-1, 50_000_000) as held:  # an allocator may have as much at hand
        held.write(b"1" * len(held))
        assert get_system_metrics().memory_bytes > found.memory_bytes + 30_000_000
    with open("/dev/null", "rb"):  # noqa: PTH123 - any file
        assert get_system_metrics().open_files == found.open_files + 1


def test_health_check_names_each_part(health: Health) -> None:
    """What is wrong where something is, and the whole as `follower`."""
    health.block = 9
    health.breakers = lambda: {"redis": "closed", "backend": "open"}
    assert health.health_check()["follower"] == {"healthy": True, "detail": "", "block": 9}
    health.troubles["node"] = "no answer"
    found = health.health_check()
    assert found["node"] == {"healthy": False, "detail": "no answer"}
    assert found["redis"] == {"healthy": True, "detail": "closed"}
    assert found["backend"] == {"healthy": False, "detail": "open"}
    assert found["follower"] == {"healthy": False, "detail": "node: no answer", "block": 9}


async def test_metrics_over_http(metrics: Metrics, health: Health) -> None:
    """As Prometheus asks for them; without any there is no such page."""
    server = HealthServer(health, "127.0.0.1", 0)
    port = await server.start()
    try:
        async with ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 404

            async def exposition() -> bytes:
                return metrics.render()

            server.metrics = exposition
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                text = await answer.text()
        families = {family.name for family in text_string_to_metric_families(text)}
        assert {"listener_commits", "listener_ready", "listener_process_resident_memory_bytes"} <= families
        assert all(name.startswith("listener_") for name in families)
    finally:
        await server.close()


async def test_counting_a_commit_costs_little(metrics: Metrics) -> None:
    """A few microseconds: a hundred times less than a block."""
    changes = await next_commit(await following())
    rounds = 2_000
    best = min(_timed(metrics, changes, rounds) for _ in range(5))
    assert best / rounds * 1e6 < COMMIT_US_MOST


def _timed(metrics: Metrics, changes: ChangeSet, rounds: int) -> float:
    started = time.perf_counter()
    for _ in range(rounds):
        metrics.committed(changes, 0.01)
    return time.perf_counter() - started


def test_webhook_endpoints_are_counted(metrics: Metrics, clock: FakeClock) -> None:
    """By state; one that fails by its id, as long as it does; all states are there from the beginning."""

    def figures() -> dict[str, float]:
        return {name: value for name, value in samples(metrics).items() if "_webhook_" in name}

    nobody = {
        f"listener_webhook_endpoints{{state={state}}}": 0.0
        for state in ("active", "failing", "disabled", "given_up")
    }
    assert figures() == nobody
    failing = ENABLED._replace(failing=Failing(clock.now() - 90_000, 5, clock.now(), "HTTP 500"))
    states = {
        "one": ENABLED,
        "two": failing,
        "three": failing._replace(status=Status.GIVEN_UP),
        "four": ENABLED._replace(status=Status.DISABLED),
    }
    metrics.webhooks_are({name: (endpoint(name), state) for name, state in states.items()})
    assert figures() == {**dict.fromkeys(nobody, 1.0), "listener_webhook_failing_seconds{endpoint=two}": 90.0}
    metrics.webhooks_are({})
    assert figures() == nobody

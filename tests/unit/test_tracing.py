"""Spans of blocks and commits, and nothing of them when they are off."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from listener.application.interfaces import RowId
from listener.config.settings import load_settings
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.observability import tracing
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.observability.tracing import TracedObserver
from tests.fakes.build import block, swap
from tests.fakes.clock import FakeClock
from tests.fakes.writer import following


class Traced:
    """An observer whose spans stay in memory."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.clock = FakeClock()
        health = Health()
        self.metrics = Metrics(health, self.clock)
        self.observer = TracedObserver(
            self.provider, self.clock, self.metrics, health, ProgressDisplay(), SecretMask(())
        )

    def named(self, name: str) -> list[ReadableSpan]:
        """Spans of a name, in the order in which they ended."""
        return [span for span in self.spans.get_finished_spans() if span.name == name]


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Nothing seen yet."""
    made = Traced()
    yield made
    made.provider.shutdown()


def ms(span: ReadableSpan) -> float:
    """Length of a span."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


async def test_a_block_and_its_commit(traced: Traced) -> None:
    """The block's span begins when it was heard of, and holds that of its commit."""
    writer = await following()
    writer.chain.mine(swap(0), swap(0))
    changes = await writer.commit(await writer.changes([writer.chain.blocks[-1]]))
    traced.metrics.heard(block(changes.head.number))
    traced.clock.pass_ms(80)
    traced.observer.committed(changes, 0.03)
    (whole,), (commit,) = traced.named("block"), traced.named("commit")
    assert (ms(whole), ms(commit)) == (80, 30)
    assert whole.end_time == commit.end_time == traced.clock.now() * 1_000_000
    assert commit.parent is not None
    assert whole.context is not None
    assert commit.parent.span_id == whole.context.span_id
    assert whole.attributes == {"block.number": changes.head.number, "block.trades": 2}
    assert commit.attributes is not None
    assert (commit.attributes["commit.kind"], commit.attributes["commit.trades"]) == ("live", 2)


async def test_history_and_reorgs_are_commits_only(traced: Traced) -> None:
    """They are no single block; a reorg says how deep it was."""
    writer = await following()
    writer.chain.mine(swap(0))
    await writer.follow()
    traced.observer.committed(await writer.roll_back(writer.state.head.number - 1), 0.01)
    writer.chain.fork(1)
    writer.chain.mine(swap(0))
    traced.observer.committed(await writer.load_history([writer.chain.blocks[-1]]), 2)
    assert traced.named("block") == []
    reorg, history = traced.named("commit")
    assert reorg.attributes is not None
    assert history.attributes is not None
    assert (reorg.attributes["commit.kind"], reorg.attributes["reorg.depth"]) == ("reorg", 1)
    assert (history.attributes["commit.kind"], ms(history)) == ("history", 2_000)


def test_deliveries_have_spans(traced: Traced) -> None:
    """From the reading of a batch to its acknowledgement."""
    traced.observer.delivered(RowId(1, 9), 3, 0.25)
    (span,) = traced.named("delivery")
    assert ms(span) == 250
    assert span.attributes == {"delivery.messages": 3, "outbox.seq": 9}


async def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be sent in time is lost, and the service ends."""
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    traced = Traced()
    observer = TracedObserver(
        traced.provider, SystemClock(), traced.metrics, Health(), ProgressDisplay(), SecretMask(())
    )
    monkeypatch.setattr(traced.provider, "shutdown", lambda: time.sleep(10))
    started = time.monotonic()
    await observer.close()
    assert time.monotonic() - started < 5


def test_off_by_default_and_then_not_even_loaded() -> None:
    """Nobody who does not ask for traces pays for them."""
    assert load_settings(bonding_curve_factory_address="0x" + "fa" * 20).otel_traces is False
    script = (
        "import sys, listener.main\n"
        "ours = 'listener.infrastructure.observability.tracing'\n"
        "sys.exit(ours in sys.modules or 'opentelemetry.exporter' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


def test_a_missing_package_is_named() -> None:
    """With the command that installs it."""
    script = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from listener.application.errors import InvalidConfiguration\n"
        "from listener.infrastructure.observability.tracing import make_provider\n"
        "try: make_provider(1)\n"
        "except InvalidConfiguration as error: sys.exit(0 if 'listener[otel]' in str(error) else 3)\n"
        "sys.exit(4)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0

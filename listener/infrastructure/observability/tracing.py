"""OpenTelemetry traces, where they are asked for: a span for each block near the head and for each commit.

Where spans go is said by the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and its like). Without
`OTEL_TRACES` nothing of this module is loaded.
"""

from threading import Thread
from typing import TYPE_CHECKING, Final

from listener import __version__
from listener.application.changes import ChangeSet
from listener.application.errors import InvalidConfiguration
from listener.application.interfaces import Clock, RowId
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metered import MeteredObserver
from listener.infrastructure.observability.metrics import Metrics, kind_of
from listener.infrastructure.observability.progress import ProgressDisplay

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE: Final = "0xpads-listener"
CLOSE_S: Final = 5.0
"""Longest wait for spans that are not sent yet when the service ends."""
CLOSE_LOOK_S: Final = 0.02
INSTALL: Final = "pip install '0xpads-listener[otel]'"


def make_provider(chain_id: int) -> "TracerProvider":
    """A provider that exports over OTLP, in batches and from a thread of its own.

    Raises:
        InvalidConfiguration: the packages are missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise InvalidConfiguration(f"OTEL_TRACES: a package is missing ({error.name}): {INSTALL}") from error
    resource = Resource.create(
        {"service.name": SERVICE, "service.version": __version__, "blockchain.chain_id": chain_id}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class TracedObserver(MeteredObserver):
    """Writes logs, counts, and makes spans of what it is told."""

    def __init__(
        self,
        provider: "TracerProvider",
        clock: Clock,
        metrics: Metrics,
        health: Health,
        progress: ProgressDisplay,
        mask: SecretMask,
    ) -> None:
        super().__init__(metrics, health, progress, mask)
        self._provider = provider
        self._clock = clock
        self._tracer = provider.get_tracer("listener", __version__)

    def committed(self, changes: ChangeSet, seconds: float) -> None:
        """See `Observer.committed`."""
        super().committed(changes, seconds)
        heard_s = self._metrics.heard_s
        end = self._clock.now() * 1_000_000
        kind = kind_of(changes)
        if kind == "live":
            with self._span("block", end, max(heard_s or 0.0, seconds)) as block:
                block.set_attributes({"block.number": changes.head.number, "block.trades": changes.counted})
                self._commit(changes, kind, end, seconds)
                block.end(end)
        else:
            self._commit(changes, kind, end, seconds)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        super().delivered(last, messages, seconds)
        end = self._clock.now() * 1_000_000
        with self._span("delivery", end, seconds) as span:
            span.set_attributes({"delivery.messages": messages, "outbox.seq": last.seq})
            span.end(end)

    def _commit(self, changes: ChangeSet, kind: str, end: int, seconds: float) -> None:
        with self._span("commit", end, seconds) as span:
            span.set_attributes(
                {
                    "commit.kind": kind,
                    "commit.blocks": len(changes.blocks),
                    "commit.trades": changes.counted,
                    "commit.markets": len(changes.states),
                    "block.number": changes.head.number,
                }
            )
            if changes.reorg:
                span.set_attribute("reorg.depth", len(changes.reorg.orphaned))
            span.end(end)

    def _span(self, name: str, end: int, seconds: float) -> "_Current":
        return self._tracer.start_as_current_span(
            name, start_time=end - round(seconds * 1e9), end_on_exit=False
        )

    async def close(self) -> None:
        """Send what is left, unless it takes too long: the library waits for a collector that is away."""
        thread = Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        deadline = self._clock.monotonic() + CLOSE_S
        while thread.is_alive() and self._clock.monotonic() < deadline:
            await self._clock.sleep(CLOSE_LOOK_S)


if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    _Current = AbstractContextManager[Span]

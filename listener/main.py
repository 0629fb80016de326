"""The composition root: settings → adapters → use cases → one task group.

Exit codes: 0 stopped on request; 1 a defect; 2 a setting is missing or malformed; 3 wrong chain;
4 Redis holds something else (another chain, a newer schema, data made with other settings);
5 a fork too deep to undo; 7 Redis or the node refuses what we ask.
"""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import structlog

from listener import __version__
from listener.application.errors import InvalidConfiguration, ListenerError
from listener.application.services.auditor import AuditLimits, Auditor
from listener.application.services.follower import Follower
from listener.application.services.leadership import Leadership
from listener.application.services.publisher import Publisher, PublisherLimits
from listener.application.services.supervisor import keep_running
from listener.children import Children
from listener.config.gateway import check_exposure
from listener.config.settings import Settings, load_settings
from listener.infrastructure.blockchain.heads import NewHeads
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.listening import server_tls
from listener.infrastructure.observability.health import Health, HealthServer
from listener.infrastructure.observability.logs import SecretMask, configure
from listener.infrastructure.observability.metered import (
    LoopLag,
    MeteredDatabase,
    MeteredHints,
    MeteredObserver,
)
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.observability.system import SystemMetrics, get_system_metrics
from listener.infrastructure.redis.alert_rules import RedisAlertRules
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from listener.infrastructure.redis.outbox import OutboxBounds, RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from listener.infrastructure.redis.webhook_store import RedisWebhooks
from listener.infrastructure.websocket.backend import SocketIoBackend
from listener.running import until_stopped
from listener.wiring import Node, follower_limits, listing_recorder

BATCH_ROWS = 200
MESSAGE_BYTES = 900_000
"""Node's socket.io refuses messages over 1 MB without an error."""
COLLECT_AFTER = (200_000, 20, 100)
"""Thresholds of the garbage collector's generations."""
AUDIT_BLOCKS = 16
READERS_OUTBOX_BYTES = 16_000_000
"""Rows are kept up to this size where only the gateway's clients read them: they come back within minutes.

Unless `OUTBOX_MAX_BYTES` is set: who follows rows in a process of his own may come back later.
"""


class Service:
    """All parts, wired.

    Args:
        settings: what to run with.
        keeps_rows: somebody else than the backend follows the outbox at his own pace.
    """

    def __init__(self, settings: Settings, *, keeps_rows: bool = False) -> None:
        if settings.gateway_enabled:
            check_exposure(settings, settings.websocket_host, settings.environment)
        self._settings = settings
        self._keeps_rows = keeps_rows or settings.backend_socket_url is not None
        self._clock = SystemClock()
        self._rules, self._keys = settings.rules(), Keys(settings.chain_id)
        self._health = Health.expecting("node", *(["backend"] if settings.backend_socket_url else []))
        self._metrics = Metrics(self._health, self._clock, delivers=settings.backend_socket_url is not None)
        self._loop_lag = LoopLag(self._clock, self._metrics)
        self._observer = self._make_observer()
        self._server = HealthServer(
            self._health,
            settings.websocket_host,
            settings.websocket_port,
            server_tls(settings.gateway_tls_cert, settings.gateway_tls_key),
        )
        self._server.metrics = self._exposition
        self._database = MeteredDatabase.connect(str(settings.redis_url), settings.redis_timeout_ms / 1000)
        self._database.metrics = self._metrics
        self._node = Node.connect(settings, self._observer, self._metrics)
        self._health.breakers = self._breakers
        self._store = RedisStore(
            self._database,
            self._keys,
            self._rules,
            self._outbox_bounds(),
        )
        self._webhooks = RedisWebhooks(self._database, self._keys)
        self._children = Children(
            settings, self._server, self._webhooks, self._clock, self._observer, self._keep_rows
        )
        self._commits = LocalSignal()
        self._audit_wanted = LocalSignal()
        self._hints = MeteredHints(settings.poll_interval_ms / 1000, self._metrics)
        self._lease = RedisLease(self._database, self._keys, settings.lease_ms)
        self._follower = self._build_follower()
        self._backend = self._connect_backend()
        self._leadership = Leadership(self._lease, self._work, self._clock, self._observer)

    def _make_observer(self) -> MeteredObserver:
        told = (self._metrics, self._health, ProgressDisplay(), SecretMask(self._settings.secrets()))
        if not self._settings.otel_traces:
            return MeteredObserver(*told)
        from listener.infrastructure.observability.tracing import TracedObserver, make_provider  # noqa: PLC0415

        return TracedObserver(make_provider(self._settings.chain_id), self._clock, *told)

    async def run(self) -> None:
        """Run until cancelled, or until something fatal happens.

        Raises:
            InvalidConfiguration: no port for health requests is free.
            ExceptionGroup: with the `Fatal` error of the part that failed.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._observer.close)
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._node.close)
            if self._backend:
                stack.push_async_callback(self._backend.close)
            stack.push_async_callback(self._server.close)
            port = await self._listen()
            structlog.get_logger("listener").info("Listener started", version=__version__, health_port=port)
            async with asyncio.TaskGroup() as tasks:
                parts = (
                    ("leadership", self._leadership.run, ""),
                    ("loop", self._loop_lag.run, "loop"),
                    *await self._children.parts(),
                )
                for name, part, blame in parts:
                    tasks.create_task(keep_running(part, self._clock, self._observer, blame=blame), name=name)

    def _keep_rows(self, patient: bool) -> None:  # noqa: FBT001 - the only one
        self._store.keep_rows(self._outbox_bounds(patient=patient))

    def _outbox_bounds(self, *, patient: bool = False) -> OutboxBounds:
        """What is kept; less where nobody reads it who may be away for long."""
        settings = self._settings
        most, patient = settings.outbox_max_bytes, patient or self._keeps_rows
        if not patient and "outbox_max_bytes" not in settings.model_fields_set:
            most = min(most, READERS_OUTBOX_BYTES)
        return OutboxBounds(settings.outbox_max_rows, most)

    @property
    def health(self) -> Health:
        """The state of each part, for who adds one."""
        return self._health

    @property
    def metrics(self) -> Metrics:
        """Figures, for who adds some."""
        return self._metrics

    def health_check(self) -> dict[str, object]:
        """Each part, by name: whether it is `healthy`, and the `detail`. JSON-ready."""
        return self._health.health_check()

    def get_system_metrics(self) -> SystemMetrics:
        """Memory, processor, open files, the event loop's lag and the uptime."""
        return get_system_metrics(self._loop_lag.seconds)

    async def _exposition(self) -> bytes:
        """What `/metrics` answers."""
        with suppress(ListenerError):
            self._metrics.outbox_holds(int(await self._database.run("XLEN", self._keys.outbox)))
            self._metrics.webhooks_are(await self._webhooks.load())
        return self._metrics.render()

    async def _listen(self) -> int:
        """Answer health requests, at one of the next ports where another instance has the one asked for."""
        try:
            return await self._server.start()
        except OSError as error:
            raise InvalidConfiguration(f"WEBSOCKET_PORT: cannot listen: {error.strerror or error}") from error

    async def _work(self) -> None:
        """One term of office: begin by reading what is stored."""
        self._follower.forget()
        async with asyncio.TaskGroup() as tasks:
            for name, part, blame in self._parts():
                tasks.create_task(keep_running(part, self._clock, self._observer, blame=blame), name=name)

    def _parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]], str]]:
        """Name, coroutine function, and what its failures are reported as (empty: the error says)."""
        settings = self._settings
        yield "chain", self._follower.run, ""
        if settings.blockchain_ws_url:
            heads = NewHeads(
                str(settings.blockchain_ws_url),
                settings.chain_id,
                self._hints,
                self._observer,
                settings.rpc_timeout_ms / 1000,
            )
            yield "heads", heads.run, "heads"
        if self._backend:
            yield "backend", self._build_publisher(self._backend).run, ""
        if settings.audit_window:
            yield "audit", self._build_auditor().run, "audit"
        if settings.listings_enabled and settings.gateway_enabled:
            recorder = listing_recorder(
                settings, self._node, self._database, self._follower, self._clock, self._observer
            )
            yield "listings", recorder.run, "listings"

    def _build_follower(self) -> Follower:
        settings = self._settings
        return Follower(
            chain=self._node.source,
            hints=self._hints,
            store=self._store,
            clock=self._clock,
            observer=self._observer,
            signal=self._commits,
            audit_wanted=self._audit_wanted,
            rules=self._rules,
            limits=follower_limits(settings),
            chain_id=settings.chain_id,
            start=settings.start_block,
            fingerprint=settings.fingerprint(),
            tell_backend=self._keeps_rows or settings.gateway_enabled or settings.webhooks_enabled,
            lease=self._lease,
            alerts=RedisAlertRules(self._database, self._keys),
        )

    def _build_publisher(self, backend: SocketIoBackend) -> Publisher:
        return Publisher(
            outbox=RedisOutbox(self._database, self._keys),
            backend=backend,
            signal=self._commits,
            clock=self._clock,
            observer=self._observer,
            limits=PublisherLimits(BATCH_ROWS, MESSAGE_BYTES, self._settings.processing_interval_ms / 1000),
        )

    def _build_auditor(self) -> Auditor:
        return Auditor(
            ledger=self._follower,
            chain=self._node.source,
            witness=self._node.witness,
            store=self._store,
            wanted=self._audit_wanted,
            observer=self._observer,
            limits=AuditLimits(AUDIT_BLOCKS, self._settings.audit_blocks_per_s),
        )

    def _connect_backend(self) -> SocketIoBackend | None:
        settings = self._settings
        if not settings.backend_socket_url or not settings.backend_auth_token:
            return None
        return SocketIoBackend(
            str(settings.backend_socket_url),
            settings.backend_auth_token.get_secret_value(),
            settings.chain_id,
            self._keys.stream,
            settings.backend_ack_timeout_ms / 1000,
        )

    def _breakers(self) -> dict[str, str]:
        """State of each external service's circuit breaker."""
        states = {**self._node.health(), "redis": self._database.health}
        return {**states, "backend": self._backend.health} if self._backend else states


async def serve(settings: Settings, work: Callable[[], Awaitable[None]] | None = None) -> int:
    """Run the service, or `work` in its place, until SIGINT or SIGTERM; the exit code."""
    return await until_stopped(work or (lambda: Service(settings).run()))


def spare_collector() -> None:
    """Have the garbage collector look rarely: trades and candles make many objects, and no cycles.

    With its usual thresholds it takes a quarter of the time while history is loaded.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def run(settings: Settings | None = None, work: Callable[[], Awaitable[None]] | None = None) -> int:
    """Read settings, unless they are given, set up logs, serve."""
    try:
        settings = settings or load_settings()
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        return error.exit_code
    configure(settings.log_level, settings.log_file, settings.secrets())
    spare_collector()
    return asyncio.run(serve(settings, work))


if __name__ == "__main__":
    sys.exit(run())

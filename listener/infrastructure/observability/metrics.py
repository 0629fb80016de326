"""Figures for Prometheus, in a registry of their own.

Names begin with `listener_`. What is known elsewhere (the state of `Health`, lags and ages) is worked out
when somebody asks, so that a block costs a few microseconds. docs/operations/metrics.md says what each means.
"""

from collections import Counter as Counts
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector

from listener import __version__
from listener.application.changes import ChangeSet
from listener.application.interfaces import Clock, RowId
from listener.application.use_cases.resolve_block import (
    MALFORMED,
    MARKET_TAKEN,
    STRANGER,
    TOKEN_UNREADABLE,
    ZERO_AMOUNT,
)
from listener.application.webhooks import Endpoint, EndpointState
from listener.domain.value_objects import BlockRef
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.metric_states import States
from listener.infrastructure.observability.webhook_figures import WebhookFigures

FAST_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SLOW_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
DEPTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
HEARD_MOST: Final = 256
"""Heads that wait for their commit, at most; while history is loaded none of them is timed."""
PENDING_MOST: Final = 10_000
"""Commits that wait for their acknowledgement, at most; beyond that only their rows are counted."""


class Metrics:
    """Counts what it is told of. No method fails or waits.

    Args:
        health: what is known of the parts, read when somebody asks.
        clock: wall clock and seconds.
        delivers: whether there is a backend that rows wait for.
    """

    def __init__(self, health: Health, clock: Clock, *, delivers: bool = True) -> None:
        self._clock = clock
        self._delivers = delivers
        self._heard: deque[tuple[int, float]] = deque(maxlen=HEARD_MOST)
        self._pending: deque[tuple[RowId, float]] = deque()
        self._newest: RowId | None = None
        self._acknowledged: RowId | None = None
        self.heard_s: float | None = None
        """Seconds from hearing of the newest committed head to its commit; None: nobody told of it before."""
        self.tip = -1
        """Number of the newest block that the node told us of."""
        self.head: BlockRef | None = None
        """The newest block committed by this process."""
        self.registry = CollectorRegistry(auto_describe=True)
        disable_created_metrics()  # type: ignore[no-untyped-call]  # for the whole process
        self._make()
        ProcessCollector(namespace="listener", registry=self.registry)
        self.registry.register(States(self, health))

    def _make(self) -> None:
        registry = self.registry
        build = Info("listener_build", "Version of the service.", registry=registry)
        build.info({"version": __version__})
        self._commits = Counter("listener_commits", "Commits, by kind.", ["kind"], registry=registry)
        self._of_kind = {kind: self._commits.labels(kind) for kind in KINDS}
        self._blocks = Counter("listener_blocks", "Blocks committed.", registry=registry)
        self._trades = Counter("listener_trades", "Trades folded.", registry=registry)
        self._created = Counter("listener_markets_created", "Markets created.", registry=registry)
        self._rejected = Counter(
            "listener_rejected_logs", "Logs that do not count, by reason.", ["reason"], registry=registry
        )
        for reason in REASONS:
            self._rejected.labels(reason)
        self._depth = Histogram(
            "listener_reorg_depth_blocks", "Blocks undone by a reorg.", buckets=DEPTHS, registry=registry
        )
        self._commit_s = _histogram(
            "commit", "From the decision to follow a block to its commit.", SLOW_S, registry
        )
        self._head_s = _histogram(
            "head_to_commit", "From hearing of a head to its commit, near the head.", SLOW_S, registry
        )
        self._delivery_s = _histogram(
            "delivery", "A batch, from its reading to its acknowledgement.", SLOW_S, registry
        )
        self._delivered_s = _histogram(
            "commit_to_delivery", "From a commit to the acknowledgement of its rows.", SLOW_S, registry
        )
        self._messages = Counter(
            "listener_messages", "Messages acknowledged by the backend.", registry=registry
        )
        self._calls = Counter(
            "listener_rpc_calls",
            "JSON-RPC calls, by method and outcome.",
            ["method", "outcome"],
            registry=registry,
        )
        self._call_s = Histogram(
            "listener_rpc_request_seconds",
            "JSON-RPC requests over HTTP; `batch`: of several calls.",
            ["method"],
            buckets=SLOW_S,
            registry=registry,
        )
        self._redis_s = Histogram(
            "listener_redis_seconds",
            "Round trips to Redis, by kind.",
            ["operation"],
            buckets=FAST_S,
            registry=registry,
        )
        self._of_operation = {name: self._redis_s.labels(name) for name in OPERATIONS}
        self._retries = Counter(
            "listener_retries", "Errors that were tried again, by service.", ["service"], registry=registry
        )
        self._handler_events = Counter(
            "listener_handler_events",
            "Events of handlers in Python, by handler and what became of them.",
            ["handler", "outcome"],
            registry=registry,
        )
        self._terms = Counter("listener_terms_ended", "Terms that ended early.", registry=registry)
        self._loop_s = _histogram("loop_lag", "How late the event loop was.", FAST_S, registry)
        self._rows = Gauge(
            "listener_outbox_rows", "Rows kept in the outbox, delivered or not.", registry=registry
        )
        self._webhooks = WebhookFigures(registry)

    def heard(self, block: BlockRef) -> None:
        """The node, or its subscription, told of a head."""
        if block.number > self.tip:
            self._heard.append((block.number, self._clock.monotonic()))
        self.tip = block.number

    def committed(self, changes: ChangeSet, seconds: float) -> None:
        """See `Observer.committed`."""
        self._of_kind[kind_of(changes)].inc()
        self._commit_s.observe(seconds)
        if changes.blocks:
            self._blocks.inc(len(changes.blocks))
            self.head = changes.blocks[-1]
        if changes.counted:
            self._trades.inc(changes.counted)
        if changes.created:
            self._created.inc(len(changes.created))
        for reason, count in changes.rejected.items():
            self._rejected.labels(reason).inc(count)
        if changes.reorg:
            self._depth.observe(len(changes.reorg.orphaned))
            self.head = changes.reorg.ancestor
        self._note_heads(changes)
        self._note_rows(RowId(changes.head.epoch, changes.head.seq))

    def _note_heads(self, changes: ChangeSet) -> None:
        heard, near, now = self._heard, can_be_undone(changes), self._clock.monotonic()
        self.heard_s = None
        while heard and heard[0][0] <= changes.head.number:
            since = heard.popleft()[1]
            if near:
                self.heard_s = now - since
                self._head_s.observe(self.heard_s)

    def _note_rows(self, newest: RowId) -> None:
        if self._newest is None:
            self._acknowledged = self._acknowledged or newest
        elif self._delivers and newest > self._newest and len(self._pending) < PENDING_MOST:
            self._pending.append((newest, self._clock.monotonic()))
        self._newest = newest

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self._messages.inc(messages)
        self._delivery_s.observe(seconds)
        self._acknowledged = last
        now = self._clock.monotonic()
        while self._pending and self._pending[0][0] <= last:
            self._delivered_s.observe(now - self._pending.popleft()[1])

    def retried(self, service: str) -> None:
        """An error is waited out."""
        self._retries.labels(service).inc()

    def handler_event(self, handler: str, outcome: str, count: int = 1) -> None:
        """A handler has handled, failed at or skipped an event, or stopped before it."""
        self._handler_events.labels(handler, outcome).inc(count)

    def term_ended(self) -> None:
        """See `Observer.superseded`."""
        self._terms.inc()

    def called(self, request: str, seconds: float, outcomes: Iterable[tuple[str, str]]) -> None:
        """A JSON-RPC request of one call or several: its name, and each call's method and outcome."""
        self._call_s.labels(request).observe(seconds)
        for (method, outcome), count in Counts(outcomes).items():
            self._calls.labels(method, outcome).inc(count)

    def asked_redis(self, operation: str, seconds: float) -> None:
        """A round trip: `command`, `pipeline` or `script`."""
        self._of_operation[operation].observe(seconds)

    def loop_late(self, seconds: float) -> None:
        """The event loop came so late to what was due."""
        self._loop_s.observe(seconds)

    def outbox_holds(self, rows: int) -> None:
        """Rows kept in the outbox."""
        self._rows.set(rows)

    def webhooks_are(self, endpoints: Mapping[str, tuple[Endpoint, EndpointState]]) -> None:
        """Webhook endpoints as they are stored."""
        self._webhooks.update(endpoints, self._clock.now())

    @property
    def undelivered_rows(self) -> int:
        """Rows that wait for the backend, as far as this process has seen their numbers."""
        newest, done = self._newest, self._acknowledged
        if not self._delivers or newest is None or done is None:
            return 0
        return max(newest.seq - (done.seq if done.epoch == newest.epoch else 0), 0)

    @property
    def undelivered_s(self) -> float:
        """How long the oldest commit that has rows has waited for the backend."""
        return self._clock.monotonic() - self._pending[0][1] if self._pending else 0.0

    @property
    def lag_blocks(self) -> int:
        """Blocks between the node's newest and ours; 0 while either is unknown."""
        return max(self.tip - self.head.number, 0) if self.head and self.tip >= 0 else 0

    @property
    def lag_s(self) -> float:
        """Age of the newest committed block, by the wall clock; 0 while there is none."""
        return max((self._clock.now() - self.head.timestamp) / 1000, 0.0) if self.head else 0.0

    def render(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)


REASONS: Final = (STRANGER, MALFORMED, ZERO_AMOUNT, TOKEN_UNREADABLE, MARKET_TAKEN)
"""Why logs are rejected: a series that begins with its first event hides that event from `increase`."""
KINDS: Final = ("live", "history", "reorg", "time")
OPERATIONS: Final = ("command", "pipeline", "script")


def kind_of(changes: ChangeSet) -> str:
    """What a commit did: a block near the head, history, a reorg, or the passing of time."""
    if changes.reorg:
        return "reorg"
    if not changes.blocks:
        return "time"
    return "live" if can_be_undone(changes) else "history"


def can_be_undone(changes: ChangeSet) -> bool:
    """Whether it is a block near the head; what history loads leaves no before-image."""
    return changes.undo is not None and changes.undo.as_of > 0


def _histogram(name: str, text: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"listener_{name}_seconds", text, buckets=buckets, registry=registry)

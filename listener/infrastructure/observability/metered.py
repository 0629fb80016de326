"""Our adapters, counting what they do."""

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, Final, TypeVar

from listener.application.changes import ChangeSet
from listener.application.errors import ListenerError
from listener.application.interfaces import Clock, RowId
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.heads import HintSlot
from listener.infrastructure.blockchain.rpc import HttpRpc, Reply
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.redis.client import Command, Database, Word

T = TypeVar("T")

LOOP_EVERY_S: Final = 0.25
"""How often it is looked how late the event loop is."""
BATCH: Final = "batch"


class MeteredObserver(LogObserver):
    """Writes logs, keeps `Health`, and counts."""

    def __init__(self, metrics: Metrics, health: Health, progress: ProgressDisplay, mask: SecretMask) -> None:
        super().__init__(health, progress, mask)
        self._metrics = metrics

    def committed(self, changes: ChangeSet, seconds: float) -> None:
        """See `Observer.committed`."""
        self._metrics.committed(changes, seconds)
        super().committed(changes, seconds)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self._metrics.delivered(last, messages, seconds)
        super().delivered(last, messages, seconds)

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self._metrics.retried(service)
        super().trouble(service, error, retry_in_s)

    def superseded(self, error: Exception) -> None:
        """See `Observer.superseded`."""
        self._metrics.term_ended()
        super().superseded(error)

    async def close(self) -> None:
        """Nothing is left to be sent."""


class MeteredHints(HintSlot):
    """Notes when a head is heard of."""

    def __init__(self, poll_s: float, metrics: Metrics) -> None:
        super().__init__(poll_s)
        self._metrics = metrics

    def put(self, hint: BlockRef) -> None:
        """See `HintSlot.put`."""
        self._metrics.heard(hint)
        super().put(hint)


class MeteredSource(RpcChainSource):
    """Notes the tips that the node tells."""

    metrics: Metrics

    async def tip(self) -> BlockRef:
        """See `ChainSource.tip`."""
        block = await super().tip()
        self.metrics.heard(block)
        return block


class MeteredRpc(HttpRpc):
    """Counts calls and times requests."""

    def __init__(self, url: str, timeout_s: float, metrics: Metrics) -> None:
        super().__init__(url, timeout_s)
        self._metrics = metrics

    async def call(self, method: str, params: Sequence[object], kind: type[T]) -> T | None:
        """See `HttpRpc.call`."""
        started = perf_counter()
        try:
            found = await super().call(method, params, kind)
        except ListenerError as error:
            self._metrics.called(method, perf_counter() - started, [(method, outcome_of(error))])
            raise
        self._metrics.called(method, perf_counter() - started, [(method, "ok")])
        return found

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Reply]:
        """See `HttpRpc.batch`."""
        started = perf_counter()
        try:
            replies = await super().batch(calls)
        except ListenerError as error:
            outcome = outcome_of(error)
            self._metrics.called(BATCH, perf_counter() - started, [(method, outcome) for method, _ in calls])
            raise
        self._metrics.called(BATCH, perf_counter() - started, _outcomes(calls, replies))
        return replies


def outcome_of(error: ListenerError) -> str:
    """The label of a failed call: the error's name, which is one of a handful."""
    return type(error).__name__


def _outcomes(
    calls: Sequence[tuple[str, Sequence[object]]], replies: Sequence[Reply]
) -> Iterable[tuple[str, str]]:
    for (method, _), reply in zip(calls, replies, strict=True):
        yield method, "error" if reply.error else "ok"


class MeteredDatabase(Database):
    """Times round trips. Without `metrics` it is a plain `Database`."""

    metrics: Metrics | None = None

    async def run(self, *words: Word) -> Any:  # noqa: ANN401 - as there
        """See `Database.run`."""
        started = perf_counter()
        try:
            return await super().run(*words)
        finally:
            self._note("command", started)

    async def run_all(self, commands: Iterable[Command]) -> list[Any]:
        """See `Database.run_all`."""
        started = perf_counter()
        try:
            return await super().run_all(commands)
        finally:
            self._note("pipeline", started)

    async def run_script(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
        """See `Database.run_script`."""
        started = perf_counter()
        try:
            return await super().run_script(script, keys, words)
        finally:
            self._note("script", started)

    def _note(self, operation: str, started: float) -> None:
        if self.metrics is not None:
            self.metrics.asked_redis(operation, perf_counter() - started)


class LoopLag:
    """Looks how late the event loop is: whatever blocks it makes everything late.

    Attributes:
        seconds: the last look.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self.seconds = 0.0

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            due = self._clock.monotonic() + LOOP_EVERY_S
            await self._clock.sleep(LOOP_EVERY_S)
            self.seconds = max(self._clock.monotonic() - due, 0.0)
            self._metrics.loop_late(self.seconds)

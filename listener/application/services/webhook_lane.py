"""One endpoint's delivery: a publisher of its own over the outbox, and the retries behind it.

A message is tried again with exponential backoff until the endpoint takes it, with the same body and the same
id. What fails for a day, or answers 410, is given up, and waits for its operator. All of it is known to the
store: a restart neither forgets how long an endpoint has failed nor asks it sooner.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import orjson

from listener.application.envelopes import Envelope
from listener.application.errors import Displaced, Retryable, Superseded
from listener.application.interfaces import Clock, Cursor, Message, Outbox, Row, RowId, Signal
from listener.application.services.publisher import Publisher, PublisherLimits, read_messages
from listener.application.use_cases.publish_updates import CHART_DATA, MARKET_DATA, cut_batch
from listener.application.webhooks import (
    Attempt,
    Endpoint,
    EndpointState,
    EndpointStore,
    Failing,
    Parcel,
    Replay,
    Transport,
    WebhookObserver,
    message_id,
)
from listener.domain.value_objects import Interval, MarketId, Timestamp

LIMITS: Final = PublisherLimits(batch_rows=100, message_bytes=256_000, pause_s=0.1)
"""Smaller than the backend's: many web servers refuse bodies beyond a few hundred kilobytes."""
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 3_600.0
GIVE_UP_AFTER_MS: Final = 24 * 3_600_000
"""An endpoint that has failed so long is disabled."""
LEAST_ATTEMPTS: Final = 10
"""It is not disabled after fewer: most of the day may have been an outage of ours."""
GONE: Final = 410


class GaveUp(Exception):
    """Nothing more is delivered to this endpoint."""


class Tools(NamedTuple):
    """What every lane works with.

    Attributes:
        store: of the endpoints.
        transport: to them.
        clock: wall clock, and to wait.
        observer: told of each attempt.
        jitter: a number from 0 to 1, another each time.
        envelope: of every message.
    """

    store: EndpointStore
    transport: Transport
    clock: Clock
    observer: WebhookObserver
    jitter: Callable[[], float]
    envelope: Envelope


def backoff_s(attempts: int, jitter: float) -> float:
    """How long to wait after so many failures: doubled each time up to an hour, the upper half by chance."""
    longest = min(BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 32), BACKOFF_MAX_S)
    return longest * (0.5 + jitter / 2)


class Courier:
    """Brings messages to one endpoint, one at a time, until each is taken.

    Args:
        endpoint: where to.
        state: how it went so far.
        tools: see there.
    """

    def __init__(self, endpoint: Endpoint, state: EndpointState, tools: Tools) -> None:
        self._endpoint = endpoint
        self._version = state.version
        self._failing = state.failing
        self._tools = tools
        self._turn = asyncio.Lock()

    async def deliver(self, parcel: Parcel) -> None:
        """Return when the endpoint has taken it.

        Raises:
            GaveUp: the endpoint was disabled over it.
            Displaced: the endpoint has changed meanwhile.
            StoreUnavailable: what came of it could not be remembered.
        """
        async with self._turn:
            while not await self._attempt(parcel):
                pass

    async def _attempt(self, parcel: Parcel) -> bool:
        """One request, when it is time; whether it succeeded."""
        store, clock, endpoint = self._tools.store, self._tools.clock, self._endpoint
        if self._failing:
            await clock.sleep(min((self._failing.next_at - clock.now()) / 1000, BACKOFF_MAX_S))
        number = self._failing.attempts + 1 if self._failing else 1
        answer = await self._tools.transport.post(endpoint, parcel.id, parcel.body, clock.now())
        attempt = Attempt.of(parcel, answer, number, clock.now())
        await store.log(endpoint.id, attempt)
        if not answer.error:
            await self._succeeded(attempt)
            return True
        await self._failed(attempt, answer.retry_after_s)
        return False

    async def _succeeded(self, attempt: Attempt) -> None:
        self._tools.observer.attempted(self._endpoint, attempt, None)
        if self._failing:
            await self._tools.store.note_failing(self._endpoint.id, self._version, None)
            self._tools.observer.recovered(self._endpoint, self._failing)
            self._failing = None

    async def _failed(self, attempt: Attempt, retry_after_s: float) -> None:
        now, since = attempt.t, self._failing.since if self._failing else attempt.t
        if attempt.status == GONE:
            await self._give_up(attempt, "it answered 410 Gone")
        deadline = since + GIVE_UP_AFTER_MS
        if now >= deadline and attempt.attempt >= LEAST_ATTEMPTS:
            await self._give_up(attempt, f"it failed for a day, at last with: {attempt.error}")
        wait_s = max(backoff_s(attempt.attempt, self._tools.jitter()), min(retry_after_s, BACKOFF_MAX_S))
        next_at = now + round(wait_s * 1000)
        if now < deadline:
            next_at = min(next_at, deadline)
        self._failing = Failing(since, attempt.attempt, next_at, attempt.error)
        await self._tools.store.note_failing(self._endpoint.id, self._version, self._failing)
        self._tools.observer.attempted(self._endpoint, attempt, (next_at - now) / 1000)

    async def _give_up(self, attempt: Attempt, reason: str) -> None:
        self._tools.observer.attempted(self._endpoint, attempt, None)
        await self._tools.store.give_up(self._endpoint.id, self._version, reason, attempt.t)
        self._tools.observer.gave_up(self._endpoint, reason)
        raise GaveUp(reason)


class LaneOutbox:
    """The outbox as an endpoint sees it: what it does not want is not read for it.

    Attributes:
        batch: first and last row of the batch under way; the first is None until a message of it is sent.
    """

    def __init__(self, outbox: Outbox, endpoint: Endpoint) -> None:
        self._outbox = outbox
        self._endpoint = endpoint
        self.batch: tuple[RowId | None, RowId] = (None, RowId(0, 0))

    async def cursor(self) -> Cursor:
        """See `Outbox.cursor`.

        Raises:
            Displaced: there is none: the endpoint was deleted.
        """
        found = await self._outbox.cursor()
        if found is None:
            raise Displaced("the endpoint has no cursor")
        self.batch = (None, found.sending)
        return found

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """See `Outbox.save`."""
        await self._outbox.save(cursor, previous)
        self.batch = (None, cursor.sending)

    async def read(self, after: RowId, limit: int) -> list[Row]:
        """See `Outbox.read`."""
        return await self._outbox.read(after, limit)

    async def holds(self, row: RowId) -> bool:
        """See `Outbox.holds`."""
        return await self._outbox.holds(row)

    async def candles(
        self, references: Sequence[tuple[MarketId, Interval, Timestamp]]
    ) -> list[dict[str, object]]:
        """See `Outbox.candles`; none where they are not wanted."""
        return await self._outbox.candles(references) if self._endpoint.wants(CHART_DATA) else []

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """See `Outbox.stats`; none where they are not wanted."""
        return await self._outbox.stats(markets) if self._endpoint.wants(MARKET_DATA) else []


class Lane:
    """Everything that is delivered to one endpoint; an `UpdatePublisher`, too.

    Args:
        endpoint: where to.
        state: how it went so far.
        outbox: with the endpoint's own cursor.
        signal: rows were committed.
        tools: see there.
    """

    def __init__(
        self, endpoint: Endpoint, state: EndpointState, outbox: Outbox, signal: Signal, tools: Tools
    ) -> None:
        self._endpoint = endpoint
        self._version = state.version
        self._replay = state.replay
        self._outbox = LaneOutbox(outbox, endpoint)
        self._courier = Courier(endpoint, state, tools)
        self._tools = tools
        self._publisher = Publisher(
            outbox=self._outbox,
            backend=self,
            signal=signal,
            clock=tools.clock,
            observer=_Silent(),
            limits=LIMITS,
        )

    async def run(self) -> None:
        """Deliver until the endpoint is disabled, deleted or changed. May be called again after an error.

        Raises:
            StoreUnavailable: Redis is away.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._publisher.run(), name=f"webhook {self._endpoint.id}")
                if self._replay:
                    tasks.create_task(self._deliver_again(), name=f"replay {self._endpoint.id}")
        except ExceptionGroup as group:
            _, others = group.split((GaveUp, Displaced, Superseded))
            if others is not None:
                raise _alone(others) from None

    async def open(self) -> None:
        """See `UpdatePublisher.open`: each request connects for itself."""

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`. Events that are not wanted count as delivered."""
        first, last = self._outbox.batch
        if first is None:
            first = RowId(message.epoch, message.first)
            self._outbox.batch = (first, last)
        if self._endpoint.wants(message.event):
            await self._courier.deliver(self._parcel(message, (first, last)))

    def size(self, message: Message) -> int:
        """See `UpdatePublisher.size`."""
        return len(self._body(message)) if self._endpoint.wants(message.event) else 0

    def _parcel(self, message: Message, batch: tuple[RowId, RowId], *, replayed: bool = False) -> Parcel:
        key = message_id(self._tools.envelope.stream, message)
        return Parcel(key, message, self._body(message), batch, replayed)

    def _body(self, message: Message) -> bytes:
        return orjson.dumps({"event": message.event, **self._tools.envelope.around(message)})

    async def _deliver_again(self) -> None:
        """Deliver rows once more, between the others; where it stands is remembered after each batch."""
        while self._replay:
            first, last, only = self._replay
            rows = await self._outbox.read(RowId(first.epoch, first.seq - 1), LIMITS.batch_rows)
            batch = cut_batch(rows, last) if rows else ()
            if not batch:
                break
            messages = await read_messages(self._outbox, batch)
            while not only and len(batch) > 1 and max(map(self.size, messages)) > LIMITS.message_bytes:
                batch = batch[: len(batch) // 2]
                messages = await read_messages(self._outbox, batch)
            for message in messages:
                parcel = self._parcel(message, (batch[0].id, batch[-1].id), replayed=True)
                if only == parcel.id or (not only and self._endpoint.wants(message.event)):
                    await self._courier.deliver(parcel)
            done = batch[-1].id
            self._replay = Replay(RowId(done.epoch, done.seq + 1), last, only) if done < last else None
            await self._tools.store.note_replay(self._endpoint.id, self._version, self._replay)
        await self._tools.store.note_replay(self._endpoint.id, self._version, None)


def _alone(group: ExceptionGroup[Exception]) -> Exception:
    """The first of errors that pass, as `keep_running` wants it; the group where one of them does not."""
    passing, others = group.split(Retryable)
    if others is not None:
        return others
    error: Exception | None = passing
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error or group


class _Silent:
    """`DeliveryObserver`: each attempt is told on its own."""

    def healthy(self, service: str) -> None:
        """See `DeliveryObserver.healthy`."""

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `DeliveryObserver.delivered`."""

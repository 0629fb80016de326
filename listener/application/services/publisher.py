"""The publisher: reads outbox rows, sends them in batches, and moves the cursor when they are acknowledged.

Before a batch is sent, its end is saved. After a crash or a lost acknowledgement exactly the same batch is
sent again, with the same numbers, so that the backend drops what it has seen and misses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from listener.application.interfaces import (
    Clock,
    Cursor,
    DeliveryObserver,
    Message,
    Outbox,
    Row,
    RowId,
    Signal,
    UpdatePublisher,
)
from listener.application.use_cases.publish_updates import (
    CHART_DATA,
    MARKET_DATA,
    Draft,
    cut_batch,
    plan_batch,
)
from listener.domain.value_objects import Interval, MarketId, Timestamp

LOST_REASON = "more was missed than is kept"
TOO_LARGE_REASON = "an update is larger than a message may be"
NOWHERE = Cursor(RowId(0, 0), RowId(0, 0))
"""Nothing was ever delivered."""


@dataclass(frozen=True, slots=True)
class PublisherLimits:
    """Bounds of the publisher.

    Attributes:
        batch_rows: most rows in a batch.
        message_bytes: most bytes in a message; Node's default limit is 1 MB.
        pause_s: least time between two batches that are not full: candles and statistics that change
            in between are sent once.
        idle_s: how often rows are looked for when nobody says that there are any.
    """

    batch_rows: int
    message_bytes: int
    pause_s: float
    idle_s: float = 5.0


class Publisher:
    """Delivers the outbox to the backend."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        backend: UpdatePublisher,
        signal: Signal,
        clock: Clock,
        observer: DeliveryObserver,
        limits: PublisherLimits,
    ) -> None:
        self._outbox = outbox
        self._backend = backend
        self._signal = signal
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._saved: Cursor | None = None

    async def run(self) -> None:
        """Deliver for ever. Raises `Superseded` where somebody else delivers too, and `Retryable` errors.

        May be called again after either.
        """
        self._saved = await self._outbox.cursor()
        cursor = self._saved or NOWHERE
        while True:
            started = self._clock.monotonic()
            await self._backend.open()
            rows = await self._outbox.read(cursor.acknowledged, self._limits.batch_rows)
            if not rows:
                self._observer.healthy("backend")
                await self._signal.wait(self._limits.idle_s)
                continue
            bridged = await self._bridge(cursor, rows[0].id)
            if bridged is None:
                await self._signal.wait(self._limits.idle_s)
                continue
            cursor = bridged
            left = [row for row in rows if row.id > cursor.acknowledged]
            if left:
                cursor = await self._deliver(cursor, left)
            self._observer.healthy("backend")
            if len(rows) < self._limits.batch_rows:
                await self._clock.sleep(self._limits.pause_s - (self._clock.monotonic() - started))

    async def _bridge(self, cursor: Cursor, first: RowId) -> Cursor | None:
        """Tell of rows that fell off the outbox's end before they were delivered.

        The `resync` has a number that the backend cannot have seen. Its end is saved before it is sent, as
        that of a batch is.

        Returns:
            The cursor behind the `resync`; as it was if nothing was lost; None if there is no number yet.
        """
        done, end, following = cursor.acknowledged, await self._lost(cursor, first), first
        if end is None:
            return cursor
        if end <= cursor.sending:
            after = await self._outbox.read(cursor.sending, 1)
            if not after:
                return None
            following = after[0].id
            end = _number_above(cursor.sending, following)
        await self._save(Cursor(done, end))
        start = done.seq + 1 if end.epoch == done.epoch else 1
        await self._backend.send(Message("resync", end.epoch, start, end.seq, ({"reason": LOST_REASON},)))
        if following.epoch > end.epoch:
            end = RowId(following.epoch, 0)  # `end` is no row's: the outbox could not say that it holds it
        return await self._save(Cursor(end, end))

    async def _lost(self, cursor: Cursor, first: RowId) -> RowId | None:
        """The last row that was lost between the last acknowledged row and the first that is kept, if any.

        Within an epoch a gap in the numbers shows it. Between epochs nobody knows the last number of the
        old one, but the oldest rows go first: while the last acknowledged row is kept, none after it went.
        """
        done = cursor.acknowledged
        if first.seq > 1 and first != RowId(done.epoch, done.seq + 1):
            return RowId(first.epoch, first.seq - 1)
        if done == NOWHERE.acknowledged:
            return cursor.sending if first.epoch > cursor.sending.epoch > done.epoch else None
        if first.epoch == done.epoch or await self._outbox.holds(done):
            return None
        return RowId(done.epoch, done.seq + 1)

    async def _save(self, cursor: Cursor) -> Cursor:
        await self._outbox.save(cursor, self._saved)
        self._saved = cursor
        return cursor

    async def _deliver(self, cursor: Cursor, rows: Sequence[Row]) -> Cursor:
        """Send one batch; all of it is acknowledged when this returns."""
        started = self._clock.monotonic()
        resumed = cursor.sending if cursor.sending > cursor.acknowledged else None
        batch = cut_batch(rows, resumed)
        if not batch:
            batch, resumed = cut_batch(rows, None), None
        messages = await read_messages(self._outbox, batch)
        while resumed is None and len(batch) > 1 and self._too_large(messages):
            batch = batch[: len(batch) // 2]
            messages = await read_messages(self._outbox, batch)
        messages = [self._within_limit(message) for message in messages]
        end = batch[-1].id
        if end != cursor.sending:
            await self._save(Cursor(cursor.acknowledged, end))
        for message in messages:
            await self._backend.send(message)
        cursor = await self._save(Cursor(end, end))
        self._observer.delivered(end, len(messages), self._clock.monotonic() - started)
        return cursor

    def _too_large(self, messages: Sequence[Message]) -> bool:
        return any(self._backend.size(message) > self._limits.message_bytes for message in messages)

    def _within_limit(self, message: Message) -> Message:
        """The message, or where no smaller batch would help, a `resync` under its numbers.

        That is a single row, or a batch under way, which must keep its numbers, and whose candles and figures
        have grown since.
        """
        if not self._too_large([message]):
            return message
        return message._replace(event="resync", items=({"reason": TOO_LARGE_REASON},))


async def read_messages(outbox: Outbox, batch: Sequence[Row]) -> list[Message]:
    """The messages of one batch; what its rows refer to is read now. Raises `StoreUnavailable`."""
    return [await _message(outbox, draft) for draft in plan_batch(batch)]


async def _message(outbox: Outbox, draft: Draft) -> Message:
    """Read what the rows of a draft refer to."""
    items: Sequence[object]
    if draft.event == CHART_DATA:
        items = await outbox.candles(_candle_references(draft.rows))
    elif draft.event == MARKET_DATA:
        items = await outbox.stats(list(dict.fromkeys(MarketId(row.data.decode()) for row in draft.rows)))
    else:
        items = [orjson.loads(row.data) for row in draft.rows]
    return Message(draft.event, draft.epoch, draft.first, draft.seq, items)


def _number_above(sending: RowId, following: RowId) -> RowId:
    """A number above a batch that the backend may have seen, and not one that it has yet to see alone.

    It is that of the next row, which the `resync` then stands for, or, if an epoch has ended with that batch,
    one that nobody will use any more.
    """
    return following if following.epoch == sending.epoch else RowId(sending.epoch, sending.seq + 1)


def _candle_references(rows: Sequence[Row]) -> list[tuple[MarketId, Interval, Timestamp]]:
    """Candles that rows refer to, each once, in order of their last mention.

    A row is `{"s": market, "c": [[interval, open time], …]}`.
    """
    references: dict[tuple[MarketId, str, Timestamp], None] = {}
    for row in rows:
        mention = orjson.loads(row.data)
        for interval, open_time in mention["c"]:
            key = (MarketId(mention["s"]), interval, open_time)
            references.pop(key, None)
            references[key] = None
    return [(market, Interval.parse(name), open_time) for market, name, open_time in references]

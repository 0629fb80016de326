"""The publisher: reads outbox rows, sends them in batches, and moves the cursor when they are acknowledged.

Before a batch is sent, its end is saved. After a crash or a lost acknowledgement exactly the same batch is
sent again, with the same numbers, so that the backend drops what it has seen and misses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from listener.application.interfaces import (
    Clock,
    CommitSignal,
    Cursor,
    Message,
    Observer,
    Outbox,
    Row,
    RowId,
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
        signal: CommitSignal,
        clock: Clock,
        observer: Observer,
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
            cursor = await self._bridge(cursor, rows[0].id)
            cursor = await self._deliver(cursor, rows)
            self._observer.healthy("backend")
            if len(rows) < self._limits.batch_rows:
                await self._clock.sleep(self._limits.pause_s - (self._clock.monotonic() - started))

    async def _bridge(self, cursor: Cursor, first: RowId) -> Cursor:
        """Tell of rows that fell off the outbox's end before they were delivered.

        Within an epoch a gap in the numbers shows it. Between epochs nobody knows the last number of the
        old one, but the oldest rows go first: while the last acknowledged row is kept, none after it went.
        """
        done = cursor.acknowledged
        if first.epoch == done.epoch:
            lost = RowId(done.epoch, done.seq + 1), RowId(done.epoch, first.seq - 1)
        elif first.seq > 1:
            lost = RowId(first.epoch, 1), RowId(first.epoch, first.seq - 1)
        elif done == NOWHERE.acknowledged or await self._outbox.holds(done):
            return cursor
        else:
            lost = RowId(done.epoch, done.seq + 1), RowId(done.epoch, done.seq + 1)
        if lost[0] > lost[1]:
            return cursor
        await self._backend.send(
            Message("resync", lost[1].epoch, lost[0].seq, lost[1].seq, ({"reason": LOST_REASON},))
        )
        return await self._save(Cursor(lost[1], max(lost[1], cursor.sending)))

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
        messages = await self._messages(batch)
        while resumed is None and len(batch) > 1 and self._too_large(messages):
            batch = batch[: len(batch) // 2]
            messages = await self._messages(batch)
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

    async def _messages(self, batch: Sequence[Row]) -> list[Message]:
        return [await self._message(draft) for draft in plan_batch(batch)]

    async def _message(self, draft: Draft) -> Message:
        """Read what the rows of a draft refer to."""
        items: Sequence[object]
        if draft.event == CHART_DATA:
            items = await self._outbox.candles(_candle_references(draft.rows))
        elif draft.event == MARKET_DATA:
            items = await self._outbox.stats(
                list(dict.fromkeys(MarketId(row.data.decode()) for row in draft.rows))
            )
        else:
            items = [orjson.loads(row.data) for row in draft.rows]
        return Message(draft.event, draft.epoch, draft.first, draft.seq, items)


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

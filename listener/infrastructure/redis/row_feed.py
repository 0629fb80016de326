"""Follows the outbox for readers: every row once, in order, or word that some were missed.

A reader never moves the backend's cursor and never writes. It knows only how far it has come, a `RowId`. The
head carries the same (`epoch`, `seq`): whoever reads data together with the head knows which rows it holds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Row, RowId
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys

BATCH_ROWS: Final = 1_000
"""Most rows of one read. A block is committed at once, so that its rows come together up to this."""
BLOCK_MS: Final = 1_000
"""Longest wait of one read for a row; shorter than the time an answer may take (`Database`, 5 s)."""
START: Final = RowId(0, 0)


class RowBatch(NamedTuple):
    """Rows that follow a position.

    Attributes:
        after: the position.
        rows: the rows, ascending; none only where some were missed and none has come since.
        end: the new position: the last row, or where the head is.
        missed: rows between `after` and the first of `rows` are gone, or a numbering has ended in a way that
            cannot be told from that: what was read before has to be read again.
    """

    after: RowId
    rows: Sequence[Row]
    end: RowId
    missed: bool


Consumer = Callable[[RowBatch], None]
"""Gets every batch. It must not wait, and must not raise."""


class RowFeed:
    """One reader of the outbox for a whole process.

    Args:
        database: a connection of its own: a read holds it while it waits for rows.
        keys: names of the keys.
        after: the position to go on from; None: from now on, where the head is at the first read.
        batch_rows: most rows of a batch.
        block_ms: longest wait of one read.
    """

    def __init__(
        self,
        database: Database,
        keys: Keys,
        after: RowId | None = None,
        *,
        batch_rows: int = BATCH_ROWS,
        block_ms: int = BLOCK_MS,
    ) -> None:
        self._database = database
        self._keys = keys
        self._position = after
        self._batch_rows = batch_rows
        self._block_ms = block_ms
        self._consumers: list[Consumer] = []

    @property
    def position(self) -> RowId | None:
        """The last row that consumers got; None: nothing was read yet."""
        return self._position

    def subscribe(self, consumer: Consumer) -> Callable[[], None]:
        """Hand every further batch to `consumer`, until the function that this returns is called."""
        self._consumers.append(consumer)

        def unsubscribe() -> None:
            if consumer in self._consumers:
                self._consumers.remove(consumer)

        return unsubscribe

    async def run(self) -> None:
        """Follow for ever. After an error it may be called again, and goes on where it stopped.

        Raises:
            StoreUnavailable: Redis is away.
            StoreMisused: Redis refuses to be read.
        """
        while True:
            batch = await self.next()
            if batch:
                self._hand_out(batch)

    async def start(self) -> RowId:
        """Find out where rows begin for us, unless that is known.

        Raises:
            StoreUnavailable, StoreMisused: see `run`.
        """
        if self._position is None:
            found = await head_position(self._database, self._keys)
            self._position = self._position or found  # somebody else may have asked, too
        return self._position

    async def next(self) -> RowBatch | None:
        """The next rows; None where none came within `block_ms`.

        Raises:
            StoreUnavailable, StoreMisused: see `run`.
        """
        after = await self.start()
        answer = await self._database.run(
            "XREAD",
            "COUNT",
            self._batch_rows,
            "BLOCK",
            self._block_ms,
            "STREAMS",
            self._keys.outbox,
            "{}-{}".format(*after),
        )
        rows = _rows(answer)
        if rows:
            batch = RowBatch(after, rows, rows[-1].id, await missed(self._database, self._keys, after, rows))
        else:
            behind = await self._cut_off(after)
            if behind is None:
                return None
            batch = RowBatch(after, (), behind, missed=True)
        self._position = batch.end
        return batch

    async def _cut_off(self, after: RowId) -> RowId | None:
        """Where the head is, if it says that rows came after `after`, and none of them is kept.

        That, and a head with older numbers than ours, is what a Redis looks like that was emptied, was
        restored from a copy, or had all its rows trimmed. A head of a newer epoch without rows tells nothing.
        """
        head = await head_position(self._database, self._keys)
        if head.epoch > after.epoch and head.seq == 0:
            return None
        if head == after or await _newest(self._database, self._keys) > after:
            return None
        return head

    def _hand_out(self, batch: RowBatch) -> None:
        for consumer in tuple(self._consumers):
            consumer(batch)


async def head_position(database: Database, keys: Keys) -> RowId:
    """The number of the last committed row; `START` where nothing is stored."""
    epoch, seq = await database.run("HMGET", keys.head, "epoch", "seq")
    return RowId(int(epoch), int(seq or 0)) if epoch else START


async def missed(database: Database, keys: Keys, after: RowId, rows: Sequence[Row]) -> bool:
    """Whether rows between a position and `rows`, which were read after it, are gone.

    Within an epoch numbers are gapless. Where another epoch begins, the oldest rows go first: as long as the
    row at the position is kept, or one before it where an epoch has none yet, none after it went.
    """
    for previous, row in zip([after, *(row.id for row in rows)], rows, strict=False):
        if row.id.epoch == previous.epoch and row.id.seq != previous.seq + 1:
            return True
        if row.id.epoch != previous.epoch and row.id.seq != 1:
            return True
    if rows[0].id.epoch == after.epoch:
        return False
    place = "{}-{}".format(*after)
    return not await database.run("XRANGE", keys.outbox, place if after.seq else "-", place, "COUNT", 1)


async def rows_after(database: Database, keys: Keys, after: RowId, limit: int) -> RowBatch | None:
    """What followed a position, for a reader that comes back; None where it cannot be told or is too much.

    Args:
        database: any connection.
        keys: names of the keys.
        after: the position.
        limit: most rows.

    Raises:
        StoreUnavailable, StoreMisused: see `RowFeed.run`.
    """
    start = "({}-{}".format(*after)
    head, entries = await database.run_all(
        [
            ("HMGET", keys.head, "epoch", "seq"),
            ("XRANGE", keys.outbox, start, "+", "COUNT", limit + 1),
        ]
    )
    rows = [_row(entry, fields) for entry, fields in entries]
    if len(rows) > limit:
        return None
    if rows:
        lost = await missed(database, keys, after, rows)
        return None if lost else RowBatch(after, rows, rows[-1].id, missed=False)
    now = RowId(int(head[0]), int(head[1] or 0)) if head[0] else START
    return RowBatch(after, (), after, missed=False) if now == after else None


async def _newest(database: Database, keys: Keys) -> RowId:
    entries = await database.run("XREVRANGE", keys.outbox, "+", "-", "COUNT", 1)
    return parse_id(entries[0][0]) if entries else START


def parse_id(entry: bytes) -> RowId:
    """The number of a stream entry, `<epoch>-<seq>`."""
    epoch, _, seq = entry.partition(b"-")
    return RowId(int(epoch), int(seq))


def _rows(answer: Any) -> list[Row]:  # noqa: ANN401 - as the client library gives it
    if not answer:
        return []
    streams = answer.values() if isinstance(answer, dict) else (entries for _, entries in answer)
    try:
        return [_row(entry, fields) for entries in streams for entry, fields in entries]
    except (TypeError, ValueError, KeyError) as error:
        raise StoreUnavailable(f"Redis: the outbox holds something else: {error!r}") from error


def _row(entry: bytes, fields: dict[bytes, bytes]) -> Row:
    return Row(parse_id(entry), fields[b"e"].decode(), fields[b"d"])

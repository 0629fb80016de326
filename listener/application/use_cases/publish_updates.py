"""PublishUpdates: turn outbox rows into messages that are gapless, ordered and as few as possible.

Rows come in two kinds. *Each* rows (trades, creations, reorgs…) are delivered one by one. *Newest* rows
(candles, statistics) are references: within a batch only the last mention of a candle is read and sent.
They never move past a barrier (`candles_closed`, `reorg`, `resync`), so that "closed" is said after the
candles it speaks of.

A batch is planned from its rows alone. The same rows always give the same messages, so that a batch whose
acknowledgement was lost is sent again with the same numbers and the backend can drop what it has seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

from listener.application.interfaces import Row, RowId

CHART_DATA = "chart_data"
MARKET_DATA = "market_data"
NEWEST = frozenset({CHART_DATA, MARKET_DATA})
BARRIERS = frozenset({"candles_closed", "reorg", "resync"})


class Draft(NamedTuple):
    """A message before its references are read."""

    event: str
    epoch: int
    first: int
    seq: int
    rows: tuple[Row, ...]


def cut_batch(rows: Sequence[Row], end: RowId | None) -> Sequence[Row]:
    """The rows of one batch: one epoch, and not past `end`, where a batch under way had ended."""
    epoch = rows[0].id.epoch
    return [row for row in rows if row.id.epoch == epoch and (end is None or row.id <= end)]


def plan_batch(rows: Sequence[Row]) -> list[Draft]:
    """Messages for contiguous rows of one epoch, in the order in which they are sent.

    Every message covers the rows from the one after its predecessor to its own last row.
    """
    drafts: list[Draft] = []
    segment: list[Row] = []
    origin = rows[0].id.seq
    for row in rows:
        if row.event in BARRIERS:
            _plan_segment(segment, drafts, origin)
            segment = []
            last = drafts[-1] if drafts else None
            if last and last.event == row.event == "candles_closed":
                drafts[-1] = last._replace(seq=row.id.seq, rows=(*last.rows, row))
            else:
                _append(drafts, row.event, (row,), origin)
        else:
            segment.append(row)
    _plan_segment(segment, drafts, origin)
    return drafts


def _plan_segment(segment: Sequence[Row], drafts: list[Draft], origin: int) -> None:
    """Plan rows between two barriers: a newest-message stands at the last row of its kind."""
    last_of = {row.event: row for row in segment if row.event in NEWEST}
    gathered: dict[str, list[Row]] = {event: [] for event in last_of}
    each: list[Row] = []
    for row in segment:
        if row.event in NEWEST:
            gathered[row.event].append(row)
            if row is last_of[row.event]:
                if each:
                    _append(drafts, each[0].event, tuple(each), origin)
                    each = []
                _append(drafts, row.event, tuple(gathered[row.event]), origin)
        else:
            if each and each[0].event != row.event:
                _append(drafts, each[0].event, tuple(each), origin)
                each = []
            each.append(row)
    if each:
        _append(drafts, each[0].event, tuple(each), origin)


def _append(drafts: list[Draft], event: str, rows: tuple[Row, ...], origin: int) -> None:
    first = drafts[-1].seq + 1 if drafts else origin
    drafts.append(Draft(event, rows[-1].id.epoch, first, rows[-1].id.seq, rows))

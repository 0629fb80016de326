"""From plans to messages: reads what rows refer to, for rooms that are told together, each thing once."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from listener.application.interfaces import RowId
from listener.infrastructure.gateway.clients import Frame
from listener.infrastructure.gateway.room_index import RoomIndex
from listener.infrastructure.gateway.room_reads import CandleRef, RoomReads
from listener.infrastructure.gateway.rooms import Kind, M, Plan, Room, RoomName


class Missed(NamedTuple):
    """What somebody missed of a room.

    Attributes:
        end: the row up to which that is everything.
        frames: in order; none if nothing.
    """

    end: RowId
    frames: Sequence[Frame]


async def read_plans(reads: RoomReads, plans: Sequence[tuple[RoomName, Plan]]) -> list[list[bytes]]:
    """What each plan refers to, as it is now: candles by time, or the figures.

    Raises:
        StoreUnavailable, StoreMisused: see `RoomReads`.
    """
    candles: dict[CandleRef, None] = {}
    markets: dict[str, None] = {}
    for name, plan in plans:
        candles.update(dict.fromkeys((name.market, name.interval, time) for time in plan.touched))
        if plan.changed and name.kind is Kind.STATS:
            markets[name.market] = None
    found = await reads.candles(list(candles)) if candles else {}
    figures = await reads.stats(list(markets)) if markets else {}
    return [
        figures.get(name.market, [])
        if name.kind is Kind.STATS
        else [found[name.market, name.interval, time] for time in plan.touched]
        for name, plan in plans
    ]


def frames_of(room: Room[M], plan: Plan, items: Sequence[bytes], end: RowId) -> list[Frame]:
    """The messages of a plan, to be shared by all who get them."""
    return [Frame(what, body, room.name) for what, body in room.update(plan, items, end)]


async def catch_up(
    reads: RoomReads, after: RowId, names: Iterable[RoomName], most_rows: int
) -> dict[RoomName, Missed]:
    """What followed a position in rooms, from the outbox. A room that is not named needs a snapshot.

    Raises:
        StoreUnavailable, StoreMisused: see `RoomReads`.
    """
    batch = await reads.rows_after(after, most_rows)
    if batch is None:
        return {}
    past: RoomIndex[None] = RoomIndex(after, lambda _room: None)
    rooms = [past.open(name) for name in dict.fromkeys(names)]
    past.take(batch.rows)
    plans = [(room, plan) for room in rooms if (plan := room.plan(after)) is not None]
    found = await read_plans(reads, [(room.name, plan) for room, plan in plans])
    return {
        room.name: Missed(batch.end, frames_of(room, plan, items, batch.end))
        for (room, plan), items in zip(plans, found, strict=True)
    }

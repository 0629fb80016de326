"""Rooms: names, what follows a position, and places of messages. Laws on random logs."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.interfaces import Row, RowId
from listener.domain.errors import DomainError
from listener.infrastructure.gateway import rooms as module
from listener.infrastructure.gateway.room_index import RoomIndex
from listener.infrastructure.gateway.rooms import Entry, Kind, Message, Room, RoomName

MARKET = "0xabc"
TRADES = RoomName(Kind.TRADES, MARKET)
CANDLES = RoomName(Kind.CANDLES, MARKET, "1m")


def row(seq: int, epoch: int = 1) -> RowId:
    """Number of a row."""
    return RowId(epoch, seq)


def body(message: Message) -> Any:
    """A message as a client reads it."""
    return orjson.loads(message.body)


@pytest.mark.parametrize(
    "text",
    [
        "markets",
        "trades:0xabc",
        "stats:0xabc",
        "candles:0xabc:1m",
        "candles:a:b:1w",
        "trades:a:b",
        "alerts",
        "alerts:0xabc",
    ],
)
def test_names(text: str) -> None:
    """A name reads as it writes; a market's id may hold colons."""
    assert str(RoomName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "trades", "trades:", "markets:", "markets:0xabc", "candles:0xabc", "candles:0xabc:", "candles::1m",
     "candles:0xabc:7m", "orders:0xabc", "trades:a b", "trades:a\nb", "trades:" + "a" * 129, "TRADES:a",
     "alerts:", "alerts:a b"],
)  # fmt: skip
def test_no_names(text: str) -> None:
    """What names no room is refused."""
    with pytest.raises(DomainError):
        RoomName.parse(text)


def test_trades_are_told_in_order_around_a_reorg() -> None:
    """Trades before a reorg, the reorg, trades after it: three messages, each with a higher place."""
    room: Room[str] = Room(TRADES, row(1))
    for seq in (2, 3):
        room.tell(Entry(row(seq), "update", b'{"id":"%d"}' % seq))
    room.tell(Entry(row(4), "reorg", b'{"depth":1}'))
    room.tell(Entry(row(7), "update", b'{"id":"7"}'))
    plan = room.plan(row(2))
    assert plan
    first, reorg, last = room.update(plan, [], row(9))
    assert (first.what, body(first)["seq"], body(first)["items"]) == ("update", 3, [{"id": "3"}])
    assert (reorg.what, body(reorg)["seq"], body(reorg)["depth"]) == ("reorg", 4, 1)
    assert (last.what, body(last)["seq"], body(last)["items"]) == ("update", 9, [{"id": "7"}])


def test_nothing_follows_the_last_row() -> None:
    """Who has everything is told nothing."""
    room: Room[str] = Room(TRADES, row(1))
    room.tell(Entry(row(2), "update", b"{}"))
    room.members["a"] = row(2)
    assert room.behind() == {}
    plan = room.plan(row(2))
    assert plan
    assert room.update(plan, [], row(5)) == []


def test_a_position_before_the_log_needs_a_snapshot() -> None:
    """Where the log does not reach back there is no plan."""
    room: Room[str] = Room(TRADES, row(5))
    assert room.plan(row(4)) is None
    assert room.plan(row(5)) is not None


def test_logs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has more than it may hold forgets its oldest rows, and says so."""
    monkeypatch.setattr(module, "LOG_ENTRIES_MAX", 3)
    monkeypatch.setattr(module, "TOUCHED_MAX", 2)
    room: Room[str] = Room(TRADES, row(0))
    for seq in range(1, 6):
        room.tell(Entry(row(seq), "update", b"{}"))
    assert room.since == row(2)
    assert room.plan(row(1)) is None
    plan = room.plan(row(2))
    assert plan
    assert [entry.id for entry in plan.told] == [row(3), row(4), row(5)]
    candles: Room[str] = Room(CANDLES, row(0))
    for seq in range(1, 5):
        candles.touch(row(seq), seq * 60_000)
    assert candles.since == row(2)
    plan = candles.plan(row(2))
    assert plan
    assert plan.touched == [180_000, 240_000]


def test_a_log_in_bytes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same by size."""
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 100)
    room: Room[str] = Room(TRADES, row(0))
    for seq in range(1, 10):
        room.tell(Entry(row(seq), "update", b"x" * 40))
    assert room.log_bytes <= 100
    assert room.since == row(7)


def test_shrinking_keeps_what_members_lack() -> None:
    """What some member has not got yet stays, the rest goes."""
    room: Room[str] = Room(TRADES, row(0))
    for seq in range(1, 10):
        room.tell(Entry(row(seq), "update", b"{}"))
    room.members.update({"a": row(6), "b": row(9), "c": None})
    room.shrink()
    assert room.since == row(6)
    plan = room.plan(row(6))
    assert plan
    assert [entry.id.seq for entry in plan.told] == [7, 8, 9]


def test_rows_find_their_rooms() -> None:
    """Each kind of row concerns the rooms that it speaks of, and no others; unknown kinds are passed over."""
    marked: list[str] = []
    index: RoomIndex[str] = RoomIndex(row(0), lambda room: marked.append(str(room.name)))
    for name in (TRADES, CANDLES, RoomName(Kind.CANDLES, MARKET, "5m"), RoomName(Kind.STATS, MARKET),
                 RoomName(Kind.TRADES, "0xother"), RoomName(Kind.MARKETS), RoomName(Kind.ALERTS),
                 RoomName(Kind.ALERTS, MARKET), RoomName(Kind.ALERTS, "0xother")):  # fmt: skip
        index.open(name)

    def concerned(event: str, data: object) -> list[str]:
        marked.clear()
        raw = data if isinstance(data, bytes) else orjson.dumps(data)
        index.take([Row(row(index.position.seq + 1), event, raw)])
        return sorted(marked)

    mine = ["alerts:0xabc", "candles:0xabc:1m", "candles:0xabc:5m", "stats:0xabc", "trades:0xabc"]
    assert concerned("trade_update", {"s": MARKET}) == ["trades:0xabc"]
    assert concerned("chart_data", {"s": MARKET, "c": [["1m", 0], ["1h", 0]]}) == ["candles:0xabc:1m"]
    assert concerned("market_data", MARKET.encode()) == ["stats:0xabc"]
    assert concerned("candles_closed", {"i": "5m", "T": 299_999}) == ["candles:0xabc:5m"]
    assert concerned("market_created", {"s": "0xnew"}) == ["markets"]
    reorg = {"ancestor": {"number": 1, "hash": "0x"}, "depth": 1, "from": 0, "markets": [MARKET]}
    assert concerned("reorg", reorg) == sorted([*mine, "alerts", "markets"])
    assert concerned("alert", {"s": MARKET}) == ["alerts", "alerts:0xabc"]
    assert concerned("something_new", b"no json") == []
    assert concerned("resync", {"reason": "history"}) == sorted(
        [*mine, "alerts", "alerts:0xother", "markets", "trades:0xother"]
    )
    assert {room.since for room in index.all()} == {index.position}


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens to a room of candles, and the open times that it concerns."""
    return draw(st.lists(st.tuples(st.sampled_from(["touch", "reorg", "close", "else"]), st.integers(0, 3))))


@given(logs(), st.data())
def test_places_only_grow_and_nothing_is_left_out(log: list[tuple[str, int]], data: st.DataObject) -> None:
    """From any position, with the feed cut anywhere, messages have growing places and tell every change."""
    room: Room[str] = Room(CANDLES, row(0))
    position, pending = row(0), set[int]()
    for seq, (what, number) in enumerate(log, 1):
        if what == "touch":
            room.touch(row(seq), number * 60_000)
            pending.add(number * 60_000)
        elif what == "reorg":
            room.tell(Entry(row(seq), "reorg", b'{"depth":1}'))
        elif what == "close":
            room.close(row(seq), seq)
        if data.draw(st.booleans()) or position >= room.last:
            continue
        plan = room.plan(position)
        assert plan
        assert set(plan.touched) == pending
        items = [b'{"t":%d}' % time for time in plan.touched]
        places = [position]
        told: set[int] = set()
        for message in room.update(plan, items, row(seq)):
            said = body(message)
            places.append(row(said["seq"], said["epoch"]))
            told |= {item["t"] for item in said.get("items", ())}
        assert told == pending
        assert all(before < after for before, after in pairwise(places)), places
        assert places[-1] <= row(seq)
        position, pending = row(seq), set()

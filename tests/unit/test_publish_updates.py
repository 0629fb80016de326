"""Rows become messages: gapless, ordered, and nothing newest moves past a barrier."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.interfaces import Row, RowId
from listener.application.use_cases.publish_updates import (
    BARRIERS,
    NEWEST,
    Draft,
    cut_batch,
    plan_batch,
)

EACH = ("trade_update", "market_created", "market_graduated", "alert")
EPOCH = 7

events = st.sampled_from([*EACH, *sorted(NEWEST), *sorted(BARRIERS), "chart_data", "trade_update"])


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    """Contiguous rows of one epoch."""
    first = draw(st.integers(1, 10**6))
    names = draw(st.lists(events, min_size=1, max_size=30))
    return [Row(RowId(EPOCH, first + at), name, b"%d" % at) for at, name in enumerate(names)]


def rows(*names: str) -> list[Row]:
    """Rows 1, 2, … of these events."""
    return [Row(RowId(EPOCH, at), name, b"%d" % at) for at, name in enumerate(names, start=1)]


def said(drafts: list[Draft]) -> list[tuple[str, int, int, list[int]]]:
    """Event, covered rows and the rows inside of each draft."""
    return [(d.event, d.first, d.seq, [row.id.seq for row in d.rows]) for d in drafts]


@given(batches())
def test_messages_cover_every_row_once(batch: list[Row]) -> None:
    """Covered ranges follow each other without gap or overlap from the first row to the last."""
    drafts = plan_batch(batch)
    assert drafts[0].first == batch[0].id.seq
    assert drafts[-1].seq == batch[-1].id.seq
    for draft, following in pairwise(drafts):
        assert following.first == draft.seq + 1
    assert all(draft.first <= draft.seq and draft.epoch == EPOCH for draft in drafts)


@given(batches())
def test_every_row_is_in_one_message_of_its_event(batch: list[Row]) -> None:
    """No row is left out, repeated, or sent under another name."""
    drafts = plan_batch(batch)
    sent = [row for draft in drafts for row in draft.rows]
    assert sorted(sent) == batch
    assert all(row.event == draft.event for draft in drafts for row in draft.rows)


@given(batches())
def test_each_rows_come_in_order(batch: list[Row]) -> None:
    """Rows that are delivered one by one are never reordered among each other."""
    sent = [row for draft in plan_batch(batch) for row in draft.rows if row.event not in NEWEST]
    assert sent == [row for row in batch if row.event not in NEWEST]


@given(batches())
def test_acknowledged_means_delivered(batch: list[Row]) -> None:
    """A message's last number never covers a row of the one-by-one kind that comes in a later message."""
    drafts = plan_batch(batch)
    for at, draft in enumerate(drafts):
        for later in drafts[at + 1 :]:
            assert all(row.id.seq > draft.seq for row in later.rows if row.event not in NEWEST)


@given(batches())
def test_newest_rows_stay_between_their_barriers(batch: list[Row]) -> None:
    """A reference is sent at or after its row, and on its own side of every barrier."""
    drafts = plan_batch(batch)
    place = {row.id.seq: at for at, draft in enumerate(drafts) for row in draft.rows}
    for row in batch:
        if row.event not in NEWEST:
            continue
        assert drafts[place[row.id.seq]].seq >= row.id.seq
        for barrier in batch:
            if barrier.event in BARRIERS:
                before = row.id < barrier.id
                assert (place[row.id.seq] < place[barrier.id.seq]) == before


@given(batches())
def test_newest_rows_are_gathered(batch: list[Row]) -> None:
    """Between two barriers there is one message of candles at most, and one of statistics."""
    gathered: list[str] = []
    for draft in plan_batch(batch):
        if draft.event in BARRIERS:
            gathered = []
        elif draft.event in NEWEST:
            assert draft.event not in gathered
            gathered.append(draft.event)


@given(batches())
def test_a_plan_follows_from_its_rows_alone(batch: list[Row]) -> None:
    """The same rows give the same messages, however often."""
    assert plan_batch(batch) == plan_batch(list(batch))


@given(batches(), st.integers(1, 10), st.data())
def test_a_batch_under_way_is_cut_where_it_ended(batch: list[Row], more: int, data: st.DataObject) -> None:
    """Rows that came since do not join a batch that was sent before: it is exactly the same again."""
    end = data.draw(st.sampled_from(batch)).id
    later = [Row(RowId(EPOCH, batch[-1].id.seq + n), "chart_data", b"") for n in range(1, more + 1)]
    again = cut_batch([*batch, *later], end)
    assert again == [row for row in batch if row.id <= end]
    assert plan_batch(again) == plan_batch([row for row in batch if row.id <= end])


@given(batches())
def test_a_batch_is_of_one_epoch(batch: list[Row]) -> None:
    """Numbers begin anew with an epoch, so messages never mix two."""
    later = [Row(RowId(EPOCH + 1, 1), "trade_update", b"")]
    assert cut_batch([*batch, *later], None) == batch


def test_candles_stand_at_their_last_mention() -> None:
    """Trades before it are sent first; what comes after it follows."""
    plan = said(plan_batch(rows("chart_data", "trade_update", "chart_data", "trade_update")))
    assert plan == [
        ("trade_update", 1, 2, [2]),
        ("chart_data", 3, 3, [1, 3]),
        ("trade_update", 4, 4, [4]),
    ]


def test_closing_waits_for_its_candles() -> None:
    """`candles_closed` comes after the candles it speaks of; closings in a row are one message."""
    plan = said(plan_batch(rows("chart_data", "candles_closed", "candles_closed", "chart_data")))
    assert plan == [
        ("chart_data", 1, 1, [1]),
        ("candles_closed", 2, 3, [2, 3]),
        ("chart_data", 4, 4, [4]),
    ]


@pytest.mark.parametrize("barrier", ["reorg", "resync"])
def test_reorgs_and_resyncs_are_not_gathered(barrier: str) -> None:
    """Each is a message of its own."""
    plan = said(plan_batch(rows(barrier, barrier)))
    assert plan == [(barrier, 1, 1, [1]), (barrier, 2, 2, [2])]


def test_rows_of_one_event_in_a_row_are_one_message() -> None:
    """Fewer messages, the same order."""
    plan = said(plan_batch(rows("trade_update", "trade_update", "market_created", "trade_update")))
    assert plan == [
        ("trade_update", 1, 2, [1, 2]),
        ("market_created", 3, 3, [3]),
        ("trade_update", 4, 4, [4]),
    ]

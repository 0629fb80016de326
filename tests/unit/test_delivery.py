"""What the publisher promises, whoever interferes: rivals that move the cursor, rows that fall off."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import BackendUnavailable, Retryable, Superseded
from listener.application.interfaces import Cursor, Message, RowId
from listener.application.services.publisher import Publisher
from tests.fakes.backend import FakeBackend, Outcome, numbers
from tests.fakes.clock import Done, FakeSignal
from tests.fakes.store import FakeOutbox
from tests.unit.test_publisher import Setting


class Contested(FakeOutbox):
    """Another instance moves the cursor right before one of our saves.

    Attributes:
        at: before which save, counted from one; 0: before none.
        moved: where it leaves the cursor.
    """

    at = 0
    moved = Cursor(RowId(1, 2), RowId(1, 2))

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """See `Outbox.save`."""
        self.at -= 1
        if self.at == 0:
            self.saved.append(self.moved)
        await super().save(cursor, previous)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_cursor_that_somebody_else_moved_ends_the_term(at: int) -> None:
    """Whichever save finds it: nothing is written over, and the next run goes on from what is stored."""
    outbox = Contested()
    outbox.at = at
    setting = Setting(outbox, rows=3)
    setting.trades(1, 1, 6)
    outbox.moved = Cursor(RowId(1, 2), RowId(1, 2)) if at < 3 else Cursor(RowId(1, 5), RowId(1, 5))
    publisher = setting.publisher()
    with pytest.raises(Superseded):
        await publisher.run()
    assert outbox.saved[-1] == outbox.moved
    sent = list(setting.sent)
    assert sent == [("trade_update", 1, 1, 3), ("trade_update", 1, 4, 6)][: at // 2]
    with pytest.raises(Done):
        await publisher.run()
    first = outbox.moved.acknowledged.seq + 1
    assert setting.sent[len(sent) :][0] == ("trade_update", 1, first, min(first + 2, 6))
    assert await outbox.cursor() == Cursor(RowId(1, 6), RowId(1, 6))


async def test_a_cursor_that_appears_meanwhile_ends_the_term() -> None:
    """Where nothing was ever delivered, a first save by somebody else is noticed like any other."""
    outbox = Contested()
    outbox.at = 1
    setting = Setting(outbox)
    setting.trades(1, 1, 3)
    with pytest.raises(Superseded):
        await setting.run()
    assert setting.sent == []


@pytest.mark.parametrize("at", [1, 2])
async def test_a_cursor_that_moved_while_rows_were_missed_ends_the_term(at: int) -> None:
    """Before or after the `resync`: told twice is harmless, and nothing is written over."""
    outbox = Contested()
    setting = Setting(outbox)
    setting.trades(1, 4, 6)
    outbox.at = at
    outbox.moved = Cursor(RowId(1, 4), RowId(1, 4))
    publisher = setting.publisher()
    with pytest.raises(Superseded):
        await publisher.run()
    assert set(setting.sent) <= {("resync", 1, 1, 3)}
    assert outbox.saved[-1] == outbox.moved
    with pytest.raises(Done):
        await publisher.run()
    assert setting.sent[-1] == ("trade_update", 1, 5, 6)
    assert [event for event, *_ in setting.sent].count("trade_update") == 1


class Slow(FakeBackend):
    """Takes its time, so that others act meanwhile."""

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`."""
        for _ in range(3):
            await asyncio.sleep(0)
        await super().send(message)


async def test_two_that_deliver_at_once_lose_nothing() -> None:
    """One of them is always displaced; a backend that drops what it has seen gets every row once."""
    setting = Setting(rows=2)
    setting.backend = Slow()
    setting.trades(1, 1, 24)
    displaced = []

    async def deliver(publisher: Publisher) -> None:
        while True:
            try:
                await publisher.run()
            except Superseded as error:
                displaced.append(error)
            except Done:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(deliver(setting.publisher()))
    assert displaced
    assert setting.backend.items("trade_update") == [{"id": str(1_000 + n)} for n in range(1, 25)]
    assert await setting.outbox.cursor() == Cursor(RowId(1, 24), RowId(1, 24))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.booleans()), min_size=1, max_size=12),
    st.lists(st.sampled_from(["ok", "ok", "lost", "away", "refuse"]), max_size=30),
    st.integers(1, 4),
)
async def test_what_falls_off_is_never_missed_silently(
    steps: list[tuple[int, int, bool]], outcomes: list[Outcome], batch_rows: int
) -> None:
    """Rows come and fall off, epochs end, messages get lost: what was not handled has a `resync` later.

    The backend drops what it has seen, so that the numbers it handles only rise.
    """
    setting = Setting(rows=batch_rows)
    setting.backend.will(*outcomes)
    epoch, seq = 1, 0
    told: list[tuple[int, int]] = []
    fell: dict[tuple[int, int], int] = {}

    async def step(more: int, fallen: int) -> None:
        nonlocal seq
        for _ in range(more):
            seq += 1
            setting.trades(epoch, seq, seq)
            told.append((epoch, seq))
        for _ in range(min(fallen, len(setting.outbox.rows) - 1)):
            fallen_epoch, fallen_seq = setting.outbox.rows.pop(0).id
            fell[fallen_epoch, fallen_seq] = len(setting.backend.handled)
        with suppress(Retryable):
            await setting.run()

    for more, fallen, restart in steps:
        if restart:
            epoch, seq = epoch + 1, 0
        await step(more, fallen)
    for _ in range(len(outcomes) + 1):
        await step(1, 0)
    handled = numbers(setting.backend.handled)
    ends = [(of, last) for _, of, _, last in handled]
    assert ends == sorted(set(ends))
    assert ends[-1] == told[-1]
    trades = {
        (of, row)
        for event, of, first, last in handled
        if event == "trade_update"
        for row in range(first, last + 1)
    }
    resyncs = [(at, end) for at, end in enumerate(ends) if handled[at][0] == "resync"]
    for row in set(told) - trades:
        assert any(end >= row or at >= fell.get(row, len(handled)) for at, end in resyncs), row


async def test_a_resync_waits_for_a_number_that_nobody_has_seen() -> None:
    """Where the batch under way was the last there is, the next row that comes gives it one."""
    setting = Setting()
    setting.trades(1, 1, 3)
    setting.backend.will("lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    del setting.outbox.rows[:1]
    setting.signal = FakeSignal([lambda: None, lambda: setting.trades(1, 4, 5)])
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 3), ("resync", 1, 1, 4), ("trade_update", 1, 5, 5)]
    assert numbers(setting.backend.handled) == setting.sent


async def test_a_first_batch_that_fell_off_with_its_epoch_is_told() -> None:
    """Nothing was ever acknowledged, but a batch was under way: it may have been the beginning of all."""
    setting = Setting()
    setting.trades(1, 1, 3)
    setting.backend.will("away")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.trades(5, 1, 2)
    del setting.outbox.rows[:3]
    await setting.run()
    assert setting.sent == [("resync", 1, 1, 4), ("trade_update", 5, 1, 2)]


async def test_a_new_epoch_whose_beginning_fell_off_has_no_gap() -> None:
    """The contract: numbers are gapless within an epoch, whatever was under way when rows fell off."""
    setting = Setting(rows=3)
    setting.trades(1, 1, 3)
    setting.backend.will("lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.trades(2, 1, 3)
    del setting.outbox.rows[:4]
    await setting.run()
    seen = (0, 0)
    for message in setting.backend.handled:
        assert message.first <= (seen[1] + 1 if message.epoch == seen[0] else 1)
        seen = (message.epoch, message.seq)


async def test_a_batch_under_way_that_nobody_knows_is_given_up() -> None:
    """The store lost rows of it, and not the last acknowledged one: what there is, is delivered."""
    setting = Setting()
    setting.trades(1, 1, 2)
    setting.trades(5, 1, 2)
    setting.outbox.saved.append(Cursor(RowId(1, 2), RowId(1, 5)))
    await setting.run()
    assert setting.sent == [("trade_update", 5, 1, 2)]
    assert await setting.outbox.cursor() == Cursor(RowId(5, 2), RowId(5, 2))

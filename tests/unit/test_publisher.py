"""The publisher between an outbox and a backend that comes and goes."""

from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import BackendRefused, BackendUnavailable, Retryable
from listener.application.interfaces import Cursor, RowId
from listener.application.services.publisher import (
    LOST_REASON,
    TOO_LARGE_REASON,
    Publisher,
    PublisherLimits,
)
from tests.fakes.backend import FakeBackend, Outcome, numbers
from tests.fakes.build import MONDAY_MS, created, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.clock import Done, FakeClock, FakeSignal
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeOutbox, FakeStore
from tests.fakes.writer import Writer

TRADE = b'{"id":"%d"}'


class Setting:
    """A publisher with everything around it."""

    def __init__(
        self, outbox: FakeOutbox | None = None, *, rows: int = 10, message_bytes: int = 10_000
    ) -> None:
        self.outbox = outbox or FakeOutbox()
        self.backend = FakeBackend()
        self.clock = FakeClock()
        self.signal = FakeSignal()
        self.observer = RecordingObserver()
        self.limits = PublisherLimits(batch_rows=rows, message_bytes=message_bytes, pause_s=0.1)

    def trades(self, epoch: int, first: int, last: int) -> None:
        """Rows of trades."""
        for seq in range(first, last + 1):
            self.outbox.add(epoch, seq, "trade_update", TRADE % (epoch * 1_000 + seq))

    def publisher(self) -> Publisher:
        """A new publisher."""
        return Publisher(
            outbox=self.outbox,
            backend=self.backend,
            signal=self.signal,
            clock=self.clock,
            observer=self.observer,
            limits=self.limits,
        )

    async def run(self) -> None:
        """Run a new publisher until there is nothing left, or until it fails."""
        with pytest.raises(Done):
            await self.publisher().run()

    @property
    def sent(self) -> list[tuple[str, int, int, int]]:
        """Numbers of all messages that reached the backend."""
        return numbers(self.backend.arrived)


async def test_rows_are_delivered_in_batches() -> None:
    """Everything in the outbox arrives, in order, and the cursor says so."""
    setting = Setting(rows=4)
    setting.trades(1, 1, 10)
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 4), ("trade_update", 1, 5, 8), ("trade_update", 1, 9, 10)]
    assert await setting.outbox.cursor() == Cursor(RowId(1, 10), RowId(1, 10))
    assert setting.observer.deliveries == [(RowId(1, 4), 1), (RowId(1, 8), 1), (RowId(1, 10), 1)]
    assert "backend" in setting.observer.health


async def test_the_end_of_a_batch_is_saved_before_it_is_sent() -> None:
    """A crash in the middle of a batch must find where that batch ended."""
    setting = Setting()
    setting.trades(1, 1, 3)
    setting.backend.will("away")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    assert await setting.outbox.cursor() == Cursor(RowId(0, 0), RowId(1, 3))


@pytest.mark.parametrize("outcome", ["lost", "away", "refuse"])
async def test_what_was_not_acknowledged_is_sent_again(outcome: Outcome) -> None:
    """The same rows under the same numbers, although more have come since."""
    setting = Setting()
    setting.trades(1, 1, 3)
    setting.backend.will(outcome)
    with pytest.raises(BackendRefused if outcome == "refuse" else BackendUnavailable):
        await setting.run()
    setting.trades(1, 4, 5)
    await setting.run()
    expected = [("trade_update", 1, 1, 3), ("trade_update", 1, 4, 5)]
    assert setting.sent == (expected if outcome == "away" else [expected[0], *expected])
    assert setting.backend.items("trade_update") == [{"id": str(1_000 + n)} for n in range(1, 6)]


async def test_a_lost_acknowledgement_in_mid_batch_repeats_the_batch() -> None:
    """Messages of a batch keep their numbers even if the first of them had arrived."""
    setting = Setting()
    setting.trades(1, 1, 2)
    setting.outbox.add(1, 3, "candles_closed", b'{"i":"1m","T":1}')
    setting.trades(1, 4, 4)
    setting.backend.will("ok", "lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.outbox.add(1, 5, "candles_closed", b'{"i":"1m","T":2}')
    await setting.run()
    batch = [("trade_update", 1, 1, 2), ("candles_closed", 1, 3, 3), ("trade_update", 1, 4, 4)]
    assert setting.sent == [*batch[:2], *batch, ("candles_closed", 1, 5, 5)]


async def test_falling_off_the_outbox_is_told() -> None:
    """Rows that were trimmed before they were delivered become one `resync` under their numbers."""
    setting = Setting()
    setting.trades(1, 1, 3)
    await setting.run()
    setting.trades(1, 4, 9)
    del setting.outbox.rows[:6]
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 3), ("resync", 1, 4, 6), ("trade_update", 1, 7, 9)]
    assert setting.backend.items("resync") == [{"reason": LOST_REASON}]


async def test_falling_off_in_mid_batch_is_told() -> None:
    """Where rows of the batch under way were trimmed, the rest follows a `resync`, in order."""
    setting = Setting()
    setting.trades(1, 1, 6)
    setting.backend.will("away")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    del setting.outbox.rows[:2]
    await setting.run()
    assert setting.sent == []
    setting.trades(1, 7, 8)
    await setting.run()
    assert setting.sent == [("resync", 1, 1, 7), ("trade_update", 1, 8, 8)]


async def test_what_fell_off_a_batch_that_was_seen_is_told_above_it() -> None:
    """A backend that has seen the batch, and drops its numbers, does not drop the `resync`."""
    setting = Setting(rows=3)
    setting.trades(1, 1, 5)
    setting.backend.will("lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    del setting.outbox.rows[:2]
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 3), ("resync", 1, 1, 4), ("trade_update", 1, 5, 5)]
    assert numbers(setting.backend.handled) == setting.sent


async def test_what_fell_off_with_the_whole_epoch_of_a_batch_that_was_seen_is_told_above_it() -> None:
    """Where the batch was its epoch's last, a number is taken that nobody will use any more."""
    setting = Setting(rows=3)
    setting.trades(1, 1, 3)
    setting.backend.will("lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.trades(5, 1, 2)
    del setting.outbox.rows[:3]
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 3), ("resync", 1, 1, 4), ("trade_update", 5, 1, 2)]
    assert numbers(setting.backend.handled) == setting.sent


async def test_rows_that_are_kept_are_delivered_after_a_bridge_that_was_broken_off() -> None:
    """After a `resync` under a number that no row has, the rows behind it are not missed again."""
    setting = Setting()
    setting.trades(1, 1, 2)
    await setting.run()
    setting.trades(1, 3, 9)
    setting.trades(5, 1, 3)
    del setting.outbox.rows[:9]
    setting.backend.will("ok", "away")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.trades(5, 4, 5)
    await setting.run()
    assert setting.sent[1:] == [("resync", 1, 3, 3), ("trade_update", 5, 1, 3), ("trade_update", 5, 4, 5)]


async def test_a_lost_acknowledgement_of_a_resync_repeats_it() -> None:
    """The bridge is repeated until it is acknowledged, under a number that the backend has not seen."""
    setting = Setting()
    setting.trades(1, 4, 6)
    setting.backend.will("lost")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    await setting.run()
    assert setting.sent == [("resync", 1, 1, 3), ("resync", 1, 1, 4), ("trade_update", 1, 5, 6)]


async def test_a_new_epoch_begins_with_one() -> None:
    """After a restart numbers begin anew, in a batch of their own; nothing is missing, so nothing is said."""
    setting = Setting()
    setting.trades(1, 1, 2)
    setting.trades(5, 1, 2)
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 2), ("trade_update", 5, 1, 2)]


async def test_a_trimmed_beginning_of_an_epoch_is_told() -> None:
    """An epoch of which the first rows are gone begins with a `resync`."""
    setting = Setting()
    setting.trades(1, 1, 2)
    await setting.run()
    setting.trades(5, 4, 5)
    del setting.outbox.rows[:2]
    await setting.run()
    assert setting.sent[1:] == [("resync", 5, 1, 3), ("trade_update", 5, 4, 5)]


async def test_a_trimmed_end_of_an_epoch_is_told() -> None:
    """Undelivered rows of an old epoch that are gone are missed, even if the new one is whole."""
    setting = Setting()
    setting.trades(1, 1, 2)
    await setting.run()
    setting.trades(1, 3, 9)
    setting.trades(5, 1, 2)
    del setting.outbox.rows[:9]
    await setting.run()
    assert "resync" in [event for event, *_ in setting.sent]


async def test_a_trimmed_end_of_an_epoch_in_mid_batch_is_told() -> None:
    """A batch under way whose rows are all gone is given up: a `resync`, then what the new epoch has."""
    setting = Setting(rows=3)
    setting.trades(1, 1, 9)
    setting.backend.will("ok", "away")
    with pytest.raises(BackendUnavailable):
        await setting.run()
    setting.trades(5, 1, 2)
    del setting.outbox.rows[:9]
    await setting.run()
    events = [event for event, *_ in setting.sent]
    assert events == ["trade_update", "resync", "trade_update"]
    assert setting.sent[-1] == ("trade_update", 5, 1, 2)
    assert await setting.outbox.cursor() == Cursor(RowId(5, 2), RowId(5, 2))


async def test_large_messages_make_smaller_batches() -> None:
    """A batch is halved until each of its messages fits; nothing is lost or repeated by it."""
    setting = Setting(rows=64, message_bytes=100)
    setting.trades(1, 1, 64)
    await setting.run()
    assert all(setting.backend.size(message) <= 100 for message in setting.backend.arrived)
    assert setting.backend.items("trade_update") == [{"id": str(1_000 + n)} for n in range(1, 65)]


async def test_in_place_of_a_single_row_that_is_too_large_a_resync_is_sent() -> None:
    """It cannot be split, and a backend that refuses it would hear of nothing that follows."""
    setting = Setting(message_bytes=50)
    setting.outbox.add(1, 1, "alert", orjson.dumps({"text": "x" * 100}))
    setting.trades(1, 2, 2)
    await setting.run()
    assert setting.sent == [("resync", 1, 1, 1), ("trade_update", 1, 2, 2)]
    assert setting.backend.items("resync") == [{"reason": TOO_LARGE_REASON}]


async def test_references_are_read_when_sent() -> None:
    """A backend that was away gets the newest candle once, not every state it went through."""
    by = rules("5m")
    chain, store = LocalChain(), FakeStore(by)
    writer = Writer(chain, store, by)
    await writer.start()
    chain.mine()
    chain.mine(created(0), swap(0, 1, 1))
    chain.mine(swap(0, 1, 2))
    chain.mine(swap(0, 1, 3))
    await writer.follow()
    setting = Setting(FakeOutbox(store), rows=100)
    await setting.run()
    minutes = [item for item in setting.backend.items("chart_data") if item["i"] == "1m"]  # type: ignore[index]
    assert [(item["c"], item["n"], item["s"]) for item in minutes] == [("3", 3, token(0))]  # type: ignore[index]
    assert len(setting.backend.items("trade_update")) == 3
    assert len(setting.backend.items("market_data")) == 1


async def test_a_candle_that_is_gone_is_marked() -> None:
    """A reference to what a reorg removed is delivered as deleted."""
    by = rules("5m")
    chain, store = LocalChain(), FakeStore(by)
    writer = Writer(chain, store, by)
    await writer.start()
    chain.mine(created(0), swap(0))
    await writer.follow()
    await writer.roll_back(0)
    setting = Setting(FakeOutbox(store), rows=100)
    await setting.run()
    gone = setting.backend.items("chart_data")
    assert {"s": token(0), "i": "1m", "t": MONDAY_MS, "deleted": True} in gone
    assert setting.backend.items("market_data")[-1] == {"s": token(0), "deleted": True}
    assert setting.backend.items("market_created")[-1] == {"s": token(0), "deleted": True}
    assert [message.event for message in setting.backend.handled].count("reorg") == 1


async def test_a_backend_that_is_away_is_noticed_without_rows() -> None:
    """The link is opened before there is anything to say: health must not claim what nobody tried."""
    setting = Setting()
    setting.backend.down = True
    with pytest.raises(BackendUnavailable):
        await setting.run()
    assert not setting.observer.health
    setting.backend.down = False
    await setting.run()
    assert setting.observer.health == ["backend"]


async def test_it_pauses_between_batches_that_are_not_full() -> None:
    """Full batches follow each other at once; after a small one candles may gather."""
    setting = Setting(rows=4)
    setting.trades(1, 1, 10)
    await setting.run()
    assert setting.clock.slept == [pytest.approx(0.1)]


async def test_it_wakes_when_rows_come() -> None:
    """An empty outbox is waited for, and what comes is delivered."""
    setting = Setting()
    setting.signal = FakeSignal([lambda: None, lambda: setting.trades(1, 1, 1)])
    await setting.run()
    assert setting.sent == [("trade_update", 1, 1, 1)]


def event_rows(events: Sequence[str]) -> list[tuple[str, bytes]]:
    """Rows of these events with payloads that can be told apart."""
    payloads = {"chart_data": b'{"s":"0xaa","c":[["1m",0]]}', "market_data": b"0xaa"}
    return [(event, payloads.get(event, b'{"n":%d}' % at)) for at, event in enumerate(events)]


@given(
    st.lists(
        st.lists(
            st.sampled_from(["trade_update", "chart_data", "market_data", "candles_closed", "reorg"]),
            max_size=9,
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.sampled_from(["ok", "ok", "lost", "away", "refuse"]), max_size=25),
    st.integers(1, 6),
)
async def test_whatever_fails_everything_arrives(
    epochs: list[list[str]], outcomes: list[Outcome], batch_rows: int
) -> None:
    """With acknowledgements lost, refusals, restarts and rows that keep coming: in order, none missing.

    A backend that drops what it has seen handles each row of the one-by-one kind exactly once, and the
    messages that it handles follow each other without a gap.
    """
    setting = Setting(rows=batch_rows)
    setting.backend.will(*outcomes)
    pending = [
        (epoch, seq, *row)
        for epoch, events in enumerate(epochs, start=3)
        for seq, row in enumerate(event_rows(events), start=1)
    ]
    expected = [
        orjson.loads(data) for _, _, event, data in pending if event not in {"chart_data", "market_data"}
    ]
    while True:
        for _ in range(min(3, len(pending))):
            setting.outbox.add(*pending.pop(0))
        try:
            await setting.run()
        except Retryable:
            continue
        if not pending:
            break
    seen = (0, 0)
    for message in setting.backend.handled:
        assert message.first == (seen[1] + 1 if message.epoch == seen[0] else 1)
        seen = (message.epoch, message.seq)
    each = [
        item
        for message in setting.backend.handled
        if message.event not in {"chart_data", "market_data"}
        for item in message.items
    ]
    assert each == expected
    last = setting.outbox.rows[-1].id if setting.outbox.rows else RowId(0, 0)
    assert seen == tuple(last)

"""Delivery to one endpoint in virtual time: order, retries, giving up, doing it once more."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.envelopes import Envelope
from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Cursor, RowId
from listener.application.services.publisher import LOST_REASON
from listener.application.services.webhook_lane import (
    BACKOFF_MAX_S,
    GIVE_UP_AFTER_MS,
    LEAST_ATTEMPTS,
    LIMITS,
    Lane,
    Tools,
    backoff_s,
)
from listener.application.webhooks import Answer, Failing, Replay, Status
from tests.fakes.clock import Done, FakeClock, FakeSignal
from tests.fakes.store import FakeOutbox
from tests.fakes.webhooks import (
    ENABLED,
    GONE,
    REFUSED,
    TAKEN,
    FakeEndpoints,
    FakeTransport,
    WebhookNotes,
    endpoint,
)

DAY_S: Final = 86_400


class Place:
    """One endpoint with everything around it."""

    def __init__(self, *events: str) -> None:
        self.endpoint = endpoint("one", *events)
        self.outbox = FakeOutbox()
        self.outbox.saved.append(Cursor(RowId(1, 0), RowId(1, 0)))
        self.store = FakeEndpoints()
        self.store.put(self.endpoint)
        self.transport = FakeTransport()
        self.clock = FakeClock()
        self.notes = WebhookNotes()
        self.random = random.Random(1)

    def trades(self, first: int, last: int, epoch: int = 1) -> None:
        """Rows of trades."""
        for seq in range(first, last + 1):
            self.outbox.add(epoch, seq, "trade_update", b'{"id":"%d"}' % seq)

    def lane(self) -> Lane:
        """A new lane, as after a restart."""
        tools = Tools(
            self.store, self.transport, self.clock, self.notes, self.random.random, Envelope(7, "7")
        )
        return Lane(self.endpoint, self.store.state(), self.outbox, FakeSignal(), tools)

    async def run(self) -> None:
        """Deliver until there is nothing left; or until the lane is over."""
        try:
            await self.lane().run()
        except* Done:
            pass

    def said(self) -> list[dict[str, Any]]:
        """All bodies."""
        return [orjson.loads(body) for _, _, body, _ in self.transport.posted]


async def test_rows_are_posted_in_order() -> None:
    """With the contract's envelope and the event's name; the id is made of the rows; the cursor follows."""
    place = Place()
    place.trades(1, LIMITS.batch_rows + 1)
    await place.run()
    first, last = place.said()
    assert [item["id"] for item in first["items"]] == [str(n) for n in range(1, LIMITS.batch_rows + 1)]
    assert last == {
        "event": "trade_update",
        "v": 1,
        "chain": 7,
        "stream": "7",
        "epoch": 1,
        "first": 101,
        "seq": 101,
        "items": [{"id": "101"}],
    }
    assert place.transport.ids == ["7-1-1-100", "7-1-101-101"]
    assert await place.outbox.cursor() == Cursor(RowId(1, 101), RowId(1, 101))


async def test_only_what_is_wanted_is_posted() -> None:
    """The rest counts as delivered, and is not even read; a `resync` comes to everybody."""
    place = Place("alert")
    place.trades(1, 3)
    place.outbox.add(1, 4, "chart_data", b'{"s":"m","c":[["1m",60000]]}')
    place.outbox.add(1, 5, "alert", b'{"id":"a"}')
    place.outbox.add(1, 6, "resync", b'{"reason":"history was loaded"}')

    async def unread(_wanted: object) -> list[dict[str, object]]:
        raise AssertionError("nobody wants it")

    place.outbox.candles = unread  # type: ignore[method-assign]
    await place.run()
    assert [said["event"] for said in place.said()] == ["alert", "resync"]
    assert (await place.outbox.cursor() or Cursor(RowId(0, 0), RowId(0, 0))).acknowledged == RowId(1, 6)


async def test_a_message_is_tried_until_it_is_taken() -> None:
    """The same id and the same body each time, nothing overtakes it, and the store knows meanwhile."""
    place = Place()
    place.trades(1, 1)
    held: list[Failing | None] = []

    def late() -> Answer:
        held.append(place.store.state().failing)
        place.trades(2, 2)
        return TAKEN

    place.transport.answers.extend([REFUSED, Answer(0, "no answer", 10_000), Answer(301, "moved", 5), late])
    await place.run()
    assert place.transport.ids == ["7-1-1-1"] * 4 + ["7-1-2-2"]
    assert len({body for _, _, body, _ in place.transport.posted[:4]}) == 1
    assert held[0] is not None
    assert (held[0].attempts, held[0].error) == (3, "moved")
    assert place.store.state().failing is None
    assert place.notes.works == ["one"]
    assert [attempt.attempt for _, attempt in place.store.logged] == [1, 2, 3, 4, 1]
    assert [attempt.status for _, attempt in place.store.logged] == [500, 0, 301, 204, 204]


async def test_a_day_of_failures_ends_it() -> None:
    """Pauses grow to an hour; the last try is a day after the first; then nothing until it is enabled."""
    place = Place()
    place.trades(1, 1)
    place.transport.usual = REFUSED
    await place.run()
    times = place.transport.times
    assert times[-1] - times[0] == GIVE_UP_AFTER_MS
    pauses = [(after - before) / 1000 for before, after in pairwise(times)]
    assert pauses[0] <= 1
    assert BACKOFF_MAX_S / 2 <= max(pauses) <= BACKOFF_MAX_S
    assert 24 < len(times) < 80
    state = place.store.state()
    assert state.status is Status.GIVEN_UP
    assert "HTTP 500" in state.reason
    assert place.notes.ended == [("one", state.reason)]
    assert await place.outbox.cursor() == Cursor(RowId(1, 0), RowId(1, 1))


async def test_gone_ends_it_at_once() -> None:
    """410 says that nobody will ever take it."""
    place = Place()
    place.trades(1, 5)
    place.transport.answers.extend([REFUSED, GONE])
    await place.run()
    assert len(place.transport.posted) == 2
    assert place.store.state().status is Status.GIVEN_UP


async def test_a_restart_forgets_nothing() -> None:
    """Neither since when an endpoint fails, nor when it is its turn again; the same rows have the same id."""
    place = Place()
    place.trades(1, 2)
    place.transport.answers.extend([REFUSED] * 6)
    for _ in range(6):
        place.store.away = 0
        before = len(place.transport.posted)

        def crash() -> Answer:
            place.store.away = 2  # the log is not written, nor anything else
            return REFUSED

        place.transport.answers.appendleft(crash)
        with pytest.raises(StoreUnavailable):
            await place.lane().run()
        assert len(place.transport.posted) == before + 1
        place.store.away = 0
    place.store.put(
        place.endpoint,
        ENABLED._replace(failing=Failing(place.clock.now() - 1, 9, place.clock.now() + 600_000, "x")),
    )
    began = place.clock.now()
    place.transport.answers.clear()
    await place.run()
    assert place.transport.times[-1] == began + 600_000
    assert set(place.transport.ids) == {"7-1-1-2"}


async def test_an_outage_of_ours_is_not_theirs() -> None:
    """Away for a day ourselves, an endpoint that failed just before still gets a fair number of tries."""
    place = Place()
    place.trades(1, 1)
    began = place.clock.now()
    place.store.put(place.endpoint, ENABLED._replace(failing=Failing(began, 1, began + 1_000, "x")))
    place.clock.pass_ms(3 * GIVE_UP_AFTER_MS)
    place.transport.answers.extend([REFUSED] * (LEAST_ATTEMPTS - 2))
    await place.run()
    assert place.store.state() == ENABLED
    assert len(place.transport.posted) == LEAST_ATTEMPTS - 1


@pytest.mark.parametrize(("asked_s", "waited_s"), [(40, 40), (999_999, BACKOFF_MAX_S), (0, 1)])
async def test_an_endpoint_may_ask_for_time(asked_s: float, waited_s: float) -> None:
    """`Retry-After` is kept to, up to the longest pause of ours; the usual pause where it is longer."""
    place = Place()
    place.trades(1, 1)
    place.transport.answers.append(Answer(429, "HTTP 429", 5, asked_s))
    await place.run()
    pause = (place.transport.times[1] - place.transport.times[0]) / 1000
    assert waited_s * (1 if asked_s else 0.5) <= pause <= waited_s


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_bounded(attempts: int, jitter: float) -> None:
    """Doubled up to an hour, and never less than half of it."""
    longest = min(2.0 ** (min(attempts, 64) - 1), BACKOFF_MAX_S)
    assert longest / 2 <= backoff_s(attempts, jitter) <= longest


async def test_rows_that_fell_off_are_told() -> None:
    """An endpoint that was away for longer than rows are kept gets one `resync`, then what there is."""
    place = Place()
    place.trades(1, 8)
    del place.outbox.rows[:5]
    await place.run()
    told, rest = place.said()
    assert (told["event"], told["first"], told["seq"]) == ("resync", 1, 5)
    assert told["items"] == [{"reason": LOST_REASON}]
    assert (rest["first"], rest["seq"]) == (6, 8)


def change(place: Place) -> Answer:
    """While a request is under way, the operator changes the endpoint."""
    known, state = place.store.found["one"]
    place.store.put(known, state._replace(version=state.version + 1))
    return REFUSED


def remove(place: Place) -> Answer:
    """While a request is under way, the operator deletes the endpoint."""
    del place.store.found["one"]
    return REFUSED


@pytest.mark.parametrize("meanwhile", [change, remove])
async def test_what_an_operator_changed_is_not_written_over(meanwhile: Callable[[Place], Answer]) -> None:
    """The lane ends by itself; what came of its last request is no news any more."""
    place = Place()
    place.trades(1, 1)
    place.transport.answers.append(lambda: meanwhile(place))
    await place.lane().run()
    assert len(place.transport.posted) == 1
    assert all(state.failing is None for _, state in place.store.found.values())


async def test_without_a_cursor_there_is_no_endpoint() -> None:
    """It goes with the endpoint: nothing is posted from the oldest row on."""
    place = Place()
    place.outbox.saved.clear()
    place.trades(1, 3)
    await place.lane().run()
    assert place.transport.posted == []
    assert place.outbox.saved == []


async def test_a_message_is_delivered_once_more() -> None:
    """By what the log has of it: the same id, the same rows, though it was cut out of a batch of several."""
    place = Place("trade_update", "alert")
    place.trades(1, 2)
    place.outbox.add(1, 3, "alert", b'{"id":"a"}')
    place.trades(4, 5)
    await place.run()
    assert place.transport.ids == ["7-1-1-2", "7-1-3-3", "7-1-4-5"]
    first = dict(zip(place.transport.ids, place.said(), strict=True))
    line = next(attempt for _, attempt in place.store.logged if attempt.id == "7-1-4-5")
    assert line.batch == (RowId(1, 1), RowId(1, 5))
    place.store.put(place.endpoint, ENABLED._replace(replay=Replay(*line.batch, line.id)))
    place.transport.posted.clear()
    await place.run()
    assert place.transport.ids == ["7-1-4-5"]
    assert place.said() == [first["7-1-4-5"]]
    assert place.store.state() == ENABLED
    assert [attempt.replayed for _, attempt in place.store.logged] == [False] * 3 + [True]


async def test_rows_are_delivered_once_more() -> None:
    """All of a range that the endpoint wants, over epochs, batch by batch; a restart goes on in between."""
    place = Place("trade_update")
    place.trades(1, 150)
    place.trades(1, 30, epoch=2)
    await place.run()
    place.store.put(place.endpoint, ENABLED._replace(replay=Replay(RowId(1, 20), RowId(2, 10))))
    place.transport.posted.clear()

    def crash() -> Answer:
        place.store.away = 1
        return TAKEN

    place.transport.answers.extend([TAKEN, crash])
    with pytest.raises((StoreUnavailable, ExceptionGroup)):
        await place.lane().run()
    assert place.store.state().replay == Replay(RowId(1, 120), RowId(2, 10))
    await place.run()
    assert place.transport.ids == ["7-1-20-119", "7-1-120-150", "7-1-120-150", "7-2-1-10"]
    assert place.store.state() == ENABLED


async def test_rows_to_repeat_that_fell_off_meanwhile() -> None:
    """What is kept of them is sent, and the wish is done."""
    place = Place()
    place.trades(5, 8)
    place.outbox.saved.append(Cursor(RowId(1, 8), RowId(1, 8)))
    place.store.put(place.endpoint, ENABLED._replace(replay=Replay(RowId(1, 1), RowId(1, 6))))
    await place.run()
    assert place.transport.ids == ["7-1-5-6"]
    assert place.store.state() == ENABLED
    place.store.put(place.endpoint, ENABLED._replace(replay=Replay(RowId(1, 1), RowId(1, 3))))
    await place.run()
    assert len(place.transport.posted) == 1
    assert place.store.state() == ENABLED

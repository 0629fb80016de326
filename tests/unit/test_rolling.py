"""The rolling day against brute force over trades."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.entities import Candle, Trade
from listener.domain.errors import MinutesMissing
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import DAY_MS, MINUTE_MS
from tests.fakes.brute import changed_minute, day_of, figures_in, figures_of, minute_of
from tests.fakes.build import MONDAY_MS, trade

HOUR_MS = 60 * MINUTE_MS


class Step(NamedTuple):
    """After `after_ms` there is a trade, or only time has passed; `anew`: then the window is loaded."""

    after_ms: int
    price: int | None
    anew: bool = False


gaps = st.sampled_from(
    [
        *(0, 1, 999, MINUTE_MS - 1, MINUTE_MS, 61_000),
        *(10 * MINUTE_MS, 25 * MINUTE_MS, 59 * MINUTE_MS, HOUR_MS, 61 * MINUTE_MS),
        *(2 * HOUR_MS, 3 * HOUR_MS, 4 * HOUR_MS, 5 * HOUR_MS, 6 * HOUR_MS, 12 * HOUR_MS),
        *(DAY_MS - HOUR_MS, DAY_MS - 30 * MINUTE_MS, DAY_MS - MINUTE_MS, DAY_MS - 1),
        *(DAY_MS, DAY_MS + MINUTE_MS, 3 * DAY_MS),
    ]
)
steps = st.builds(Step, gaps, st.none() | st.integers(1, 9), st.integers(0, 5).map(lambda n: n == 0))
busy = st.builds(Step, st.sampled_from([MINUTE_MS, 3 * MINUTE_MS, 20 * MINUTE_MS]), st.integers(1, 9))
jumps = st.builds(Step, st.integers(18, 25).map(lambda hours: hours * HOUR_MS + 7 * MINUTE_MS), st.none())
histories = st.lists(steps, min_size=1, max_size=40) | st.builds(
    lambda first, jump, then: [*first, jump, *then],
    st.lists(busy, min_size=5, max_size=60),
    jumps,
    st.lists(busy | steps, max_size=10),
)

HOURS = [Step(5 * HOUR_MS, price % 7 + 1) for price in range(30)]
DENSE = [Step(20 * MINUTE_MS, price % 7 + 1, price % 60 == 59) for price in range(100)]
PAUSED = [*(Step(MINUTE_MS, price % 7 + 1) for price in range(70)), Step(DAY_MS - HOUR_MS, None)]


def minutes_of(trades: Sequence[Trade]) -> dict[int, Candle]:
    """One-minute candles by open time, oldest first."""
    minutes: dict[int, Candle] = {}
    for made in trades:
        one = Candle.of([made], minute_of(made.timestamp))
        minutes[one.open_time] = minutes[one.open_time].merge(one) if one.open_time in minutes else one
    return minutes


def supplied(window: RollingDay, trades: Sequence[Trade], as_of: int) -> RollingDay:
    """The window, given of the stored minutes exactly those that it wants."""
    wanted = window.wanted(as_of)
    if wanted is None:
        return window
    first, last = wanted
    return window.with_minutes(as_of, [m for time, m in minutes_of(trades).items() if first <= time <= last])


class Replay:
    """A window and the trades that were put into it."""

    def __init__(self) -> None:
        self.window = RollingDay.of(())
        self.trades: list[Trade] = []
        self.as_of = MONDAY_MS

    def step(self, number: int, step: Step) -> None:
        """Trade, or only let time pass."""
        self.as_of += step.after_ms
        ready = supplied(self.window, self.trades, self.as_of)
        if step.price is not None:
            made = trade(number, 0, str(step.price), base=step.price, quote=7, time=self.as_of)
            self.trades.append(made)
            self.window = ready.add([minutes_of(self.trades)[minute_of(self.as_of)]], self.as_of)
        else:
            self.window = ready.advance(self.as_of)
        if step.anew:
            self.window = self.stored()

    def stored(self) -> RollingDay:
        """The window as a store gives it: from its minutes and the time of its last change."""
        since = self.window.changed - DAY_MS + MINUTE_MS
        kept = [minute for time, minute in minutes_of(self.trades).items() if time >= since]
        loaded = RollingDay.of(kept, self.window.changed)
        return supplied(loaded, self.trades, self.as_of).advance(self.as_of)


def check(window: RollingDay, trades: Sequence[Trade], as_of: int) -> None:
    """The window says what its trades say."""
    inside = day_of(trades, as_of)
    total = window.total()
    assert figures_in(total) == figures_of(inside)
    assert window.changed == changed_minute(trades, as_of)
    if total is None:
        assert window.oldest is None
    else:
        assert window.oldest == total.open_time == minute_of(inside[0].timestamp)
        assert (total.first, total.last) == (inside[0].id, inside[-1].id)


@given(histories)
@example(HOURS)
@example([step._replace(anew=number % 4 == 0) for number, step in enumerate(HOURS)])
@example(DENSE)
@example([*PAUSED, *(Step(MINUTE_MS, 5) for _ in range(70))])
@example(
    [Step(MINUTE_MS, 1), Step(MINUTE_MS, 2), Step(DAY_MS - MINUTE_MS, 3, anew=True), Step(MINUTE_MS, None)]
)
def test_a_window_is_what_one_would_count(history: list[Step]) -> None:
    """After every trade and every pause, figures and the minute of their last change equal brute force."""
    replay = Replay()
    for number, step in enumerate(history):
        replay.step(number, step)
        check(replay.window, replay.trades, replay.as_of)


@given(histories)
@example(DENSE)
def test_a_window_can_be_made_anew(history: list[Step]) -> None:
    """A window made from stored minutes and the stored time of change equals the one that was kept."""
    replay = Replay()
    for number, step in enumerate(history):
        replay.step(number, step)
        made_anew = replay.stored()
        assert made_anew.total() == replay.window.total()
        assert made_anew.changed == replay.window.changed
        check(made_anew, replay.trades, replay.as_of)


@given(histories)
def test_old_windows_are_not_touched(history: list[Step]) -> None:
    """A window is a value: what was pushed later, or rolled off later, does not show in it."""
    replay = Replay()
    kept: list[tuple[RollingDay, list[Trade], int]] = []
    for number, step in enumerate(history):
        replay.step(number, step)
        kept.append((replay.window, list(replay.trades), replay.as_of))
    for window, trades, as_of in kept:
        check(window, trades, as_of)


@given(histories)
def test_one_window_can_have_two_futures(history: list[Step]) -> None:
    """Going on twice from one window gives the same both times."""
    replay = Replay()
    for number, step in enumerate(history):
        before, as_of, trades = replay.window, replay.as_of, list(replay.trades)
        replay.step(number, step)
        first = replay.window
        replay.window, replay.as_of, replay.trades = before, as_of, trades
        replay.step(number, step)
        assert replay.window == first


@given(histories)
@example(DENSE)
def test_time_may_pass_at_once_or_step_by_step(history: list[Step]) -> None:
    """Advancing through every minute on the way ends where one leap ends."""
    replay = Replay()
    for number, step in enumerate(history):
        replay.step(number, step)
    for target in (replay.as_of + DAY_MS // 2 + MINUTE_MS, replay.as_of + DAY_MS + 3 * MINUTE_MS):
        leaped = supplied(replay.window, replay.trades, target).advance(target)
        walked = replay.window
        for as_of in (*range(replay.as_of, target, 37 * MINUTE_MS), target):
            walked = supplied(walked, replay.trades, as_of).advance(as_of)
        assert walked.total() == leaped.total()
        assert walked.changed == leaped.changed
        check(leaped, replay.trades, target)


@given(histories, st.integers(0, 30), st.booleans())
def test_minutes_may_come_all_at_once(history: list[Step], hours: int, anew: bool) -> None:
    """Minutes put together count as if each had come alone, even those that are too old by then."""
    replay, whole = Replay(), RollingDay.of(())
    if anew:
        replay.step(1, Step(0, 1))
        whole = replay.window
    for number, step in enumerate(history, start=2):
        replay.step(number, step)
    as_of = replay.as_of + hours * HOUR_MS
    before = replay.trades[:anew]
    minutes = minutes_of(replay.trades)
    if anew and len(replay.trades) > 1 and minute_of(replay.trades[1].timestamp) > MONDAY_MS:
        del minutes[MONDAY_MS]
    together = supplied(whole, before, as_of).add(minutes.values(), as_of)
    check(together, replay.trades, as_of)


@given(histories)
def test_more_minutes_than_wanted_do_no_harm(history: list[Step]) -> None:
    """Whoever has all minutes at hand may give them all, whether any are wanted or not."""
    replay = Replay()
    for number, step in enumerate(history):
        before, trades = replay.window, list(replay.trades)
        replay.step(number, step)
        given_all = before.with_minutes(replay.as_of, minutes_of(trades).values())
        assert given_all.total() == before.total()
        assert given_all.changed == before.changed
        assert given_all.advance(replay.as_of) == supplied(before, trades, replay.as_of).advance(replay.as_of)


@given(histories)
@example(DENSE)
@example(PAUSED)
def test_minutes_that_are_wanted_must_come(history: list[Step]) -> None:
    """A window that wants minutes does not advance without them, nor with others: it would be wrong."""
    replay = Replay()
    for number, step in enumerate(history):
        as_of = replay.as_of + step.after_ms
        wanted = replay.window.wanted(as_of)
        if wanted is None:
            assert replay.window.advance(as_of).wanted(as_of) is None
        else:
            first, last = wanted
            assert first < minute_of(as_of) - DAY_MS + MINUTE_MS <= last < first + HOUR_MS
            with pytest.raises(MinutesMissing):
                replay.window.advance(as_of)
            inside = [m for time, m in minutes_of(replay.trades).items() if first <= time <= last]
            assert inside[0].open_time == first
            assert inside[-1].open_time == last
            for some in ([], inside[1:], inside[:-1]):
                with pytest.raises(MinutesMissing):
                    replay.window.with_minutes(as_of, some)
        replay.step(number, step)


def test_each_minute_is_wanted_once() -> None:
    """A market that trades every minute is asked for its minutes once an hour, and for each of them once."""
    replay, asked = Replay(), []
    for number in range(26 * 60):
        wanted = replay.window.wanted(replay.as_of + MINUTE_MS)
        if wanted is not None:
            asked.append(wanted)
        if number < 24 * 60:
            replay.window = replay.window.put(minute(number))
            replay.as_of = MONDAY_MS + number * MINUTE_MS
        else:
            replay.as_of += MINUTE_MS
            inside = [minute(n) for n in range(24 * 60)]
            replay.window = replay.window.with_minutes(replay.as_of, inside).advance(replay.as_of)
    assert [(first - MONDAY_MS, last - MONDAY_MS) for first, last in asked] == [
        (hour * HOUR_MS, hour * HOUR_MS + 59 * MINUTE_MS) for hour in range(2)
    ]


def minute(number: int, log_index: int = 0) -> Candle:
    """The candle of a minute with one trade."""
    time = MONDAY_MS + number * MINUTE_MS
    return Candle.of([trade(number, log_index, str(number % 97 + 1), base=number, time=time)], time)


def test_markets_want_their_minutes_at_different_times() -> None:
    """Markets that began in the same minute and trade every minute are not asked together for ever."""
    as_of = MONDAY_MS + DAY_MS + HOUR_MS - MINUTE_MS
    ends = set()
    for log_index in range(16):
        window = RollingDay.of([minute(number, log_index) for number in range(70)])
        assert window.wanted(MONDAY_MS + DAY_MS - 1) is None
        wanted = window.wanted(MONDAY_MS + DAY_MS)
        assert wanted is not None
        assert wanted[0] == MONDAY_MS
        ends.add(wanted[1])
    assert len(ends) == 16
    assert max(ends) + DAY_MS == as_of


def test_a_full_day_is_kept_in_few_pieces() -> None:
    """Of 1,440 minutes there are at most an hour's and twenty-five stretches in memory."""
    window, minutes = RollingDay.of(()), [minute(number) for number in range(3 * 24 * 60)]
    for number, one in enumerate(minutes):
        as_of = one.open_time
        window = window.with_minutes(as_of, minutes[max(number - 24 * 60, 0) : number]).add([one], as_of)
        pieces = len(window.past.front) + len(window.past.back) if window.past else 0
        assert pieces <= 60 + 25
    total = window.total()
    assert total is not None
    assert total.trades == 24 * 60


def test_an_empty_window_stays_empty() -> None:
    """Nothing rolls off a market that never traded, and nothing changes."""
    empty = RollingDay.of(())
    assert empty.advance(MONDAY_MS) is empty
    assert empty.wanted(MONDAY_MS) is None
    assert empty.with_minutes(MONDAY_MS, [minute(1)]) is empty
    assert empty.total() is None
    assert empty.oldest is None


def test_nothing_due_gives_the_same_window() -> None:
    """A window from which nothing rolls off is returned as it is: callers see that nothing changed."""
    replay = Replay()
    replay.step(1, Step(0, 1))
    assert replay.window.advance(MONDAY_MS + DAY_MS - 1) is replay.window
    assert replay.window.advance(MONDAY_MS + DAY_MS) is not replay.window


def test_a_minute_falls_out_at_its_full_day() -> None:
    """The minute of 10:00 counts until 09:59:59.999 of the next day, and is out at 10:00."""
    replay = Replay()
    replay.step(1, Step(30_000, 5))
    assert replay.window.advance(MONDAY_MS + DAY_MS - 1).total() is not None
    assert replay.window.advance(MONDAY_MS + DAY_MS).total() is None

"""The rolling day against brute force over trades."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.entities import Candle, Trade
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import DAY_MS, MINUTE_MS, ONE_MINUTE
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
        *(2 * HOUR_MS, 3 * HOUR_MS, 4 * HOUR_MS, 5 * HOUR_MS, 6 * HOUR_MS, 12 * HOUR_MS),
        *(DAY_MS - MINUTE_MS, DAY_MS - 1, DAY_MS, DAY_MS + MINUTE_MS, 3 * DAY_MS),
    ]
)
steps = st.builds(Step, gaps, st.none() | st.integers(1, 9), st.integers(0, 5).map(lambda n: n == 0))
histories = st.lists(steps, min_size=1, max_size=40)


class Replay:
    """A window and the trades that were put into it."""

    def __init__(self) -> None:
        self.window = RollingDay.of(())
        self.trades: list[Trade] = []
        self.as_of = MONDAY_MS
        self._minute: Candle | None = None

    def step(self, number: int, step: Step) -> None:
        """Trade, or only let time pass."""
        self.as_of += step.after_ms
        if step.price is not None:
            made = trade(number, 0, str(step.price), base=step.price, quote=7, time=self.as_of)
            self.trades.append(made)
            one = Candle.of([made], ONE_MINUTE.open_time(made.timestamp))
            same = self._minute is not None and self._minute.open_time == one.open_time
            self._minute = self._minute.merge(one) if same and self._minute else one
            self.window = self.window.put(self._minute)
        self.window = self.window.advance(self.as_of)
        if step.anew:
            self.window = self.stored()

    def stored(self) -> RollingDay:
        """The window as a store gives it: from its minutes and the time of its last change."""
        since = self.window.changed - DAY_MS + MINUTE_MS
        minutes: dict[int, Candle] = {}
        for made in self.trades:
            one = Candle.of([made], minute_of(made.timestamp))
            minutes[one.open_time] = minutes[one.open_time].merge(one) if one.open_time in minutes else one
        kept = [minute for time, minute in sorted(minutes.items()) if time >= since]
        return RollingDay.of(kept, self.window.changed).advance(self.as_of)


def check(window: RollingDay, trades: Sequence[Trade], as_of: int) -> None:
    """The window says what its trades say."""
    inside = day_of(trades, as_of)
    total = window.total()
    assert figures_in(total) == figures_of(inside)
    assert window.changed == changed_minute(trades, as_of)
    if total is None:
        assert window.oldest is None
    else:
        assert window.oldest is not None
        assert window.oldest.open_time == total.open_time == minute_of(inside[0].timestamp)
        assert (total.first, total.last) == (inside[0].id, inside[-1].id)


@given(histories)
@example([Step(5 * HOUR_MS, price % 7 + 1) for price in range(30)])
@example([Step(5 * HOUR_MS, price % 7 + 1, price % 4 == 0) for price in range(30)])
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
        before = replay.window
        minute, as_of, trades = replay._minute, replay.as_of, list(replay.trades)
        replay.step(number, step)
        first = replay.window
        replay.window, replay._minute, replay.as_of, replay.trades = before, minute, as_of, trades
        replay.step(number, step)
        assert replay.window == first


@given(histories)
def test_time_may_pass_at_once_or_step_by_step(history: list[Step]) -> None:
    """Advancing through every minute on the way ends where one leap ends."""
    replay = Replay()
    for number, step in enumerate(history):
        replay.step(number, step)
    target = replay.as_of + DAY_MS + 3 * MINUTE_MS
    leaped, walked = replay.window.advance(target), replay.window
    for as_of in range(replay.as_of, target, 37 * MINUTE_MS):
        walked = walked.advance(as_of)
    walked = walked.advance(target)
    assert walked.total() == leaped.total()
    assert walked.changed == leaped.changed
    check(leaped, replay.trades, target)


def test_an_empty_window_stays_empty() -> None:
    """Nothing rolls off a market that never traded, and nothing changes."""
    empty = RollingDay.of(())
    assert empty.advance(MONDAY_MS) is empty
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

"""Candles in columns are what single candles are: folded, written, and on top of those that are stored."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import MarketState
from listener.application.use_cases.process_block import fold_minutes
from listener.domain.entities import Candle
from listener.domain.rolling import MinuteRun, RollingDay
from listener.domain.value_objects import DAY_MS, MINUTE_MS, TradeId, ratio
from listener.infrastructure.candle_columns import PackedCandles, candles_of, packed, rows_of, unpacked
from listener.infrastructure.candle_fold import fold_series, minute_runs
from listener.infrastructure.redis.candle_texts import encode_folded
from listener.infrastructure.redis.codec import encode_candle
from tests.fakes.build import MONDAY_MS, market, rules

RULES = rules("5m", "1h", "1d", "1w")
amounts = st.one_of(st.integers(1, 9), st.integers(1, 1 << 64), st.integers(1, 1 << 120))
prices = st.builds(ratio, amounts, amounts, st.sampled_from([-12, 0, 0, 12]))


@st.composite
def minutes(draw: st.DrawFn, most: int = 8, first: int = 0, block: int = 0) -> list[Candle]:
    """Some minutes in a row, without previous closes."""
    found: list[Candle] = []
    time = MONDAY_MS + draw(st.integers(first, first + 3)) * MINUTE_MS
    for place in range(draw(st.integers(1, most))):
        low, opened, close, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        base, quote = draw(amounts), draw(amounts)
        trades = draw(st.integers(1, 400))
        start = time // 1_000 + block
        found.append(
            Candle(
                time,
                opened,
                high,
                low,
                close,
                base,
                quote,
                draw(st.integers(0, base)),
                draw(st.integers(0, quote)),
                trades,
                draw(st.integers(0, trades)),
                TradeId(start, place),
                TradeId(start + 20, draw(st.integers(0, 9))),
            )
        )
        time += draw(st.sampled_from([1, 1, 2, 30, 400])) * MINUTE_MS
    return found


def test_rows_hold_candles() -> None:
    """A packed candle is the candle; where there is none, there is none."""
    candle = Candle(
        MONDAY_MS,
        *[ratio(3, 7, 0)] * 4,
        1 << 127,
        5,
        0,
        3,
        2,
        1,
        TradeId(1, 2),
        TradeId(3, 4),
        ratio(1, 9, -30),
    )
    kept = (candle, None, candle._replace(previous_close=None))
    (whole,) = packed(unpacked([kept], 3))
    assert tuple(whole) == kept
    assert (len(whole), whole[0], whole[1:]) == (3, candle, kept[1:])
    assert whole.largest == pytest.approx(2.0**127)
    assert tuple(packed(unpacked([whole, (None,) * 3], 3))[1]) == (None,) * 3
    with pytest.raises(OverflowError):
        rows_of([candle._replace(base=1 << 128)])


@given(st.lists(minutes(), min_size=1, max_size=4), st.data())
def test_series_are_those_of_single_markets(runs: Sequence[list[Candle]], data: st.DataObject) -> None:
    """All candles, what they replace, what follows what, and the newest of each interval; run after run."""
    count = len(RULES.intervals)
    states = [MarketState.new(market(number), count) for number in range(len(runs))]
    single = list(states)
    for step in range(2):
        later = [
            data.draw(minutes(4, (run[-1].open_time - MONDAY_MS) // MINUTE_MS, 21)) if step else run
            for run in runs
        ]
        rows = rows_of([minute for run in later for minute in run])
        whose = np.repeat(np.arange(len(later)), [len(run) for run in later])
        folded = fold_series(rows, whose, states, RULES.intervals, RULES.bases)
        changes = []
        for place, run in enumerate(later):
            single[place], some = fold_minutes(single[place], run, RULES)
            changes += some
        told = {(one.market, one.interval, one.open_time): one.after for one in folded.changes()}
        assert told == {(one.market, one.interval, one.open_time): one.after for one in changes}
        replaced = {
            (folded.markets[place].id, interval, int(time))
            for interval, some_rows, markets, replaces in folded.series
            for place, time, taken in zip(markets.tolist(), some_rows[:, 0].tolist(), replaces, strict=True)
            if taken
        }
        assert replaced == {(one.market, one.interval, one.open_time) for one in changes if one.before}
        lives = [PackedCandles(one.data, one.largest) for one in packed(folded.live)]
        assert [tuple(live) for live in lives] == [state.live for state in single]
        states = [
            state._replace(live=live, last_price=own.last_price)
            for state, live, own in zip(states, lives, single, strict=True)
        ]


@given(
    st.lists(minutes(), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.sampled_from([0, 6, 18, 40, 77]), st.sampled_from([0, 18])), min_size=3, max_size=3
    ),
)
def test_many_are_written_as_each_is(runs: Sequence[list[Candle]], decimals: list[tuple[int, int]]) -> None:
    """To the last byte, for several markets at once, whatever their decimals."""
    markets = [
        market(number, base_decimals=base, quote_decimals=quote)
        for number, (base, quote) in enumerate(decimals)
    ]
    states = [MarketState.new(one, len(RULES.intervals)) for one in markets[: len(runs)]]
    rows = rows_of([minute for run in runs for minute in run])
    whose = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    folded = fold_series(rows, whose, states, RULES.intervals, RULES.bases)
    assert encode_folded(folded) == [
        [
            encode_candle(candle, markets[place])
            for place, candle in zip(series.market.tolist(), candles_of(series.rows), strict=True)
        ]
        for series in folded.series
    ]


@given(minutes(40), minutes(40, 20), st.integers(0, 2 * DAY_MS // MINUTE_MS))
def test_a_day_takes_a_run_as_it_takes_its_minutes(
    early: list[Candle], late: list[Candle], passed: int
) -> None:
    """Folded ahead or one by one; also where a stretch ends, or some have rolled off by then."""
    early = [minute for minute in early if minute.open_time <= late[0].open_time]
    as_of = max(late[-1].open_time, MONDAY_MS + passed * MINUTE_MS)
    since = as_of - DAY_MS + MINUTE_MS
    early = [minute for minute in early if minute.open_time >= since]
    day = RollingDay.of(early)
    rows = rows_of(late)
    (run,) = minute_runs(
        fold_series(rows, np.zeros(len(late), np.int64), [_empty()], RULES.intervals, RULES.bases).series[0]
    )
    assert day.extend(run, as_of) == day.add(run.each, as_of)
    assert list(run.each) == [
        one._replace(previous_close=two.previous_close) for one, two in zip(late, run.each, strict=True)
    ]


def _empty() -> MarketState:
    return MarketState.new(market(), len(RULES.intervals))


def test_a_run_of_one_minute_is_that_minute() -> None:
    """There is nothing before it to fold."""
    candle = Candle(MONDAY_MS, *[ratio(1, 3, 0)] * 4, 1, 1, 1, 1, 1, 1, TradeId(1, 1), TradeId(1, 1))
    run = MinuteRun([candle], None, candle)
    assert RollingDay.of(()).extend(run, MONDAY_MS) == RollingDay.of([candle])
    gone = RollingDay.of(()).extend(run, MONDAY_MS + 2 * DAY_MS)
    assert (gone.last, gone.changed) == (None, MONDAY_MS + DAY_MS)

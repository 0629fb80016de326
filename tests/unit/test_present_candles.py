"""Candles as readers want them: filled, opened at the previous close, in the shapes of other tools."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import ForeignData
from listener.application.rows import CandleRow
from listener.application.use_cases.present_candles import (
    FILLED_MAX,
    binance_row,
    ccxt_row,
    columns,
    continuous,
    fill,
    first_bucket,
    join_raw,
    opened,
    parse_candles,
    render,
)
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import MINUTE_MS, WEEK_MS, Interval
from tests.fakes.build import MONDAY_MS

MINUTE = Interval.parse("1m")
RAW = (
    b'{"t":1767225600000,"o":"0.0000000015","h":"0.0000000016","l":"0.0000000014","c":"0.0000000016",'
    b'"pc":"0.0000000013","v":"1200.5","q":"0.0000018","V":"1000","Q":"0.0000015","n":3,"N":2,'
    b'"f":"120-4","L":"121-0"}'
)
"""As the public contract shows it."""


def candle(minute: int, close: str = "2", previous: str | None = "1") -> CandleRow:
    """A candle of one trade, so many minutes after a Monday's midnight."""
    return CandleRow(
        t=MONDAY_MS + minute * MINUTE_MS,
        o=close,
        h=close,
        l=close,
        c=close,
        pc=previous,
        v="10",
        q="20",
        V="10",
        Q="20",
        n=1,
        N=1,
        f="1-0",
        L="1-0",
    )


def at(minute: int) -> int:
    """Time of a minute."""
    return MONDAY_MS + minute * MINUTE_MS


def test_a_candle_comes_back_as_it_was_stored() -> None:
    """Parsing and rendering change no byte, so that both ways to answer agree."""
    assert render(parse_candles([RAW]), MINUTE, "objects") == join_raw([RAW]) == b"[" + RAW + b"]"
    first = RAW.replace(b'"pc":"0.0000000013",', b"")
    assert render(parse_candles([first, RAW]), MINUTE, "objects") == join_raw([first, RAW])


@pytest.mark.parametrize("raw", [b"", b"{}", b'"t"', RAW.replace(b'"1200.5"', b"1200.5"), RAW[:-2]])
def test_what_is_no_candle_is_refused(raw: bytes) -> None:
    """A key of another's making is named as such; it never becomes an untyped error."""
    with pytest.raises(ForeignData):
        parse_candles([RAW, raw])


@pytest.mark.parametrize(
    ("interval", "start", "opens"),
    [
        ("1m", at(3), at(3)),
        ("1m", at(3) + 1, at(4)),
        ("1w", MONDAY_MS, MONDAY_MS),
        ("1w", MONDAY_MS + 1, MONDAY_MS + WEEK_MS),
        ("1w", MONDAY_MS - 1, MONDAY_MS),
    ],
)
def test_the_first_bucket_opens_within_the_range(interval: str, start: int, opens: int) -> None:
    """A bucket that opened before the start is not part of it; weeks open on Monday."""
    assert first_bucket(Interval.parse(interval), start) == opens


def test_gaps_get_the_previous_close_and_no_volume() -> None:
    """Between, before and after: one candle a bucket, flat, without trades or their ids."""
    before, traded = candle(-9, "7"), candle(2, "5", "7")
    filled = fill([traded], MINUTE, at(1), at(4), before)
    assert [row.t for row in filled] == [at(1), at(2), at(3), at(4)]
    assert filled[1] is traded
    assert [row.c for row in filled] == ["7", "5", "5", "5"]
    flat = orjson.loads(render(filled[:1], MINUTE, "objects"))[0]
    assert flat == {
        "t": at(1),
        **dict.fromkeys(("o", "h", "l", "c", "pc"), "7"),
        **dict.fromkeys("vqVQ", "0"),
        "n": 0,
        "N": 0,
    }


def test_nothing_stands_before_the_oldest_candle() -> None:
    """A flat line where trades may have been trimmed away would be a lie, whatever `pc` says."""
    assert [row.t for row in fill([candle(2)], MINUTE, at(0), at(3))] == [at(2), at(3)]
    assert fill([], MINUTE, at(0), at(3)) == []


@given(st.sets(st.integers(0, 200)), st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_a_filled_series_has_no_gap_and_loses_no_candle(
    minutes: set[int], one: int, other: int, anchored: bool
) -> None:
    """Ascending by exactly one interval, every stored candle in its place, flat ones at the last close."""
    first, last = min(one, other), max(one, other)
    stored = [candle(minute, str(minute + 1)) for minute in sorted(minutes) if first <= minute <= last]
    before = candle(first - 5, "999") if anchored else None
    filled = fill(stored, MINUTE, at(first), at(last), before)
    begin = at(first) if anchored else stored[0].t if stored else at(last + 1)
    assert [row.t for row in filled] == list(range(begin, at(last) + 1, MINUTE_MS))
    assert [row for row in filled if row.n] == stored
    close = "999"
    for row in filled:
        if not row.n:
            assert {row.o, row.h, row.l, row.c, row.pc} == {close}
        close = row.c


def test_a_filled_series_is_bounded() -> None:
    """One bucket more than the bound is refused before anything is made."""
    assert len(fill([candle(0)], MINUTE, at(0), at(FILLED_MAX - 1))) == FILLED_MAX
    with pytest.raises(InvalidValue, match=str(FILLED_MAX)):
        fill([candle(0)], MINUTE, at(0), at(FILLED_MAX))


@pytest.mark.parametrize(
    ("previous", "high", "low"),
    [("1", "2", "1"), ("3", "3", "2"), ("0.00000000000000000001", "2", "0.00000000000000000001")],
)
def test_a_continuous_candle_opens_at_the_previous_close(previous: str, high: str, low: str) -> None:
    """High and low are widened by it, and compared as numbers, not as text."""
    row = continuous(candle(0, "2", previous))
    assert (row.o, row.h, row.l, row.c, row.pc) == (previous, high, low, "2", previous)
    assert Decimal(row.l) <= Decimal(row.o) <= Decimal(row.h)


def test_widening_compares_numbers() -> None:
    """Ten is more than nine, and a price that lies within changes neither end."""
    assert continuous(candle(0, "9", "10")).h == "10"
    [stored] = parse_candles([RAW.replace(b"0.0000000013", b"0.00000000155")])
    row = continuous(stored)
    assert (row.o, row.h, row.l) == ("0.00000000155", stored.h, stored.l)


def test_the_first_candle_ever_opens_at_its_first_trade() -> None:
    """Without a previous close there is nothing to open at."""
    row = candle(0, "2", None)
    assert opened([row], "previous") == opened([row], "first") == [row]


def test_shape_of_ccxt() -> None:
    """Six numbers: ms, open, high, low, close, base volume; micro prices keep their digits."""
    [row] = parse_candles([RAW])
    assert ccxt_row(row) == [1767225600000, 1.5e-9, 1.6e-9, 1.4e-9, 1.6e-9, 1200.5]
    assert orjson.loads(render([row], MINUTE, "ccxt")) == [ccxt_row(row)]


def test_shape_of_binance() -> None:
    """Twelve fields of a kline; decimals stay text, the close time is the bucket's last millisecond."""
    [row] = parse_candles([RAW])
    expected = [
        1767225600000, "0.0000000015", "0.0000000016", "0.0000000014", "0.0000000016", "1200.5",
        1767225659999, "0.0000018", 3, "1000", "0.0000015", "0",
    ]  # fmt: skip
    assert binance_row(row, MINUTE) == expected
    assert orjson.loads(render([row], MINUTE, "binance")) == [expected]


def test_columns_are_of_one_length_and_as_exact_as_asked_for() -> None:
    """Numbers for arithmetic; text to the last digit where it matters."""
    rows = [*parse_candles([RAW]), candle(1)]
    table, exact = columns(rows), columns(rows, exact=True)
    assert list(table) == list(exact)
    assert {len(column) for column in table.values()} == {2}
    assert (table["time"][0], table["low"], table["trades"]) == (1767225600000, [1.4e-9, 2.0], [3, 1])
    assert (exact["low"], exact["buy_volume"]) == (["0.0000000014", "2"], ["1000", "10"])

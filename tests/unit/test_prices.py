"""Columns of prices are what single prices are."""

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.value_objects import Price, format_decimal, ratio
from listener.infrastructure.exact import Halves
from listener.infrastructure.prices import (
    below,
    decimals_of,
    highest,
    lowest,
    price_texts,
    prices_of,
    ratios,
)
from tests.fakes.amounts import sizes

single = st.builds(ratio, sizes, sizes, st.integers(-300, 300))


def halves(values: tuple[int, ...]) -> Halves:
    """A column of integers."""
    return np.array([[value >> 64, value & (1 << 64) - 1] for value in values], np.uint64)


@given(st.lists(st.tuples(sizes, sizes, st.sampled_from([0, -12, 12, 255, -255])), min_size=1, max_size=20))
def test_ratios_are_those_of_single_pairs(pairs: list[tuple[int, int, int]]) -> None:
    """24 digits, half to even, at any size and scale."""
    quote, base, exponent = zip(*pairs, strict=True)
    told = ratios(halves(quote), halves(base), np.array(exponent, np.int64))
    assert decimals_of(told) == [ratio(*pair) for pair in pairs]


@given(st.integers(1, 10**24), st.integers(0, 40))
def test_nines_are_carried_into_a_new_digit(small: int, power: int) -> None:
    """Quotients just below a power of ten round up to it, and their power of ten grows."""
    base = 10**38
    pairs = [(10 ** (power % 38) - min(small, 9), base), (base - small % 10**14 - 1, base)]
    pairs = [(max(quote, 1), base) for quote, base in pairs]
    quotes, bases = zip(*pairs, strict=True)
    told = ratios(halves(quotes), halves(bases), np.zeros(2, np.int64))
    assert decimals_of(told) == [ratio(*pair, 0) for pair in pairs]


@given(st.lists(single, min_size=1, max_size=20))
def test_prices_are_written_as_one_by_one(prices: list[Price]) -> None:
    """Plain decimals, from far below one to far above."""
    told = [row.tobytes().translate(None, b"\0").decode() for row in price_texts(prices_of(prices))]
    assert told == [format_decimal(price) for price in prices]


def test_no_price_has_no_text() -> None:
    """A candle without a previous close has none."""
    told = price_texts(prices_of([None, Decimal("1.50"), None, Decimal(100), Decimal("0.01")]))
    assert [row.tobytes().translate(None, b"\0") for row in told] == [b"", b"1.5", b"", b"100", b"0.01"]
    assert price_texts(prices_of([None])).size == 0


near = st.sampled_from([Decimal(1), Decimal("1.00000000000000000000001"), Decimal("0.1"), Decimal(1234)])


@given(st.lists(st.lists(st.one_of(single, near), min_size=1, max_size=6), min_size=1, max_size=6))
def test_prices_compare_as_decimals(runs: list[list[Price]]) -> None:
    """The highest and the lowest of each run, and which of two is lower."""
    column = prices_of([price for run in runs for price in run])
    starts = np.cumsum([0, *map(len, runs[:-1])])
    assert decimals_of(highest(column, starts)) == [max(run) for run in runs]
    assert decimals_of(lowest(column, starts)) == [min(run) for run in runs]
    flat = [price for run in runs for price in run]
    assert below(column, column[::-1]).tolist() == [
        one < other for one, other in zip(flat, reversed(flat), strict=True)
    ]

"""Folded minutes and their packed form."""

from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.part import Part, key, times
from listener.domain.value_objects import MINUTE_MS, TradeId, ratio
from tests.fakes.build import MONDAY_MS

amounts = st.integers(0, 2**256) | st.integers(0, 2**280) | st.integers(0, 9)
prices = st.builds(
    ratio, st.integers(0, 2**256), st.integers(1, 2**256), st.integers(-255, 255)
) | st.integers(0, 9).map(Decimal)
minutes = st.integers(0, 10**8).map(lambda number: number * MINUTE_MS)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """Any part that trades can make."""
    open_time = draw(minutes)
    low, opened, high = sorted(draw(st.lists(prices, min_size=3, max_size=3)))
    base, quote = draw(amounts), draw(amounts)
    trades = draw(st.integers(1, 2**32 - 1))
    return Part(
        open_time,
        open_time + draw(st.integers(0, 59)) * MINUTE_MS,
        opened,
        high,
        low,
        base,
        quote,
        draw(st.integers(0, base)),
        draw(st.integers(0, quote)),
        trades,
        draw(st.integers(0, trades)),
        TradeId(draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**32 - 1))),
    )


NOTHING = Part(MONDAY_MS, MONDAY_MS, Decimal(0), Decimal(0), Decimal(0), 0, 0, 0, 0, 1, 0, TradeId(0, 0))


@given(parts())
@example(NOTHING)
def test_nothing_is_lost_by_packing(part: Part) -> None:
    """Prices and amounts of every size come back to the last digit."""
    packed = part.pack()
    assert Part.unpack(packed) == part
    assert times(packed) == (part.open_time, part.until)


@given(parts(), minutes, st.integers(-2, 2))
def test_packed_parts_are_found_by_their_time(part: Part, time: int, near: int) -> None:
    """A key sorts after the parts that end before it, and before those that hold it or come later."""
    for start in (time, part.until + near * MINUTE_MS):
        assert (part.pack() < key(start)) == (part.until < start)

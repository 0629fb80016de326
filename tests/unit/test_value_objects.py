"""Intervals, number formats and value types."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.entities import MAX_DECIMALS, TokenInfo
from listener.domain.errors import DomainError, InvalidInterval, InvalidValue
from listener.domain.value_objects import (
    DAY_MS,
    MINUTE_MS,
    ONE_MINUTE,
    PRICE_DIGITS,
    WEEK_MS,
    BlockRef,
    Interval,
    TradeId,
    format_decimal,
    format_units,
    parse_address,
    parse_units,
    percent,
    ratio,
)

NAMES = ("1m", "2m", "3m", "5m", "15m", "30m", "45m", "1h", "2h", "4h", "6h", "8h", "12h", "24h", "1d", "1w")
MAX_UINT = 2**256 - 1
HASH = "0x" + "ab" * 32

times = st.integers(0, 4_102_444_800_000)
intervals = st.sampled_from(NAMES).map(Interval.parse)
amounts = st.one_of(st.integers(1, MAX_UINT), st.integers(1, 10**6), st.sampled_from([1, MAX_UINT]))
decimals = st.integers(0, MAX_DECIMALS)


@given(intervals, times)
def test_a_bucket_holds_its_timestamp(interval: Interval, time: int) -> None:
    """A timestamp lies in `[open, open + interval)`."""
    assert interval.open_time(time) <= time < interval.open_time(time) + interval.ms


@given(intervals, times)
def test_a_bucket_is_aligned(interval: Interval, time: int) -> None:
    """Buckets open on multiples of the interval in UTC, weeks on Monday at midnight."""
    opened = datetime.fromtimestamp(interval.open_time(time) / 1000, UTC)
    if interval.ms == WEEK_MS:
        assert (opened.weekday(), opened.hour, opened.minute, opened.second) == (0, 0, 0, 0)
    else:
        assert interval.open_time(time) % interval.ms == 0


@given(intervals, times)
def test_a_bucket_opens_in_itself(interval: Interval, time: int) -> None:
    """The open time of an open time is the open time."""
    opened = interval.open_time(time)
    assert interval.open_time(opened) == opened
    assert interval.open_time(opened + interval.ms) == opened + interval.ms


@given(intervals, times)
def test_every_interval_is_made_of_whole_minutes(interval: Interval, time: int) -> None:
    """A minute lies in one bucket of every wider interval: minutes can be folded into it."""
    minute = ONE_MINUTE.open_time(time)
    assert interval.open_time(minute) == interval.open_time(minute + MINUTE_MS - 1)


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_keeps_its_name(name: str) -> None:
    """An interval is written as it was read."""
    assert str(Interval.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "m", "1", "0m", "01m", "1M", "1s", "-1m", "1.5h", " 1m", "1m\n", "\uff11m"),
        *("7m", "5h", "25h", "2d", "2w", "7d", "168h", "10080m", "1y", "99999m"),
    ],
)
def test_other_intervals_are_refused(name: str) -> None:
    """Only whole minutes that divide a day, and the week, are intervals; the error shows how to write one."""
    with pytest.raises(InvalidInterval, match="1w"):
        Interval.parse(name)


@given(st.integers(0, MAX_UINT), decimals)
def test_units_survive_a_round_trip(units: int, places: int) -> None:
    """Reading what was written gives the amount again, to the last unit."""
    assert parse_units(format_units(units, places), places) == units


@given(st.integers(0, MAX_UINT), decimals)
def test_units_are_written_plainly(units: int, places: int) -> None:
    """Amounts have no exponent, no trailing zeros, no bare point, and are exact."""
    text = format_units(units, places)
    assert Fraction(text) == Fraction(units, 10**places)
    assert not text.startswith(".")
    assert not text.endswith(".")
    assert set(text) <= set("0123456789.")
    assert "." not in text or not text.endswith("0")
    assert text == "0" or not text.startswith("00")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=30) | st.decimals("-1e-300", "1e300"))
@example(Decimal("-0.0"))
@example(Decimal("0E+7"))
@example(Decimal("-0.000"))
@example(Decimal("1E+30"))
@example(Decimal(100))
@example(Decimal("1.500"))
def test_decimals_are_written_plainly(value: Decimal) -> None:
    """Prices have no exponent, no trailing zeros after the point, no negative zero, and are exact."""
    text = format_decimal(value)
    assert Decimal(text) == value
    assert "e" not in text.lower()
    assert text != "-0"
    assert "." not in text or text[-1] not in "0."


@given(amounts, amounts, st.integers(-MAX_DECIMALS, MAX_DECIMALS))
@example(1, MAX_UINT, -MAX_DECIMALS)
@example(MAX_UINT, 1, MAX_DECIMALS)
@example(MAX_UINT, MAX_UINT, 0)
@example(1, 3, 0)
@example(2, 3, 0)
def test_a_ratio_is_rounded_once(quote: int, base: int, exponent: int) -> None:
    """A price is the exact ratio rounded half to even to 24 significant digits, never twice."""
    exact = Fraction(quote, base) * Fraction(10) ** exponent
    price = ratio(quote, base, exponent)
    digits = len(price.as_tuple().digits)
    assert digits <= PRICE_DIGITS
    assert Fraction(price) == rounded(exact)


def rounded(exact: Fraction) -> Fraction:
    """`exact` to 24 significant digits, half to even, by integers only."""
    scale = PRICE_DIGITS - (len(str(exact.numerator)) - len(str(exact.denominator)))
    while exact * Fraction(10) ** scale >= 10**PRICE_DIGITS:
        scale -= 1
    shifted = exact * Fraction(10) ** scale
    assert 10 ** (PRICE_DIGITS - 1) <= shifted < 10**PRICE_DIGITS
    return Fraction(round(shifted)) / Fraction(10) ** scale


@pytest.mark.parametrize(("last", "expected"), [(0, 0), (2, 2), (4, 4), (1, 2), (3, 4), (5, 6), (7, 8)])
def test_ties_go_to_the_even_digit(last: int, expected: int) -> None:
    """A ratio exactly half way between two prices takes the even one."""
    digits = 10**23 + last
    assert int(ratio(10 * digits + 5, 10, 0)) == 10**23 + expected


@given(amounts, st.integers(1, 10**6))
def test_equal_ratios_are_equal_prices(quote: int, factor: int) -> None:
    """The same ratio gives the same price however large its terms."""
    assert ratio(quote * factor, 7 * factor, 3) == ratio(quote, 7, 3)


@given(amounts, amounts, amounts, amounts)
def test_a_percentage_is_rounded_once(a: int, b: int, c: int, d: int) -> None:
    """100 times part by whole, rounded half to even to 24 significant digits."""
    part, whole = ratio(a, b, 0), ratio(c, d, 0)
    assert Fraction(percent(part, whole)) == rounded(100 * Fraction(part) / Fraction(whole))


@given(st.integers(0, 2**64), st.integers(0, 2**32))
def test_a_trade_id_survives_a_round_trip(number: int, log_index: int) -> None:
    """`<block>-<logIndex>` reads back as it was written."""
    identity = TradeId(number, log_index)
    assert str(identity) == f"{number}-{log_index}"
    assert TradeId.parse(str(identity)) == identity


@given(st.tuples(st.integers(0, 99), st.integers(0, 99)), st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_trades_are_ordered_by_place(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Block first, then log index, as numbers: 9-0 comes before 10-0."""
    assert (TradeId(*one) < TradeId(*other)) == (one < other)


def test_an_address_becomes_lower_case() -> None:
    """Checksummed and plain spellings of an address are one address."""
    assert parse_address("0x" + "AbCd" * 10) == "0x" + "abcd" * 10


@pytest.mark.parametrize(
    "text",
    ["", "0x", "ab" * 20, "0x" + "ab" * 19, "0x" + "ab" * 21, "0x" + "zz" * 20, "0x" + "ab" * 20 + "\n"],
)
def test_other_addresses_are_refused(text: str) -> None:
    """Anything but 20 bytes of hex is no address; the error quotes it, shortened."""
    with pytest.raises(InvalidValue, match="not an address"):
        parse_address(text)
    with pytest.raises(InvalidValue) as refused:
        parse_address(text + "x" * 10_000)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("number", "own", "parent", "time"),
    [
        (-1, HASH, HASH, 0),
        (0, HASH, HASH, -1),
        (0, "", HASH, 0),
        (0, HASH, "0x", 0),
        (0, HASH.upper(), HASH, 0),
        (0, HASH[:-1], HASH, 0),
        (0, HASH, HASH + "\n", 0),
    ],
)
def test_impossible_blocks_are_refused(number: int, own: str, parent: str, time: int) -> None:
    """A block has a number and a time that are not negative, and two hashes in lower-case hex."""
    with pytest.raises(InvalidValue, match="block"):
        BlockRef(number, own, parent, time)


@pytest.mark.parametrize("places", [-1, 256, 2**256 - 1])
def test_impossible_decimals_are_refused(places: int) -> None:
    """Decimals that EIP-20's uint8 cannot hold are refused."""
    with pytest.raises(InvalidValue, match="decimals"):
        TokenInfo(places, "", "")


@pytest.mark.parametrize("places", [0, 6, 18, 77, 255])
def test_possible_decimals_are_taken(places: int) -> None:
    """Every uint8 is a number of decimals."""
    assert TokenInfo(places, "", "").decimals == places


def test_errors_of_the_domain_are_one_family() -> None:
    """Whoever catches `DomainError` has caught them all, and they are `ValueError`s."""
    assert issubclass(InvalidInterval, DomainError)
    assert issubclass(InvalidValue, DomainError)
    assert issubclass(DomainError, ValueError)


def test_an_interval_of_a_day_is_a_day() -> None:
    """`1d` opens at midnight UTC whatever the time zone of the machine."""
    assert Interval.parse("1d").ms == DAY_MS
    assert Interval.parse("1d").open_time(5 * DAY_MS + 1) == 5 * DAY_MS

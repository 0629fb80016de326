"""Checked value types, and the two number formats of the public contract.

Amounts are integers in base units (wei). Prices are `Decimal`s that were rounded exactly once.
"""

import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple, NewType

from listener.domain.errors import InvalidInterval, InvalidValue

Address = NewType("Address", str)
"""20 bytes as `0x` and 40 lower-case hex digits."""

MarketId = NewType("MarketId", str)
"""Opaque. On a launchpad the traded token's address."""

Price = Decimal
"""Quote per base in whole tokens, at most 24 significant digits."""

Timestamp = int
"""Unix milliseconds."""

ZERO_ADDRESS: Final = Address("0x" + "0" * 40)

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
WEEK_MS: Final = 7 * DAY_MS
FIRST_MONDAY_MS: Final = 4 * DAY_MS
"""1970-01-05 00:00 UTC. The Unix epoch was a Thursday."""

PRICE_DIGITS: Final = 24
_ROUNDED: Final = Context(prec=PRICE_DIGITS, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)
_divide: Final = _ROUNDED.divide
EXACT: Final = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)
"""For sums and differences of prices, which are never rounded."""

_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")
_HASH: Final = re.compile(r"0x[0-9a-f]{64}")
_INTERVAL: Final = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
_UNIT_MS: Final = {"m": MINUTE_MS, "h": 60 * MINUTE_MS, "d": DAY_MS, "w": WEEK_MS}


def parse_address(text: str) -> Address:
    """Return `text` as a lower-case address.

    Raises:
        InvalidValue: it is not 20 bytes of hex.
    """
    lowered = text.lower()
    if not _ADDRESS.fullmatch(lowered):
        raise InvalidValue(f"not an address: {text[:80]!r}")
    return Address(lowered)


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block's place in the chain. Time in milliseconds."""

    number: int
    hash: str
    parent_hash: str
    timestamp: Timestamp

    def __post_init__(self) -> None:
        """Refuse what no chain produces."""
        if self.number < 0 or self.timestamp < 0:
            raise InvalidValue(f"negative block number or time: {self.number}, {self.timestamp}")
        if not _HASH.fullmatch(self.hash) or not _HASH.fullmatch(self.parent_hash):
            raise InvalidValue(f"block {self.number}: not a block hash: {self.hash[:80]!r}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A candle length: whole minutes that divide a day, or a week that opens on Monday, UTC."""

    name: str
    ms: int

    @classmethod
    def parse(cls, name: str) -> "Interval":
        """Return the interval called `name`, such as `5m`, `4h`, `1d` or `1w`.

        Raises:
            InvalidInterval: the name has another form, or the length does not divide a day.
        """
        match = _INTERVAL.fullmatch(name)
        if not match:
            raise InvalidInterval(f"unknown interval {name!r}: write 1m, 15m, 4h, 1d or 1w")
        ms = int(match[1]) * _UNIT_MS[match[2]]
        if name != "1w" and DAY_MS % ms:
            raise InvalidInterval(f"interval {name!r} does not divide a day (1w is the only longer one)")
        return cls(name, ms)

    def open_time(self, timestamp: Timestamp) -> Timestamp:
        """Open time of the bucket `[t, t + ms)` that holds `timestamp`."""
        if self.ms == WEEK_MS:
            return timestamp - (timestamp - FIRST_MONDAY_MS) % WEEK_MS
        return timestamp - timestamp % self.ms

    def __str__(self) -> str:
        return self.name


ONE_MINUTE: Final = Interval("1m", MINUTE_MS)


class TradeId(NamedTuple):
    """A trade's place on its chain, and the only order trades have: block, then log index."""

    block: int
    log_index: int

    @classmethod
    def parse(cls, text: str) -> "TradeId":
        """Read the `<block>-<logIndex>` form."""
        block, _, log_index = text.partition("-")
        return cls(int(block), int(log_index))

    def __str__(self) -> str:
        return f"{self.block}-{self.log_index}"


def ratio(quote: int, base: int, exponent: int) -> Price:
    """`quote / base * 10**exponent`, rounded once, half to even, to 24 significant digits.

    Args:
        quote: base units of the quote token.
        base: base units of the base token; not zero.
        exponent: base decimals minus quote decimals.
    """
    price = _divide(quote, base)
    return price.scaleb(exponent, _ROUNDED) if exponent else price


def percent(part: Decimal, whole: Decimal) -> Decimal:
    """`100 * part / whole` to 24 significant digits."""
    return _ROUNDED.divide(EXACT.multiply(part, Decimal(100)), whole)


def format_decimal(value: Decimal) -> str:
    """Plain decimal notation: no exponent, no trailing zeros, no negative zero."""
    text = f"{value:f}"
    if text[-1] == "0" and "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def format_units(units: int, decimals: int) -> str:
    """`units * 10**-decimals` in plain decimal notation. `units` is not negative."""
    if not units:
        return "0"
    digits = str(units)
    places = len(digits) - decimals
    if places <= 0:
        return f"0.{digits.zfill(decimals).rstrip('0')}"
    fraction = digits[places:].rstrip("0")
    return f"{digits[:places]}.{fraction}" if fraction else digits[:places]


def parse_units(text: str, decimals: int) -> int:
    """Inverse of `format_units`."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0"))

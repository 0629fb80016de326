"""Folded minutes of a rolling day, and a packed form for those that nobody looks at for hours."""

from decimal import Decimal
from struct import Struct
from typing import Final, NamedTuple

from listener.domain.entities import Candle
from listener.domain.value_objects import EXACT, MINUTE_MS, PRICE_DIGITS, Price, Timestamp, TradeId

_PACKED: Final = Struct(">IIIIQIhhhB")
"""Minutes of `until` and `open_time`, trades, buys, first trade, scales of the prices, bytes of an amount."""
_TIMES: Final = Struct(">II")
_UNTIL: Final = Struct(">I")
_MOST_SCALE: Final = PRICE_DIGITS - 1
_PRICE_BYTES: Final = 10
_PRICE_BITS: Final = 8 * _PRICE_BYTES
_PRICE_MASK: Final = (1 << _PRICE_BITS) - 1


class Part(NamedTuple):
    """Minutes in a row, folded. There are always later ones, so nobody asks for the close.

    Attributes:
        open_time: of the oldest minute.
        until: open time of the newest of the minutes that are not told apart from the oldest.
        first: the oldest trade.
    """

    open_time: Timestamp
    until: Timestamp
    open: Price
    high: Price
    low: Price
    base: int
    quote: int
    bought_base: int
    bought_quote: int
    trades: int
    buys: int
    first: TradeId

    @classmethod
    def of(cls, minute: Candle) -> "Part":
        """One minute."""
        time, opened, high, low, _, base, quote, bought_base, bought_quote, trades, buys, first, _, _ = minute
        return cls(time, time, opened, high, low, base, quote, bought_base, bought_quote, trades, buys, first)

    def merge(self, later: "Part | Candle", until: Timestamp) -> "Part":
        """Fold with what comes later."""
        return Part(
            self.open_time,
            until,
            self.open,
            max(self.high, later.high),
            min(self.low, later.low),
            self.base + later.base,
            self.quote + later.quote,
            self.bought_base + later.bought_base,
            self.bought_quote + later.bought_quote,
            self.trades + later.trades,
            self.buys + later.buys,
            self.first,
        )

    def end(self, last: Candle) -> Candle:
        """A candle that ends with the minute `last`."""
        return Candle(
            self.open_time,
            self.open,
            max(self.high, last.high),
            min(self.low, last.low),
            last.close,
            self.base + last.base,
            self.quote + last.quote,
            self.bought_base + last.bought_base,
            self.bought_quote + last.bought_quote,
            self.trades + last.trades,
            self.buys + last.buys,
            self.first,
            last.last,
        )

    def pack(self) -> bytes:
        """A sixth of the memory; packed parts sort by `until`."""
        open_time, until, opened, high, low, base, quote, bought_base, bought_quote, trades, buys, first = (
            self
        )
        scales = _MOST_SCALE - opened.adjusted(), _MOST_SCALE - high.adjusted(), _MOST_SCALE - low.adjusted()
        prices = int(opened.scaleb(scales[0], EXACT)) << _PRICE_BITS | int(high.scaleb(scales[1], EXACT))
        prices = prices << _PRICE_BITS | int(low.scaleb(scales[2], EXACT))
        size = (max(base, quote).bit_length() + 7) // 8
        bits = 8 * size
        amounts = ((base << bits | quote) << bits | bought_base) << bits | bought_quote
        fixed = _PACKED.pack(
            until // MINUTE_MS, open_time // MINUTE_MS, trades, buys, first[0], first[1], *scales, size
        )
        return fixed + (amounts << 3 * _PRICE_BITS | prices).to_bytes(4 * size + 3 * _PRICE_BYTES, "big")

    @classmethod
    def unpack(cls, packed: bytes) -> "Part":
        """Inverse of `pack`."""
        until, open_time, trades, buys, block, log_index, open_scale, high_scale, low_scale, size = (
            _PACKED.unpack_from(packed)
        )
        numbers = int.from_bytes(packed[_PACKED.size :], "big")
        amounts, bits = numbers >> 3 * _PRICE_BITS, 8 * size
        mask = (1 << bits) - 1
        return cls(
            open_time * MINUTE_MS,
            until * MINUTE_MS,
            Decimal(numbers >> 2 * _PRICE_BITS & _PRICE_MASK).scaleb(-open_scale, EXACT),
            Decimal(numbers >> _PRICE_BITS & _PRICE_MASK).scaleb(-high_scale, EXACT),
            Decimal(numbers & _PRICE_MASK).scaleb(-low_scale, EXACT),
            amounts >> 3 * bits,
            amounts >> 2 * bits & mask,
            amounts >> bits & mask,
            amounts & mask,
            trades,
            buys,
            TradeId(block, log_index),
        )


def times(packed: bytes) -> tuple[Timestamp, Timestamp]:
    """`open_time` and `until` of a packed part."""
    until, open_time = _TIMES.unpack_from(packed)
    return open_time * MINUTE_MS, until * MINUTE_MS


def key(time: Timestamp) -> bytes:
    """Sorts after the packed parts whose `until` is before `time`, and before the others."""
    return _UNTIL.pack(max(time // MINUTE_MS, 0))

"""Trades, candles, markets and their 24 h statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from listener.domain.errors import InvalidValue
from listener.domain.value_objects import (
    DAY_MS,
    EXACT,
    MINUTE_MS,
    Address,
    MarketId,
    Price,
    Timestamp,
    TradeId,
    percent,
    ratio,
)

MAX_DECIMALS = 255
"""`decimals()` is a uint8 (EIP-20)."""


class Trade(NamedTuple):
    """One exchange of base against quote. Amounts in base units."""

    market: MarketId
    id: TradeId
    block_hash: str
    tx_hash: str
    timestamp: Timestamp
    is_buy: bool
    trader: Address
    base: int
    quote: int
    fee: int | None
    price: Price
    execution_price: Price
    spot_price: Price | None


class Candle(NamedTuple):
    """Trades of one bucket, folded.

    Candles of one bucket form a monoid under `merge`: any grouping of the same trades gives the same
    candle, because open and close carry the positions of their trades.
    """

    open_time: Timestamp
    open: Price
    high: Price
    low: Price
    close: Price
    base: int
    quote: int
    bought_base: int
    bought_quote: int
    trades: int
    buys: int
    first: TradeId
    last: TradeId
    previous_close: Price | None = None

    @classmethod
    def of(cls, trades: Sequence[Trade], open_time: Timestamp) -> "Candle":
        """A candle of trades in their order: what merging candles of one each would give."""
        base = quote = bought_base = bought_quote = buys = 0
        first, last = trades[0], trades[-1]
        high = low = first.price
        for trade in trades:
            base += trade.base
            quote += trade.quote
            if trade.is_buy:
                bought_base += trade.base
                bought_quote += trade.quote
                buys += 1
            price = trade.price
            if price > high:
                high = price
            elif price < low:
                low = price
        return cls(
            open_time,
            first.price,
            high,
            low,
            last.price,
            base,
            quote,
            bought_base,
            bought_quote,
            len(trades),
            buys,
            first.id,
            last.id,
        )

    def merge(self, other: "Candle") -> "Candle":
        """Fold two candles of disjoint trades into one, labelled as this one."""
        early, late = (self, other) if self.first < other.first else (other, self)
        end = late if late.last > early.last else early
        return Candle(
            self.open_time,
            early.open,
            max(self.high, other.high),
            min(self.low, other.low),
            end.close,
            self.base + other.base,
            self.quote + other.quote,
            self.bought_base + other.bought_base,
            self.bought_quote + other.bought_quote,
            self.trades + other.trades,
            self.buys + other.buys,
            early.first,
            end.last,
            early.previous_close,
        )


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a token says of itself, read once when its market is created."""

    decimals: int
    name: str
    symbol: str

    def __post_init__(self) -> None:
        """Refuse decimals that EIP-20 does not allow."""
        if not 0 <= self.decimals <= MAX_DECIMALS:
            raise InvalidValue(f"decimals out of range: {self.decimals}")


@dataclass(frozen=True, slots=True)
class Market:
    """A base token traded against a quote token, and the source whose events count for it."""

    id: MarketId
    venue: str
    source: str
    token: Address
    quote: Address
    quote_symbol: str
    base_decimals: int
    quote_decimals: int
    name: str
    symbol: str
    creator: Address
    created_block: int
    created_at: Timestamp
    status: str = "trading"
    successor: str = ""

    @property
    def price_exponent(self) -> int:
        """Power of ten that turns a ratio of base units into a ratio of whole tokens."""
        return self.base_decimals - self.quote_decimals


class MarketStats(NamedTuple):
    """Rolling 24 h figures: the fold of the window, or the last price where the window is empty."""

    changed_minute: Timestamp
    last_price: Price
    window: Candle | None

    @property
    def close_time(self) -> Timestamp:
        """Last millisecond of the minute in which the figures last changed."""
        return self.changed_minute + MINUTE_MS - 1

    @property
    def open_time(self) -> Timestamp:
        """First millisecond of the 24 h that end with `close_time`."""
        return self.changed_minute + MINUTE_MS - DAY_MS

    @property
    def open_price(self) -> Price:
        """First price of the window."""
        return self.window.open if self.window else self.last_price

    @property
    def price_change(self) -> Price:
        """Last minus first price, exact."""
        return EXACT.subtract(self.last_price, self.open_price)

    @property
    def price_change_percent(self) -> Price:
        """Change in per cent of the first price."""
        return percent(self.price_change, self.open_price)

    def weighted_average_price(self, exponent: int) -> Price | None:
        """Quote volume by base volume, absent in an empty window."""
        return ratio(self.window.quote, self.window.base, exponent) if self.window else None

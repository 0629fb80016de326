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
    """One exchange of base against quote. Amounts and reserves in base units.

    Prices are divided when they are asked for: of most trades of a long history nobody asks.

    Attributes:
        reserves: base and quote after the trade, where its event tells them.
        exponent: power of ten that turns a ratio of base units into a ratio of whole tokens.
        by_reserves: candles are made of the price after the trade, where it is known.
    """

    market: MarketId
    block: int
    log_index: int
    block_hash: str
    tx_hash: str
    timestamp: Timestamp
    is_buy: bool
    trader: Address
    base: int
    quote: int
    fee: int | None
    reserves: tuple[int, int] | None
    exponent: int
    by_reserves: bool

    @property
    def id(self) -> TradeId:
        """Its place on the chain."""
        return TradeId(self.block, self.log_index)

    @property
    def execution_price(self) -> Price:
        """What was paid for what was got."""
        return ratio(self.quote, self.base, self.exponent)

    @property
    def spot_price(self) -> Price | None:
        """The price after the trade; None where there are no reserves."""
        if self.reserves is None or not all(self.reserves):
            return None
        return ratio(self.reserves[1], self.reserves[0], self.exponent)

    @property
    def price(self) -> Price:
        """The price that candles are made of."""
        spot = self.spot_price if self.by_reserves else None
        return self.execution_price if spot is None else spot


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
        prices = [trade.price for trade in trades]
        for trade in trades:
            base += trade.base
            quote += trade.quote
            if trade.is_buy:
                bought_base += trade.base
                bought_quote += trade.quote
                buys += 1
        return cls(
            open_time,
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            base,
            quote,
            bought_base,
            bought_quote,
            len(trades),
            buys,
            trades[0].id,
            trades[-1].id,
        )

    @classmethod
    def joined(cls, candles: Sequence["Candle"], open_time: Timestamp) -> "Candle":
        """A candle of others that follow each other: what merging them would give."""
        first, last = candles[0], candles[-1]
        if first is last:
            return cls(open_time, *first[1:])
        return cls(
            open_time,
            first.open,
            max([candle.high for candle in candles]),
            min([candle.low for candle in candles]),
            last.close,
            sum([candle.base for candle in candles]),
            sum([candle.quote for candle in candles]),
            sum([candle.bought_base for candle in candles]),
            sum([candle.bought_quote for candle in candles]),
            sum([candle.trades for candle in candles]),
            sum([candle.buys for candle in candles]),
            first.first,
            last.last,
            first.previous_close,
        )

    def merge(self, other: "Candle") -> "Candle":
        """Fold two candles of disjoint trades into one, labelled as this one."""
        (
            time,
            o1,
            h1,
            l1,
            c1,
            base1,
            quote1,
            bought_base1,
            bought_quote1,
            trades1,
            buys1,
            first1,
            last1,
            p1,
        ) = self
        _, o2, h2, l2, c2, base2, quote2, bought_base2, bought_quote2, trades2, buys2, first2, last2, p2 = (
            other
        )
        is_first, is_last = first1 < first2, last1 > last2
        return Candle(
            time,
            o1 if is_first else o2,
            max(h1, h2),
            min(l1, l2),
            c1 if is_last else c2,
            base1 + base2,
            quote1 + quote2,
            bought_base1 + bought_base2,
            bought_quote1 + bought_quote2,
            trades1 + trades2,
            buys1 + buys2,
            first1 if is_first else first2,
            last1 if is_last else last2,
            p1 if is_first else p2,
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

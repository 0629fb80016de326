"""What has happened, for handlers written in Python: rows of the outbox as typed values.

Names and meanings are those of the public contract (docs/contract.md), spelled out. Times are Unix
milliseconds, amounts and prices exact `Decimal`s in whole tokens, addresses, hashes and ids lower-case text.
"""

from decimal import Decimal
from typing import Literal

from msgspec import Struct, field


class Trade(Struct, frozen=True, kw_only=True, gc=False):
    """One exchange of base against quote.

    Attributes:
        id: `<block>-<logIndex>`; a reorg may give it to another trade, in another block of that number.
        price: what candles are made of (`PRICE_MODE`).
        spot_price: None: the reserves after it are not known.
        base: amount, like `quote` and `fee`.
        fee: in quote; None: its venue does not say.
    """

    id: str
    market: str = field(name="s")
    time: int = field(name="t")
    block: int = field(name="b")
    block_hash: str = field(name="bh")
    log_index: int = field(name="li")
    transaction: str = field(name="tx")
    side: Literal["buy", "sell"]
    trader: str
    price: Decimal = field(name="p")
    execution_price: Decimal = field(name="xp")
    spot_price: Decimal | None = field(name="sp", default=None)
    base: Decimal = field(name="v")
    quote: Decimal = field(name="q")
    fee: Decimal | None = None


class Candle(Struct, frozen=True, kw_only=True, gc=False):
    """Trades of one bucket, `[open_time, open_time + interval)`.

    Attributes:
        previous_close: of the market's candle before; None: this is its first.
        bought_base: the part of `base` in which base was bought; `bought_quote` likewise.
        trades: how many, of which `buys` buys.
        first: id of the first trade; `last` likewise.
    """

    open_time: int = field(name="t")
    open: Decimal = field(name="o")
    high: Decimal = field(name="h")
    low: Decimal = field(name="l")
    close: Decimal = field(name="c")
    previous_close: Decimal | None = field(name="pc", default=None)
    base: Decimal = field(name="v")
    quote: Decimal = field(name="q")
    bought_base: Decimal = field(name="V")
    bought_quote: Decimal = field(name="Q")
    trades: int = field(name="n")
    buys: int = field(name="N")
    first: str = field(name="f")
    last: str = field(name="L")


class Market(Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """A base token traded against a quote token.

    Attributes:
        status: `trading` or `graduated`.
        successor: the pool that takes over; empty until known.
        emitter: the contract whose events count.
    """

    id: str = field(name="s")
    venue: str
    token: str
    quote: str
    quote_symbol: str
    base_decimals: int
    quote_decimals: int
    name: str
    symbol: str
    creator: str
    created_block: int
    created_at: int
    status: str
    successor: str
    emitter: str


class DayStats(Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """A market's rolling 24 h.

    Attributes:
        weighted_avg_price: None: nobody traded in these 24 h.
    """

    open_time: int
    close_time: int
    open_price: Decimal
    high_price: Decimal
    low_price: Decimal
    last_price: Decimal
    price_change: Decimal
    price_change_percent: Decimal
    weighted_avg_price: Decimal | None = None
    volume: Decimal
    quote_volume: Decimal
    count: int
    buy_volume: Decimal
    sell_volume: Decimal
    buy_count: int
    sell_count: int


class Alert(Struct, frozen=True, kw_only=True, gc=False):
    """A rule that was met.

    Attributes:
        id: unique; that of its retraction, too.
        rule: id of the rule.
        trade: id of the trade that met it; None: it was no trade.
        value: what was measured; None, like `threshold`, for rules that measure nothing.
        window_ms: what `value` was measured over; None for rules without a window.
    """

    id: str
    rule: str
    kind: str
    market: str = field(name="s")
    block: int = field(name="b")
    block_hash: str = field(name="bh")
    time: int = field(name="t")
    trade: str | None = None
    value: Decimal | None = None
    threshold: Decimal | None = None
    window_ms: int | None = field(name="windowMs", default=None)


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """Something that has happened, and its place in the stream.

    Attributes:
        key: the same at every delivery of this event, and no other event's: store it to do things once.
        epoch: of the row that it came with.
        seq: number of that row within its epoch; (`epoch`, `seq`) never goes back, and several events may
            share it.
    """

    key: str
    epoch: int
    seq: int


class TradeProcessed(Event, frozen=True, kw_only=True, gc=False):
    """A trade was folded into its market's candles."""

    trade: Trade


class CandleUpdated(Event, frozen=True, kw_only=True, gc=False):
    """A candle is new or has changed; read when it is told, so that states in between are left out."""

    market: str
    interval: str
    candle: Candle


class CandleClosed(Event, frozen=True, kw_only=True, gc=False):
    """A candle is complete.

    Attributes:
        corrected: it was closed before, and a reorg or a late block has changed it.
    """

    market: str
    interval: str
    candle: Candle
    corrected: bool = False


class CandleRemoved(Event, frozen=True, kw_only=True, gc=False):
    """A reorg left a bucket without a trade: forget its candle."""

    market: str
    interval: str
    open_time: int


class CandlesClosed(Event, frozen=True, kw_only=True, gc=False):
    """Every candle of the interval whose last millisecond is not after `up_to` is closed."""

    interval: str
    up_to: int


class StatsUpdated(Event, frozen=True, kw_only=True, gc=False):
    """A market's 24 h figures have changed.

    Attributes:
        stats: None: a reorg left the market without a trade.
    """

    market: str
    stats: DayStats | None


class MarketCreated(Event, frozen=True, kw_only=True, gc=False):
    """A factory created a market."""

    market: Market


class MarketRemoved(Event, frozen=True, kw_only=True, gc=False):
    """A reorg undid a market's creation."""

    market: str


class MarketGraduated(Event, frozen=True, kw_only=True, gc=False):
    """A curve reached its threshold and stopped trading."""

    market: Market


class MarketRestored(Event, frozen=True, kw_only=True, gc=False):
    """A reorg put a market's record back: it trades as before."""

    market: Market


class ReorgDetected(Event, frozen=True, kw_only=True, gc=False):
    """Blocks were orphaned: forget trades whose `block` is above `ancestor`; corrections follow.

    Attributes:
        ancestor: number of the newest block that stayed; `ancestor_hash` is its hash.
        depth: how many blocks were orphaned.
        orphaned: their hashes, 4,000 at most; more are told by a `Resync`.
        markets: those that had changed in them, as many at most.
        since: open time of the oldest candle that is corrected.
    """

    ancestor: int
    ancestor_hash: str
    depth: int
    orphaned: tuple[str, ...]
    markets: tuple[str, ...]
    since: int


class AlertTriggered(Event, frozen=True, kw_only=True, gc=False):
    """A rule was met."""

    alert: Alert


class AlertRetracted(Event, frozen=True, kw_only=True, gc=False):
    """A reorg undid the block that had met a rule."""

    alert: Alert


class Resync(Event, frozen=True, kw_only=True, gc=False):
    """More has happened than is told one by one: read Redis again.

    Rows fell off before they were handled, or history was loaded.
    """

    reason: str

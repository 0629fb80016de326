"""What has happened, in the past tense. Every event is derived from a committed change set."""

from dataclasses import dataclass

from listener.domain.alerts import Alert
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.value_objects import BlockRef, Interval, MarketId, Timestamp


@dataclass(frozen=True, slots=True)
class MarketCreated:
    """A factory created a market."""

    market: Market


@dataclass(frozen=True, slots=True)
class MarketRemoved:
    """A reorg undid a market's creation."""

    market: MarketId


@dataclass(frozen=True, slots=True)
class MarketGraduated:
    """A curve reached its threshold and stopped trading."""

    market: Market


@dataclass(frozen=True, slots=True)
class MarketRestored:
    """A reorg undid a market's graduation; it trades again."""

    market: Market


@dataclass(frozen=True, slots=True)
class TradeProcessed:
    """A trade was folded into its market's candles."""

    trade: Trade
    market: Market


@dataclass(frozen=True, slots=True)
class CandleUpdated:
    """A candle is new, has changed, or (`candle` is None) no longer exists."""

    market: MarketId
    interval: Interval
    open_time: Timestamp
    candle: Candle | None


@dataclass(frozen=True, slots=True)
class CandlesClosed:
    """Every candle of the interval that closes up to `up_to` is closed."""

    interval: Interval
    up_to: Timestamp


@dataclass(frozen=True, slots=True)
class StatsUpdated:
    """A market's 24 h figures have changed, or (`stats` is None) no longer exist."""

    market: MarketId
    stats: MarketStats | None


@dataclass(frozen=True, slots=True)
class ReorgDetected:
    """Blocks above `ancestor` were orphaned; corrected candles follow."""

    ancestor: BlockRef
    orphaned: tuple[str, ...]
    markets: tuple[MarketId, ...]
    earliest_bucket: Timestamp


@dataclass(frozen=True, slots=True)
class HistoryLoaded:
    """More has changed than was told one by one: read the store again."""

    reason: str


@dataclass(frozen=True, slots=True)
class AlertTriggered:
    """An alert rule came true, or (`alert.retracted`) a reorg undid the block in which it did."""

    alert: Alert


DomainEvent = (
    MarketCreated
    | MarketRemoved
    | MarketGraduated
    | MarketRestored
    | TradeProcessed
    | CandleUpdated
    | CandlesClosed
    | StatsUpdated
    | ReorgDetected
    | HistoryLoaded
    | AlertTriggered
)

"""What one commit does: the states it starts from, the change set, and how to undo it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from listener.application.rules import Rules
from listener.domain.alerts import Alert, StateKey
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.events import (
    AlertTriggered,
    CandlesClosed,
    CandleUpdated,
    DomainEvent,
    HistoryLoaded,
    MarketCreated,
    MarketGraduated,
    MarketRemoved,
    MarketRestored,
    ReorgDetected,
    StatsUpdated,
    TradeProcessed,
)
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import (
    BlockRef,
    Interval,
    MarketId,
    Price,
    Timestamp,
)

TRIM_EVERY: Final = 16
"""Candles of a series between two looks at its oldest ones."""


@dataclass(frozen=True, slots=True)
class Head:
    """The committed head and the fence of its writer.

    Attributes:
        as_of: the instant up to which rolling figures are exact, never before `timestamp`.
        gen: raised by every rollback and takeover; a commit made under an older one is refused.
        epoch: raised by every start; with `seq`, the number of the last outbox row, it only grows.
    """

    number: int
    hash: str
    timestamp: Timestamp
    as_of: Timestamp
    gen: int
    epoch: int
    seq: int


class MarketState(NamedTuple):
    """One market's newest candles, enough to fold the next trade.

    Attributes:
        live: the newest candle of each interval, in the order of `Rules.intervals`.
    """

    market: Market
    live: Sequence[Candle | None]
    day: RollingDay
    last_price: Price | None

    @classmethod
    def new(cls, market: Market, intervals: int) -> "MarketState":
        """A market without trades."""
        return cls(market, (None,) * intervals, RollingDay.of(()), None)

    def stats(self) -> MarketStats | None:
        """The 24 h figures, or None before the first trade."""
        if self.last_price is None:
            return None
        return MarketStats(self.day.changed, self.last_price, self.day.total())


def outgrown(interval: Interval, old: Timestamp, new: Timestamp) -> bool:
    """Whether it is time to look at a series' oldest candles, now that its newest one opens at `new`.

    Now and then is enough: readers may find candles that are too old. Columns of times do as well.
    """
    return old // (TRIM_EVERY * interval.ms) < new // (TRIM_EVERY * interval.ms)


class CandleChange(NamedTuple):
    """A candle as it shall be (None: gone) and as it was (None: it was not)."""

    market: MarketId
    interval: Interval
    open_time: Timestamp
    after: Candle | None
    before: Candle | None


class CandleBatch(Protocol):
    """Candles of final blocks, many at once, held as an adapter likes: one that knows them writes them."""

    def __len__(self) -> int: ...

    def changes(self) -> Iterable[CandleChange]:
        """Them one by one, without how they were before."""
        ...


class MarketUndo(NamedTuple):
    """How one block changed one market, seen backwards.

    Attributes:
        created: the block created the market.
        record: the market as it was, where the block changed its record.
        trades: how many trades the block added.
        last_price: last close before the block.
        changed: the minute in which the 24 h figures would last have changed without the block.
        candles: interval, open time and the candle as it was; None: it was not.
    """

    market: MarketId
    created: bool
    record: Market | None
    trades: int
    last_price: Price | None
    changed: Timestamp
    candles: tuple[tuple[str, Timestamp, Candle | None], ...]


class AlertUndo(NamedTuple):
    """The alerts of one block, and how the rules stood before it.

    Attributes:
        states: in which block a rule had come true; None: it was armed.
    """

    fired: tuple[Alert, ...] = ()
    states: tuple[tuple[StateKey, int | None], ...] = ()


class BlockUndo(NamedTuple):
    """The before-image of one block: what to restore when it is orphaned.

    Attributes:
        digest: of the logs it was made from, for the audit.
    """

    block: BlockRef
    as_of: Timestamp
    markets: tuple[MarketUndo, ...]
    digest: str = ""
    alerts: AlertUndo = AlertUndo()


@dataclass(slots=True)
class ChangeSet:
    """Everything one commit does, or leaves undone if the head is not `base`."""

    base: Head
    head: Head
    live: bool
    """Whether rows are written for the backend one by one; otherwise a `resync` is owed."""
    reason: str = ""
    """Why a `resync` is announced with this commit; empty: it is not."""
    blocks: tuple[BlockRef, ...] = ()
    reorg: ReorgDetected | None = None
    created: dict[MarketId, Market] = field(default_factory=dict)
    removed: dict[MarketId, Market] = field(default_factory=dict)
    graduated: dict[MarketId, Market] = field(default_factory=dict)
    records: dict[MarketId, Market] = field(default_factory=dict)
    counted: int = 0
    """How many trades were folded."""
    trades: list[Trade] = field(default_factory=list)
    """All of them, in order, if the commit can be undone."""
    newest: dict[MarketId, Sequence[Trade]] = field(default_factory=dict)
    """Those that may be kept, by market, oldest first."""
    dropped_trades: dict[MarketId, int] = field(default_factory=dict)
    trades_kept: dict[MarketId, int] = field(default_factory=dict)
    candles: list[CandleChange] = field(default_factory=list)
    more_candles: CandleBatch | None = None
    """Of other markets than those in `candles`."""
    trims: list[tuple[MarketId, Interval, Timestamp]] = field(default_factory=list)
    stats: dict[MarketId, MarketStats | None] = field(default_factory=dict)
    due: dict[MarketId, Timestamp | None] = field(default_factory=dict)
    closed: dict[str, Timestamp] = field(default_factory=dict)
    undo: BlockUndo | None = None
    undo_dropped: list[int] = field(default_factory=list)
    states: dict[MarketId, MarketState] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    """Told even if `live` is not set."""
    alert_states: dict[StateKey, int | None] = field(default_factory=dict)
    """In which block a rule has come true; None: it is armed again."""
    minutes: dict[MarketId, Sequence[Candle]] = field(default_factory=dict)
    """One-minute candles that change, of markets whose every trade is held against rules."""
    rejected: Counter[str] = field(default_factory=Counter)

    def market(self, market: MarketId) -> Market:
        """The record of a market that this change set touches."""
        return self.states[market].market

    def events(self, rules: Rules) -> Iterator[DomainEvent]:
        """What has happened once this is committed, in the order in which it is told."""
        if self.reason:
            yield HistoryLoaded(self.reason)
        if self.live:
            yield from self._market_events()
        yield from map(AlertTriggered, self.alerts)
        if self.live:
            yield from self._figure_events(rules)

    def _market_events(self) -> Iterator[DomainEvent]:
        if self.reorg:
            yield self.reorg
        yield from map(MarketRemoved, self.removed)
        yield from map(MarketCreated, self.created.values())
        for trade in self.trades:
            yield TradeProcessed(trade, self.market(trade.market))
        yield from map(MarketGraduated, self.graduated.values())
        if self.reorg:
            yield from map(MarketRestored, self.records.values())

    def _figure_events(self, rules: Rules) -> Iterator[DomainEvent]:
        for change in self.candles:
            if change.interval.name in rules.published:
                yield CandleUpdated(change.market, change.interval, change.open_time, change.after)
        for market_id, stats in self.stats.items():
            yield StatsUpdated(market_id, stats)
        for interval in rules.intervals:
            if interval.name in self.closed and interval.name in rules.published:
                yield CandlesClosed(interval, self.closed[interval.name])

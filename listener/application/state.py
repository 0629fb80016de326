"""What the service knows between two commits, and what one commit changes."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from typing import Final, Literal, NamedTuple, Protocol

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
    ONE_MINUTE,
    ZERO_ADDRESS,
    Address,
    BlockRef,
    Interval,
    MarketId,
    Price,
    Timestamp,
)

PriceMode = Literal["execution", "spot"]

TRIM_EVERY: Final = 16
"""Candles of a series between two looks at its oldest ones."""


MOST_UNDOABLE: Final = 10_000
"""Before-images kept, whatever the other bounds say: finality may stall for ever."""


@dataclass(frozen=True, slots=True)
class Finality:
    """When a block cannot be undone any more: all bounds must be met.

    Attributes:
        blocks: it lies so far below the newest block.
        ms: it is so much older than the newest block.
    """

    blocks: int
    ms: int = 0

    def reached(self, block: BlockRef, newest: BlockRef, finalized: int | None) -> bool:
        """Whether `block` is final, given the newest block and what the node calls finalized."""
        depth = newest.number - block.number
        if depth > MOST_UNDOABLE:
            return True
        return (
            depth >= self.blocks
            and newest.timestamp - block.timestamp >= self.ms
            and (finalized is None or block.number <= finalized)
        )


@dataclass(frozen=True)
class Rules:
    """The settings that give candles their meaning.

    Attributes:
        intervals: one minute first, always; then the others, ascending.
        published: names of the intervals whose changes are told to the backend.
        retention_ms: how long a candle is kept after its open time, by interval name; absent: for ever.
        trades_kept: newest trades kept for a market.
        finality: when a block cannot be undone any more.
        audit_blocks: so many final blocks more keep their before-images, until the audit has seen them.
        factories: addresses whose announcements count.
    """

    intervals: tuple[Interval, ...]
    published: frozenset[str]
    price_mode: PriceMode
    retention_ms: Mapping[str, int]
    trades_kept: int
    finality: Finality
    factories: frozenset[Address]
    audit_blocks: int = 0
    native_symbol: str = "ETH"
    native_decimals: int = 18

    def __post_init__(self) -> None:
        """One-minute candles are the base of everything else."""
        if self.intervals[0] != ONE_MINUTE:
            raise ValueError("the first interval must be 1m")

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """For each interval but the first, the widest one before it whose candles fit into its own."""
        return tuple(
            max(place for place in range(index) if wide.ms % self.intervals[place].ms == 0)
            for index, wide in enumerate(self.intervals)
            if index
        )

    def is_native(self, token: Address) -> bool:
        """Whether `token` stands for the chain's own coin."""
        return token == ZERO_ADDRESS


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


class Written(NamedTuple):
    """A block that can be undone, the trades it added, by market, and the digest of its logs."""

    block: BlockRef
    trades: Mapping[MarketId, int]
    digest: str = ""

    @classmethod
    def of(cls, undo: BlockUndo) -> "Written":
        """What is remembered of a block's before-image."""
        return cls(
            undo.block,
            {market.market: market.trades for market in undo.markets if market.trades},
            undo.digest,
        )


@dataclass(slots=True)
class StreamState:
    """The writer's view of its stream. Read-only to use cases; only `apply` changes it.

    Attributes:
        base: number of the block on which the stored data begins.
        window: committed blocks that can still be undone, oldest first; the last is the head. Its
            first entry is the fork point below which nothing can be undone.
        sources: which market an emitter's events count for.
        closed: close time of the last closed candle, by interval name.
        resync_owed: whether something was committed that the backend was not told one by one.
        audited: number of the newest block that a second look has confirmed.
        finalized: number of the newest block that the node calls final; None where it names none.
    """

    base: int
    head: Head
    window: deque[Written]
    sources: dict[str, MarketId]
    closed: dict[str, Timestamp]
    resync_owed: bool
    audited: int = -1
    finalized: int | None = None
    markets: set[MarketId] = field(init=False)
    pending: Counter[MarketId] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what is looked up by market."""
        self.markets = set(self.sources.values())
        self.pending = Counter()
        for written in self.window:
            self.pending.update(written.trades)

    @property
    def final_timestamp(self) -> Timestamp:
        """Time of the newest block that cannot be undone."""
        return self.window[0].block.timestamp

    def recent(self) -> list[BlockRef]:
        """Committed blocks that can still be compared with the node's, the head last."""
        return [written.block for written in self.window]

    def no_longer_undoable(self, newest: BlockRef, rules: Rules) -> list[int]:
        """Numbers of the blocks whose before-images go when `newest` is committed.

        One final block stays: the fork point on which all that can be undone stands.
        """
        final: list[int] = []
        confirmed = 0
        for written, following in pairwise((*self.window, Written(newest, {}))):
            if not rules.finality.reached(following.block, newest, self.finalized):
                break
            final.append(written.block.number)
            confirmed += following.block.number <= self.audited
        return final[: max(confirmed, len(final) - rules.audit_blocks)]

    def unaudited(self, rules: Rules, limit: int, tip: BlockRef | None = None) -> list[Written]:
        """Final blocks whose logs nobody has looked at a second time, oldest first; contiguous.

        Args:
            rules: say what is final.
            limit: most blocks.
            tip: the node's newest block, where it is known to be above the head.
        """
        newest = max(self.window[-1].block, tip or self.window[-1].block, key=lambda block: block.number)
        found = (
            written
            for written in islice(self.window, 1, None)
            if written.digest
            and written.block.number > self.audited
            and rules.finality.reached(written.block, newest, self.finalized)
        )
        return list(islice(found, limit))

    def newest_final(self, rules: Rules) -> BlockRef:
        """The newest final block that needs no second look any more."""
        newest, final = self.window[-1].block, self.window[0].block
        for written in islice(self.window, 1, None):
            waits = rules.audit_blocks and written.digest and written.block.number > self.audited
            if waits or not rules.finality.reached(written.block, newest, self.finalized):
                break
            final = written.block
        return final

    def missed_by_audit(self, changes: ChangeSet) -> list[int]:
        """Blocks that can no longer be undone after `changes`, and were not looked at a second time."""
        return [
            written.block.number
            for written in islice(self.window, 1, len(changes.undo_dropped) + 1)
            if written.digest and written.block.number > self.audited
        ]

    def apply(self, changes: ChangeSet) -> None:
        """Follow a change set that was committed."""
        self.head = changes.head
        self.closed.update(changes.closed)
        self.resync_owed = not changes.live or (self.resync_owed and not changes.reason)
        for market in changes.created.values():
            self.sources[market.source] = market.id
            self.markets.add(market.id)
        for market in changes.removed.values():
            del self.sources[market.source]
            self.markets.discard(market.id)
        if changes.reorg:
            while self.window[-1].block.number > changes.reorg.ancestor.number:
                self.pending.subtract(self.window.pop().trades)
            self.audited = min(self.audited, changes.reorg.ancestor.number)
        elif changes.undo:
            written = Written.of(changes.undo)
            self.window.append(written)
            self.pending.update(written.trades)
            for _ in changes.undo_dropped:
                self.pending.subtract(self.window.popleft().trades)
        self.pending += Counter()

"""The ports: what the application needs from the world."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from listener.application.changes import BlockUndo, ChangeSet, Head, MarketState
from listener.application.history import History
from listener.application.state import StreamState
from listener.domain.alerts import AlertRule, StateKey
from listener.domain.entities import Candle, TokenInfo
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import Address, BlockRef, Interval, MarketId, Timestamp


class ChainIdentity(NamedTuple):
    """What tells one chain from another."""

    chain_id: int
    genesis: str


class ChainSource(Protocol):
    """Blocks and what their logs say. Every method raises `Retryable` errors."""

    async def identity(self) -> ChainIdentity:
        """Chain id and the hash of block 0."""
        ...

    async def tip(self) -> BlockRef:
        """The newest block that the node knows."""
        ...

    async def finalized(self) -> BlockRef | None:
        """The newest block that the node calls `finalized`; None where it knows no such thing."""
        ...

    async def block(self, number: int) -> BlockRef:
        """The block of that number.

        Raises:
            NodeBehind: the node has none yet.
        """
        ...

    async def facts(self, block: BlockRef) -> BlockFacts:
        """Facts of one block near the head, asked for by its hash.

        Raises:
            NodeBehind: the node does not know the block (any more).
            InconsistentReply: header and logs contradict each other.
        """
        ...

    async def history(self, first: int, last: int) -> History:
        """Final blocks.

        Raises:
            RangeTooLarge: the node refuses so many blocks or logs at once.
            InconsistentReply: logs and headers contradict each other.
        """
        ...

    async def tokens(self, tokens: Iterable[Address]) -> Mapping[Address, TokenInfo]:
        """Decimals, name and symbol; a token whose decimals cannot be read is absent."""
        ...

    async def deployment_block(self, address: Address) -> int:
        """The first block at which there is code at `address`.

        Raises:
            InvalidConfiguration: there is no code at the tip, or the node keeps no old state.
        """
        ...


class Witness(Protocol):
    """A second account of blocks: their receipts, or another endpoint. Raises `Retryable` errors."""

    async def facts(self, blocks: Sequence[BlockRef]) -> Sequence[BlockFacts]:
        """Facts of these blocks, one for each, in their order; `digest` as `ChainSource.facts` gives it."""
        ...


class HeadHints(Protocol):
    """The newest head somebody told us of. Only a hint: it may be late, wrong or missing."""

    def overtaken(self, tip: BlockRef) -> None:
        """The node's tip moved on and nobody hinted at it: whoever hints may have gone silent."""
        ...

    async def wait(self, timeout_s: float) -> BlockRef | None:
        """The newest hint since the last call, or None after `timeout_s`."""
        ...


class StoredStream(NamedTuple):
    """What the store says of the stream at start."""

    state: StreamState
    chain_id: int
    genesis: str
    schema: int
    fingerprint: Mapping[str, str]


class MarketStore(Protocol):
    """Committed state. Every method may raise `StoreUnavailable`."""

    async def load(self) -> StoredStream | None:
        """Everything but the markets; None if the stream is new.

        Raises:
            ForeignData, NewerSchema: it is not ours to read.
        """
        ...

    async def initialise(
        self, identity: ChainIdentity, base: BlockRef, fingerprint: Mapping[str, str], now: Timestamp
    ) -> None:
        """Create the stream with `base` as its head, unless it exists."""
        ...

    async def take_over(self, head: Head, floor: int, *, resync_owed: bool) -> Head:
        """Raise `gen` and `epoch` above the stored ones, to `floor` at least, and return the new head.

        Args:
            head: as it was loaded.
            floor: the wall clock, or more if this process has used more: what is stored alone cannot tell,
                because a store that lost its tail has forgotten numbers that were given out.
            resync_owed: to be remembered until it is paid, by whoever writes then.

        Raises:
            Superseded: the head is no longer `head`.
        """
        ...

    async def head(self) -> Head:
        """The committed head."""
        ...

    async def commit(self, changes: ChangeSet) -> Head:
        """Apply the change set if the committed head is its base; return the new head.

        Raises:
            Superseded: another head was found.
            StoreUnavailable: the outcome is unknown, and the commit may yet happen. Begin with `load` and
                `take_over` again; after that it cannot.
        """
        ...

    async def load_markets(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """Committed states of markets, the day as their statistics stand; unknown ones are absent."""
        ...

    async def load_minutes(
        self, spans: Mapping[MarketId, tuple[Timestamp, Timestamp]]
    ) -> dict[MarketId, list[Candle]]:
        """Committed one-minute candles that open within their market's span, ends included, ascending."""
        ...

    async def load_undos(self, above: int) -> list[BlockUndo]:
        """Before-images of the blocks above a number, newest first."""
        ...

    async def save_audited(self, block: BlockRef) -> None:
        """Remember how far the audit has come. Not part of a commit: losing it costs a second look."""
        ...

    async def due(self, as_of: Timestamp, limit: int) -> list[MarketId]:
        """Markets that change by the passing of time up to `as_of`, longest due first."""
        ...


Contents = Mapping[str, object]
"""All that is stored of one market, comparable, by the name of each piece."""


class Generations(Protocol):
    """The live data of a stream, and a generation that is built beside. May raise `StoreUnavailable`."""

    async def head(self) -> Head | None:
        """Head of the live generation; None if there is none."""
        ...

    async def markets(self, *, live: bool) -> set[MarketId]:
        """Markets of one generation."""
        ...

    async def contents(
        self, markets: Sequence[MarketId], *, live: bool
    ) -> tuple[Head, Mapping[MarketId, Contents]]:
        """Markets as they were at one head of their generation."""
        ...

    async def clear(self) -> None:
        """Remove the generation beside the live one."""
        ...

    async def watched(self) -> bool:
        """Whether there are alert rules."""
        ...

    async def switch(self, floor: int, *, in_step: bool = False) -> Head:
        """Put it in the place of the live one, at once for every reader; `floor` as for `take_over`.

        A running instance is superseded by it and goes on from there; a `resync` is owed to the backend.
        Alert rules and how they stand remain, and so do the alerts of blocks that both have, to be taken back
        if these are orphaned. May be called again where the answer was lost.

        Args:
            floor: see above.
            in_step: only if the heads of both are the same block.

        Raises:
            Superseded: the live head moved meanwhile.
        """
        ...


class RuleChanges(NamedTuple):
    """What has become of alert rules.

    Attributes:
        version: up to which changes are known.
        rules: by id; None: it was removed.
        complete: these are all rules there are; otherwise those that changed.
    """

    version: int
    rules: Mapping[str, AlertRule | None]
    complete: bool


class AlertStore(Protocol):
    """Alert rules and how they stand, for the writer of the stream. May raise `StoreUnavailable`.

    States are written by `MarketStore.commit`.
    """

    async def rule_changes(self, after: int | None) -> RuleChanges:
        """Rules that were made or removed after a version; None: all rules."""
        ...

    async def alert_states(self) -> Mapping[StateKey, int]:
        """Rules that have come true and are not armed again, by market: in which block."""
        ...

    async def forget_alert_states(self, states: Iterable[StateKey]) -> None:
        """Remove states of rules that are gone."""
        ...


class RowId(NamedTuple):
    """An outbox row's number; only grows."""

    epoch: int
    seq: int


class Row(NamedTuple):
    """An outbox row: an event's payload, or a reference to what shall be read when it is sent."""

    id: RowId
    event: str
    data: bytes


class Cursor(NamedTuple):
    """How far the backend has acknowledged, and the end of the batch that was under way after that."""

    acknowledged: RowId
    sending: RowId


class Message(NamedTuple):
    """One socket event: its envelope covers the rows `first`…`seq`."""

    event: str
    epoch: int
    first: int
    seq: int
    items: Sequence[object]


class Outbox(Protocol):
    """Rows to be delivered, in order. Every method may raise `StoreUnavailable`."""

    async def cursor(self) -> Cursor | None:
        """Where delivery stands; None if nothing was ever delivered."""
        ...

    async def save(self, cursor: Cursor, previous: Cursor | None) -> None:
        """Remember where delivery stands, if it still stands at `previous`.

        Raises:
            Superseded: somebody else delivers.
        """
        ...

    async def read(self, after: RowId, limit: int) -> list[Row]:
        """The next rows."""
        ...

    async def candles(
        self, references: Sequence[tuple[MarketId, Interval, Timestamp]]
    ) -> list[dict[str, object]]:
        """`chart_data` items as stored now, deleted ones marked."""
        ...

    async def holds(self, row: RowId) -> bool:
        """Whether a row is still kept."""
        ...

    async def stats(self, markets: Sequence[MarketId]) -> list[dict[str, object]]:
        """`market_data` items as stored now, deleted ones marked."""
        ...


class Lease(Protocol):
    """The right to write, held by one instance at a time and lost by itself when it is not renewed.

    It saves instances from displacing each other. What keeps data right is the compare-and-set of commits.
    """

    async def hold(self) -> bool:
        """Take or renew it; whether it is ours. Raises `StoreUnavailable`."""
        ...

    async def release(self) -> None:
        """Give it up if it is ours. Raises `StoreUnavailable`."""
        ...


class UpdatePublisher(Protocol):
    """The link to the backend."""

    async def open(self) -> None:
        """Connect unless connected.

        Raises:
            BackendUnavailable: the backend is away, or refuses the token.
        """
        ...

    async def send(self, message: Message) -> None:
        """Deliver one message and wait until it is acknowledged.

        Raises:
            BackendUnavailable: not connected, or no acknowledgement in time.
            BackendRefused: acknowledged with something else than `{"ok": true}`.
        """
        ...

    def size(self, message: Message) -> int:
        """Bytes of the message on the wire."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> Timestamp:
        """Wall clock."""
        ...

    def monotonic(self) -> float:
        """Seconds, for measuring."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Signal(Protocol):
    """Wakes another part of the service.

    The publisher, when rows were committed; the auditor, when history waits for it.
    """

    def notify(self) -> None:
        """There is something to do."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Return when somebody has notified since the last call, or after `timeout_s`."""
        ...


class DeliveryObserver(Protocol):
    """Where a publisher says how it goes. Never fails, never blocks."""

    def healthy(self, service: str) -> None:
        """The service works."""
        ...

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """A batch that ends with row `last` was acknowledged."""
        ...


class Observer(DeliveryObserver, Protocol):
    """Where the service says what it does. Never fails, never blocks."""

    def committed(self, changes: ChangeSet, seconds: float) -> None:
        """A change set was committed."""
        ...

    def progress(self, number: int, target: int, trades: int) -> None:
        """Catching up: at `number` of `target`, `trades` since the start."""
        ...

    def synced(self, *, synced: bool, number: int) -> None:
        """We follow the node's tip, or no longer do."""
        ...

    def leading(self, *, leads: bool) -> None:
        """We hold the lease and work, or stand by."""
        ...

    def superseded(self, error: Exception) -> None:
        """Our term ended: another instance wrote, or the store went back in time. We recover and go on."""
        ...

    def stalled(self, tip: BlockRef, age_ms: int | None) -> None:
        """The node answers, but its tip is `age_ms` old, beyond its usual pace; None: blocks come again."""
        ...

    def audited(self, block: BlockRef, differences: int) -> None:
        """The audit has come to `block`; so many blocks of this slice differed."""
        ...

    def audit_difference(self, block: BlockRef, detail: str, *, repaired: bool) -> None:
        """A second look at `block` found other logs than were committed."""
        ...

    def audit_missed(self, first: int, last: int) -> None:
        """Blocks `first` to `last` cannot be undone any more, and nobody has looked at them twice."""
        ...

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """A retryable error; the next try comes in `retry_in_s`."""
        ...

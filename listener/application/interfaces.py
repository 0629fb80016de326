"""The ports: what the application needs from the world."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from listener.application.state import BlockUndo, ChangeSet, Head, MarketState, StreamState
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

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """Facts of final blocks, ascending: those with logs of ours, and in any case `first` and `last`.

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


class HeadHints(Protocol):
    """The newest head somebody told us of. Only a hint: it may be late, wrong or missing."""

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

    async def take_over(self, head: Head, now: Timestamp) -> Head:
        """Raise `gen` and `epoch` above all that were ever used and return the new head.

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
            StoreUnavailable: the outcome is unknown; compare `head()`.
        """
        ...

    async def load_markets(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """Committed states of markets, the day as their statistics stand; unknown ones are absent."""
        ...

    async def load_minutes(
        self, markets: Iterable[MarketId], since: Timestamp
    ) -> dict[MarketId, list[Candle]]:
        """Committed one-minute candles from `since`, ascending."""
        ...

    async def load_undos(self, above: int) -> list[BlockUndo]:
        """Before-images of the blocks above a number, newest first."""
        ...

    async def due(self, as_of: Timestamp, limit: int) -> list[MarketId]:
        """Markets that change by the passing of time up to `as_of`, longest due first."""
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

    async def save(self, cursor: Cursor) -> None:
        """Remember where delivery stands."""
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


class CommitSignal(Protocol):
    """Tells the publisher that rows were committed."""

    def notify(self) -> None:
        """Rows were committed."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Return when rows were committed since the last call, or after `timeout_s`."""
        ...


class Observer(Protocol):
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

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """A retryable error; the next try comes in `retry_in_s`."""
        ...

    def healthy(self, service: str) -> None:
        """The service works."""
        ...

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """A batch that ends with row `last` was acknowledged."""
        ...

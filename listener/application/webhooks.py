"""Webhook endpoints: what is kept of each, and the ports behind their delivery."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, Self

from listener.application.interfaces import Message, RowId
from listener.domain.value_objects import Timestamp

EVENTS: Final = (
    "market_created",
    "trade_update",
    "market_graduated",
    "chart_data",
    "market_data",
    "candles_closed",
    "reorg",
    "alert",
    "resync",
)
"""Everything that the outbox tells, see docs/contract.md."""
ALWAYS: Final = "resync"
"""Sent to every endpoint: it says that something was missed."""
ENDPOINTS_MAX: Final = 100
SECRETS_MAX: Final = 4
"""Secrets that sign at once; a rotation beyond that ends the oldest early."""
OVERLAP_MS: Final = 24 * 3_600_000
"""How long the secret of before signs as well after a rotation, if nothing else is said."""
OVERLAP_MS_MAX: Final = 30 * 24 * 3_600_000
LOG_MAX: Final = 1_000
"""Attempts that are remembered of each endpoint, about; the oldest go first."""


class Status(StrEnum):
    """Whether an endpoint is delivered to."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    """By its operator."""
    GIVEN_UP = "given_up"
    """By the service: it answered 410, or failed for a day."""


class Secret(NamedTuple):
    """A secret that signs.

    Attributes:
        text: `whsec_` and the key in base64.
        until: when it signs for the last time; None: it stays.
    """

    text: str
    until: Timestamp | None = None


class Endpoint(NamedTuple):
    """An endpoint as it was set up.

    Attributes:
        id: names it; not secret.
        url: where messages are posted.
        events: those it wants; none: all.
        secrets: that sign, the newest first.
        created_at: when.
        note: whatever its operator wrote.
    """

    id: str
    url: str
    events: tuple[str, ...]
    secrets: tuple[Secret, ...]
    created_at: Timestamp
    note: str = ""

    def wants(self, event: str) -> bool:
        """Whether an event is sent to it."""
        return not self.events or event in self.events or event == ALWAYS

    def signing(self, now: Timestamp) -> list[str]:
        """Texts of the secrets that sign now."""
        return [secret.text for secret in self.secrets if secret.until is None or now <= secret.until]

    def rotated(self, secret: str, now: Timestamp, overlap_ms: int) -> "Endpoint":
        """With a new secret; those of before sign until the overlap is over."""
        until = now + overlap_ms
        before = tuple(
            old._replace(until=until if old.until is None else min(old.until, until))
            for old in self.secrets
            if overlap_ms and (old.until is None or old.until > now)
        )
        return self._replace(secrets=(Secret(secret), *before)[:SECRETS_MAX])


class Failing(NamedTuple):
    """An endpoint that does not take its messages.

    Attributes:
        since: the first failure after the last success.
        attempts: failed ones since then.
        next_at: when it is tried again.
        error: of the last attempt.
    """

    since: Timestamp
    attempts: int
    next_at: Timestamp
    error: str


class Replay(NamedTuple):
    """Rows to be delivered once more.

    Attributes:
        first: the first that is left to do.
        last: the last one.
        message: id of the only message that is meant; empty: all of these rows.
    """

    first: RowId
    last: RowId
    message: str = ""


class EndpointState(NamedTuple):
    """How delivery to an endpoint goes.

    Attributes:
        version: raised by everything that an operator does to it.
        status: whether it is delivered to.
        changed_at: since when.
        reason: why not.
        failing: set while it fails.
        replay: set while rows are delivered once more.
    """

    version: int
    status: Status
    changed_at: Timestamp
    reason: str = ""
    failing: Failing | None = None
    replay: Replay | None = None


class Parcel(NamedTuple):
    """One message on its way to one endpoint, the same for each attempt.

    Attributes:
        id: idempotency key.
        message: what it tells.
        body: as it is sent.
        batch: first and last row of the batch that it was planned from.
        replayed: it is delivered once more.
    """

    id: str
    message: Message
    body: bytes
    batch: tuple[RowId, RowId]
    replayed: bool = False


class Answer(NamedTuple):
    """What came of one request.

    Attributes:
        status: HTTP status; 0: there was no answer.
        error: what went wrong; empty for 2xx.
        ms: how long it took.
        retry_after_s: when the endpoint asked to come again; 0: it did not say.
    """

    status: int
    error: str
    ms: int
    retry_after_s: float = 0.0


class Attempt(NamedTuple):
    """A line of the delivery log.

    Attributes:
        t: when it ended.
        id: of the message.
        event: of the message.
        epoch: of its rows.
        first: its first row.
        seq: its last row.
        attempt: 1 for the first since the last success.
        status: see `Answer`.
        error: see `Answer`.
        ms: see `Answer`.
        batch: see `Parcel`.
        replayed: see `Parcel`.
    """

    t: Timestamp
    id: str
    event: str
    epoch: int
    first: int
    seq: int
    attempt: int
    status: int
    error: str
    ms: int
    batch: tuple[RowId, RowId]
    replayed: bool

    @classmethod
    def of(cls, parcel: Parcel, answer: Answer, attempt: int, now: Timestamp) -> Self:
        """What is remembered of a request."""
        event, epoch, first, seq, _ = parcel.message
        return cls(
            now, parcel.id, event, epoch, first, seq, attempt,
            answer.status, answer.error, answer.ms, parcel.batch, parcel.replayed,
        )  # fmt: skip


class EndpointStore(Protocol):
    """Endpoints and their states. Every method may raise `StoreUnavailable`."""

    async def revision(self) -> int:
        """Raised by every change that a delivery has to know of."""
        ...

    async def load(self) -> Mapping[str, tuple[Endpoint, EndpointState]]:
        """All endpoints by id. A record that cannot be read is left out."""
        ...

    async def note_failing(self, endpoint: str, version: int, failing: Failing | None) -> None:
        """It fails, or works again.

        Raises:
            Displaced: the endpoint is gone, or its version is another.
        """
        ...

    async def note_replay(self, endpoint: str, version: int, replay: Replay | None) -> None:
        """So much is left to deliver once more. Raises `Displaced` as above."""
        ...

    async def give_up(self, endpoint: str, version: int, reason: str, now: Timestamp) -> None:
        """Deliver nothing more to it until its operator enables it. Raises `Displaced` as above."""
        ...

    async def log(self, endpoint: str, attempt: Attempt) -> None:
        """Remember an attempt."""
        ...


class Transport(Protocol):
    """The way to endpoints."""

    async def post(self, endpoint: Endpoint, message_id: str, body: bytes, now: Timestamp) -> Answer:
        """Sign and send one message; within a bounded time. Whatever goes wrong is in the answer."""
        ...


class WebhookObserver(Protocol):
    """Where delivery says how it goes. Never fails, never blocks."""

    def attempted(self, endpoint: Endpoint, attempt: Attempt, retry_in_s: float | None) -> None:
        """A request ended; None: it succeeded, or there is no next one."""
        ...

    def recovered(self, endpoint: Endpoint, failing: Failing) -> None:
        """An endpoint takes its messages again."""
        ...

    def gave_up(self, endpoint: Endpoint, reason: str) -> None:
        """The service has disabled an endpoint."""
        ...


def message_id(stream: str, message: Message) -> str:
    """The idempotency key of a message: `<stream>-<epoch>-<first>-<seq>`."""
    return f"{stream}-{message.epoch}-{message.first}-{message.seq}"

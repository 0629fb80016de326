"""What an operator may do to webhook endpoints, checked. REST and the command line both go through this."""

import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from listener.application.addresses import is_public
from listener.application.errors import WebhookConflict
from listener.application.interfaces import Clock, Outbox, RowId
from listener.application.webhook_rules import check_events, check_note, check_url, literal_host
from listener.application.webhooks import (
    LOG_MAX,
    OVERLAP_MS,
    OVERLAP_MS_MAX,
    Attempt,
    Endpoint,
    EndpointState,
    Replay,
    Secret,
    Status,
)
from listener.domain.errors import InvalidValue

SECRET_BYTES: Final = 32
ID_BYTES: Final = 8
PREFIX: Final = "whsec_"
"""Of a secret, by Standard Webhooks."""


class EndpointRecords(Protocol):
    """Endpoints as their operator changes them. Every method may raise `StoreUnavailable`."""

    async def load(self) -> Mapping[str, tuple[Endpoint, EndpointState]]:
        """All endpoints by id."""
        ...

    async def find(self, endpoint: str) -> tuple[Endpoint, EndpointState] | None:
        """One of them."""
        ...

    async def create(self, endpoint: Endpoint) -> None:
        """Add one; it gets what is committed from now on.

        Raises:
            WebhookConflict: there are as many as there may be.
        """
        ...

    async def delete(self, endpoint: str) -> bool:
        """Remove all that is kept of one; whether there was one."""
        ...

    async def replace(self, before: Endpoint, after: Endpoint) -> bool:
        """Replace a record; False: it is another by now."""
        ...

    async def set_status(self, endpoint: str, status: Status, now: int) -> bool:
        """Enable or disable one, and forget how it failed; False: there is none."""
        ...

    async def begin_replay(self, endpoint: str, replay: Replay) -> bool:
        """Have rows delivered once more; False: that is under way already, or there is no endpoint."""
        ...

    async def attempts(self, endpoint: str, limit: int) -> Sequence[Attempt]:
        """The newest lines of its log, newest first."""
        ...


class UrlRules(NamedTuple):
    """Which URLs an endpoint may have.

    Attributes:
        insecure: plain HTTP as well.
        private: addresses that are not public as well.
    """

    insecure: bool
    private: bool


def make_secret() -> str:
    """A new signing secret: 256 random bits."""
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class WebhookAdmin:
    """Creates, changes and removes endpoints, and has rows delivered once more.

    Args:
        records: of the endpoints.
        outbox: to see which rows are kept.
        clock: wall clock.
        rules: for their URLs.
    """

    def __init__(
        self,
        records: EndpointRecords,
        outbox: Outbox,
        clock: Clock,
        rules: UrlRules,
    ) -> None:
        self._records = records
        self._outbox = outbox
        self._clock = clock
        self._rules = rules

    async def endpoints(self) -> list[tuple[Endpoint, EndpointState]]:
        """All endpoints, the oldest first."""
        found = (await self._records.load()).values()
        return sorted(found, key=lambda pair: (pair[0].created_at, pair[0].id))

    async def show(self, endpoint: str) -> tuple[Endpoint, EndpointState] | None:
        """One endpoint; None: there is none of that id."""
        return await self._records.find(endpoint)

    async def create(self, url: str, events: Sequence[str] = (), note: str = "") -> Endpoint:
        """Add an endpoint. It gets what is committed from now on.

        Args:
            url: where messages are posted.
            events: those it wants; none: all.
            note: for people.

        Raises:
            InvalidValue: the URL, an event or the note cannot be.
            WebhookConflict: there are as many endpoints as there may be.
        """
        check_url(url, insecure=self._rules.insecure)
        literal = literal_host(url)
        if literal and not self._rules.private and not is_public(literal):
            raise InvalidValue(f"url: {literal} is not a public address; WEBHOOKS_ALLOW_PRIVATE allows it")
        endpoint = Endpoint(
            secrets.token_hex(ID_BYTES),
            url,
            check_events(events),
            (Secret(make_secret()),),
            self._clock.now(),
            check_note(note),
        )
        await self._records.create(endpoint)
        return endpoint

    async def delete(self, endpoint: str) -> bool:
        """Remove an endpoint, its log and its place in the outbox; whether there was one."""
        return await self._records.delete(endpoint)

    async def enable(self, endpoint: str) -> bool:
        """Deliver to it from where it stopped, at once; whether there is one."""
        return await self._records.set_status(endpoint, Status.ENABLED, self._clock.now())

    async def disable(self, endpoint: str) -> bool:
        """Deliver nothing more to it; whether there is one."""
        return await self._records.set_status(endpoint, Status.DISABLED, self._clock.now())

    async def rotate(self, endpoint: str, overlap_ms: int = OVERLAP_MS) -> Endpoint | None:
        """Give it a new secret; the one before signs as well until the overlap is over.

        Args:
            endpoint: which.
            overlap_ms: 0: the old secrets end at once.

        Raises:
            InvalidValue: the overlap is negative or too long.
            WebhookConflict: somebody else changed it at the same time.
        """
        if not 0 <= overlap_ms <= OVERLAP_MS_MAX:
            raise InvalidValue(f"overlap: 0 to {OVERLAP_MS_MAX} ms")
        found = await self._records.find(endpoint)
        if found is None:
            return None
        after = found[0].rotated(make_secret(), self._clock.now(), overlap_ms)
        if not await self._records.replace(found[0], after):
            raise WebhookConflict("somebody else has changed this endpoint just now")
        return after

    async def attempts(self, endpoint: str, limit: int) -> Sequence[Attempt]:
        """The newest lines of its delivery log, newest first."""
        return await self._records.attempts(endpoint, limit)

    async def redeliver(self, endpoint: str, message: str) -> Replay | None:
        """Have one message sent once more, with the same id.

        Candles and 24 h figures are as they are then.

        Returns:
            What will be done; None: there is no such endpoint.

        Raises:
            InvalidValue: the log does not know the message, or its rows are not kept any more.
            WebhookConflict: the endpoint is not enabled, or rows are being redelivered.
        """
        if await self._records.find(endpoint) is None:
            return None
        found = [line for line in await self._records.attempts(endpoint, LOG_MAX * 2) if line.id == message]
        if not found:
            raise InvalidValue("message: the delivery log of this endpoint does not have it (any more)")
        return await self._begin(endpoint, Replay(*found[0].batch, message))

    async def redeliver_rows(self, endpoint: str, first: RowId, last: RowId) -> Replay | None:
        """Have a range of rows sent once more, as far as they are of events that the endpoint wants.

        Returns, Raises: see `redeliver`.
        """
        if first > last:
            raise InvalidValue("first: must not be behind last")
        return await self._begin(endpoint, Replay(first, last))

    async def _begin(self, endpoint: str, replay: Replay) -> Replay | None:
        found = await self._records.find(endpoint)
        if found is None:
            return None
        await self._check_kept(replay)
        if found[1].status is not Status.ENABLED:
            raise WebhookConflict("this endpoint is disabled; enable it first")
        if not await self._records.begin_replay(endpoint, replay):
            raise WebhookConflict("rows are being redelivered to this endpoint; wait until that is done")
        return replay

    async def _check_kept(self, replay: Replay) -> None:
        first, last, _ = replay
        rows = await self._outbox.read(RowId(first.epoch, first.seq - 1), 1)
        if not rows or rows[0].id != first:
            oldest = await self._outbox.read(RowId(0, 0), 1)
            kept = f"the oldest is {_text(oldest[0].id)}" if oldest else "there are none"
            raise InvalidValue(f"row {_text(first)} is not kept; {kept}")
        if not await self._outbox.holds(last):
            raise InvalidValue(f"there is no row {_text(last)}")


def _text(row: RowId) -> str:
    return "{}-{}".format(*row)

"""Webhook endpoints in memory: their store, the way to them, and what is observed."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from listener.application.errors import Displaced, StoreUnavailable
from listener.application.webhooks import (
    Answer,
    Attempt,
    Endpoint,
    EndpointState,
    Failing,
    Replay,
    Secret,
    Status,
)
from listener.domain.value_objects import Timestamp

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENABLED = EndpointState(1, Status.ENABLED, 0)
TAKEN = Answer(204, "", 3)
REFUSED = Answer(500, "HTTP 500", 3)
GONE = Answer(410, "HTTP 410", 3)


def endpoint(name: str = "one", *events: str) -> Endpoint:
    """An endpoint that wants these events; none: all."""
    return Endpoint(name, f"https://{name}.example.org/hooks", events, (Secret(SECRET),), 1)


@dataclass(slots=True)
class FakeEndpoints:
    """`EndpointStore`.

    Attributes:
        found: endpoints and their states.
        logged: all attempts, in order.
        changes: the revision.
        away: so many further calls find no store.
    """

    found: dict[str, tuple[Endpoint, EndpointState]] = field(default_factory=dict)
    logged: list[tuple[str, Attempt]] = field(default_factory=list)
    changes: int = 0
    away: int = 0

    def put(self, endpoint: Endpoint, state: EndpointState = ENABLED) -> None:
        """An operator sets an endpoint."""
        self.found[endpoint.id] = endpoint, state
        self.changes += 1

    def state(self, name: str = "one") -> EndpointState:
        """How an endpoint does."""
        return self.found[name][1]

    def _ask(self) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")

    def _note(self, name: str, version: int, change: Callable[[EndpointState], EndpointState]) -> None:
        self._ask()
        if name not in self.found or self.found[name][1].version != version:
            raise Displaced(name)
        known, state = self.found[name]
        self.found[name] = known, change(state)

    async def revision(self) -> int:
        """See `EndpointStore.revision`."""
        self._ask()
        return self.changes

    async def load(self) -> dict[str, tuple[Endpoint, EndpointState]]:
        """See `EndpointStore.load`."""
        self._ask()
        return dict(self.found)

    async def note_failing(self, endpoint: str, version: int, failing: Failing | None) -> None:
        """See `EndpointStore.note_failing`."""
        self._note(endpoint, version, lambda state: state._replace(failing=failing))

    async def note_replay(self, endpoint: str, version: int, replay: Replay | None) -> None:
        """See `EndpointStore.note_replay`."""
        self._note(endpoint, version, lambda state: state._replace(replay=replay))

    async def give_up(self, endpoint: str, version: int, reason: str, now: Timestamp) -> None:
        """See `EndpointStore.give_up`."""
        self._note(
            endpoint,
            version,
            lambda state: state._replace(status=Status.GIVEN_UP, reason=reason, changed_at=now),
        )
        self.changes += 1

    async def log(self, endpoint: str, attempt: Attempt) -> None:
        """See `EndpointStore.log`."""
        self._ask()
        self.logged.append((endpoint, attempt))


@dataclass
class FakeTransport:
    """`Transport` with scripted answers.

    Attributes:
        answers: what comes next, by endpoint; a call is made, and its result is the answer.
        usual: the answer when none is scripted.
        posted: endpoint, id, body and time of each request.
    """

    answers: deque[Answer | Callable[[], Answer]] = field(default_factory=deque)
    usual: Answer = TAKEN
    posted: list[tuple[str, str, bytes, Timestamp]] = field(default_factory=list)

    async def post(self, endpoint: Endpoint, message_id: str, body: bytes, now: Timestamp) -> Answer:
        """See `Transport.post`."""
        self.posted.append((endpoint.id, message_id, body, now))
        answer = self.answers.popleft() if self.answers else self.usual
        return answer() if callable(answer) else answer

    @property
    def ids(self) -> list[str]:
        """Ids of all requests."""
        return [message for _, message, _, _ in self.posted]

    @property
    def times(self) -> list[Timestamp]:
        """When each request was made."""
        return [now for _, _, _, now in self.posted]


@dataclass(slots=True)
class WebhookNotes:
    """`WebhookObserver` that remembers.

    Attributes:
        retries: of each attempt that failed: seconds until the next, None for none.
        works: endpoints that recovered.
        ended: endpoints that were given up, and why.
    """

    retries: list[float | None] = field(default_factory=list)
    works: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def attempted(self, endpoint: Endpoint, attempt: Attempt, retry_in_s: float | None) -> None:  # noqa: ARG002
        """See `WebhookObserver.attempted`."""
        if attempt.error:
            self.retries.append(retry_in_s)

    def recovered(self, endpoint: Endpoint, failing: Failing) -> None:  # noqa: ARG002 - of the port
        """See `WebhookObserver.recovered`."""
        self.works.append(endpoint.id)

    def gave_up(self, endpoint: Endpoint, reason: str) -> None:
        """See `WebhookObserver.gave_up`."""
        self.ended.append((endpoint.id, reason))

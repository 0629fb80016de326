"""`UpdatePublisher` to a backend that can be away, refuse, or lose an acknowledgement."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import orjson

from listener.application.errors import BackendRefused, BackendUnavailable
from listener.application.interfaces import Message

Outcome = Literal["ok", "away", "lost", "refuse"]
"""`lost`: the message arrived, its acknowledgement did not."""


@dataclass(slots=True)
class FakeBackend:
    """Receives messages.

    Attributes:
        outcomes: what happens to the messages to come; `ok` once they are used up.
        arrived: every message that reached the backend, repeated ones too.
        seen: the last row handled.
        down: nobody listens.
        handled: messages handled, as a backend that follows the contract does: nothing twice.
    """

    outcomes: deque[Outcome] = field(default_factory=deque)
    arrived: list[Message] = field(default_factory=list)
    handled: list[Message] = field(default_factory=list)
    seen: tuple[int, int] = (0, 0)
    down: bool = False

    def will(self, *outcomes: Outcome) -> None:
        """Script what happens next."""
        self.outcomes.extend(outcomes)

    async def open(self) -> None:
        """See `UpdatePublisher.open`."""
        if self.down:
            raise BackendUnavailable("the backend is away")

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`."""
        outcome = self.outcomes.popleft() if self.outcomes else "ok"
        if outcome == "away":
            raise BackendUnavailable("the backend is away")
        self.arrived.append(message)
        if outcome == "refuse":
            raise BackendRefused("the backend said no")
        if (message.epoch, message.seq) > self.seen:
            self.seen = (message.epoch, message.seq)
            self.handled.append(message)
        if outcome == "lost":
            raise BackendUnavailable("no acknowledgement")

    def size(self, message: Message) -> int:
        """See `UpdatePublisher.size`."""
        return len(orjson.dumps(list(message.items)))

    def items(self, event: str) -> list[object]:
        """Items of all handled messages of one event, in order."""
        return [item for message in self.handled if message.event == event for item in message.items]


def numbers(messages: Iterable[Message]) -> list[tuple[str, int, int, int]]:
    """Event, epoch and rows of messages."""
    return [(message.event, message.epoch, message.first, message.seq) for message in messages]

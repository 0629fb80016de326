"""What the hub has done: for `/health`, and for whoever measures."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class HubFigures:
    """What the hub has done since the start."""

    frames: int = 0
    bytes: int = 0
    flushes: int = 0
    snapshots: int = 0
    resumed: int = 0
    overflows: int = 0
    refused: int = 0


class Meter(Protocol):
    """Somebody who measures."""

    def sent(self, transport: str, messages: int) -> None:
        """Messages went out to clients, or wait to."""
        ...

    def dropped(self, reason: str, count: int = 1) -> None:
        """Let go: what waited for a client (`overflow`), or one that was `slow`, a `flood` or `refused`."""
        ...

    def flushed(self, seconds: float) -> None:
        """A room's changes went out, from its begin to the last client."""
        ...


class Unmeasured:
    """Nobody measures."""

    def sent(self, transport: str, messages: int) -> None:
        """See `Meter.sent`."""

    def dropped(self, reason: str, count: int = 1) -> None:
        """See `Meter.dropped`."""

    def flushed(self, seconds: float) -> None:
        """See `Meter.flushed`."""


class Tally:
    """Counts messages by transport, and tells of them now and then: one after the other would cost more."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counts: Counter[str] = Counter()

    def add(self, transport: str, messages: int) -> None:
        """So many more."""
        self._counts[transport] += messages

    def tell(self) -> None:
        """Say it, and begin anew."""
        for transport, messages in self._counts.items():
            self._meter.sent(transport, messages)
        self._counts.clear()

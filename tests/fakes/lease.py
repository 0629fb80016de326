"""`Lease` in memory: a board that all instances of a test see, in their clock's time."""

from collections import deque
from dataclasses import dataclass, field

from tests.fakes.clock import FakeClock


@dataclass(slots=True)
class Board:
    """Where the holder's name stands until its time is over."""

    clock: FakeClock
    holder: str = ""
    until: int = 0

    def current(self) -> str:
        """Who holds the lease now; empty: nobody."""
        return self.holder if self.clock.time < self.until else ""

    def hand_to(self, holder: str, duration_ms: int) -> None:
        """Give it to somebody, whoever has it."""
        self.holder, self.until = holder, self.clock.time + duration_ms


@dataclass(slots=True)
class FakeLease:
    """`Lease` of one instance.

    Attributes:
        errors: one for each call of `hold` to come; None lets it pass.
        claims: how often `hold` was called.
        releases: how often `release` was called.
    """

    board: Board
    name: str = "first"
    duration_ms: int = 3_000
    errors: deque[Exception | None] = field(default_factory=deque)
    claims: int = 0
    releases: int = 0

    async def hold(self) -> bool:
        """See `Lease.hold`."""
        self.claims += 1
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
        if self.board.current() not in {"", self.name}:
            return False
        self.board.hand_to(self.name, self.duration_ms)
        return True

    async def release(self) -> None:
        """See `Lease.release`."""
        self.releases += 1
        if self.board.current() == self.name:
            self.board.hand_to("", 0)

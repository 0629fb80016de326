"""Virtual time, and the two places where a service waits: scripts that end by raising `Done`."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from listener.domain.value_objects import BlockRef
from tests.fakes.build import MONDAY_MS

Step = Callable[[], object] | BlockRef | None


class Done(Exception):
    """The script is at its end: leaves a service that would run for ever."""


class FakeClock:
    """`Clock` that moves only when somebody sleeps or a test says so."""

    def __init__(self, now: int = MONDAY_MS) -> None:
        self.time = now
        self.slept: list[float] = []
        self._started = now

    def now(self) -> int:
        """See `Clock.now`."""
        return self.time

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return (self.time - self._started) / 1000

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.slept.append(seconds)
        self.pass_ms(round(max(seconds, 0) * 1000))
        await asyncio.sleep(0)

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass."""
        self.time += milliseconds


class FakeHints:
    """`HeadHints` from a script: a block is a hint, None is a wait without one, a call happens meanwhile."""

    def __init__(self, *steps: Step) -> None:
        self.steps: deque[Step] = deque(steps)
        self.overtaken_by: list[BlockRef] = []

    def overtaken(self, tip: BlockRef) -> None:
        """See `HeadHints.overtaken`."""
        self.overtaken_by.append(tip)

    def then(self, *steps: Step) -> None:
        """Go on with these steps."""
        self.steps.extend(steps)

    async def wait(self, timeout_s: float) -> BlockRef | None:  # noqa: ARG002 - of the port
        """See `HeadHints.wait`."""
        if not self.steps:
            raise Done
        step = self.steps.popleft()
        found = step() if callable(step) else step
        return found if isinstance(found, BlockRef) else None


class FakeSignal:
    """`Signal` whose waits run a script."""

    def __init__(self, steps: Iterable[Callable[[], object]] = ()) -> None:
        self.steps = deque(steps)
        self.notified = 0

    def notify(self) -> None:
        """See `Signal.notify`."""
        self.notified += 1

    async def wait(self, timeout_s: float) -> None:  # noqa: ARG002 - of the port
        """See `Signal.wait`."""
        if not self.steps:
            raise Done
        self.steps.popleft()()


class ManualTime:
    """A monotonic clock, as a function, that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now

"""Real time, and the signal between the writer and the publisher."""

import asyncio
import time


class SystemClock:
    """`Clock` of the operating system."""

    def now(self) -> int:
        """See `Clock.now`."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(max(seconds, 0))


class LocalSignal:
    """`Signal` within one process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """See `Signal.notify`."""
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        """See `Signal.wait`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()

"""Leadership: of all instances on one stream, one works and the others stand by.

The lease decides who, for efficiency. Data stays right without it: a commit of an instance that lost the
lease unknowingly is refused by its compare-and-set. A refused commit ends the term; the next one begins by
reading what is stored, whether it was another instance that wrote or the store that went back in time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from listener.application.errors import StoreUnavailable, Superseded
from listener.application.interfaces import Clock, Lease, Observer

T = TypeVar("T")

RENEW_S: Final = 1.0
CLAIM_S: Final = 0.5
"""How often an instance that stands by tries to take the lease."""
RELEASE_S: Final = 1.0


async def while_holding(lease: Lease, clock: Clock, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` and keep the lease meanwhile.

    While the store is away nobody can take the lease, and no commit of ours can pass.

    Raises:
        ExceptionGroup: of what `work` raised, or of `Superseded` where the lease has gone to another.
    """

    async def renew() -> None:
        while True:
            await clock.sleep(RENEW_S)
            with suppress(StoreUnavailable):
                if not await lease.hold():
                    raise Superseded("the lease has gone to another instance")

    async with asyncio.TaskGroup() as tasks:
        renewing = tasks.create_task(renew(), name="lease")
        done = await work()
        renewing.cancel()
    return done


class Leadership:
    """Runs `work` while this instance holds the lease.

    Args:
        lease: shared by all instances of the stream.
        work: one term; begins by reading what is stored, ends by cancellation or an error.
    """

    def __init__(
        self, lease: Lease, work: Callable[[], Awaitable[None]], clock: Clock, observer: Observer
    ) -> None:
        self._lease = lease
        self._work = work
        self._clock = clock
        self._observer = observer

    async def run(self) -> None:
        """Stand by, lead, stand by again, for ever. Raises what `work` raises, but for `Superseded`."""
        try:
            while True:
                while not await self._lease.hold():
                    self._observer.leading(leads=False)
                    await self._clock.sleep(CLAIM_S)
                self._observer.leading(leads=True)
                await self._term()
        finally:
            await self._release()

    async def _term(self) -> None:
        try:
            await while_holding(self._lease, self._clock, self._work)
        except* Superseded as ended:
            error: Exception = ended
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            self._observer.superseded(error)
        await self._clock.sleep(CLAIM_S)

    async def _release(self) -> None:
        """Let the next instance begin at once. Without an answer the lease runs out by itself."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._lease.release()

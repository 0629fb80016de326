"""In the process that follows the chain: the one that delivers webhooks, as long as there are endpoints."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Clock

LOOK_S: Final = 0.5
"""How often it is looked whether there are endpoints."""


class Counted(Protocol):
    """What knows how many endpoints there are."""

    async def count(self) -> int:
        """Enabled or not. Raises `StoreUnavailable`."""
        ...


class Child(Protocol):
    """A supervised process."""

    async def run(self) -> None:
        """One life of it; ends with an error."""
        ...


class WebhookWatch:
    """Runs a child while there are endpoints; none costs a short question to Redis now and then.

    Args:
        webhooks: the endpoints.
        child: delivers to them.
        clock: to wait.
        wanted: told whether there are any, when that is found out.
    """

    def __init__(self, webhooks: Counted, child: Child, clock: Clock, wanted: Callable[[bool], None]) -> None:
        self._webhooks = webhooks
        self._child = child
        self._clock = clock
        self._wanted = wanted

    async def run(self) -> None:
        """Watch for ever.

        Raises:
            WebhooksStopped: the child ended, hung, or did not start.
        """
        while True:
            if await self._are_some() is False:
                self._wanted(False)  # noqa: FBT003 - the only one
            await self._until(some=True)
            self._wanted(True)  # noqa: FBT003
            try:
                async with asyncio.TaskGroup() as tasks:
                    child = tasks.create_task(self._child.run(), name="webhooks process")
                    await self._until(some=False)
                    child.cancel()
            except ExceptionGroup as group:
                raise group.exceptions[0] from None

    async def _until(self, *, some: bool) -> None:
        while await self._are_some() is not some:
            await self._clock.sleep(LOOK_S)

    async def _are_some(self) -> bool | None:
        """Whether there are endpoints; None: nobody knows just now."""
        with suppress(StoreUnavailable):
            return bool(await self._webhooks.count())
        return None

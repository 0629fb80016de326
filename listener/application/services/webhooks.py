"""All endpoints: a lane for each that is enabled, begun anew whenever its operator changes something."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from listener.application.interfaces import Clock, Observer, Outbox, Signal
from listener.application.services.supervisor import keep_running
from listener.application.services.webhook_lane import Lane, Tools
from listener.application.webhooks import Endpoint, EndpointState, Status

LOOK_S: Final = 0.5
"""How often changes of endpoints are looked for."""
END_S: Final = 5.0
"""A lane that is told to end does within so long."""


class _Running(NamedTuple):
    version: int
    task: asyncio.Task[None]
    signal: Signal


class Webhooks:
    """Keeps the lanes that there should be.

    Args:
        tools: what lanes work with.
        outbox: makes an endpoint's own view of the outbox from its id.
        signal: makes what wakes a lane.
        clock: to wait.
        observer: told of errors that pass.
    """

    def __init__(
        self,
        tools: Tools,
        outbox: Callable[[str], Outbox],
        signal: Callable[[], Signal],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._tools = tools
        self._outbox = outbox
        self._signal = signal
        self._clock = clock
        self._observer = observer
        self._lanes: dict[str, _Running] = {}
        self._revision: int | None = None

    def notify(self) -> None:
        """Rows were committed."""
        for lane in self._lanes.values():
            lane.signal.notify()

    async def run(self) -> None:
        """One term: deliver for ever.

        Raises:
            ExceptionGroup: of what nobody foresaw, or of a `Fatal` error.
        """
        self._lanes, self._revision = {}, None
        async with asyncio.TaskGroup() as tasks:
            await keep_running(lambda: self._follow(tasks), self._clock, self._observer)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            revision = await self._tools.store.revision()
            if revision != self._revision or any(lane.task.done() for lane in self._lanes.values()):
                await self._arrange(tasks)
                self._revision = revision
            self._observer.healthy("redis")
            await self._clock.sleep(LOOK_S)

    async def _arrange(self, tasks: asyncio.TaskGroup) -> None:
        """End lanes that should not be, and begin those that should."""
        found = await self._tools.store.load()
        wanted = {key: pair for key, pair in found.items() if pair[1].status is Status.ENABLED}
        for key, lane in tuple(self._lanes.items()):
            pair = wanted.get(key)
            if pair is None or pair[1].version != lane.version or lane.task.done():
                await _end(lane.task)
                del self._lanes[key]
        for key, (endpoint, state) in wanted.items():
            if key not in self._lanes:
                self._lanes[key] = self._begun(tasks, endpoint, state)

    def _begun(self, tasks: asyncio.TaskGroup, endpoint: Endpoint, state: EndpointState) -> _Running:
        signal = self._signal()
        lane = Lane(endpoint, state, self._outbox(endpoint.id), signal, self._tools)
        work = keep_running(lane.run, self._clock, self._observer)
        return _Running(state.version, tasks.create_task(work, name=f"lane {endpoint.id}"), signal)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a lane and wait for it: two of one endpoint would displace each other."""
    task.cancel()
    await asyncio.wait([task], timeout=END_S)

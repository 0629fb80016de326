"""The store's server, and the link to it: commands that are slow, lost, refused, or applied too late."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Any, Final

from listener.application.changes import ChangeSet
from listener.application.errors import ListenerError, StoreUnavailable
from listener.application.interfaces import Row, RowId
from tests.fakes.store import FakeOutbox, FakeStore
from tests.fakes.writer import finish
from tests.simulation.loop import Process
from tests.simulation.node import fail

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMEOUT_S: Final = 2.0
LATE_MAX_S: Final = 40.0
LEASE_S: Final = 10.0
TAILS_KEPT: Final = 12
_number = attrgetter("id")
QUIET: Final = frozenset({"hold", "read", "due", "rule_changes"})
WRITES: Final = frozenset(
    {"initialise", "take_over", "commit", "save", "save_audited", "forget_alert_states"}
)


@dataclass(frozen=True)
class StoreFaults:
    """What may go wrong with the store, each a share of commands unless it says otherwise.

    Attributes:
        slow: applied or answered after a while.
        lost: applied, but not answered.
        error: not applied, and not answered.
        late: applied long after the caller gave up.
        away: how often it is away for a while.
        tails: how often it comes back with its last changes missing.
    """

    slow: float = 0
    lost: float = 0
    error: float = 0
    late: float = 0
    away: int = 0
    tails: int = 0


class SimOutbox(FakeOutbox):
    """Finds rows without looking at all of them."""

    async def read(self, after: RowId, limit: int) -> list[Row]:
        """See `Outbox.read`."""
        start = bisect_right(self.rows, after, key=_number)
        return self.rows[start : start + limit]

    async def holds(self, row: RowId) -> bool:
        """See `Outbox.holds`."""
        place = bisect_right(self.rows, row, key=_number)
        return place > 0 and self.rows[place - 1].id == row


class Lease:
    """The key that says who works, until it expires."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.holder = ""
        self.until_s = 0.0
        self._lasts_s = LEASE_S * world.plan.stretch

    async def hold(self, holder: str) -> bool:
        """Take or renew it."""
        now_s = self._world.loop.time()
        if self.holder != holder and now_s < self.until_s:
            return False
        self.holder, self.until_s = holder, now_s + self._lasts_s
        return True

    async def release(self, holder: str) -> None:
        """Give it up."""
        if self.holder == holder:
            self.until_s = 0


class SimStore:
    """The server: what survives every crash of a listener."""

    def __init__(self, world: "World", market: FakeStore) -> None:
        self._world = world
        self.market = market
        self.outbox = SimOutbox(market)
        self.lease = Lease(world)
        self.incarnation = 0
        self.away = False
        self.lost_tail = False
        self._tails: deque[tuple[dict[str, Any], dict[str, Any]]] = deque(maxlen=TAILS_KEPT)
        self._keeps_tails = world.plan.faults.store.tails > 0

    def run(self, name: str, command: Callable[[], Any]) -> Any:
        """One command, at once."""
        if self._keeps_tails and name in WRITES:
            self._tails.append((_copied(vars(self.market)), _copied(vars(self.outbox))))
        try:
            answer = finish(command())
        except ListenerError as error:
            self._world.note("store", name, type(error).__name__)
            raise
        if name not in QUIET:
            self._world.note("store", name)
        self._world.check.after_command()
        return answer

    def crash(self, back: int) -> None:
        """Lose connections and commands under way; with the last `back` writes, the lease too."""
        self.incarnation += 1
        if back and len(self._tails):
            market, outbox = self._tails[-min(back, len(self._tails))]
            vars(self.market).update(_copied(market))
            vars(self.outbox).update(_copied(outbox))
            self._tails.clear()
            self.lost_tail = True
            self.lease.until_s = 0
        self.market.incarnation = str(self.incarnation)
        self._world.check.after_lost_tail()


class StoreLink:
    """A port of one process whose methods run on the server."""

    def __init__(self, process: Process, world: "World", target: object) -> None:
        self._process = process
        self._world = world
        self._target = target
        self._rng = Random(world.rng.random())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **named: Any) -> Any:
            return await self._call(name, args, named)

        setattr(self, name, call)
        return call

    async def _call(self, name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        world, draw = self._world, self._rng.random
        world.check_alive(self._process)
        store, faults = world.store, world.plan.faults.store
        answered: asyncio.Future[Any] = world.loop.create_future()
        if store.away:
            world.later(0.01, fail, answered, StoreUnavailable("away"))
            return await answered
        sent = tuple(copy(arg) if isinstance(arg, ChangeSet) else arg for arg in args)
        command = partial(getattr(self._target, name), *sent, **named)
        delay_s = 0.001
        listener: asyncio.Future[Any] | None = answered
        if world.faulty:
            if draw() < faults.error:
                world.later(TIMEOUT_S * draw(), fail, answered, StoreUnavailable("no connection"))
                return await answered
            if draw() < faults.lost:
                listener = None
            if draw() < faults.slow:
                delay_s = 2 * TIMEOUT_S * draw()
            if draw() < faults.late:
                delay_s = LATE_MAX_S * draw()
                listener = None
        if listener is None or delay_s > TIMEOUT_S:
            world.later(TIMEOUT_S, fail, answered, StoreUnavailable("no answer"))
        world.later(delay_s, self._serve, store.incarnation, name, command, listener)
        return await answered

    def _serve(
        self,
        incarnation: int,
        name: str,
        command: Callable[[], Any],
        answered: "asyncio.Future[Any] | None",
    ) -> None:
        world = self._world
        if self._process.dead and world.plan.drops_what_the_dead_sent:
            return
        if world.store.incarnation != incarnation:
            if answered:
                fail(answered, StoreUnavailable("connection lost"))
            return
        try:
            answer = world.store.run(name, command)
        except ListenerError as error:
            if answered:
                fail(answered, error)
            return
        if answered and not answered.done():
            answered.set_result(answer)


class LeaseLink:
    """`Lease` of one process."""

    def __init__(self, process: Process, world: "World") -> None:
        self._link = StoreLink(process, world, world.store.lease)
        self._holder = process.name

    async def hold(self) -> bool:
        """See `Lease.hold`."""
        held: bool = await self._link.hold(self._holder)
        return held

    async def release(self) -> None:
        """See `Lease.release`."""
        await self._link.release(self._holder)


def _copied(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a fake, deep enough that its methods do not change the copy."""
    return {name: _copy(value) for name, value in fields.items() if name not in {"_store", "_rules"}}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copy(item) if isinstance(item, dict | list) else item for key, item in value.items()}
    return copy(value) if isinstance(value, list | deque) else value

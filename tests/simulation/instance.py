"""One running listener, wired as `main.py` wires it, with links to the simulated world for adapters."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from listener.application.changes import ChangeSet
from listener.application.interfaces import AlertStore, MarketStore, Outbox, RowId
from listener.application.services.auditor import AuditLimits, Auditor
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import Follower, FollowerLimits
from listener.application.services.leadership import Leadership
from listener.application.services.publisher import Publisher, PublisherLimits
from listener.application.services.supervisor import keep_running
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.heads import HintSlot
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.witness import LogsWitness, ReceiptsWitness
from listener.infrastructure.clock import LocalSignal
from listener.wiring import decoders, layouts
from tests.fakes.build import CHAIN_ID
from tests.simulation.backend import BackendLink
from tests.simulation.loop import Process
from tests.simulation.node import SimRpc
from tests.simulation.store import LeaseLink, StoreLink

if TYPE_CHECKING:
    from tests.simulation.world import World

DECODERS = decoders()
LAYOUTS = layouts()


class SimClock:
    """`Clock` in virtual time; the wall clock may jump.

    Args:
        world: has the time.
        stretch: sleeps are so much longer.
    """

    def __init__(self, world: "World", stretch: float = 1) -> None:
        self._world = world
        self._stretch = stretch

    def now(self) -> int:
        """See `Clock.now`."""
        return self._world.wall_ms()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._world.loop.time()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(max(seconds * self._stretch, 0))


class SimObserver:
    """`Observer` that notes what matters for a trace."""

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self._name = name

    def committed(self, changes: ChangeSet, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.committed`."""
        head = changes.head
        self._world.note(self._name, "committed", head.number, head.hash[:6], head.gen, head.epoch, head.seq)

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self._world.note(self._name, "trouble", service, f"{type(error).__name__}: {error}", retry_in_s)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:  # noqa: ARG002 - of the port
        """See `Observer.delivered`."""
        self._world.note(self._name, "delivered", *last, messages)

    def superseded(self, error: Exception) -> None:
        """See `Observer.superseded`."""
        self._world.note(self._name, "superseded", str(error))

    def audit_difference(self, block: BlockRef, detail: str, *, repaired: bool) -> None:
        """See `Observer.audit_difference`."""
        self._world.note(self._name, "audit", block.number, block.hash[:6], detail, repaired)

    def audit_missed(self, first: int, last: int) -> None:
        """See `Observer.audit_missed`."""
        self._world.note(self._name, "missed", first, last)
        self._world.check.missed = True

    def __getattr__(self, _name: str) -> Any:
        return _ignore


def _ignore(*_args: object, **_named: object) -> None:
    """Nothing that a trace needs."""


class Instance:
    """A listener.

    Attributes:
        main: ends when the listener ends.
        hints: where heads arrive.
    """

    def __init__(self, world: "World", process: Process) -> None:
        self.process = process
        self._world = world
        self._plan = world.plan
        self._clock = SimClock(world)
        self._lazy = SimClock(world, self._plan.stretch**0.5)
        self._observer = SimObserver(world, process.name)
        self._commits = LocalSignal()
        self._audit_wanted = LocalSignal()
        self.hints = HintSlot(self._plan.limits.poll_s)
        self._subscribe()
        rpc = SimRpc(process, world)
        self._chain = RpcChainSource(rpc, DECODERS, self._plan.bloom, layouts=LAYOUTS)
        self._witness = (LogsWitness if self._plan.second else ReceiptsWitness)(rpc, DECODERS)
        self._store = cast("MarketStore", StoreLink(process, world, world.store.market))
        self._lease = LeaseLink(process, world)
        self._follower = self._build_follower()
        patient = SimClock(world, self._plan.stretch)
        leadership = Leadership(self._lease, self._work, patient, self._observer)
        running = keep_running(leadership.run, self._lazy, self._observer)
        self.main = world.loop.create_task(running, context=process.context, name=process.name)

    async def _work(self) -> None:
        """One term."""
        self._follower.forget()
        async with asyncio.TaskGroup() as tasks:
            for name, part in self._parts().items():
                tasks.create_task(keep_running(part, self._lazy, self._observer), name=name)

    def _parts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        parts: dict[str, Callable[[], Awaitable[None]]] = {"chain": self._follower.run}
        if self._plan.backend:
            parts["backend"] = self._build_publisher().run
        if self._plan.rules.audit_blocks:
            parts["audit"] = self._build_auditor().run
        return parts

    def _build_follower(self) -> Follower:
        plan, limits = self._plan, self._plan.limits
        return Follower(
            chain=self._chain,
            hints=self.hints,
            store=self._store,
            clock=self._clock,
            observer=self._observer,
            signal=self._commits,
            audit_wanted=self._audit_wanted,
            rules=plan.rules,
            limits=FollowerLimits(
                poll_s=limits.poll_s,
                fetch=FetchLimits(limits.range_blocks, limits.requests),
                commit_trades=limits.commit_trades,
                cached_markets=limits.cached_markets,
                stall_s=60,
            ),
            chain_id=CHAIN_ID,
            start=plan.start,
            fingerprint={"PRICE_MODE": plan.rules.price_mode},
            tell_backend=plan.backend,
            lease=self._lease,
            alerts=cast("AlertStore", self._store),
        )

    def _build_publisher(self) -> Publisher:
        limits = self._plan.limits
        return Publisher(
            outbox=cast("Outbox", StoreLink(self.process, self._world, self._world.store.outbox)),
            backend=BackendLink(self.process, self._world),
            signal=self._commits,
            clock=self._clock,
            observer=self._observer,
            limits=PublisherLimits(limits.batch_rows, limits.message_bytes, 1.0, limits.poll_s),
        )

    def _build_auditor(self) -> Auditor:
        return Auditor(
            ledger=self._follower,
            chain=self._chain,
            witness=self._witness,
            store=self._store,
            wanted=self._audit_wanted,
            observer=self._observer,
            limits=AuditLimits(blocks=3, blocks_per_s=2, idle_s=self._plan.limits.poll_s),
        )

    def _subscribe(self) -> None:
        """Heads arrive; a silent subscription is replaced by a new one after a while."""
        self.hints.subscribe(lambda: self._world.later(1, self._subscribe))


def start_instance(world: "World", process: Process) -> Instance:
    """Start a listener in the context of a process."""
    return Instance(world, process)

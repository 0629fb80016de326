"""The simulated world: everything outside a listener, and the listeners in it."""

from collections.abc import Callable
from contextvars import Context, copy_context
from hashlib import sha256
from random import Random, getstate, setstate
from random import seed as seed_global
from typing import Any, Final

from listener.domain.value_objects import BlockRef
from tests.fakes.build import MONDAY_MS, digest
from tests.fakes.store import FakeStore
from tests.simulation.alerts import RULES, rule_of
from tests.simulation.backend import Consumer
from tests.simulation.check import Check
from tests.simulation.instance import Instance, start_instance
from tests.simulation.loop import Process, SimFailure, SimLoop
from tests.simulation.node import SimNodes
from tests.simulation.plan import Plan
from tests.simulation.store import SimStore

STOP_S: Final = 60.0
"""A listener that was asked to stop has ended by then."""
CALM_S: Final = 300.0
"""Virtual time in which everything comes right once nothing goes wrong any more; polls come on top."""
LOOK_S: Final = 7.0
TRACE_SHOWN: Final = 25


class Dead(BaseException):
    """A killed process used a port."""


class World:
    """One run.

    Attributes:
        faulty: things go wrong; later they do no more.
        trace: what happened, and when.
        crash_points: handles that the first listener had used when all was done.
    """

    def __init__(self, plan: Plan) -> None:
        setting = plan.setting()
        self.plan = plan
        self.rng = Random(f"{plan.scenario}/{plan.seed}")
        self.loop = SimLoop(Random(self.rng.random()), handles_max=plan.handles_max)
        self.timeline, self.ledger = setting.timeline, setting.ledger
        self.intervals_ms = {interval.name: interval.ms for interval in plan.rules.intervals}
        self.faulty = True
        self.trace: list[tuple[object, ...]] = []
        self.check = Check(self)
        self.nodes = SimNodes(self, setting.pages)
        self.store = SimStore(self, FakeStore(plan.rules, plan.limits.outbox_rows))
        self.store.market.put_rules(map(rule_of, RULES))
        self.consumer = Consumer(self)
        self.slots = [Slot(self, f"listener{number}") for number in range(plan.instances)]
        self.crash_points = 0
        self._skew_ms = 0
        self._restarts = Random(plan.seed)
        self._context: Context = copy_context()

    def later(self, delay_s: float, what: Callable[..., Any], *args: Any) -> None:
        """Do something outside of any listener."""
        self.loop.call_later(delay_s, what, *args, context=self._context)

    def wall_ms(self) -> int:
        """What a clock on the wall says."""
        return MONDAY_MS + int(self.loop.time() * 1000) + self._skew_ms

    def note(self, *what: object) -> None:
        """Remember what happened."""
        self.trace.append((self.loop.time(), *what))

    def happens(self, share: float) -> bool:
        """Draw whether something goes wrong now."""
        return self.faulty and share > 0 and self.rng.random() < share

    def check_alive(self, process: Process) -> None:
        """Refuse what the dead ask for."""
        if process.dead:
            raise Dead

    def story(self, last: int = TRACE_SHOWN) -> str:
        """The end of what happened, a line each."""
        return "\n".join(
            f"{when:10.3f}  {' '.join(map(str, what))}"[:160] for when, *what in self.trace[-last:]
        )

    def fingerprint(self) -> str:
        """Stands for everything that happened."""
        return sha256(repr(self.trace).encode()).hexdigest()

    def run(self) -> None:
        """Everything, to a good end or a `SimFailure`."""
        before = getstate()
        seed_global(self.plan.seed)
        try:
            self.loop.drive(self._play())
        finally:
            setstate(before)
            for slot in self.slots:
                slot.kill()

    async def _play(self) -> None:
        self._schedule()
        for number, slot in enumerate(self.slots):
            self.later(number * 0.3 * self.plan.pace.block_s, slot.start)
        await self._sleep(self.timeline.calm_s)
        self._calm()
        await self._sleep(self.timeline.end_s - self.timeline.calm_s + 1)
        deadline = self.loop.time() + CALM_S + 30 * self.plan.stretch + 3 * self.plan.limits.poll_s
        while reason := next(self.check.unrest(), None):
            if self.loop.time() > deadline:
                raise SimFailure(f"it never came right: {reason}")
            await self._sleep(LOOK_S)
        problem = next(self.check.lasting_differences(), None)
        if problem:
            raise SimFailure(f"in the end: {problem}")
        self.crash_points = self.slots[0].steps
        for slot in self.slots:
            slot.stop(again=False)
        await self._sleep(STOP_S * self.plan.stretch + 1)

    async def _sleep(self, seconds: float) -> None:
        woken = self.loop.create_future()
        self.later(seconds, woken.set_result, None)
        await woken

    def _calm(self) -> None:
        self.note("world", "calm")
        self.faulty = False
        self.store.away = self.consumer.away = False

    def _schedule(self) -> None:
        """Decide what goes wrong, and when."""
        faults, timeline = self.plan.faults, self.timeline
        for time_s, chain in zip(timeline.times, timeline.chains, strict=True):
            self._announce(time_s, chain[-1].block)
        for _ in range(faults.store.away):
            self._at_some_time(self._lose_store, 0)
        for _ in range(faults.store.tails):
            self._at_some_time(self._lose_store, self.rng.randint(1, 10))
        for _ in range(faults.backend.away):
            self._at_some_time(self._lose_backend)
        for _ in range(faults.process.crashes):
            self._at_some_time(lambda: self.rng.choice(self.slots).crash_soon())
        for _ in range(faults.process.stops):
            self._at_some_time(lambda: self.rng.choice(self.slots).stop())
        for _ in range(faults.process.clock_jumps):
            self._at_some_time(self._jump_clock)

    def _at_some_time(self, what: Callable[..., Any], *args: Any) -> None:
        self.later(self.rng.random() * self.timeline.calm_s, what, *args)

    def _announce(self, time_s: float, tip: BlockRef) -> None:
        rng, faults = self.rng, self.plan.faults.hints
        if rng.random() < faults.drop:
            return
        for _ in range(2 if rng.random() < faults.double else 1):
            late_s = 3 * self.plan.pace.block_s * rng.random() if rng.random() < faults.late else 0
            self.later(time_s + 0.01 + late_s, self._hint, tip)
        if rng.random() < faults.nonsense:
            number = max(tip.number + rng.randint(-3, 3), 0)
            parent = rng.choice((tip.hash, tip.parent_hash, digest(rng.random())))
            self.later(time_s, self._hint, BlockRef(number, digest(rng.random()), parent, tip.timestamp))

    def _hint(self, block: BlockRef) -> None:
        for slot in self.slots:
            if slot.instance:
                slot.instance.hints.put(block)

    def _lose_store(self, tail: int) -> None:
        if self.faulty:
            self.note("world", "the store crashes", tail)
            self.store.crash(tail)
            self.store.away = True
            self.later(0.1 + 8 * self.rng.random(), self._find_store)

    def _find_store(self) -> None:
        self.store.away = False

    def _lose_backend(self) -> None:
        if self.faulty:
            self.note("world", "the backend is away")
            self.consumer.away = True
            self.later(0.1 + 40 * self.rng.random(), self._find_backend)

    def _find_backend(self) -> None:
        if self.faulty and self._restarts.random() < 0.5:
            self.note("world", "the backend was restarted")
            self.consumer.restart()
        self.consumer.away = False

    def _jump_clock(self) -> None:
        farthest = self.plan.faults.process.clock_ms
        self._skew_ms = self.rng.randint(-farthest, farthest)
        self.note("world", "the clock jumps", self._skew_ms)


class Slot:
    """A place for one listener, with somebody who starts it again.

    Attributes:
        instance: the one that runs now.
    """

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._starts = 0
        self._again = True
        self.instance: Instance | None = None

    def start(self) -> None:
        """Start a listener."""
        if self.instance is not None or not self._again:
            return
        process = Process(f"{self._name}.{self._starts}", self._crashed)
        if self._starts == 0 and self._name == "listener0":
            process.crash_after = self._world.plan.crash
        self._starts += 1
        self._world.note(process.name, "starts")
        self.instance = instance = start_instance(self._world, process)
        instance.main.add_done_callback(lambda _: self._ended(instance), context=self._world._context)

    def crash_soon(self) -> None:
        """Be killed after some more handles."""
        if self.instance and self._world.faulty:
            process = self.instance.process
            process.crash_after = process.steps + self._world.rng.randint(1, 30)

    def stop(self, *, again: bool = True) -> None:
        """Ask the listener to stop; it has a while to do so."""
        self._again = again
        if self.instance and (self._world.faulty or not again):
            self._world.note(self.instance.process.name, "is asked to stop")
            self.instance.main.cancel()
            self._world.later(STOP_S * self._world.plan.stretch, self._must_have_ended, self.instance)

    def kill(self) -> None:
        """The run is over."""
        if self.instance:
            self.instance.process.kill()

    @property
    def steps(self) -> int:
        """Handles that the running listener has used."""
        return self.instance.process.steps if self.instance else 0

    def _must_have_ended(self, instance: Instance) -> None:
        if self.instance is instance:
            raise SimFailure(f"{instance.process.name} was asked to stop and goes on")

    def _crashed(self) -> None:
        if self.instance:
            self._world.note(self.instance.process.name, "was killed")
        self._gone()

    def _ended(self, instance: Instance) -> None:
        if self.instance is not instance:
            return
        if not instance.main.cancelled():
            error = instance.main.exception()
            self._world.note(instance.process.name, "ended", repr(error))
            raise SimFailure(f"{instance.process.name} ended: {error!r}") from error
        left = instance.process.left_behind()
        if left:
            raise SimFailure(f"{instance.process.name} has ended and left behind {left}")
        instance.process.kill()
        self._gone()

    def _gone(self) -> None:
        self.instance = None
        self._world.later(0.5 + 3 * self._world.rng.random(), self.start)

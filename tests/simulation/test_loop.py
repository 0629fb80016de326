"""The loop itself: virtual time, drawn order, and processes that end between two handles."""

import asyncio
import itertools
from random import Random
from typing import Any

import pytest

from tests.simulation.loop import Process, SimFailure, SimLoop


def test_time_jumps_to_the_next_timer() -> None:
    """An hour passes in no time, and every sleeper wakes at its own instant."""
    loop = SimLoop(None)
    woken: list[tuple[float, str]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((loop.time(), name))

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sleep("late", 3_600))
            tasks.create_task(sleep("early", 0.5))

    loop.drive(main())
    assert woken == [(0.5, "early"), (3_600, "late")]


def order_of(seed: int) -> list[int]:
    """In which order tasks run that are all ready at once."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(note(number))

    SimLoop(Random(seed)).drive(main())
    return order


def test_the_seed_decides_what_runs_first() -> None:
    """The same seed gives the same order, others give others."""
    assert order_of(1) == order_of(1)
    assert len({tuple(order_of(seed)) for seed in range(20)}) > 10
    assert all(sorted(order_of(seed)) == list(range(6)) for seed in range(20))


def test_timeouts_and_cancellation_work() -> None:
    """What asyncio builds on the loop behaves as on any other."""
    loop = SimLoop(Random(0))
    seen: list[object] = []

    async def main() -> None:
        try:
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append(loop.time())
        task = asyncio.create_task(asyncio.sleep(9))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append(loop.time())

    loop.drive(main())
    assert seen == [2, 3]


@pytest.mark.parametrize("steps", range(1, 12))
def test_the_dead_run_no_more(steps: int) -> None:
    """After so many handles nothing of a process runs again, not even what it would do on its way out."""
    loop = SimLoop(Random(0))
    ran: list[int] = []
    ran_when_killed: list[int] = []
    process = Process("victim", lambda: ran_when_killed.append(len(ran)))
    process.crash_after = steps

    async def child() -> None:
        try:
            for second in itertools.count(1):
                await asyncio.sleep(1)
                ran.append(second)
        finally:
            await asyncio.sleep(0)
            ran.append(-1)

    async def victim() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(child())

    async def main() -> None:
        loop.create_task(victim(), context=process.context)
        await asyncio.sleep(100)

    loop.drive(main())
    assert process.steps == steps
    assert ran_when_killed == [len(ran)]
    assert -1 not in ran
    assert len(ran) >= (steps - 3) // 3


def test_the_dead_make_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed may ask for its loop on its way out: that is the simulated one."""
    loop = SimLoop(Random(0))
    found: list[asyncio.AbstractEventLoop] = []
    process = Process("victim", lambda: None)
    monkeypatch.setattr(asyncio, "set_event_loop", lambda _loop: pytest.fail("a loop was made"))

    async def victim() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            found.append(asyncio.get_event_loop())

    async def main() -> None:
        process.tasks.append(loop.create_task(victim(), context=process.context))
        await asyncio.sleep(1)

    loop.drive(main())
    process.kill()
    assert found == [loop]


def test_async_generators_of_the_dead_stay_unfinished() -> None:
    """An async generator that is collected after its process was killed does not run its `finally`."""
    loop = SimLoop(Random(0))
    cleaned: list[bool] = []
    process = Process("victim")

    async def numbers() -> Any:
        try:
            while True:
                yield 1
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def victim() -> None:
        async for _ in numbers():
            pass

    async def main() -> None:
        loop.create_task(victim(), context=process.context)
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(5)

    loop.drive(main())
    assert not cleaned


def test_a_busy_loop_is_noticed() -> None:
    """A run that never ends fails instead."""

    async def spin() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def tick() -> None:
        for _ in itertools.count():
            await asyncio.sleep(60)

    with pytest.raises(SimFailure, match="1000 handles"):
        SimLoop(None, handles_max=1_000).drive(spin())
    with pytest.raises(SimFailure, match="nothing can ever happen"):
        SimLoop(None).drive(wait_for_ever())
    with pytest.raises(SimFailure, match="virtual seconds"):
        SimLoop(None, seconds_max=3_600).drive(tick())


def test_an_error_nobody_sees_fails_the_run() -> None:
    """A callback that raises ends the run with what it raised."""
    loop = SimLoop(None)

    def refuse() -> None:
        raise SimFailure("this must not be")

    async def main() -> None:
        loop.call_later(1, refuse)
        await asyncio.sleep(2)

    with pytest.raises(SimFailure, match="this must not be"):
        loop.drive(main())

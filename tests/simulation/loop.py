"""A seeded event loop with virtual time.

Nothing waits: when no handle is ready, the clock jumps to the next timer. Which of the ready handles runs
next is drawn by lot. A handle belongs to the process in whose context it was scheduled; a process can be
killed between any two of its handles, after which none of its code ever runs again.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from random import Random
from typing import Any, Final

CLOSE_ATTEMPTS: Final = 5
"""A coroutine may swallow being closed once for every task group it is in."""


class SimFailure(Exception):
    """The simulation found something that must not be."""


class Process:
    """What is killed together: the tasks that were started in one context.

    Attributes:
        steps: handles run so far.
        crash_after: killed once so many handles have run; 0: never.
        dead: killed; its handles are dropped and its ports refuse.
        tasks: all that it started.
    """

    def __init__(self, name: str, crashed: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.steps = 0
        self.crash_after = 0
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = copy_context()
        self.context.run(_OWNER.set, self)
        self._crashed = crashed

    def kill(self) -> None:
        """Stop running its code, at once: what it would do on its way out does not happen either."""
        self.dead = True
        for task in reversed(self.tasks):
            if not task.done():
                _discard(task)
            elif not task.cancelled():
                task.exception()  # the dead do not look
        self.tasks.clear()

    def crash(self) -> None:
        """Be killed, and let whoever watches know."""
        self.kill()
        self._crashed()

    def left_behind(self) -> list[str]:
        """Tasks that have not ended, and those whose error nobody has seen."""
        unseen = [task for task in self.tasks if task.done() and task._log_traceback]
        return [repr(task) for task in self.tasks if not task.done() or task in unseen]


_OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


class SimLoop(asyncio.BaseEventLoop):
    """The loop.

    Args:
        rng: draws the schedule; None: handles run in the order in which they were scheduled.
        handles_max: a run of more handles has failed.
        seconds_max: a run of more virtual time has failed.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, rng: Random | None, handles_max: int = 1_000_000, seconds_max: float = 1e9) -> None:
        super().__init__()
        self.handles = 0
        self.failure: BaseException | None = None
        self._now = 0.0
        self._draw = rng.random if rng else None
        self._handles_max = handles_max
        self._seconds_max = seconds_max
        self.set_exception_handler(self._unhandled)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Start a task, and remember whose it is."""
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        context = options.get("context")
        owner = context.get(_OWNER) if context is not None else _OWNER.get()
        if owner is not None:
            owner.tasks.append(task)
        return task

    def drive(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end, or until something fails."""
        task = self.create_task(main)
        task.add_done_callback(lambda _: self.stop())
        try:
            self.run_forever()
            if self.failure is None:
                task.result()
        finally:
            if not task.done():
                _discard(task)
            self.close()
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """End the run; the first failure counts."""
        self.failure = self.failure or error
        self.stop()

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        """Async generators are not finalised behind our back: those of the dead would run again."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """See above."""

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.fail(error if isinstance(error, SimFailure) else SimFailure(f"nobody handled it: {context}"))

    def _run_once(self) -> None:
        """Run one handle. Stands in for the method of that name of CPython's loops."""
        timers, ready = self._scheduled, self._ready
        if not ready:
            if not timers:
                return self.fail(SimFailure("nothing can ever happen again"))
            self._now = max(self._now, timers[0].when())
            if self._now > self._seconds_max:
                return self.fail(SimFailure(f"no end after {self._seconds_max} virtual seconds"))
        while timers and timers[0].when() <= self._now:
            ready.append(heapq.heappop(timers))
        waiting = len(ready)
        if self._draw and waiting > 1:
            place = int(self._draw() * waiting)
            handle = ready[place]
            del ready[place]
        else:
            handle = ready.popleft()
        if not handle.cancelled():
            self._run(handle)
        return None

    def _run(self, handle: asyncio.Handle) -> None:
        owner: Process | None = handle._context.get(_OWNER)  # type: ignore[attr-defined]
        if owner is None:
            handle._run()
        elif owner.dead:
            return
        else:
            handle._run()
            owner.steps += 1
            if owner.steps == owner.crash_after:
                owner.crash()
        self.handles += 1
        if self.handles > self._handles_max:
            self.fail(SimFailure(f"no end after {self._handles_max} handles"))


def _discard(task: Any) -> None:
    """Close the coroutine of a task that will not run again, however it clings to life."""
    task._log_destroy_pending = False
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(task.get_loop())  # what it does on its way out must not make a loop of its own
    try:
        _close(task.get_coro())
    finally:
        asyncio._set_running_loop(running)


def _close(coroutine: Any) -> None:
    for _ in range(CLOSE_ATTEMPTS):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001, S112 - the dead have no say
            continue
        return

"""One retry layer: for ever, out loud, bounded, and never over a fatal error."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from listener.application.errors import Fatal, NodeUnavailable, Superseded
from listener.application.services.supervisor import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    HEALTHY_AFTER_S,
    keep_running,
)
from tests.fakes.clock import Done, FakeClock
from tests.fakes.observer import RecordingObserver


class Failing:
    """A service that fails so many times, each time after it ran for a while."""

    def __init__(self, clock: FakeClock, times: int, end: Exception, runs_s: float = 0) -> None:
        self.clock = clock
        self.times = times
        self.end = end
        self.runs_s = runs_s
        self.calls = 0

    async def run(self) -> None:
        """Fail."""
        self.calls += 1
        self.clock.pass_ms(round(self.runs_s * 1000))
        if self.calls > self.times:
            raise self.end
        raise NodeUnavailable(f"attempt {self.calls}")


async def supervise(service: Failing, error: type[Exception]) -> RecordingObserver:
    """Keep a service running until it raises `error`."""
    observer = RecordingObserver()
    with pytest.raises(error):
        await keep_running(service.run, service.clock, observer)
    return observer


async def test_retryable_errors_are_retried_for_ever() -> None:
    """A hundred failures are no reason to give up, and each is told with its error and the wait."""
    service = Failing(FakeClock(), 100, Done())
    observer = await supervise(service, Done)
    assert service.calls == 101
    assert [str(error) for _, error, _ in observer.troubles] == [f"attempt {n}" for n in range(1, 101)]
    assert {name for name, _, _ in observer.troubles} == {"node"}
    assert [wait for _, _, wait in observer.troubles] == service.clock.slept


async def test_waits_grow_and_are_bounded() -> None:
    """Full jitter: wait n lies between nothing and the doubled first wait, never above the maximum."""
    service = Failing(FakeClock(), 200, Done())
    await supervise(service, Done)
    for attempt, wait in enumerate(service.clock.slept):
        assert 0 <= wait <= min(BACKOFF_FIRST_S * 2**attempt, BACKOFF_MAX_S)
    late = service.clock.slept[20:]
    assert max(late) > BACKOFF_MAX_S / 4
    assert len(set(late)) > 100


@pytest.mark.parametrize("error", [Superseded("another"), Fatal("stop"), ValueError("a defect"), Done()])
async def test_other_errors_pass_through_at_once(error: Exception) -> None:
    """Somebody has to act: nothing is retried, the error itself comes out."""
    service = Failing(FakeClock(), 0, error)
    observer = await supervise(service, type(error))
    assert service.calls == 1
    assert not observer.troubles


async def test_a_service_that_worked_starts_over() -> None:
    """After a minute of work an error is a new one: the wait is short again."""
    clock = FakeClock()
    service = Failing(clock, 12, Done())
    observer = RecordingObserver()

    async def work() -> None:
        service.runs_s = HEALTHY_AFTER_S + 1 if service.calls in {10, 11} else 0
        await service.run()

    with pytest.raises(Done):
        await keep_running(work, clock, observer)
    assert clock.slept[10] <= BACKOFF_FIRST_S
    assert clock.slept[11] <= BACKOFF_FIRST_S


async def test_a_service_that_ends_ends_its_supervision() -> None:
    """Nothing failed, so nothing is run again."""
    calls = []

    async def service() -> None:
        calls.append(1)

    await keep_running(service, FakeClock(), RecordingObserver())
    assert calls == [1]


async def test_cancellation_passes_through() -> None:
    """A service that is cancelled is not run again, in its work or in its wait."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def failing() -> None:
        raise NodeUnavailable("no")

    class Stuck(FakeClock):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.Event().wait()

    services: list[Callable[[], Awaitable[None]]] = [forever, failing]
    for service in services:
        task = asyncio.create_task(keep_running(service, Stuck(), RecordingObserver()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_service_that_fails_slowly_does_not_start_over() -> None:
    """Some seconds until it fails, a timeout say, are no sign that it has worked: waits become long."""
    clock = FakeClock()
    service = Failing(clock, 100, Done(), runs_s=HEALTHY_AFTER_S - 1)
    await supervise(service, Done)
    assert max(clock.slept[20:]) > BACKOFF_MAX_S / 4

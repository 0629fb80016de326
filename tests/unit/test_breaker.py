"""The circuit breaker: whom it refuses, for how long, and what it does not count."""

import asyncio

import pytest

from listener.application.errors import NodeUnavailable, StoreMisused, StoreUnavailable
from listener.infrastructure.breaker import Breaker
from tests.fakes.clock import ManualTime

RECOVERY_S = 10.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> ManualTime:
    """The breaker's clock."""
    clock = ManualTime()
    monkeypatch.setattr("circuitbreaker.monotonic", clock)
    return clock


@pytest.fixture
def breaker(time: ManualTime) -> Breaker:  # noqa: ARG001 - it reads this clock
    """Opens after three failures, for ten seconds."""
    return Breaker(
        "redis",
        failures=3,
        recovery_s=RECOVERY_S,
        counts=(StoreUnavailable,),
        refusal=StoreUnavailable,
    )


class Service:
    """Counts calls and answers as told."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    async def __call__(self) -> str:
        """One call."""
        self.calls += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return "answer"


@pytest.fixture
def service() -> Service:
    """A service that works."""
    return Service()


async def fail(breaker: Breaker, service: Service, times: int = 1) -> None:
    """Let calls fail."""
    service.error = StoreUnavailable("gone")
    for _ in range(times):
        with pytest.raises(StoreUnavailable, match="gone"):
            await breaker.run(service)


def state(breaker: Breaker) -> str:
    """The state now: it changes by itself."""
    return breaker.state


async def test_a_service_that_works_is_asked(breaker: Breaker, service: Service) -> None:
    """Closed, it is not noticed."""
    assert [await breaker.run(service) for _ in range(10)] == ["answer"] * 10
    assert (state(breaker), breaker.open_for_s, breaker.last_failure) == ("closed", 0, None)


async def test_after_so_many_failures_nobody_asks(
    breaker: Breaker, service: Service, time: ManualTime
) -> None:
    """The refusal comes at once, does not reach the service, and says why and how long."""
    await fail(breaker, service, 2)
    assert state(breaker) == "closed"
    await fail(breaker, service)
    assert (state(breaker), breaker.open_for_s) == ("open", RECOVERY_S)
    time.now += 4
    with pytest.raises(StoreUnavailable, match=r"redis: open, next try in 6 s: gone"):
        await breaker.run(service)
    assert service.calls == 3


async def test_failures_count_in_a_row_only(breaker: Breaker, service: Service) -> None:
    """A success in between begins anew."""
    for _ in range(5):
        await fail(breaker, service, 2)
        service.error = None
        await breaker.run(service)
    assert state(breaker) == "closed"


async def test_it_recovers_by_one_call(breaker: Breaker, service: Service, time: ManualTime) -> None:
    """After its time one call goes through; if it succeeds, all do."""
    await fail(breaker, service, 3)
    time.now += RECOVERY_S
    assert state(breaker) == "half-open"
    service.error = None
    assert await breaker.run(service) == "answer"
    assert state(breaker) == "closed"
    await fail(breaker, service, 2)
    assert state(breaker) == "closed"


async def test_a_trial_that_fails_opens_it_for_as_long(
    breaker: Breaker, service: Service, time: ManualTime
) -> None:
    """One failure is enough then."""
    await fail(breaker, service, 3)
    for _ in range(3):
        time.now += RECOVERY_S
        await fail(breaker, service)
        assert (state(breaker), breaker.open_for_s) == ("open", RECOVERY_S)


async def test_one_trial_at_a_time(breaker: Breaker, service: Service, time: ManualTime) -> None:
    """While the outcome of the trial is not known, the others are refused."""
    await fail(breaker, service, 3)
    time.now += RECOVERY_S
    done = asyncio.Event()
    trial = asyncio.ensure_future(breaker.run(done.wait))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="first try is under way"):
        await breaker.run(service)
    done.set()
    assert await trial is True
    assert service.calls == 3
    service.error = None
    assert await breaker.run(service) == "answer"


async def test_other_errors_are_answers(breaker: Breaker, service: Service, time: ManualTime) -> None:
    """A service that refuses what is asked works."""
    service.error = StoreMisused("WRONGTYPE")
    for _ in range(10):
        with pytest.raises(StoreMisused):
            await breaker.run(service)
    assert state(breaker) == "closed"
    await fail(breaker, service, 3)
    time.now += RECOVERY_S
    service.error = StoreMisused("WRONGTYPE")
    with pytest.raises(StoreMisused):
        await breaker.run(service)
    assert state(breaker) == "closed"


async def test_cancelled_calls_are_not_failures(breaker: Breaker) -> None:
    """A stop, or a time limit of the caller, says nothing about the service."""
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await breaker.run(asyncio.Event().wait)
    assert state(breaker) == "closed"


async def test_a_cancelled_trial_is_made_again(breaker: Breaker, service: Service, time: ManualTime) -> None:
    """It neither closes the breaker nor keeps the next one from trying."""
    await fail(breaker, service, 3)
    time.now += RECOVERY_S
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await breaker.run(asyncio.Event().wait)
    assert state(breaker) == "half-open"
    await fail(breaker, service)
    assert state(breaker) == "open"


async def test_it_can_be_opened_for_a_given_time(
    breaker: Breaker, service: Service, time: ManualTime
) -> None:
    """Where the service says how long; afterwards the usual rules hold again."""
    breaker.trip(StoreUnavailable("come again in a minute"), 60)
    assert (state(breaker), breaker.open_for_s) == ("open", 60)
    with pytest.raises(StoreUnavailable, match="in 60 s: come again in a minute"):
        await breaker.run(service)
    time.now += 59
    assert state(breaker) == "open"
    time.now += 1
    assert await breaker.run(service) == "answer"
    await fail(breaker, service, 2)
    assert state(breaker) == "closed"
    await fail(breaker, service)
    assert breaker.open_for_s == RECOVERY_S


async def test_what_began_before_does_not_close_it(breaker: Breaker) -> None:
    """A call that succeeds after the breaker has opened says nothing about now."""
    done = asyncio.Event()
    early = asyncio.ensure_future(breaker.run(done.wait))
    await asyncio.sleep(0)
    breaker.trip(StoreUnavailable("too many requests"), 60)
    done.set()
    await early
    assert (state(breaker), breaker.open_for_s) == ("open", 60)


async def test_late_failures_do_not_prolong_it(breaker: Breaker, service: Service, time: ManualTime) -> None:
    """Calls that began before it opened, and fail after, change nothing."""
    ready = asyncio.Event()

    async def slow() -> None:
        await ready.wait()
        raise StoreUnavailable("late")

    early = [asyncio.ensure_future(breaker.run(slow)) for _ in range(3)]
    await asyncio.sleep(0)
    await fail(breaker, service, 3)
    time.now += 9
    ready.set()
    assert all(isinstance(e, StoreUnavailable) for e in await asyncio.gather(*early, return_exceptions=True))
    assert breaker.open_for_s == 1


async def test_the_refusal_is_what_was_asked_for(time: ManualTime) -> None:  # noqa: ARG001 - the breaker's clock
    """Each service has its own kind of error."""
    breaker = Breaker(
        "node",
        failures=1,
        recovery_s=5,
        counts=(NodeUnavailable,),
        refusal=NodeUnavailable,
    )
    breaker.trip(NodeUnavailable("HTTP 503"), 5)
    with pytest.raises(NodeUnavailable, match="node: open, next try in 5 s: HTTP 503"):
        await breaker.run(Service())

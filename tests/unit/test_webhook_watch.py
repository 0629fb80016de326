"""The process that delivers webhooks lives as long as there are endpoints."""

import asyncio
from collections.abc import Callable

import pytest

from listener.application.errors import StoreUnavailable, WebhooksStopped
from listener.infrastructure.webhooks.supervision import WebhookWatch
from tests.fakes.clock import FakeClock


class Endpoints:
    """How many there are, as Redis answers one time after the other; then it repeats the last.

    Attributes:
        answers: None: no answer.
    """

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)

    async def count(self) -> int:
        """See `RedisWebhooks.count`."""
        await asyncio.sleep(0)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise StoreUnavailable("away")
        return found


class Life:
    """A child that notes its lives, and ends as a test says."""

    def __init__(self, end: Callable[[], None] | None = None) -> None:
        self.lives = 0
        self.alive = False
        self._end = end

    async def run(self) -> None:
        """See `ChildProcess.run`."""
        self.lives, self.alive = self.lives + 1, True
        try:
            if self._end:
                self._end()
            await asyncio.Event().wait()
        finally:
            self.alive = False


async def watched(endpoints: Endpoints, life: Life, turns: int = 200) -> list[bool]:
    """What was told meanwhile."""
    told: list[bool] = []
    watch = WebhookWatch(endpoints, life, FakeClock(), told.append)
    task = asyncio.create_task(watch.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.done():
        await task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return told


async def test_it_lives_while_there_are_endpoints() -> None:
    """None: no process. One: a process, and no second one. None again: it ends."""
    life = Life()
    assert await watched(Endpoints(0, 0, 0, 1, 2, 2, 0, 0, 3), life) == [False, True, False, True]
    assert life.lives == 2
    assert not life.alive
    nobody = Life()
    assert await watched(Endpoints(0), nobody) == [False]
    assert nobody.lives == 0


async def test_a_redis_that_is_away_changes_nothing() -> None:
    """Who does not know whether there are endpoints neither starts nor ends a process."""
    life = Life()
    assert await watched(Endpoints(None, None, 1, None, 1, None), life) == [True]
    assert life.lives == 1


async def test_a_process_that_ends_is_told() -> None:
    """As the error that is waited out; whoever tries again looks first whether it is wanted."""

    def end() -> None:
        raise WebhooksStopped("ended with 1")

    with pytest.raises(WebhooksStopped, match="ended with 1"):
        await watched(Endpoints(1), Life(end))
    assert await watched(Endpoints(0), Life(end)) == [False]

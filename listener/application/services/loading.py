"""Loading history: parts as they were fetched become runs of the size of a commit, written one behind."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Final

from listener.application.history import History

MOST_RUN_MS: Final = 12 * 3_600_000
"""Most chain time in one commit: what a rolling day needs of older minutes is then committed already."""
LEAST_RUN: Final = 1_000
GROWTH: Final = 1.25


class Runs:
    """Gathers parts of history until they are worth a commit.

    Args:
        most: trades and facts in one commit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = most
        self._parts: list[History] = []

    def failed(self) -> None:
        """A commit failed, perhaps for its size: the next ones are half as large."""
        self._parts.clear()
        self._size = min(self._most, max(LEAST_RUN, self._size // 2))

    def succeeded(self) -> None:
        """The next ones may be larger again."""
        self._size = min(self._most, int(self._size * GROWTH) + 1)

    def clear(self) -> None:
        """Forget what was gathered."""
        self._parts.clear()

    def add(self, part: History) -> Iterator[History]:
        """Runs that are large enough with this part, which follows the ones before."""
        self._parts.append(part)
        while self._parts and self._is_enough():
            run, rest = History.of(self._parts).cut(self._size, MOST_RUN_MS)
            self._parts = [rest] if rest else []
            yield run

    def rest(self) -> Iterator[History]:
        """What is left at the end."""
        if self._parts:
            yield History.of(self._parts)
            self._parts.clear()

    def _is_enough(self) -> bool:
        first, last = self._parts[0].blocks[0].block, self._parts[-1].blocks[-1].block
        return (
            sum(part.size for part in self._parts) >= self._size
            or last.timestamp - first.timestamp > MOST_RUN_MS
        )


class Behind:
    """Does one job in the background; the next one, and the end, wait for it."""

    def __init__(self) -> None:
        self._job: asyncio.Task[None] | None = None

    async def start(self, job: Coroutine[object, object, None]) -> None:
        """Begin a job. There must be none."""
        self._job = asyncio.create_task(job)
        await asyncio.sleep(0)

    def cancel(self) -> None:
        """Break the job off; `settle` says how it ended."""
        if self._job is not None:
            self._job.cancel()

    async def settle(self) -> None:
        """Wait for the job that was begun last; raises what it raises."""
        job, self._job = self._job, None
        if job is not None:
            await job

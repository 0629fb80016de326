"""Fetching ahead of the writer: several requests under way, results in order, memory bounded."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from listener.application.errors import InconsistentReply, RangeTooLarge
from listener.application.history import History
from listener.application.interfaces import ChainSource
from listener.domain.facts import BlockFacts

T = TypeVar("T")
Job = Callable[[], Coroutine[object, object, T]]

FACTS_PER_RANGE: Final = 10_000
"""What a range is meant to hold: all that are under way are in memory."""
FIRST_BLOCKS: Final = 50
"""Blocks of the first ranges, before it is known how dense they are."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of fetching.

    Attributes:
        range_blocks: most blocks asked for at once.
        requests: most requests under way at once.
    """

    range_blocks: int
    requests: int = 4


class Fetcher:
    """Fetches blocks ahead of the writer. The size of ranges follows what the node accepts."""

    def __init__(self, chain: ChainSource, limits: FetchLimits) -> None:
        self._chain = chain
        self._limits = limits
        self._blocks = min(FIRST_BLOCKS, limits.range_blocks)

    def ranges(self, first: int, last: int) -> AsyncGenerator[History]:
        """Final blocks in ascending ranges; see `ChainSource.history`."""
        return in_order(self._range_jobs(first, last), self._limits.requests)

    def blocks(self, first: int, last: int) -> AsyncGenerator[BlockFacts]:
        """Facts of blocks one by one, ascending; whether they form a chain is for the caller to see."""
        jobs = (partial(self._block, number) for number in range(first, last + 1))
        return in_order(jobs, self._limits.requests)

    def _range_jobs(self, first: int, last: int) -> Iterator[Job[History]]:
        while first <= last:
            start, end = first, min(last, first + self._blocks - 1)
            first = end + 1
            yield partial(self._range, start, end)

    async def _block(self, number: int) -> BlockFacts:
        return await self._chain.facts(await self._chain.block(number))

    async def _range(self, first: int, last: int) -> History:
        """One range, in halves where the node refuses it for its size."""
        try:
            history = await self._chain.history(first, last)
        except RangeTooLarge:
            if first == last:
                raise
            middle = (first + last) // 2
            self._blocks = max(1, min(self._blocks, (last - first + 1) // 2))
            lower = await self._range(first, middle)
            upper = await self._range(middle + 1, last)
            if upper.blocks[0].block.parent_hash != lower.blocks[-1].block.hash:
                raise InconsistentReply(f"block {middle + 1} does not follow block {middle}") from None
            return History.of([lower, upper])
        self._adapt(last - first + 1, history.size)
        return history

    def _adapt(self, blocks: int, found: int) -> None:
        """Make the next ranges as large as fits what was found in this one; at most double."""
        fitting = max(1, min(FACTS_PER_RANGE * blocks // max(found, 1), self._limits.range_blocks))
        if fitting < self._blocks:
            self._blocks = fitting
        elif blocks >= self._blocks:
            self._blocks = min(2 * self._blocks, fitting)


async def in_order(jobs: Iterable[Job[T]], most: int) -> AsyncGenerator[T]:
    """Run at most `most` jobs at once and yield their results in the order of the jobs.

    The first error ends it. Close the iterator (`contextlib.aclosing`) to end what is still under way.
    """
    waiting = iter(jobs)
    under_way: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            while len(under_way) < most and (job := next(waiting, None)) is not None:
                under_way.append(asyncio.create_task(job()))
            if not under_way:
                return
            result = await under_way[0]
            under_way.popleft()
            yield result
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

"""Loading history: runs of the size of a commit, and one commit in the background."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.history import History
from listener.application.services.loading import LEAST_RUN, MOST_RUN_MS, Behind, Runs
from listener.domain.facts import BlockFacts
from tests.fakes.build import MONDAY_MS, block, created, swap
from tests.fakes.bulk import in_bulk

HOUR_MS = 3_600_000


def part(first: int, sizes: Sequence[int], apart_ms: int = 2_000) -> History:
    """Blocks with so many trades each, in bulk, the first of them with an announcement."""
    blocks = []
    for place, size in enumerate(sizes):
        number = first + place
        makers = [created(0), *[swap(0)] * size] if number == 1 else [swap(0)] * size
        ref = block(number, time=MONDAY_MS + number * apart_ms)
        blocks.append(BlockFacts(ref, tuple(make(index, "") for index, make in enumerate(makers))))
    return in_bulk(blocks)


def whole(parts: Sequence[History]) -> list[BlockFacts]:
    """All blocks, their trades among the facts."""
    return [facts for history in parts for facts in history.facts()]


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_runs_are_what_was_fetched(sizes: list[list[int]], most: int) -> None:
    """In the same order, nothing twice and nothing lost, each run bounded or of one block."""
    parts: list[History] = []
    for some in sizes:
        parts.append(part(sum(len(one.blocks) for one in parts) + 1, some))
    runs = Runs(most)
    found = [run for one in parts for run in runs.add(one)] + list(runs.rest())
    assert whole(found) == whole(parts)
    assert all(run.size <= most or len(run.blocks) == 1 for run in found)
    assert list(runs.rest()) == []


def test_a_run_is_bounded_in_time() -> None:
    """However few trades there are: what a rolling day reads back must have been committed before."""
    runs = Runs(1_000_000)
    found = list(runs.add(part(1, [1] * 40, apart_ms=HOUR_MS)))
    spans = [run.blocks[-1].block.timestamp - run.blocks[0].block.timestamp for run in found]
    assert len(found) == 3
    assert max(spans) == MOST_RUN_MS
    assert len(whole(found)) + len(whole(list(runs.rest()))) == 40


def test_runs_shrink_after_a_failure_and_grow_again() -> None:
    """A commit may have failed for its size: half of it the next time, and never less than worthwhile."""
    runs = Runs(8 * LEAST_RUN)
    for expected in (4, 2, 1, 1):
        runs.failed()
        (run, *_) = runs.add(part(2, [LEAST_RUN] * 16))
        assert run.size == expected * LEAST_RUN
        runs.clear()
    for _ in range(20):
        runs.succeeded()
    (run, *_) = runs.add(part(2, [LEAST_RUN] * 16))
    assert run.size == 8 * LEAST_RUN


def test_what_was_gathered_is_forgotten_after_a_failure() -> None:
    """It would be folded on a state that never came to be."""
    runs = Runs(100)
    assert list(runs.add(part(2, [1]))) == []
    runs.failed()
    assert list(runs.rest()) == []


def test_history_without_trades_in_bulk() -> None:
    """Facts alone are history, too: parts with and without columns go together."""
    bulk = part(2, [2, 1])
    single = History(part(4, [1, 1]).facts())
    joined = History.of([bulk, single])
    assert joined.facts() == whole([bulk, single])
    first, rest = joined.cut(3, HOUR_MS)
    assert rest is not None
    assert (first.size, rest.size) == (3, 2)
    assert whole([first, rest]) == whole([bulk, single])
    assert History.of([single]).trades is None


class Job:
    """A job that is seen from outside."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = asyncio.Event()
        self.state = "new"
        self._error = error

    async def run(self) -> None:
        """Wait to be told."""
        self.state = "begun"
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.state = "cancelled"
            raise
        self.state = "done"
        if self._error:
            raise self._error


async def test_a_job_goes_on_in_the_background() -> None:
    """It has begun when `start` is back; `settle` waits for its end."""
    behind, job = Behind(), Job()
    await behind.settle()
    await behind.start(job.run())
    assert job.state == "begun"
    job.go_on.set()
    await behind.settle()
    assert job.state == "done"
    await behind.settle()


async def test_a_job_that_fails_is_heard_of_once() -> None:
    """By whoever settles it."""
    behind, job = Behind(), Job(ValueError("no"))
    await behind.start(job.run())
    job.go_on.set()
    with pytest.raises(ValueError, match="no"):
        await behind.settle()
    await behind.settle()


async def test_a_job_can_be_broken_off() -> None:
    """Its end is waited for, so that nothing goes on in secret."""
    behind, job = Behind(), Job()
    behind.cancel()
    await behind.start(job.run())
    behind.cancel()
    with pytest.raises(asyncio.CancelledError):
        await behind.settle()
    assert job.state == "cancelled"

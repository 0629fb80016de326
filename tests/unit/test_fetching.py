"""Fetching ahead: results in order, few requests under way, ranges of a size that the node takes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import InconsistentReply, NodeBehind, NodeUnavailable, RangeTooLarge
from listener.application.services.fetching import (
    FACTS_PER_RANGE,
    FIRST_BLOCKS,
    Fetcher,
    FetchLimits,
    in_order,
)
from listener.domain.facts import BlockFacts
from tests.fakes.build import created, swap
from tests.fakes.chain import FakeChain, LocalChain

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, int]]


class Bench:
    """Jobs of known length, and what was seen of them.

    Attributes:
        taken: how many jobs were asked for.
        under_way: how many have begun and not ended.
        most: the largest number of jobs under way at once.
        finished: jobs that came to their end, in that order.
        cancelled: jobs that were ended before it.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.under_way = 0
        self.most = 0
        self.finished: list[int] = []
        self.cancelled: list[int] = []

    async def job(self, name: int, turns: int, error: Exception | None = None) -> int:
        """Take so many turns of the loop."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            if error is not None:
                raise error
            self.finished.append(name)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled.append(name)
            raise
        finally:
            self.under_way -= 1
        return name

    def jobs(self, turns: Sequence[int]) -> Iterator[Job]:
        """One job for each length."""
        for name, length in enumerate(turns):
            self.taken += 1
            yield partial(self.job, name, length)


async def drain(results: AsyncIterator[T], found: list[T]) -> None:
    """Append all results to `found`, up to the first error."""
    async for result in results:
        found.append(result)  # noqa: PERF401 - what came before an error shall be seen


LENGTHS = st.lists(st.integers(0, 9), max_size=25)


@given(LENGTHS, st.integers(1, 5), st.integers(0, 5))
async def test_results_come_in_the_order_of_the_jobs(turns: list[int], most: int, slowness: int) -> None:
    """However long each job takes: all results, in order, never more than so many under way or ahead."""
    bench = Bench()
    found = []
    async for result in in_order(bench.jobs(turns), most):
        found.append(result)
        assert bench.taken <= len(found) + most
        for _ in range(slowness):
            await asyncio.sleep(0)
    assert found == list(range(len(turns)))
    assert bench.most <= most
    assert bench.under_way == 0


async def test_jobs_run_beside_each_other() -> None:
    """As many as may be are under way, also while the caller is busy with a result."""
    bench = Bench()
    async with aclosing(in_order(bench.jobs([5] * 12), 4)) as results:
        assert await anext(results) == 0
        assert bench.most == 4
        assert bench.finished == [0, 1, 2, 3][: len(bench.finished)]
        for _ in range(6):
            await asyncio.sleep(0)
        assert bench.finished == [0, 1, 2, 3]
        assert bench.taken == 4


@given(LENGTHS.filter(bool), st.integers(1, 5), st.data())
async def test_the_first_error_ends_it(turns: list[int], most: int, data: st.DataObject) -> None:
    """What came before it is yielded; what is under way behind it is ended, and nothing is begun any more."""
    bad = data.draw(st.integers(0, len(turns) - 1))
    bench = Bench()

    def jobs() -> Iterator[Job]:
        for name, length in enumerate(turns):
            bench.taken += 1
            error = NodeBehind("no") if name >= bad else None
            yield partial(bench.job, name, length, error)

    found: list[int] = []
    with pytest.raises(NodeBehind):
        await drain(in_order(jobs(), most), found)
    assert found == list(range(bad))
    assert bench.under_way == 0
    assert bench.taken <= bad + most


async def test_errors_behind_the_first_are_not_lost_sight_of() -> None:
    """Nothing is left behind that the loop would complain of, when several jobs fail at once."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    bench = Bench()
    errors = [NodeBehind("first"), NodeUnavailable("second"), NodeUnavailable("third")]
    jobs = [partial(bench.job, name, 0, error) for name, error in enumerate(errors)]
    with pytest.raises(NodeBehind, match="first"):
        await drain(in_order(jobs, 3), [])
    await asyncio.sleep(0)
    assert complaints == []


async def test_a_caller_that_stops_leaves_nothing_under_way() -> None:
    """Closing the iterator ends what was begun, and waits for its end."""
    bench = Bench()
    async with aclosing(in_order(bench.jobs([1, *[50] * 9]), 3)) as results:
        async for result in results:
            assert result == 0
            break
    assert bench.under_way == 0
    assert bench.cancelled == [1, 2]


async def test_a_cancelled_caller_leaves_nothing_under_way() -> None:
    """A cancellation is not lost in a job: it ends all of them and passes."""
    bench = Bench()

    async def call() -> None:
        async with aclosing(in_order(bench.jobs([50] * 9), 3)) as results:
            async for _ in results:
                pass

    task = asyncio.create_task(call())
    for _ in range(4):
        await asyncio.sleep(0)
    assert bench.under_way == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.under_way == 0
    assert bench.cancelled == [0, 1, 2]


async def test_without_jobs_there_is_nothing() -> None:
    """An empty range is no error."""
    bench = Bench()
    assert [result async for result in in_order(bench.jobs([]), 4)] == []


class Node(FakeChain):
    """Yields before it answers, and counts.

    Attributes:
        most: the largest number of requests under way at once.
        sizes: of the ranges that were answered.
    """

    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.under_way = 0
        self.most = 0
        self.sizes: list[int] = []

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """See `FakeChain.facts_between`."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            facts = await super().facts_between(first, last)
        finally:
            self.under_way -= 1
        self.sizes.append(last - first + 1)
        return facts

    def asked(self) -> list[tuple[int, int]]:
        """Ranges that were asked for."""
        return [call[1:] for call in self.calls if call[0] == "facts_between"]  # type: ignore[misc]


def chain_of(blocks: int) -> LocalChain:
    """A chain on which every third block has a trade."""
    chain = LocalChain()
    chain.mine(created(0))
    for number in range(2, blocks + 1):
        chain.mine(*([swap(0)] if number % 3 == 0 else []))
    return chain


async def ranges(fetcher: Fetcher, first: int, last: int) -> list[Sequence[BlockFacts]]:
    """All ranges."""
    return [history.facts() async for history in fetcher.ranges(first, last)]


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))
async def test_ranges_cover_everything_once(
    first: int, more: int, wanted: int, taken: int, requests: int
) -> None:
    """Whatever the node takes at once: each range begins after its predecessor, and no log is missing."""
    last = min(first + more, 60)
    node = Node(chain_of(60))
    node.range_blocks = taken
    found = await ranges(Fetcher(node, FetchLimits(wanted, requests)), first, last)
    assert [blocks[0].block.number for blocks in found] == [
        first,
        *(blocks[-1].block.number + 1 for blocks in found[:-1]),
    ]
    assert found[-1][-1].block.number == last
    blocks = [facts for part in found for facts in part]
    assert [facts for facts in blocks if facts.facts] == [
        facts for facts in node.chain.blocks[first : last + 1] if facts.facts
    ]
    numbers = [facts.block.number for facts in blocks]
    assert numbers == sorted(set(numbers))
    assert max(node.sizes) <= min(wanted, taken)
    assert node.most <= requests


async def test_ranges_grow_again() -> None:
    """After a stretch that the node refused, ranges become as large as they may be, and never larger."""
    node = Node(chain_of(200))
    fetcher = Fetcher(node, FetchLimits(32, requests=1))
    node.range_blocks = 5
    await ranges(fetcher, 1, 40)
    assert max(node.sizes) <= 5
    node.range_blocks = 1_000
    node.sizes.clear()
    await ranges(fetcher, 41, 200)
    assert node.sizes == sorted(node.sizes[:-1]) + node.sizes[-1:]
    assert max(node.sizes) == 32


async def test_a_block_that_is_too_large_by_itself_is_an_error() -> None:
    """Halving ends at one block: what the node refuses then is told, not skipped."""
    node = Node(chain_of(8))
    node.range_blocks = 0
    with pytest.raises(RangeTooLarge):
        await ranges(Fetcher(node, FetchLimits(8)), 1, 8)


class Dense(Node):
    """Every block has so many logs."""

    facts_per_block = 1

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """See `FakeChain.facts_between`."""
        await super().facts_between(first, last)
        fact = self.chain.blocks[1].facts[0]
        return [
            facts._replace(facts=(fact,) * self.facts_per_block)
            for facts in self.chain.blocks[first : last + 1]
        ]


@pytest.mark.parametrize(
    ("per_block", "largest"), [(FACTS_PER_RANGE // 8, 8), (FACTS_PER_RANGE, 1), (FACTS_PER_RANGE + 1, 1)]
)
async def test_dense_blocks_make_smaller_ranges(per_block: int, largest: int) -> None:
    """The memory for what is fetched ahead is bounded by logs, not by blocks; one block is the least."""
    node = Dense(chain_of(160))
    node.facts_per_block = per_block
    await ranges(Fetcher(node, FetchLimits(64, requests=1)), 1, 160)
    assert node.sizes[0] == FIRST_BLOCKS
    assert set(node.sizes[1:-1]) == {largest}
    assert sum(node.sizes) == 160


async def test_ranges_begin_small() -> None:
    """Before it is known how dense blocks are, several ranges are under way: they must all fit in memory."""
    node = Node(chain_of(600))
    await ranges(Fetcher(node, FetchLimits(1_000, requests=4)), 1, 600)
    assert node.sizes[:4] == [FIRST_BLOCKS] * 4
    assert max(node.sizes) > FIRST_BLOCKS


class Torn(Node):
    """The upper half of a range that was too large comes from another branch."""

    async def facts_between(self, first: int, last: int) -> Sequence[BlockFacts]:
        """See `FakeChain.facts_between`."""
        facts = await super().facts_between(first, last)
        if first == 5:
            self.chain.fork(6)
            self.chain.mine_empty(6)
            facts = self.chain.blocks[first : last + 1]
        return facts


async def test_halves_that_do_not_fit_are_inconsistent() -> None:
    """A reorg between two halves of one range is noticed where they meet."""
    node = Torn(chain_of(8))
    node.range_blocks = 4
    with pytest.raises(InconsistentReply, match="block 5 does not follow block 4"):
        await ranges(Fetcher(node, FetchLimits(8)), 1, 8)


@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 5))
async def test_single_blocks_come_in_order(first: int, more: int, requests: int) -> None:
    """Each is asked for by its number, then by its hash; empty ones too."""
    node = FakeChain(chain_of(20))
    last = min(first + more, 20)
    fetcher = Fetcher(node, FetchLimits(1_000, requests))
    assert [facts async for facts in fetcher.blocks(first, last)] == node.chain.blocks[first : last + 1]
    assert sorted(node.calls) == sorted(
        (kind, number) for kind in ("block", "facts") for number in range(first, last + 1)
    )


async def test_a_single_block_that_is_not_there_yet_is_an_error() -> None:
    """A node that lost its newest block is behind: what came before is yielded."""
    node = FakeChain(chain_of(5))
    found: list[BlockFacts] = []
    with pytest.raises(NodeBehind):
        await drain(Fetcher(node, FetchLimits(10, requests=2)).blocks(3, 6), found)
    assert [facts.block.number for facts in found] == [3, 4, 5]

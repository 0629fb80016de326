"""One instance works, the others stand by; whatever ends a term, the next one begins in order."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from listener.application.errors import ListenerError, StoreUnavailable, Superseded, WrongChain
from listener.application.services import leadership
from listener.application.services.leadership import CLAIM_S, RENEW_S, Leadership, while_holding
from tests.fakes.clock import FakeClock
from tests.fakes.lease import Board, FakeLease
from tests.fakes.observer import RecordingObserver

Term = Callable[[], Awaitable[None]]

CLAIM_MS = round(CLAIM_S * 1000)
RENEW_MS = round(RENEW_S * 1000)
TURNS = 30
"""Turns of the loop in which everybody does what there is to do at an instant."""


class SharedClock(FakeClock):
    """Time that several tasks sleep in: it moves when the test says so, from one awakening to the next."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        self.slept.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + round(seconds * 1000), len(self.slept), future))
        await future

    async def advance(self, milliseconds: int) -> None:
        """Let time pass, and everybody act in it."""
        target = self.time + milliseconds
        await self._act()
        while self._sleepers and self._sleepers[0][0] <= target:
            self.time, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            await self._act()
        self.time = target

    async def _act(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)


async def for_ever() -> None:
    """A term that nothing but a cancellation ends."""
    await asyncio.Event().wait()


def failing(error: Exception) -> Term:
    """A term that ends with an error at once."""

    async def fail() -> None:
        raise error

    return fail


class Instance:
    """One instance: its lease, its work, and what it said.

    Attributes:
        terms: what happens in the terms to come; after them, each lasts until it is cancelled.
        begun: when terms began, in ms.
        ended: how often the lease had been claimed when a term was wholly over.
        at_work: whether a term is under way, its clean-up included.
    """

    def __init__(self, board: Board, *terms: Term, name: str = "first") -> None:
        self.clock = board.clock
        self.lease = FakeLease(board, name)
        self.observer = RecordingObserver()
        self.terms = list(terms)
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.at_work = False

    async def work(self) -> None:
        """One term; its clean-up takes a while."""
        self.begun.append(self.clock.time)
        self.at_work = True
        try:
            await (self.terms.pop(0) if self.terms else for_ever)()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended.append(self.lease.claims)
            self.at_work = False

    async def run(self) -> None:
        """Lead or stand by, for ever."""
        await Leadership(self.lease, self.work, self.clock, self.observer).run()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run beside the test; stopped with the context."""
        task = asyncio.create_task(self.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def clock() -> SharedClock:
    """The time of all instances."""
    return SharedClock()


@pytest.fixture
def board(clock: SharedClock) -> Board:
    """A lease that nobody holds."""
    return Board(clock)


async def test_it_leads_where_nobody_does(clock: SharedClock, board: Board) -> None:
    """A free lease is taken at once, and work begins."""
    instance = Instance(board)
    async with instance.running():
        await clock.advance(0)
        assert instance.at_work
        assert board.current() == "first"
        assert instance.observer.leads == [True]


@pytest.mark.parametrize("left_ms", [1, CLAIM_MS, 3_000, 60_001])
async def test_it_stands_by_until_the_lease_ends(clock: SharedClock, board: Board, left_ms: int) -> None:
    """Nothing is done while another instance holds the lease; soon after its end work begins."""
    instance = Instance(board)
    board.hand_to("another", left_ms)
    ends = board.until
    async with instance.running():
        await clock.advance(left_ms - 1)
        assert instance.begun == []
        assert set(instance.observer.leads) == {False}
        await clock.advance(1 + CLAIM_MS)
        assert len(instance.begun) == 1
        assert ends <= instance.begun[0] <= ends + CLAIM_MS
        assert instance.observer.leads[-1] is True
    assert instance.observer.terms_ended == []


async def test_the_lease_is_renewed_while_it_works(clock: SharedClock, board: Board) -> None:
    """It is asked for well before it would end, so that nobody else ever gets it."""
    instance, other = Instance(board), Instance(board, name="second")
    async with instance.running(), other.running():
        await clock.advance(60_000)
        assert instance.lease.claims == 1 + 60_000 // RENEW_MS
        assert len(instance.begun) == 1
        assert other.begun == []
    assert instance.lease.duration_ms > 2 * RENEW_MS


async def test_a_store_that_is_away_does_not_end_the_term(clock: SharedClock, board: Board) -> None:
    """A renewal that fails is tried again: nobody can take the lease, and no commit passes meanwhile."""
    instance = Instance(board)
    instance.lease.errors.extend([None, *[StoreUnavailable("no connection")] * 5])
    async with instance.running():
        await clock.advance(5 * RENEW_MS)
        assert instance.lease.claims == 6
        assert board.current() == ""
        await clock.advance(RENEW_MS)
        assert board.current() == "first"
        assert (len(instance.begun), instance.ended) == (1, [])
        assert instance.observer.terms_ended == []


async def test_a_lease_that_was_lost_meanwhile_ends_the_term(clock: SharedClock, board: Board) -> None:
    """While one cannot renew, the lease runs out and another takes it: the first notices, and stands by."""
    first, second = Instance(board), Instance(board, name="second")
    first.lease.errors.extend([None, *[StoreUnavailable("no connection")] * 6])
    async with first.running():
        await clock.advance(0)
        async with second.running():
            await clock.advance(10 * RENEW_MS)
            assert [first.at_work, second.at_work] == [False, True]
            assert len(first.observer.terms_ended) == 1


async def test_a_lost_lease_ends_the_term(clock: SharedClock, board: Board) -> None:
    """Work is cancelled, and wholly over, before the lease is asked for again; then it stands by."""
    instance = Instance(board)
    async with instance.running():
        await clock.advance(0)
        board.hand_to("another", 10_000)
        await clock.advance(RENEW_MS)
        assert not instance.at_work
        assert instance.ended == [instance.lease.claims]
        assert [type(error) for error in instance.observer.terms_ended] == [Superseded]
        await clock.advance(10_000 - 2 * RENEW_MS)
        assert instance.observer.leads[:2] == [True, False]
        assert len(instance.begun) == 1
        await clock.advance(2 * RENEW_MS)
        assert len(instance.begun) == 2


async def test_a_store_that_forgot_the_lease_gives_it_back(clock: SharedClock, board: Board) -> None:
    """A lease that vanished is taken anew by the next renewal: whoever works goes on."""
    instance = Instance(board)
    async with instance.running():
        await clock.advance(0)
        board.hand_to("", 0)
        await clock.advance(RENEW_MS)
        assert board.current() == "first"
        assert len(instance.begun) == 1


async def test_a_term_that_was_superseded_is_followed_by_another(clock: SharedClock, board: Board) -> None:
    """A refused commit ends the term, not the service: after a pause the next one begins anew."""
    error = Superseded("another head")
    instance = Instance(board, failing(error), failing(error))
    started = clock.time
    async with instance.running():
        await clock.advance(5 * CLAIM_MS)
        assert instance.at_work
    assert instance.begun == [started, started + CLAIM_MS, started + 2 * CLAIM_MS]
    assert instance.observer.terms_ended == [error, error]
    assert instance.observer.leads == [True] * 3
    assert board.current() == ""


async def test_a_superseded_instance_keeps_the_lease(clock: SharedClock, board: Board) -> None:
    """The pause between two terms is no gap in the lease: whoever stands by goes on standing by."""
    first, second = Instance(board, failing(Superseded("another head"))), Instance(board, name="second")
    async with first.running():
        await clock.advance(0)
        async with second.running():
            await clock.advance(10_000)
            assert len(first.begun) == 2
            assert second.begun == []


@pytest.mark.parametrize("nested", [False, True])
async def test_other_errors_pass_through(board: Board, *, nested: bool) -> None:
    """Somebody has to act: the error comes out in a group, and the lease is given up."""
    error: Exception = WrongChain("chain 1")
    instance = Instance(board, failing(ExceptionGroup("parts", [error]) if nested else error))
    with pytest.RaisesGroup(WrongChain, flatten_subgroups=True):
        await instance.run()
    assert len(instance.begun) == 1
    assert board.current() == ""
    assert instance.observer.terms_ended == []


async def test_a_fatal_error_beside_a_superseded_one_passes_through(board: Board) -> None:
    """Where two parts of the work fail together, the fatal one is not swallowed with the other."""
    both = ExceptionGroup("parts", [Superseded("another head"), WrongChain("chain 1")])
    instance = Instance(board, failing(both))
    with pytest.RaisesGroup(WrongChain, flatten_subgroups=True):
        await instance.run()
    assert len(instance.observer.terms_ended) == 1


async def test_a_superseded_part_is_told_by_its_own_error(clock: SharedClock, board: Board) -> None:
    """Work is a group of parts: the log has to say what happened, not that a group failed."""
    error = Superseded("expected block 5, found block 6")
    instance = Instance(board, failing(ExceptionGroup("parts", [error])))
    async with instance.running():
        await clock.advance(CLAIM_MS)
    assert instance.observer.terms_ended == [error]


async def test_a_store_that_is_away_at_the_claim_is_for_the_caller(clock: SharedClock, board: Board) -> None:
    """Before there is a term there is nothing to keep: the error passes, and a later run begins."""
    instance = Instance(board)
    instance.lease.errors.append(StoreUnavailable("no connection"))
    with pytest.raises(StoreUnavailable):
        await instance.run()
    assert instance.begun == []
    async with instance.running():
        await clock.advance(0)
        assert instance.at_work


@pytest.mark.parametrize("leads", [False, True])
async def test_a_stopped_instance_gives_the_lease_up(
    clock: SharedClock, board: Board, *, leads: bool
) -> None:
    """After a clean stop nobody has to wait; a lease of somebody else is left alone."""
    instance = Instance(board)
    if not leads:
        board.hand_to("another", 60_000)
    async with instance.running() as task:
        await clock.advance(0)
        assert instance.at_work is leads
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert instance.lease.releases == 1
    assert board.current() == ("" if leads else "another")
    assert not instance.at_work


class Unreleasable(FakeLease):
    """A lease whose release fails, or never answers."""

    def __init__(self, board: Board, answer: ListenerError | None) -> None:
        super().__init__(board)
        self.answer = answer

    async def release(self) -> None:
        """See `Lease.release`."""
        self.releases += 1
        if self.answer:
            raise self.answer
        await asyncio.Event().wait()


@pytest.mark.parametrize("answer", [StoreUnavailable("no connection"), None], ids=["fails", "hangs"])
async def test_a_release_without_an_answer_holds_up_nobody(
    clock: SharedClock, board: Board, answer: ListenerError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease runs out by itself: a stop does not wait for the store longer than a moment."""
    monkeypatch.setattr(leadership, "RELEASE_S", 0.01)
    instance = Instance(board)
    instance.lease = lease = Unreleasable(board, answer)
    async with instance.running() as task:
        await clock.advance(0)
        assert instance.at_work
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
    assert lease.releases == 1


async def test_one_works_at_a_time(clock: SharedClock, board: Board) -> None:
    """Leaders that stop one after the other are followed by one of the others each, never by two."""
    instances = [Instance(board, name=str(number)) for number in range(4)]
    served: list[str] = []
    async with AsyncExitStack() as stack:
        tasks = [await stack.enter_async_context(instance.running()) for instance in instances]
        for _ in instances:
            await clock.advance(10_000)
            (leader,) = [at for at, instance in enumerate(instances) if instance.at_work]
            assert board.current() == str(leader)
            served.append(str(leader))
            tasks[leader].cancel()
            await asyncio.gather(tasks[leader], return_exceptions=True)
    assert sorted(served) == ["0", "1", "2", "3"]


async def test_work_that_ends_gives_its_result(clock: SharedClock, board: Board) -> None:
    """Work of one piece is done under the lease, and nobody renews it any more afterwards."""
    lease = FakeLease(board)

    async def work() -> int:
        await clock.sleep(10 * RENEW_S)
        return 7

    task = asyncio.create_task(while_holding(lease, clock, work))
    await clock.advance(10_000)
    assert await task == 7
    claims = lease.claims
    assert claims >= 9
    await clock.advance(10_000)
    assert lease.claims == claims


async def test_work_that_fails_ends_the_renewing(clock: SharedClock, board: Board) -> None:
    """Its error comes out in a group, and the lease is left to run out."""
    lease = FakeLease(board)
    with pytest.RaisesGroup(WrongChain):
        await while_holding(lease, clock, failing(WrongChain("chain 1")))
    await clock.advance(10_000)
    assert lease.claims == 0


async def test_work_of_one_piece_ends_with_the_lease(clock: SharedClock, board: Board) -> None:
    """Somebody else got it: the work is cancelled, because it would be done twice."""
    instance = Instance(board)
    task = asyncio.create_task(while_holding(instance.lease, clock, instance.work))
    await clock.advance(0)
    assert instance.at_work
    board.hand_to("another", 60_000)
    await clock.advance(RENEW_MS)
    with pytest.RaisesGroup(Superseded):
        await task
    assert not instance.at_work

"""The recorder between a follower, a node and what is stored."""

from collections.abc import Sequence

import pytest

from listener.application.errors import (
    ForeignData,
    InconsistentReply,
    NodeUnavailable,
    NodeUnsuitable,
    NotRecorded,
    RangeTooLarge,
)
from listener.application.listing import (
    LocatedFacts,
)
from listener.application.services.listing_reader import TERMS_KEPT, ListingReader
from listener.application.services.recorder import (
    EVENTS_TOGETHER,
    SERVICE,
    ListingRecorder,
    RecorderLimits,
)
from listener.domain.value_objects import BlockRef
from tests.fakes.build import created, rules, swap
from tests.fakes.chain import BLOCK_MS, LocalChain
from tests.fakes.clock import Done, FakeClock
from tests.fakes.listing import FakeListingChain, FakeRecords
from tests.fakes.observer import RecordingObserver

LIMITS = RecorderLimits(keep_s=100 * BLOCK_MS // 1000, every_s=5, blocks=10)


class World:
    """A recorder and what is around it.

    Attributes:
        final: the newest final block that the follower knows.
    """

    def __init__(self) -> None:
        self.chain, self.records, self.clock = FakeListingChain(), FakeRecords(), FakeClock()
        self.observer = RecordingObserver()
        self.final: BlockRef | None = None
        self.local.mine(created(0))
        self.local.mine_empty(4)

    @property
    def local(self) -> LocalChain:
        """What is mined."""
        return self.chain.chain

    def recorder(self) -> ListingRecorder:
        """A new one."""
        return ListingRecorder(
            ledger=self,
            reader=ListingReader(self.chain, self.records, rules(factories=frozenset())),
            records=self.records,
            clock=self.clock,
            observer=self.observer,
            limits=LIMITS,
        )

    def settle(self, number: int = -1) -> BlockRef:
        """A block is committed and final."""
        self.final = self.local.blocks[number].block
        self.records.head = max(self.records.head, self.final.number)
        return self.final

    def ranges(self) -> list[tuple[int, int]]:
        """What was recorded."""
        return [write[:2] for write in self.records.writes]


@pytest.fixture
def world() -> World:
    """Six blocks, nothing recorded."""
    return World()


async def test_it_waits_until_something_is_final(world: World) -> None:
    """Neither before recovery nor while history is loaded is anybody asked."""
    assert not await world.recorder().advance()
    assert world.chain.asked == []


async def test_it_begins_with_the_newest_final_block(world: World) -> None:
    """Older ones are the node's to tell; then every block follows, at most so many at once."""
    recorder = world.recorder()
    world.settle(3)
    assert not await recorder.advance()
    assert not await recorder.advance()
    world.local.mine_empty(25)
    world.settle()
    assert [await recorder.advance() for _ in range(4)] == [True, True, False, False]
    assert world.ranges() == [(3, 3), (4, 13), (14, 23), (24, 30)]


async def test_it_waits_for_the_commit(world: World) -> None:
    """What the follower has folded and not committed yet may have markets that nobody can look up."""
    world.settle()
    world.records.head -= 1
    assert not await world.recorder().advance()
    assert world.chain.asked == []


async def test_it_goes_on_after_a_restart(world: World) -> None:
    """From the block behind the last recorded one, in its pace, and says that it works."""
    world.settle()
    await world.recorder().advance()
    world.local.mine_empty(25)
    world.settle()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise Done

    world.clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(Done):
        await world.recorder().run()
    assert world.ranges() == [(5, 5), (6, 15), (16, 25), (26, 30)]
    assert slept == [LIMITS.behind_s, LIMITS.behind_s, LIMITS.every_s, LIMITS.every_s]
    assert world.observer.health == [SERVICE] * 4


async def test_old_events_go(world: World) -> None:
    """Each write says which events are too old by the chain's own time."""
    world.settle()
    recorder = world.recorder()
    await recorder.advance()
    world.local.mine_empty(3)
    last = world.settle()
    await recorder.advance()
    assert world.records.writes[-1][2] == last.timestamp // 1000 - LIMITS.keep_s


async def test_too_far_behind_it_begins_anew(world: World) -> None:
    """What it would record first would be too old to be kept."""
    world.settle()
    recorder = world.recorder()
    await recorder.advance()
    world.local.mine_empty(101)
    last = world.settle().number
    assert not await recorder.advance()
    assert world.records.writes[-1][:2] == (last, last)
    assert world.records.writes[-1][3]


async def test_another_branch_is_begun_anew(world: World) -> None:
    """Where the recorded blocks are not below the final ones any more, nothing of them stays."""
    world.settle()
    recorder = world.recorder()
    await recorder.advance()
    world.local.fork(2)
    world.local.mine_empty(6)
    last = world.settle().number
    assert not await recorder.advance()
    assert world.records.writes[-1][:2] == (last, last)
    assert world.records.writes[-1][3]


async def test_other_blocks_than_the_committed_ones_are_not_recorded(world: World) -> None:
    """A node that tells another final block than the follower knows is not believed, at first or later."""
    recorder = world.recorder()
    good = world.settle()
    world.local.fork(1)
    world.local.mine()
    with pytest.raises(InconsistentReply):
        await recorder.advance()
    assert world.records.writes == []
    world.settle()
    await recorder.advance()
    world.local.mine_empty(2)
    world.final = BlockRef(world.local.tip.number, good.hash, good.parent_hash, world.local.tip.timestamp)
    world.records.head = world.final.number
    with pytest.raises(InconsistentReply):
        await recorder.advance()
    assert len(world.records.writes) == 1


async def test_somebody_else_who_records_is_followed(world: World) -> None:
    """A write that came too late changes nothing, and the next one goes on behind the other's."""
    world.settle()
    one, other = world.recorder(), world.recorder()
    await one.advance()
    await other.advance()
    world.local.mine_empty(3)
    world.settle()
    await other.advance()
    await one.advance()
    world.local.mine_empty(1)
    world.settle()
    await one.advance()
    assert world.ranges() == [(5, 5), (6, 8), (9, 9)]


async def test_busy_blocks_make_short_ranges(world: World) -> None:
    """One write is meant to hold so many events, whatever a range holds."""
    world.settle()
    recorder = world.recorder()
    await recorder.advance()
    for _ in range(10):
        world.local.mine(*[swap(0)] * (EVENTS_TOGETHER // 5))
    world.local.mine_empty(20)
    world.settle()
    while await recorder.advance():
        pass
    sizes = [last - first + 1 for first, last in world.ranges()]
    assert sizes == [1, 10, 5, 10, 5]


async def test_a_refused_range_is_halved(world: World) -> None:
    """Until the node takes it; a single block that it refuses is an error."""
    world.chain.most = 2
    world.settle()
    recorder = world.recorder()
    await recorder.advance()
    world.local.mine(swap(0))
    world.local.mine_empty(4)
    world.settle()
    await recorder.advance()
    assert world.ranges()[-1] == (6, 10)
    assert (6, 7) in world.chain.asked
    world.chain.most = 0
    world.local.mine()
    world.settle()
    with pytest.raises(RangeTooLarge):
        await recorder.advance()


async def test_halves_must_follow_each_other(world: World) -> None:
    """A reorg between two questions is noticed."""
    chain = world.chain
    ours, chain.most = chain.blocks, 2

    async def blocks(first: int, last: int) -> Sequence[LocatedFacts]:
        found = await ours(first, last)
        if first == 2:
            world.local.fork(3)
            world.local.mine_empty(3)
        return found

    chain.blocks = blocks  # type: ignore[method-assign]
    with pytest.raises(InconsistentReply, match="does not follow"):
        await ListingReader(chain, world.records, rules(factories=frozenset())).read(2, 5)


async def test_terms_are_asked_for_once(world: World) -> None:
    """They never change; so many are remembered at most."""
    reader = ListingReader(world.chain, world.records, rules(factories=frozenset()))
    assert set(await reader.terms(["a", "b"])) == {"a", "b"}
    await reader.terms(["b", "c", "c"])
    assert world.chain.pools == ["a", "b", "c"]
    await reader.terms([str(number) for number in range(TERMS_KEPT)])
    assert len(reader._terms) == TERMS_KEPT


@pytest.mark.parametrize("error", [NodeUnsuitable("no receipts"), ForeignData("a key")])
async def test_what_somebody_must_see_to_stops_recording_only(world: World, error: Exception) -> None:
    """The service that follows the chain is not ended by it: the error is one that is tried again."""
    world.settle()

    async def fails(*_: object) -> Sequence[LocatedFacts]:
        raise error

    world.chain.blocks = fails  # type: ignore[method-assign]
    with pytest.raises(NotRecorded, match=str(error)):
        await world.recorder().run()


async def test_a_node_that_is_away_changes_nothing(world: World) -> None:
    """The error passes through to whoever retries."""
    world.settle()

    async def blocks(first: int, last: int) -> Sequence[LocatedFacts]:
        raise NodeUnavailable(f"{first}, {last}")

    world.chain.blocks = blocks  # type: ignore[method-assign]
    with pytest.raises(NodeUnavailable):
        await world.recorder().advance()
    assert world.records.stored is None

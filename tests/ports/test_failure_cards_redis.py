"""Failure cards between the store and a real Redis or Valkey: nothing is lost, doubled or mixed up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pytest

from listener.application.changes import ChangeSet, Head
from listener.application.errors import StoreUnavailable, Superseded
from listener.application.interfaces import RowId
from listener.domain.value_objects import Interval
from listener.infrastructure.redis import client
from tests.fakes.build import MONDAY_MS, token
from tests.ports.cards import (
    CANCELLED,
    CANCELLED_BEFORE,
    CARDS,
    DELAYED,
    HALF_OPEN,
    LATE,
    RESET,
    RESET_BEFORE,
    SWALLOWED,
    Card,
    Wire,
    every_card,
    soon,
    wired,
)
from tests.ports.sides import BEGUN, MOVED, ORIGIN, Side, plain

MOMENTS: Final = 40
"""Turns of the event loop after which a call is cancelled, at most."""


@pytest.fixture(params=["valkey", "redis"])
def real_port(request: pytest.FixtureRequest) -> int:
    """Port of a real server."""
    return int(request.getfixturevalue(f"{request.param}_port"))


@pytest.fixture
async def wire(real_port: int) -> AsyncIterator[Wire]:
    """The link between the store and its server."""
    async with wired(real_port) as made:
        yield made


@pytest.fixture
async def sides(
    real_port: int, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Side, Side]]:
    """A stream behind the wire, and its twin on which nothing goes wrong."""
    monkeypatch.setattr(client, "FAILURES", 1_000)
    admins = [plain(real_port, number) for number in (0, 1)]
    await admins[0].flushall()
    made = (Side(wire.port, admins[0]), Side(real_port, admins[1], 1))
    for side in made:
        await side.prepare()
    yield made
    for side in made:
        await side.database.close()
    await wire.wait_links(0)
    for admin in admins:
        await admin.aclose()


on_one_server = pytest.mark.parametrize("real_port", ["redis"], indirect=True)
"""What depends on the client alone."""

Call = Callable[[Side], Coroutine[Any, Any, object]]


async def _committing(side: Side) -> Call:
    changes = await side.next_block()
    return lambda on: on.store.commit(changes)


async def _taking_over(side: Side) -> Call:
    head = side.writer.state.head
    return lambda on: on.store.take_over(head, 9_000, resync_owed=False)


async def _saving(_side: Side) -> Call:
    return lambda on: on.outbox.save(MOVED, BEGUN)


class Write(NamedTuple):
    """A call that changes what is stored; `prepared` makes one that may be made again."""

    name: str
    prepared: Callable[[Side], Coroutine[Any, Any, Call]]


WRITES: Final = (Write("commit", _committing), Write("take_over", _taking_over), Write("save", _saving))
every_write = pytest.mark.parametrize("write", WRITES, ids=lambda write: write.name)


@every_card()
@every_write
async def test_a_write_happens_once_or_not_at_all(
    wire: Wire, sides: tuple[Side, Side], write: Write, card: Card
) -> None:
    """Whatever happens to question or answer, the store holds all of a write or nothing of it.

    A second attempt does what the first did not, and otherwise nothing; answers stay with their questions.
    """
    side, twin = sides
    call, fine = await write.prepared(side), await write.prepared(twin)
    before = await side.contents()
    assert before == await twin.contents()
    await fine(twin)
    after = await twin.contents()
    assert after != before

    await side.suffer(wire, card, call(side))
    await wire.release()

    happened = card.arrives
    assert await side.contents() == (after if happened else before)
    assert await side.store.head() == await (twin if happened else side).store.head()
    if happened:
        with pytest.raises(Superseded):
            await call(side)
    else:
        await call(side)
    assert await side.contents() == after
    assert await side.store.head() == await twin.store.head()
    assert await side.outbox.cursor() == await twin.outbox.cursor()
    await side.own_answers()


@every_card(LATE, CANCELLED_BEFORE)
@every_write
async def test_a_write_that_comes_late_meets_a_second_one(
    wire: Wire, sides: tuple[Side, Side], write: Write, card: Card
) -> None:
    """The first attempt hangs in the network while the second is made: the late one changes nothing."""
    side, twin = sides
    call, fine = await write.prepared(side), await write.prepared(twin)
    await fine(twin)
    await side.suffer(wire, card, call(side))
    await call(side)
    once = await side.contents()
    assert once == await twin.contents()
    await wire.release()
    assert await side.contents() == once
    await side.own_answers()


@on_one_server
@every_card(LATE, CANCELLED_BEFORE)
async def test_a_late_commit_finds_another_writer(wire: Wire, sides: tuple[Side, Side], card: Card) -> None:
    """What hung in the network while somebody took the stream over arrives in vain."""
    side, _ = sides
    changes = await side.next_block()
    await side.suffer(wire, card, side.store.commit(changes))
    head = await side.store.take_over(side.writer.state.head, 9_000, resync_owed=False)
    before = await side.contents()
    await wire.release()
    assert await side.contents() == before
    assert await side.store.head() == head


@on_one_server
@every_card(SWALLOWED, RESET, RESET_BEFORE, LATE, CANCELLED)
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_an_unknown_script_is_sent_again(
    wire: Wire, sides: tuple[Side, Side], card: Card, after: int
) -> None:
    """A commit that has to send its script's text first is cut at each of its three round trips."""
    side, twin = sides
    changes, fine = await side.next_block(), await twin.next_block()
    before = await side.contents()
    await twin.store.commit(fine)
    await side.admin.script_flush()

    await side.suffer(wire, card, side.store.commit(changes), after=after)
    await wire.release()

    happened = after == 2 and card.arrives
    assert await side.contents() == (await twin.contents() if happened else before)
    if not happened:
        await side.store.commit(changes)
    assert await side.contents() == await twin.contents()
    await side.own_answers(20)


def _reads(side: Side) -> list[Coroutine[Any, Any, object]]:
    """Every call that only reads."""
    store, outbox = side.store, side.outbox
    return [
        store.load(),
        store.head(),
        store.load_markets([token(0), token(1)]),
        store.load_minutes({token(0): (0, 2 * MONDAY_MS)}),
        store.load_undos(0),
        store.due(MONDAY_MS * 2, 10),
        outbox.cursor(),
        outbox.read(ORIGIN, 1_000),
        outbox.holds(RowId(1_000, 1)),
        outbox.candles([(token(0), Interval.parse("1m"), MONDAY_MS)]),
        outbox.stats([token(0)]),
    ]


async def _answers(side: Side) -> list[str]:
    """What all of them answer; as text, for some of it compares by identity."""
    return [str(answer) for answer in await soon(asyncio.gather(*_reads(side)))]


@on_one_server
@every_card()
async def test_reads_fail_and_work_again(wire: Wire, sides: tuple[Side, Side], card: Card) -> None:
    """Every read, all at once on as many connections: an error of ours in time, then the right answers."""
    side, _ = sides
    right, before = await _answers(side), await side.contents()
    await side.suffer(wire, card, *_reads(side), anew=True)
    await wire.release()
    assert await _answers(side) == right
    assert await side.contents() == before
    await side.own_answers()


@on_one_server
@every_card()
async def test_reads_of_several_round_trips_fail_in_the_second(
    wire: Wire, sides: tuple[Side, Side], card: Card
) -> None:
    """Half an answer is none: the error is the same, and nothing of it stays."""
    side, _ = sides
    right = await _answers(side)
    store = side.store
    calls = (
        store.load,
        lambda: store.load_markets([token(0)]),
        lambda: store.load_undos(0),
    )
    for call in calls:
        await store.head()  # the connection that is used next is alive
        await side.suffer(wire, card, call(), after=1)
        await wire.release()
    assert await _answers(side) == right
    await side.own_answers(20)


@every_card(DELAYED, CANCELLED)
async def test_a_connection_is_not_used_after_its_caller_left(
    wire: Wire, sides: tuple[Side, Side], card: Card
) -> None:
    """The link is closed when its caller gives up, before its answer comes: nobody can be given it."""
    side, _ = sides
    await side.suffer(wire, card, *(side.database.run("ECHO", f"lost-{n}") for n in range(5)))
    await wire.wait_links(0)
    made = wire.connections
    await wire.release()
    await side.own_answers()
    assert wire.connections > made


async def test_a_commit_is_cancelled_at_any_moment(sides: tuple[Side, Side]) -> None:
    """Whenever the caller gives up, the head tells whether it happened, and the next call gets its answer."""
    side, twin = sides
    outcomes = set()
    for moment in range(MOMENTS):
        changes, fine = await side.next_block(), await twin.next_block()
        if moment % 2:
            await side.database._redis.connection_pool.disconnect()
        task = asyncio.create_task(side.store.commit(changes))
        for _ in range(moment):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task
        await side.own_answers(12)
        happened = (await side.store.head()).hash == changes.head.hash
        outcomes.add(happened)
        head = await _settled(side, changes, happened=happened)
        changes.head = head
        side.writer.state.apply(changes)
        side.writer.kept.update(changes.states)
        await twin.writer.commit(fine)
    assert await side.contents() == await twin.contents()
    assert outcomes == {False, True}


async def _settled(side: Side, changes: ChangeSet, *, happened: bool) -> Head:
    """Commit again, and read the store again where that is refused, as the follower does; the new head."""
    try:
        head = await side.store.commit(changes)
    except Superseded:
        stored = await side.store.load()
        assert stored
        head = stored.state.head
    else:
        assert not happened
    assert head.hash == changes.head.hash
    return head


async def test_a_half_open_server_is_left_in_time(wire: Wire, sides: tuple[Side, Side]) -> None:
    """Connections are accepted and nobody answers: each call ends by its timeout and leaves no link open."""
    side, _ = sides
    for _ in range(3):
        await side.suffer(wire, HALF_OPEN, *_reads(side))
        await wire.wait_links(0)
    await _answers(side)


async def test_idle_connections_that_were_reset_are_replaced(wire: Wire, sides: tuple[Side, Side]) -> None:
    """What died while nobody looked costs at most one error a connection, of the kind that is retried."""
    side, _ = sides
    right = await _answers(side)
    idle = wire.links
    wire.reset()
    await wire.wait_links(0)
    for _ in range(idle + 1):
        with suppress(StoreUnavailable):
            assert await _answers(side) == right
            return
    pytest.fail("the pool keeps handing out dead connections")


def test_the_cards_cover_what_can_happen() -> None:
    """Each way of losing a question or an answer is in the deck."""
    assert {card.ask for card in CARDS} == {"pass", "drop", "hold", "reset", "tear"}
    assert {card.answer for card in CARDS} == {"pass", "drop", "hold", "reset", "tear"}
    assert {card.arrives for card in CARDS if card.cancelled} == {True}

"""All endpoints: lanes that come and go with what operators do, each by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from listener.application.envelopes import Envelope
from listener.application.interfaces import Cursor, RowId
from listener.application.services.webhook_lane import Tools
from listener.application.services.webhooks import Webhooks
from listener.application.webhooks import Answer, Endpoint, Status
from listener.infrastructure.clock import LocalSignal, SystemClock
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeOutbox
from tests.fakes.webhooks import ENABLED, TAKEN, FakeEndpoints, FakeTransport, WebhookNotes, endpoint

BOUND_S: Final = 5.0


class Blocking(FakeTransport):
    """Requests to some endpoints never end."""

    def __init__(self) -> None:
        super().__init__()
        self.dead = frozenset({"dead"})

    async def post(self, endpoint: Endpoint, message_id: str, body: bytes, now: int) -> Answer:
        """See `Transport.post`."""
        if endpoint.id in self.dead:
            self.posted.append((endpoint.id, message_id, body, now))
            await asyncio.Event().wait()
        return await super().post(endpoint, message_id, body, now)


class World:
    """Endpoints, one outbox with a cursor for each, and their delivery."""

    def __init__(self) -> None:
        self.store = FakeEndpoints()
        self.transport = Blocking()
        self.outboxes: dict[str, FakeOutbox] = {}
        self.observer = RecordingObserver()
        self.webhooks = Webhooks(
            Tools(self.store, self.transport, SystemClock(), WebhookNotes(), lambda: 0.5, Envelope(7, "7")),
            self.outbox,
            LocalSignal,
            SystemClock(),
            self.observer,
        )

    def outbox(self, name: str) -> FakeOutbox:
        """The outbox with an endpoint's cursor."""
        if name not in self.outboxes:
            self.outboxes[name] = FakeOutbox()
            self.outboxes[name].saved.append(Cursor(RowId(1, 0), RowId(1, 0)))
        return self.outboxes[name]

    def trade(self, seq: int) -> None:
        """A row for everybody."""
        for outbox in self.outboxes.values():
            outbox.add(1, seq, "trade_update", b'{"id":"%d"}' % seq)
        self.webhooks.notify()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(BOUND_S):
            while not reached():  # noqa: ASYNC110 - what is looked at has no event
                await asyncio.sleep(0.01)

    def got(self, name: str) -> list[str]:
        """Ids of the requests to an endpoint."""
        return [message for to, message, _, _ in self.transport.posted if to == name]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """A term of delivery."""
    async with asyncio.TaskGroup() as tasks:
        term = tasks.create_task(world.webhooks.run())
        yield
        term.cancel()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are looked for all the time."""
    monkeypatch.setattr("listener.application.services.webhooks.LOOK_S", 0.02)


async def test_a_dead_endpoint_delays_nobody() -> None:
    """While one request hangs for ever, the others go on."""
    world = World()
    for name in ("dead", "one", "two"):
        world.outbox(name)
        world.store.put(endpoint(name))
    async with running(world):
        world.trade(1)
        await world.until(lambda: len(world.transport.posted) == 3)
        for seq in range(2, 6):
            world.trade(seq)
            await world.until(
                lambda seq=seq: all(world.got(name)[-1] == f"7-1-{seq}-{seq}" for name in ("one", "two"))
            )
    assert world.got("dead") == ["7-1-1-1"]


async def test_changes_are_picked_up() -> None:
    """Created, disabled, enabled, deleted: each takes effect without a restart, and on nobody else."""
    world = World()
    world.outbox("one")
    world.outbox("two")
    world.store.put(endpoint("one"))
    async with running(world):
        world.trade(1)
        await world.until(lambda: world.got("one") == ["7-1-1-1"])
        assert world.got("two") == []
        world.store.put(endpoint("two"))
        await world.until(lambda: world.got("two") == ["7-1-1-1"])
        world.store.put(endpoint("one"), ENABLED._replace(version=2, status=Status.DISABLED))
        await asyncio.sleep(0.1)
        world.trade(2)
        await world.until(lambda: world.got("two")[-1] == "7-1-2-2")
        assert world.got("one") == ["7-1-1-1"]
        world.store.put(endpoint("one"), ENABLED._replace(version=3))
        await world.until(lambda: world.got("one") == ["7-1-1-1", "7-1-2-2"])
        del world.store.found["two"]
        world.store.changes += 1
        await asyncio.sleep(0.1)
        world.trade(3)
        await world.until(lambda: world.got("one")[-1] == "7-1-3-3")
        assert world.got("two")[-1] == "7-1-2-2"


async def test_a_hanging_request_does_not_keep_its_endpoint() -> None:
    """An operator who changes it has it delivered to anew, with the same message."""
    world = World()
    world.outbox("dead")
    world.store.put(endpoint("dead"))
    async with running(world):
        world.trade(1)
        await world.until(lambda: world.got("dead") == ["7-1-1-1"])
        world.transport.dead = frozenset()
        world.store.put(endpoint("dead"), ENABLED._replace(version=2))
        await world.until(lambda: world.got("dead") == ["7-1-1-1"] * 2)
        await world.until(lambda: world.outboxes["dead"].saved[-1].acknowledged == RowId(1, 1))


async def test_a_store_that_is_away_ends_nothing() -> None:
    """It is waited for, in the lane that needed it as well as where changes are looked for."""
    world = World()
    world.outbox("one")
    world.store.put(endpoint("one"))
    world.transport.answers.append(lambda: away(world))
    async with running(world):
        world.trade(1)
        await world.until(lambda: len(world.got("one")) == 2)
        await world.until(lambda: world.outboxes["one"].saved[-1].acknowledged == RowId(1, 1))
    assert {service for service, _, _ in world.observer.troubles} == {"redis"}


def away(world: World) -> Answer:
    """The message arrives, and what came of it cannot be noted."""
    world.store.away = 2
    return TAKEN


async def test_a_cursor_that_a_rival_moves_ends_no_delivery() -> None:
    """Two that deliver for a moment, as when a lease runs out: the lane goes on where the cursor stands."""
    world = World()
    outbox = world.outbox("one")
    world.store.put(endpoint("one"))

    def rival() -> Answer:
        outbox.saved.append(Cursor(RowId(1, 1), RowId(1, 1)))
        return TAKEN

    world.transport.answers.append(rival)
    async with running(world):
        world.trade(1)
        await world.until(lambda: world.got("one") == ["7-1-1-1"])
        await asyncio.sleep(0.1)
        world.trade(2)
        await world.until(lambda: world.got("one") == ["7-1-1-1", "7-1-2-2"])

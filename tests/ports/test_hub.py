"""The hub on a real Valkey: whatever happens, every client ends with what Redis holds. Seeded simulation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any, Final

import orjson
import pytest

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import RowId
from listener.application.rules import Finality
from listener.domain.alerts import AlertCondition, AlertKind
from listener.infrastructure.gateway.clients import Client, ClientLimits
from listener.infrastructure.gateway.hub import Hub, HubLimits
from listener.infrastructure.gateway.room_reads import ALERTS_SHOWN, RoomReads, Snapshot
from listener.infrastructure.gateway.rooms import RoomName
from listener.infrastructure.redis.alert_rules import RedisAlertRules
from listener.infrastructure.redis.fired import FIRED_KEPT, newest
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.row_feed import RowFeed
from tests.fakes.build import CHAIN_ID, created, rules, swap, token
from tests.fakes.clock import ManualTime
from tests.fakes.sockets import FakeConnection, Mirrors
from tests.fakes.writer import Writer
from tests.ports.sides import Side, plain

KEYS: Final = Keys(CHAIN_ID)
BY: Final = rules("5m", "1d", finality=Finality(6), trades_kept=30)
DATABASE: Final = 12
STEPS: Final = 150
CLIENTS_MAX: Final = 6
MARKETS: Final = 3
BUFFER: Final = ClientLimits(messages=6, bytes=6_000)
BOUND_S: Final = 20.0
LARGE: Final = AlertCondition(AlertKind.TRADE_SIZE, threshold=Decimal("0.5"), repeat=True)
"""Comes true with every other trade, about."""
ROOMS: Final = (
    "markets",
    *(
        f"{kind}:{token(number)}{rest}"
        for number in range(MARKETS)
        for kind, rest in (
            ("trades", ""),
            ("alerts", ""),
            ("stats", ""),
            ("candles", ":1m"),
            ("candles", ":5m"),
        )
    ),
    "alerts",
)


class FlakyReads(RoomReads):
    """Redis that is away now and then.

    Attributes:
        failing: the share of reads that fail.
        meanwhile: called while an answer is on its way to us.
    """

    def __init__(self, side: Side, random: Random) -> None:
        super().__init__(side.database, KEYS)
        self._random = random
        self.failing = 0.0
        self.meanwhile: Any = None

    async def snapshot(self, name: RoomName) -> Snapshot | None:
        """See `RoomReads.snapshot`."""
        self._maybe_fail()
        found = await super().snapshot(name)
        if self.meanwhile:
            await self.meanwhile()
        self._maybe_fail()
        return found

    async def candles(self, references: Any) -> Any:
        """See `RoomReads.candles`."""
        self._maybe_fail()
        found = await super().candles(references)
        if self.meanwhile:
            await self.meanwhile()
        return found

    def _maybe_fail(self) -> None:
        if self._random.random() < self.failing:
            raise StoreUnavailable("away")


class World:
    """A writer, a hub, and clients that come and go."""

    def __init__(self, side: Side, seed: int) -> None:
        self.side = side
        self.random = Random(seed)
        self.time = ManualTime()
        self.reads = FlakyReads(side, self.random)
        self.hub = Hub(self.reads, self.time, HubLimits(linger_s=30, resume_rows=60), BUFFER)
        self.feed = RowFeed(side.database, KEYS, batch_rows=40, block_ms=1)
        self.rules = RedisAlertRules(side.database, KEYS)
        self.writer = Writer(side.writer.chain, side.store, BY, alerts=self.rules)
        self.links: dict[Client, tuple[FakeConnection, asyncio.Task[None]]] = {}
        self.away: list[Mirrors] = []
        self.now = 10_000
        self.alive = [True] * MARKETS

    async def begin(self) -> None:
        """A stream with a first market, alert rules, and a feed that has begun."""
        await self.writer.start(now=1_000)
        await self.rules.create(LARGE, 1)
        await self.writer.start(now=2_000)
        self.writer.chain.mine(created(0), swap(0))
        await self.writer.follow()
        self.hub.start(await self.feed.start())

    def _amount(self) -> int:
        return self.random.randint(10**12, 10**18)

    # ---- What may happen

    async def write(self) -> None:
        """A block."""
        made = {m for m in range(MARKETS) if token(m) in self.writer.state.markets}
        makers = [created(m) for m in range(MARKETS) if m not in made and self.random.random() < 0.3]
        for market in made:
            trades = self.random.choice((0, 0, 1, 1, 2, 5))
            makers += [swap(market, self._amount(), self._amount()) for _ in range(trades)]
        self.writer.chain.mine(*makers, after_ms=self.random.choice((2_000, 12_000, 61_000)))
        [block] = self.writer.chain.blocks[-1:]
        changes = await self.writer.changes([block])
        if self.random.random() < 0.03:
            changes.reason = "history was loaded"
        await self.writer.commit(changes)

    async def reorganise(self) -> None:
        """Orphan some blocks."""
        depth = min(self.random.randint(1, 4), len(self.writer.state.recent()) - 1)
        if depth:
            ancestor = self.writer.chain.fork(depth)
            await self.writer.roll_back(ancestor.number)
            await self.write()

    async def take_over(self) -> None:
        """Another epoch."""
        self.now += 1_000
        await self.writer.start(now=self.now)

    async def trim(self) -> None:
        """Rows go before anybody read them."""
        await self.side.admin.xtrim(KEYS.outbox, maxlen=self.random.randint(0, 30), approximate=False)

    async def pass_time(self) -> None:
        """A minute, or a day, without a trade."""
        await self.writer.pass_time(self.writer.state.head.as_of + self.random.choice((60_000, 86_400_000)))

    async def read_rows(self) -> None:
        """The feed moves on."""
        if batch := await self.feed.next():
            self.hub.take(batch)

    async def round(self) -> None:
        """The hub does what is due."""
        self.time.now += self.random.choice((0.0, 0.1, 0.3, 2.0))
        with suppress(StoreUnavailable):
            await self.hub.round()
        await asyncio.sleep(0)

    async def join(self) -> None:
        """A client comes, or comes back."""
        if len(self.links) >= CLIENTS_MAX:
            return
        back = bool(self.away) and self.random.random() < 0.7
        mirrors = self.away.pop() if back else Mirrors()
        connection = FakeConnection(mirrors)
        client = self.hub.join(connection)
        assert client is not None
        self.links[client] = connection, asyncio.create_task(client.write())
        for room, mirror in mirrors.items():
            self.hub.subscribe(
                client, RoomName.parse(room), RowId(*mirror.position) if mirror.position else None
            )
        for room in self.random.sample(ROOMS, self.random.randint(0 if back else 1, 3)):
            if room not in mirrors:
                mirrors.left.discard(room)
                self.hub.subscribe(client, RoomName.parse(room))

    async def drop(self) -> None:
        """A client goes."""
        if self.links:
            client = self.random.choice(list(self.links))
            connection, task = self.links.pop(client)
            self.hub.leave(client)
            connection.flowing.set()
            await task
            self.away.append(connection.mirrors)

    async def stop_or_go(self) -> None:
        """A client stops reading, or reads again."""
        if self.links:
            connection, _ = self.links[self.random.choice(list(self.links))]
            if connection.flowing.is_set():
                connection.flowing.clear()
            else:
                connection.flowing.set()

    async def leave_room(self) -> None:
        """A client leaves a room."""
        if self.links:
            client = self.random.choice(list(self.links))
            if client.rooms:
                name = self.random.choice(sorted(client.rooms))
                self.hub.unsubscribe(client, name)
                mirrors = self.links[client][0].mirrors
                mirrors.pop(str(name), None)
                mirrors.left.add(str(name))

    async def break_or_mend(self) -> None:
        """Redis is away now and then."""
        self.reads.failing = self.random.choice((0.0, 0.0, 0.4))

    async def run(self, steps: int) -> None:
        """So many things happen."""
        choices = {
            self.write: 12, self.read_rows: 12, self.round: 20, self.join: 5, self.drop: 2,
            self.stop_or_go: 4, self.reorganise: 2, self.take_over: 1, self.trim: 0.4,
            self.pass_time: 0.7, self.leave_room: 1, self.break_or_mend: 1,
        }  # fmt: skip
        weights = list(choices.values())
        for _ in range(steps):
            await self.random.choices(list(choices), weights)[0]()

    async def settle(self) -> None:
        """Everybody reads, and all is told."""
        self.reads.failing = 0.0
        self.reads.meanwhile = None
        for connection, _ in self.links.values():
            connection.flowing.set()
        quiet = 0
        async with asyncio.timeout(BOUND_S):
            while quiet < 8:
                before = sum(connection.sent for connection, _ in self.links.values())
                if batch := await self.feed.next():
                    self.hub.take(batch)
                self.time.now += 1
                await self.hub.round()
                for _ in range(20):
                    await asyncio.sleep(0)
                after = sum(connection.sent for connection, _ in self.links.values())
                quiet = quiet + 1 if before == after and not batch else 0

    async def end(self) -> None:
        """Stop what was started."""
        for client, (connection, task) in self.links.items():
            self.hub.leave(client)
            connection.flowing.set()
            await task

    async def truth(self, room: str) -> dict[Any, dict[str, Any]]:
        """What Redis holds of a room."""
        name, admin = RoomName.parse(room), self.side.admin
        match name.kind:
            case "candles":
                found = await admin.zrange(KEYS.candles(name.market, name.interval), 0, -1)
                return {candle["t"]: candle for candle in map(orjson.loads, found)}
            case "trades":
                found = await admin.lrange(KEYS.trades(name.market), 0, -1)
                return {trade["id"]: trade for trade in map(orjson.loads, found)}
            case "alerts":
                told = newest(await admin.lrange(KEYS.fired, 0, -1), FIRED_KEPT, name.market)
                return {alert["id"]: alert for alert in map(orjson.loads, told)}
            case "stats":
                figures = await admin.hgetall(KEYS.stats(name.market))
                return {"": _text(figures)} if figures else {}
        ids = await admin.zrange(KEYS.markets, 0, -1)
        return {
            id_.decode(): {"s": id_.decode(), **_text(await admin.hgetall(KEYS.market(id_.decode())))}
            for id_ in ids
        }

    async def check(self) -> int:
        """Every client holds what Redis holds; how many rooms were compared."""
        compared = 0
        members = [member for room in self.hub._index.all() for member in room.members]
        assert set(members) <= self.hub.clients == self.links.keys()
        assert len(members) == sum(len(client.rooms) for client in self.links)
        for client, (connection, _) in self.links.items():
            assert connection.mirrors.keys() == {str(name) for name in client.rooms}
            assert not connection.mirrors.others
            for room, mirror in connection.mirrors.items():
                truth, known = await self.truth(room), mirror.items
                if mirror.kind == "trades":
                    newest = sorted(known, key=_place, reverse=True)[: len(truth)]
                    assert newest == list(truth), room
                    known = {id_: known[id_] for id_ in newest}
                if mirror.kind == "alerts":  # a snapshot has the newest only
                    assert known.items() <= truth.items(), room
                    assert known.keys() >= set(list(truth)[:ALERTS_SHOWN]), room
                    known = truth
                if mirror.kind in {"stats", "markets"}:
                    known = {key: {n: str(v) for n, v in item.items()} for key, item in known.items()}
                assert known == truth, room
                compared += 1
        return compared


def _text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _place(trade: str) -> tuple[int, ...]:
    return tuple(map(int, trade.split("-")))


@pytest.fixture
async def side(valkey_port: int) -> AsyncIterator[Side]:
    """An empty database."""
    admin = plain(valkey_port, DATABASE)
    await admin.flushdb()
    side = Side(valkey_port, admin, DATABASE)
    yield side
    await side.database.close()
    await admin.aclose()


@pytest.mark.parametrize("seed", range(8))
async def test_every_client_ends_with_what_redis_holds(side: Side, seed: int) -> None:
    """Clients join at any moment, stop reading, drop, come back; blocks, reorgs, takeovers, losses go on.

    No message is out of order, none tells a trade twice, none comes before a snapshot, and in the end what
    every client has made of its messages is what Redis holds.
    """
    world = World(side, seed)
    await world.begin()
    try:
        for _ in range(2):
            await world.run(STEPS)
            await world.join()
            await world.settle()
            assert await world.check()
    finally:
        await world.end()


@pytest.mark.parametrize("seed", range(4))
async def test_changes_while_an_answer_is_under_way(side: Side, seed: int) -> None:
    """What happens while candles or a snapshot are read leaves neither hole nor duplicate nor ghost."""
    world = World(side, 1_000 + seed)
    await world.begin()
    busy = False

    async def meanwhile() -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        for _ in range(world.random.randint(1, 3)):
            happening = (world.write, world.read_rows, world.drop, world.join, world.leave_room, world.trim)
            await world.random.choices(happening, (5, 5, 2, 3, 2, 0.5))[0]()
        if world.random.random() < 0.1:
            await world.reorganise()
            await world.read_rows()
        busy = False

    world.reads.meanwhile = meanwhile
    try:
        for _ in range(2):
            await world.run(STEPS)
            await world.join()
            await world.settle()
            assert await world.check()
            world.reads.meanwhile = meanwhile
    finally:
        await world.end()


async def test_a_position_of_lost_rows(side: Side) -> None:
    """Who comes back with the number of a row that Redis has lost since is given a snapshot."""
    world = World(side, 1)
    await world.begin()
    name = RoomName.parse(f"trades:{token(0)}")
    mirrors = Mirrors()
    for its in (mirrors, Mirrors()):
        client = world.hub.join(connection := FakeConnection(its))
        assert client
        world.links[client] = connection, asyncio.create_task(client.write())
        world.hub.subscribe(client, name)
    try:
        await world.write()
        await world.settle()
        [gone] = [client for client, (connection, _) in world.links.items() if connection.mirrors is mirrors]
        world.hub.leave(gone)
        await world.links.pop(gone)[1]
        seen = mirrors[str(name)].position
        assert seen
        last = (await side.outbox.read(RowId(0, 0), 10_000))[-1].id
        await side.admin.xdel(KEYS.outbox, "{}-{}".format(*last))
        await side.admin.hset(KEYS.head, "seq", last.seq - 1)
        await world.settle()
        world.now = last.epoch + 1
        await world.take_over()
        await world.write()
        await world.settle()
        client = world.hub.join(connection := FakeConnection(mirrors))
        assert client
        world.links[client] = connection, asyncio.create_task(client.write())
        world.hub.subscribe(client, name, last)
        await world.settle()
        assert mirrors[str(name)].snapshots == 2
        assert await world.check() == 2
    finally:
        await world.end()

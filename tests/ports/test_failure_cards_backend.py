"""Failure cards between the publisher and the real Node backend, and the limits of what is delivered."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson
import pytest

from listener.application.changes import ChangeSet, Head
from listener.application.errors import BackendRefused, BackendUnavailable
from listener.application.interfaces import ChainIdentity, Cursor, Message, RowId
from listener.application.services.fetching import FetchLimits
from listener.application.services.follower import Follower, FollowerLimits
from listener.application.services.publisher import Publisher, PublisherLimits
from listener.demo.processes import Valkey, start_backend, start_valkey
from listener.domain.entities import Candle
from listener.domain.events import ReorgDetected
from listener.domain.value_objects import Interval, MarketId, Timestamp, TradeId, format_decimal, ratio
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.codec import encode_candle
from listener.infrastructure.redis.commands import CANDLES_PER_ROW, LISTED, rows
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds, RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from listener.infrastructure.websocket import backend as backend_module
from listener.infrastructure.websocket.backend import SocketIoBackend
from listener.main import BATCH_ROWS, MESSAGE_BYTES
from tests.e2e.system import get_json
from tests.fakes.build import CHAIN_ID, MONDAY_MS, block, created, market, rules, swap, token
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import Done, FakeClock, FakeHints
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeOutbox
from tests.ports.cards import (
    CANCELLED,
    CANCELLED_BEFORE,
    DELAYED,
    HALF_OPEN,
    RESET,
    SWALLOWED,
    TORN_ANSWER,
    Card,
    Wire,
    every_card,
    expected,
    soon,
    suffer,
    wired,
)

TOKEN: Final = "a-long-random-text"
STREAM: Final = str(CHAIN_ID)
IMPATIENT_S: Final = 0.4
"""Timeout while a card is played."""
PATIENT_S: Final = 20.0
"""Timeout for what must work: longer than `soon` allows, so that it cannot be what ends a wait."""
NODE_LIMIT: Final = 1_000_000
"""Bytes of a packet that the backend takes at most."""
BLOCKS: Final = 60
"""Committed while the backend thinks about one message."""

epochs = itertools.count(10**14, 1_000)
"""Each test is a newer epoch of the one stream, above what a clock says."""


class Host(NamedTuple):
    """A real backend and the Redis it reads."""

    valkey: Valkey
    url: str

    @property
    def port(self) -> int:
        """Where the backend listens."""
        return int(self.url.rpartition(":")[2])

    async def status(self) -> dict[str, Any]:
        """What the backend says of its listeners."""
        found: dict[str, Any] = (await asyncio.to_thread(get_json, f"{self.url}/debug/state"))[1]
        return found

    async def counts(self) -> dict[str, int]:
        """Messages received, applied, seen before, and so on."""
        found: dict[str, int] = (await self.status())["counts"]
        return found

    async def position(self) -> RowId:
        """The last row that the backend has handled."""
        last = (await self.status())["lastSeen"][STREAM]
        return RowId(last["epoch"], last["seq"])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Both processes."""
    directory = tmp_path_factory.mktemp("backend")
    with start_valkey(directory / "valkey") as valkey:
        url = f"redis://127.0.0.1:{valkey.port}"
        with start_backend(url, CHAIN_ID, TOKEN, log=directory / "log", ENABLE_DEBUG="1") as backend:
            yield Host(valkey, backend.found)


@pytest.fixture
async def wire(host: Host) -> AsyncIterator[Wire]:
    """The link to the backend."""
    async with wired(host.port) as made:
        yield made


@pytest.fixture
async def link(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SocketIoBackend]:
    """The publisher's end. Whatever happened, it leaves no connection and no task behind."""
    monkeypatch.setattr(backend_module, "FAILURES", 1_000)
    monkeypatch.setattr(backend_module, "CLOSE_S", 0.2)
    before = asyncio.all_tasks()
    made = SocketIoBackend(f"http://127.0.0.1:{wire.port}", TOKEN, CHAIN_ID, STREAM, PATIENT_S)
    yield made
    await made.close()
    await wire.wait_links(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, pending = await asyncio.wait(left, timeout=2)
        assert not pending


def message(epoch: int, seq: int = 1, *, pad: int = 0) -> Message:
    """One trade, with so many bytes that nobody asked for."""
    return Message("trade_update", epoch, seq, seq, [trade(seq, pad)])


def trade(number: int, pad: int = 0) -> dict[str, object]:
    """A trade of the contract."""
    item: dict[str, object] = {"id": f"{number}-0", "s": token(0), "t": MONDAY_MS, "b": number, "li": 0}
    return item | {"side": "buy", "p": "1", "v": "1", "q": "1", "pad": "x" * pad}


@every_card()
async def test_a_message_is_handled_once(host: Host, wire: Wire, link: SocketIoBackend, card: Card) -> None:
    """Whatever happens to a message or its acknowledgement, sending it again ends with it handled once."""
    epoch = next(epochs)
    await link.send(message(epoch))
    before = await host.counts()
    link._timeout_s = PATIENT_S if card.cancelled else IMPATIENT_S
    (ended,) = await suffer(wire, card, [link.send(message(epoch, 2))])
    link._timeout_s = PATIENT_S
    assert isinstance(ended, expected(card, BackendUnavailable)), ended
    await wire.release()
    await soon(link.send(message(epoch, 2)))
    await soon(link.send(message(epoch, 3)))
    after = await host.counts()
    assert after["applied"] - before["applied"] == 2
    assert after["duplicates"] - before["duplicates"] == int(card.arrives)
    assert await host.position() == RowId(epoch, 3)


@pytest.fixture
def collected() -> Iterator[None]:
    """A cancelled handshake leaves a closed connection to the collector: here, not in the next test."""
    yield
    gc.collect()


@every_card(
    *(card for card in (SWALLOWED, DELAYED, HALF_OPEN, RESET, TORN_ANSWER, CANCELLED, CANCELLED_BEFORE))
)
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
async def test_a_link_that_is_not_made_is_made_later(
    host: Host, wire: Wire, link: SocketIoBackend, card: Card, after: int
) -> None:
    """While the link is made, at the handshake or at the token: an error in time, then it works."""
    link._timeout_s = PATIENT_S if card.cancelled else IMPATIENT_S
    wire.play(card, after, anew=True)
    task = asyncio.create_task(link.open())
    if card.cancelled:
        await wire.wait_caught()
        task.cancel()
    with pytest.raises(expected(card, BackendUnavailable)):
        await soon(task)
    link._timeout_s = PATIENT_S
    await wire.release()
    epoch = next(epochs)
    await soon(link.open())
    await soon(link.send(message(epoch)))
    assert await host.position() == RowId(epoch, 1)
    if card.cancelled:
        gc.collect()  # the client leaves a cancelled handshake to the collector; its link is closed anyway


@every_card(CANCELLED, DELAYED)
async def test_a_late_acknowledgement_is_not_the_next_ones(
    wire: Wire, link: SocketIoBackend, card: Card
) -> None:
    """A yes that comes after its sender gave up does not stand for the message that follows."""
    epoch = next(epochs)
    await link.send(message(epoch))
    link._timeout_s = IMPATIENT_S
    await suffer(wire, card, [link.send(message(epoch, 2))])
    link._timeout_s = PATIENT_S
    await wire.release()
    malformed = Message("trade_update", epoch, 3, 3, [{"id": 5}])
    with pytest.raises(BackendRefused):
        await soon(link.send(malformed))
    await soon(link.send(message(epoch, 3)))


@pytest.mark.parametrize("excess", [-100_000, 0, 1, 100_000])
async def test_a_message_beyond_the_limit_is_an_error(
    host: Host, wire: Wire, link: SocketIoBackend, excess: int
) -> None:
    """Up to the backend's limit a message arrives; beyond it the link ends, at once and not by a timeout."""
    epoch = next(epochs)
    await link.send(message(epoch))
    around = len('422["trade_update",]')
    pad = NODE_LIMIT + excess - around - link.size(message(epoch, 2))
    large = message(epoch, 2, pad=pad)
    assert link.size(large) + around == NODE_LIMIT + excess
    received = (await host.counts())["received"]
    if excess <= 0:
        await soon(link.send(large))
        assert await host.position() == RowId(epoch, 2)
    else:
        with pytest.raises(BackendUnavailable):
            await soon(link.send(large))
        await wire.wait_links(0)
        assert await host.position() == RowId(epoch, 1)
        assert (await host.counts())["received"] == received
        await soon(link.send(message(epoch, 2)))
        assert await host.position() == RowId(epoch, 2)


class Bulky(FakeOutbox):
    """An outbox whose candles are as large as a test says."""

    candle_bytes = 0

    async def candles(
        self, references: Sequence[tuple[MarketId, Interval, Timestamp]]
    ) -> list[dict[str, object]]:
        """See `Outbox.candles`."""
        prices = dict.fromkeys("ohlcv", "1")
        return [
            {"s": market, "i": interval.name, "t": time, **prices, "pad": "x" * self.candle_bytes}
            for market, interval, time in references
        ]


class Measured:
    """`UpdatePublisher` that remembers how large the messages were."""

    def __init__(self, link: SocketIoBackend) -> None:
        self._link = link
        self.sent: list[tuple[Message, int]] = []

    async def open(self) -> None:
        """See `UpdatePublisher.open`."""
        await self._link.open()

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`."""
        self.sent.append((message, self.size(message)))
        await self._link.send(message)

    def size(self, message: Message) -> int:
        """See `UpdatePublisher.size`."""
        return self._link.size(message)


class Ending:
    """`Signal` that ends the publisher when it has nothing to send."""

    def notify(self) -> None:
        """See `Signal.notify`."""

    async def wait(self, timeout_s: float) -> None:  # noqa: ARG002 - of the port
        """See `Signal.wait`."""
        raise Done


def publisher_of(outbox: FakeOutbox, backend: Measured) -> Publisher:
    """A publisher with the service's own limits, which ends when all is delivered."""
    return Publisher(
        outbox=outbox,
        backend=backend,
        signal=Ending(),
        clock=FakeClock(),
        observer=RecordingObserver(),
        limits=PublisherLimits(BATCH_ROWS, MESSAGE_BYTES, 0),
    )


def mentions(row: int) -> bytes:
    """A row that refers to fifty candles of its own."""
    candles = [["1m", MONDAY_MS + 60_000 * (50 * row + number)] for number in range(50)]
    return orjson.dumps({"s": token(0), "c": candles})


@pytest.mark.parametrize("kind", ["trades", "candles"])
async def test_a_large_batch_is_split(host: Host, wire: Wire, link: SocketIoBackend, kind: str) -> None:
    """A batch of many megabytes arrives whole, row after row, in messages that the backend takes."""
    epoch, outbox, measured = next(epochs), Bulky(), Measured(link)
    outbox.candle_bytes = 2_000
    for number in range(1, 61):
        if kind == "trades":
            outbox.add(epoch, number, "trade_update", orjson.dumps(trade(number, 100_000)))
        else:
            outbox.add(epoch, number, "chart_data", mentions(number))
    with pytest.raises(Done):
        await publisher_of(outbox, measured).run()
    assert await host.position() == RowId(epoch, 60)
    assert sum(size for _, size in measured.sent) > 5_900_000
    assert max(size for _, size in measured.sent) <= MESSAGE_BYTES < NODE_LIMIT
    firsts = [sent.first for sent, _ in measured.sent]
    assert firsts == [1, *(sent.seq + 1 for sent, _ in measured.sent[:-1])]
    assert wire.connections == 1


async def test_a_row_beyond_the_limit_is_told_as_a_resync(
    host: Host, wire: Wire, link: SocketIoBackend
) -> None:
    """It does not hold up what comes after it: the backend is told to read, under the row's number."""
    epoch, outbox, measured = next(epochs), Bulky(), Measured(link)
    for number in range(1, 61):
        outbox.add(epoch, number, "trade_update", orjson.dumps(trade(number, NODE_LIMIT * (number == 30))))
    with pytest.raises(Done):
        await soon(publisher_of(outbox, measured).run())
    assert await host.position() == RowId(epoch, 60)
    assert max(size for _, size in measured.sent) <= MESSAGE_BYTES
    covered = [(sent.first, sent.seq) for sent, _ in measured.sent]
    assert [first for first, _ in covered] == [1, *(last + 1 for _, last in covered[:-1])]
    told = [(sent.first, sent.seq) for sent, _ in measured.sent if sent.event == "resync"]
    assert told == [(30, 30)]
    assert wire.connections == 1


@every_card(SWALLOWED, HALF_OPEN)
async def test_a_batch_under_way_that_outgrows_the_limit_is_told_as_a_resync(
    host: Host, wire: Wire, link: SocketIoBackend, card: Card
) -> None:
    """Candles grow between two attempts: what is sent again has the same numbers, and is a `resync`."""
    epoch, outbox, measured = next(epochs), Bulky(), Measured(link)
    outbox.add(epoch, 1, "trade_update", orjson.dumps(trade(1)))
    publisher = publisher_of(outbox, measured)
    with pytest.raises(Done):
        await soon(publisher.run())
    outbox.candle_bytes = 100
    for number in range(2, 62):
        outbox.add(epoch, number, "chart_data", mentions(number))
    link._timeout_s = IMPATIENT_S
    (ended,) = await suffer(wire, card, [publisher.run()])
    link._timeout_s = PATIENT_S
    assert isinstance(ended, BackendUnavailable)
    await wire.release()
    assert measured.sent[-1][1] <= MESSAGE_BYTES
    assert await host.position() == RowId(epoch, 61 if card.arrives else 1)

    outbox.candle_bytes = 300
    with pytest.raises(Done):
        await soon(publisher.run())
    assert await host.position() == RowId(epoch, 61)
    assert await outbox.cursor() == Cursor(RowId(epoch, 61), RowId(epoch, 61))
    sent, size = measured.sent[-1]
    assert (sent.event, sent.first, sent.seq) == ("resync", 2, 61)
    assert size < MESSAGE_BYTES


def test_no_row_of_ours_is_beyond_the_limit() -> None:
    """The largest that one row can say fits into a message, whatever a token or a chain does."""
    long = market(base_decimals=255, quote_decimals=255, name="\U0001f4b0" * 64, symbol="\U0001f4b0" * 64)
    dear, cheap = ratio(2**256 - 1, 1, 255), ratio(1, 2**256 - 1, -255)
    assert min(len(format_decimal(price)) for price in (dear, cheap)) > 300
    one, most = TradeId(2**63, 2**31), 2**256 - 1
    candle = Candle(
        MONDAY_MS, cheap, dear, cheap, cheap, most, most, most, most, 2**63, 2**63, one, one, cheap
    )
    assert CANDLES_PER_ROW * (len(encode_candle(candle, long)) + 100) < MESSAGE_BYTES
    hashes = tuple(block(number).hash for number in range(LISTED + 1))
    reorg = ReorgDetected(block(), hashes, tuple(map(token, range(LISTED + 1))), MONDAY_MS)
    head = Head(1, block().hash, MONDAY_MS, MONDAY_MS, 1, 1, 0)
    told = rows(ChangeSet(head, head, live=True, reorg=reorg, created={long.id: long}), rules())
    assert {"reorg", "resync", "market_created"} == {event for event, _ in told}
    assert max(len(data) for _, data in told) + 1_000 < MESSAGE_BYTES


class Scene:
    """A follower and a publisher on one real Redis, and a scripted chain."""

    def __init__(self, port: int, link: SocketIoBackend) -> None:
        self.chain = LocalChain()
        self.clock = FakeClock(MONDAY_MS)
        self.hints = FakeHints()
        self.observer = RecordingObserver()
        self.database = Database.connect(f"redis://127.0.0.1:{port}/0", PATIENT_S)
        by = rules("5m", "1d")
        keys = Keys(CHAIN_ID)
        self.store = RedisStore(self.database, keys, by, OutboxBounds(100_000, 100_000_000))
        self.outbox = RedisOutbox(self.database, keys)
        signal = LocalSignal()
        self.follower = Follower(
            chain=FakeChain(self.chain),
            hints=self.hints,
            store=self.store,
            clock=self.clock,
            observer=self.observer,
            signal=signal,
            audit_wanted=LocalSignal(),
            rules=by,
            limits=FollowerLimits(1, FetchLimits(100), 100, 100),
            chain_id=CHAIN_ID,
            start=1,
            fingerprint={},
            tell_backend=True,
        )
        self.publisher = Publisher(
            outbox=self.outbox,
            backend=link,
            signal=signal,
            clock=SystemClock(),
            observer=self.observer,
            limits=PublisherLimits(BATCH_ROWS, MESSAGE_BYTES, 0),
        )

    async def follow(self, blocks: int) -> None:
        """Commit blocks, each of them when it is mined."""
        self.hints.then(*[lambda: self.chain.mine(swap(0), swap(0))] * blocks)
        with pytest.raises(Done):
            await soon(self.follower.run())

    async def delivered(self) -> None:
        """Return when the newest row is acknowledged."""
        head = await self.store.head()
        newest = RowId(head.epoch, head.seq)
        while True:
            if await self.outbox.cursor() == Cursor(newest, newest):
                return
            await asyncio.sleep(0.01)


async def test_a_slow_acknowledgement_does_not_slow_commits(
    host: Host, wire: Wire, link: SocketIoBackend
) -> None:
    """While one message waits for its yes, every block is committed; then the rest comes in few messages."""
    scene = Scene(host.valkey.port, link)
    await scene.database.run("FLUSHALL")
    genesis = scene.chain.blocks[0].block
    await scene.store.initialise(ChainIdentity(CHAIN_ID, genesis.hash), genesis, {}, next(epochs))
    scene.chain.mine(created(0), swap(0))
    await scene.follow(0)
    publishing = asyncio.create_task(scene.publisher.run())
    await soon(scene.delivered())
    before, deliveries = await host.counts(), len(scene.observer.deliveries)

    wire.play(DELAYED)
    scene.chain.mine(swap(0))
    await scene.follow(0)
    await wire.wait_caught()
    acknowledged = await scene.outbox.cursor()
    commits = len(scene.observer.commits)
    await scene.follow(BLOCKS)
    assert len(scene.observer.commits) - commits >= BLOCKS
    assert (await scene.store.head()).number == scene.chain.tip.number == BLOCKS + 2
    assert await scene.outbox.cursor() == acknowledged
    assert len(scene.observer.deliveries) == deliveries
    assert (await host.counts())["received"] - before["received"] == 1

    await wire.release()
    await soon(scene.delivered())
    after = await host.counts()
    assert (after["duplicates"], after["failed"]) == (before["duplicates"], before["failed"])
    assert after["gaps"] == before["gaps"]
    head = await scene.store.head()
    assert await host.position() == RowId(head.epoch, head.seq)
    assert after["received"] - before["received"] < BLOCKS
    assert wire.connections == 1
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(publishing)
    await scene.database.close()

"""Head hints over a WebSocket, against a server that says what a test tells it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve

from listener.application.errors import NodeUnavailable, WrongChain
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.heads import HintSlot, NewHeads
from tests.fakes.build import CHAIN_ID, block
from tests.fakes.servers import listening

TIMEOUT_S = 2.0
Script = Callable[["Server", ServerConnection], Awaitable[None]]


def head(ref: BlockRef, **changes: Any) -> bytes:
    """A newHeads notification."""
    header = {
        "number": hex(ref.number),
        "hash": ref.hash,
        "parentHash": ref.parent_hash,
        "timestamp": hex(ref.timestamp // 1000),
        "logsBloom": "0x" + "00" * 256,
    }
    params = {"subscription": "0xabc", "result": header | changes}
    return orjson.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})


class Server:
    """Answers `eth_chainId` and `eth_subscribe`, and sends what it is given.

    Attributes:
        answers: what a method is answered with, instead of the usual.
        early: sent before the answer to `eth_subscribe`.
        heads: sent to whoever subscribed last; None closes the connection.
        connections: how many there were.
    """

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any] | None] = {}
        self.early: list[bytes] = []
        self.heads: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.connections = 0

    async def handle(self, socket: ServerConnection) -> None:
        """One connection; it takes the place of the one before."""
        self.connections += 1
        self.heads.put_nowait(None)
        heads: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.heads = heads
        for _ in range(2):
            call = orjson.loads(await socket.recv())
            usual = {"eth_chainId": {"result": hex(CHAIN_ID)}, "eth_subscribe": {"result": "0xabc"}}
            answer = (usual | self.answers)[call["method"]]
            if call["method"] == "eth_subscribe":
                for early in self.early:
                    await socket.send(early.decode())
            if answer is not None:
                await socket.send(orjson.dumps({"jsonrpc": "2.0", "id": call["id"], **answer}).decode())
        while (frame := await heads.get()) is not None:
            await socket.send(frame.decode("utf-8", "surrogateescape") if frame[:1] != b"\xff" else frame)


class Heard:
    """Told when the subscription stands."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def healthy(self, _service: str) -> None:
        """It stands."""
        self.event.set()


class Bench:
    """A server, a slot, and heads between them."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.slot = HintSlot(0.05)
        self.heard = Heard()
        self.heads = NewHeads(url, CHAIN_ID, self.slot, self.heard, TIMEOUT_S)

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run until subscribed; the task."""
        self.heard.event.clear()
        task = asyncio.ensure_future(self.heads.run())
        waiter = asyncio.ensure_future(self.heard.event.wait())
        async with asyncio.timeout(5):
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        try:
            assert self.slot.subscribed
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, waiter, return_exceptions=True)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A server that answers."""
    server = Server()
    async with serve(server.handle, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        yield Bench(server, f"ws://127.0.0.1:{port}")
        server.heads.put_nowait(None)


async def ended(task: asyncio.Task[None]) -> BaseException | None:
    """How a task ended."""
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    return task.exception()


async def test_heads_become_hints(bench: Bench) -> None:
    """Each head, the newest one if nobody looked in between."""
    async with bench.subscribed():
        bench.server.heads.put_nowait(head(block(7)))
        assert await bench.slot.wait(5) == block(7)
        bench.server.heads.put_nowait(head(block(8)))
        bench.server.heads.put_nowait(head(block(9)))
        seen = [await bench.slot.wait(5)]
        while seen[-1] != block(9):
            seen.append(await bench.slot.wait(5))
    assert not bench.slot.subscribed


async def test_a_slot_has_one_place() -> None:
    """Overwritten, never queued: a slow reader holds nobody up."""
    slot = HintSlot(0.01)
    for number in range(1_000):
        slot.put(block(number))
    assert await slot.wait(5) == block(999)
    assert await slot.wait(5) is None


async def test_without_a_subscription_the_clock_decides() -> None:
    """Nobody hints: the tip is asked for at every poll interval, however long the caller would wait."""
    slot = HintSlot(0.01)
    async with asyncio.timeout(5):
        assert await slot.wait(3600) is None


async def test_socket_alive_but_subscription_dead_is_noticed(bench: Bench) -> None:
    """Pings are answered, heads do not come: the second time the chain moves on, the connection ends."""
    async with bench.subscribed() as task:
        bench.server.heads.put_nowait(head(block(7)))
        assert await bench.slot.wait(5) == block(7)
        bench.slot.overtaken(block(8))
        await asyncio.sleep(0)
        assert bench.slot.subscribed
        assert not task.done()
        bench.slot.overtaken(block(9))
        assert not bench.slot.subscribed
        error = await ended(task)
    assert isinstance(error, NodeUnavailable)
    assert "the subscription is silent" in str(error)


async def test_a_subscription_that_never_spoke_is_noticed(bench: Bench) -> None:
    """From the first block on."""
    async with bench.subscribed() as task:
        bench.slot.overtaken(block(1))
        bench.slot.overtaken(block(2))
        assert "silent" in str(await ended(task))


async def test_after_silence_a_new_subscription_works(bench: Bench) -> None:
    """It is run again by the supervisor, connects anew and begins with a clean slate."""
    async with bench.subscribed() as task:
        bench.slot.overtaken(block(1))
        bench.slot.overtaken(block(2))
        await ended(task)
    async with bench.subscribed() as task:
        bench.slot.overtaken(block(3))
        await asyncio.sleep(0)
        assert not task.done()
        bench.server.heads.put_nowait(None)
        await ended(task)
    assert bench.server.connections == 2


async def test_a_late_head_is_no_silence(bench: Bench) -> None:
    """The node's tip may be ahead of its heads, again and again, as long as they come."""
    async with bench.subscribed() as task:
        for number in range(1, 20):
            bench.slot.overtaken(block(number + 1))
            bench.slot.put(block(number))
        assert bench.slot.subscribed
        assert not task.done()


async def test_the_same_tip_twice_is_no_silence(bench: Bench) -> None:
    """A chain that stands still says nothing of the subscription, nor does a tip that was hinted at."""
    async with bench.subscribed():
        bench.slot.put(block(10))
        for _ in range(5):
            bench.slot.overtaken(block(10))
            bench.slot.overtaken(block(9))
            bench.slot.overtaken(block(11))
        assert bench.slot.subscribed


async def test_nobody_is_blamed_without_a_subscription() -> None:
    """Polling finds new blocks by itself: that is how it works."""
    slot = HintSlot(0.01)
    for number in range(10):
        slot.overtaken(block(number))
    assert not slot.subscribed


async def test_silence_is_told_once(bench: Bench) -> None:
    """However often the chain moves on before the connection has ended."""
    async with bench.subscribed() as task:
        for number in range(10):
            bench.slot.overtaken(block(number))
        assert "silent" in str(await ended(task))


@pytest.mark.parametrize("method", ["eth_chainId", "eth_subscribe"])
@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -32601, "message": "the method eth_subscribe does not exist"}},
        {"error": {"code": -32000, "message": "too many subscriptions"}},
        {"result": None},
        {},
    ],
)
async def test_a_refused_subscription_is_told(bench: Bench, method: str, answer: dict[str, Any]) -> None:
    """A socket that stays open without a subscription would be silent for ever."""
    bench.server.answers[method] = answer
    with pytest.raises(NodeUnavailable, match=method):
        await bench.heads.run()
    assert not bench.heard.event.is_set()
    assert not bench.slot.subscribed


@pytest.mark.parametrize("method", ["eth_chainId", "eth_subscribe"])
async def test_no_answer_is_no_subscription(bench: Bench, method: str) -> None:
    """Every answer has a time limit."""
    bench.server.answers[method] = None
    heads = NewHeads(bench.heads._url, CHAIN_ID, bench.slot, bench.heard, 0.05)
    with pytest.raises(NodeUnavailable, match="TimeoutError"):
        await heads.run()
    assert not bench.heard.event.is_set()


async def test_heads_may_come_before_the_answer(bench: Bench) -> None:
    """Some nodes are that fast."""
    bench.server.early = [head(block(5))]
    async with bench.subscribed():
        assert await bench.slot.wait(5) == block(5)


async def test_another_chain_is_refused_on_every_connection(bench: Bench) -> None:
    """Before anything it says is heard."""
    async with bench.subscribed() as task:
        bench.server.heads.put_nowait(None)
        await ended(task)
    bench.server.answers["eth_chainId"] = {"result": "0x5"}
    with pytest.raises(WrongChain, match="chain 5"):
        await bench.heads.run()
    assert not bench.slot.subscribed


@pytest.mark.parametrize("chain_id", ["", "0x", "0xzz", "one"])
async def test_a_chain_id_that_is_none_ends_the_connection(bench: Bench, chain_id: str) -> None:
    """And nothing more: it may pass."""
    bench.server.answers["eth_chainId"] = {"result": chain_id}
    with pytest.raises(NodeUnavailable, match="chain id"):
        await bench.heads.run()


GARBAGE = {
    "no json": b"upstream connect error",
    "nothing": b"",
    "null": b"null",
    "a list": b"[1,2]",
    "binary": b"\xff\xfe\x00",
    "number is no hex": head(block(1), number="one"),
    "number is null": head(block(1), number=None),
    "number is negative": head(block(1), number="-0x1"),
    "number has no end": head(block(1), number="0x" + "f" * 5_000 + "g"),
    "hash is short": head(block(1), hash="0x12"),
    "no parent": head(block(1), parentHash=None),
    "deep": b'{"id":1,"params":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "error": b'{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"gone"}}',
}


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_ends_no_more_than_the_connection(bench: Bench, frame: bytes) -> None:
    """A hostile node can make us connect again, which the supervisor does, and nothing else."""
    async with bench.subscribed() as task:
        bench.server.heads.put_nowait(frame)
        assert isinstance(await ended(task), NodeUnavailable)
    assert not bench.slot.subscribed


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0xabc"}}',
        b'{"jsonrpc":"2.0","method":"other","params":{"result":null}}',
    ],
)
async def test_frames_without_a_head_say_nothing(bench: Bench, frame: bytes) -> None:
    """They are passed over."""
    async with bench.subscribed():
        bench.server.heads.put_nowait(frame)
        bench.server.heads.put_nowait(head(block(3)))
        assert await bench.slot.wait(5) == block(3)


async def test_a_closed_connection_is_told(bench: Bench) -> None:
    """However politely."""
    async with bench.subscribed() as task:
        bench.server.heads.put_nowait(None)
        error = await ended(task)
    assert isinstance(error, NodeUnavailable)
    assert not bench.slot.subscribed


async def test_a_stop_is_a_stop(bench: Bench) -> None:
    """Cancelling is not taken for silence."""
    async with bench.subscribed() as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not bench.slot.subscribed


async def test_nobody_listens() -> None:
    """An outage like any other; a server that is none, too."""
    async with listening(_not_a_websocket) as port:
        heads = NewHeads(f"ws://127.0.0.1:{port}", CHAIN_ID, HintSlot(1), Heard(), TIMEOUT_S)
        with pytest.raises(NodeUnavailable):
            await heads.run()
    with pytest.raises(NodeUnavailable):
        await heads.run()


async def _not_a_websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    await writer.drain()

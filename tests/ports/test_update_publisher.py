"""Contract of `UpdatePublisher`: a fake, and Socket.IO to a server that can be told to misbehave."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio
from aiohttp import web
from socketio import exceptions

from listener.application.errors import BackendRefused, BackendUnavailable
from listener.application.interfaces import Message, UpdatePublisher
from listener.infrastructure.websocket.backend import SocketIoBackend
from tests.fakes.backend import FakeBackend

TOKEN = "a-long-random-text"
MESSAGE = Message("trade_update", 5, 8, 11, [{"id": "1-0", "p": "0.5"}, {"id": "1-1", "p": "1"}])


class Server:
    """A Socket.IO server of a backend.

    Attributes:
        answer: what is acknowledged.
        silent: nothing is acknowledged.
        hang_up: the link is closed instead of an acknowledgement.
        got: events and their payloads.
        received: set by the first of them.
    """

    def __init__(self) -> None:
        self.answer: object = {"ok": True}
        self.silent = False
        self.hang_up = False
        self.got: list[tuple[str, Any]] = []
        self.links = 0
        self.received = asyncio.Event()
        self.io = socketio.AsyncServer(async_mode="aiohttp")
        self.io.on("connect", self._connected)
        self.io.on("*", self._event)

    async def _connected(self, _sid: str, _environ: object, auth: object) -> None:
        if auth != {"token": TOKEN}:
            raise ConnectionRefusedError("unauthorized")
        self.links += 1

    async def _event(self, event: str, sid: str, data: object) -> object:
        self.got.append((event, data))
        self.received.set()
        if self.hang_up:
            await self.io.disconnect(sid)
        if self.silent or self.hang_up:
            await asyncio.sleep(30)
        return self.answer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve; the URL."""
        app = web.Application()
        self.io.attach(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await self.io.shutdown()
            await runner.cleanup()
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


class Bench:
    """A publisher and what its backend does."""

    def __init__(self, publisher: UpdatePublisher, server: Server | None, fake: FakeBackend | None) -> None:
        self.publisher = publisher
        self._server = server
        self._fake = fake

    def refuse(self) -> None:
        """The next message is answered with no."""
        if self._server:
            self._server.answer = {"ok": False}
        if self._fake:
            self._fake.will("refuse")

    def fall_silent(self) -> None:
        """The next message is not acknowledged."""
        if self._server:
            self._server.silent = True
        if self._fake:
            self._fake.will("lost")

    def recover(self) -> None:
        """All is well again."""
        if self._server:
            self._server.silent, self._server.answer = False, {"ok": True}

    @property
    def arrived(self) -> list[tuple[str, int, int, int]]:
        """Event, epoch and rows of what reached the backend."""
        if self._server:
            return [(event, data["epoch"], data["first"], data["seq"]) for event, data in self._server.got]
        assert self._fake is not None
        return [(m.event, m.epoch, m.first, m.seq) for m in self._fake.arrived]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server, not listening yet."""
    return Server()


def publisher_to(url: str, token: str = TOKEN, timeout_s: float = 0.3) -> SocketIoBackend:
    """The real publisher."""
    return SocketIoBackend(url, token, 31337, "31337", timeout_s)


@pytest.fixture(params=["fake", "socketio"])
async def bench(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Bench]:
    """Both kinds of publisher."""
    if request.param == "fake":
        fake = FakeBackend()
        yield Bench(fake, None, fake)
        return
    async with server.serving() as url:
        publisher = publisher_to(url)
        yield Bench(publisher, server, None)
        await publisher.close()


async def test_an_acknowledged_message_has_arrived(bench: Bench) -> None:
    """Sending returns when the backend has said yes, message after message, in order."""
    await bench.publisher.open()
    await bench.publisher.send(MESSAGE)
    await bench.publisher.send(MESSAGE._replace(first=12, seq=12))
    assert bench.arrived == [("trade_update", 5, 8, 11), ("trade_update", 5, 12, 12)]


async def test_a_refusal_is_told(bench: Bench) -> None:
    """Anything but yes is an error; the link goes on."""
    bench.refuse()
    with pytest.raises(BackendRefused):
        await bench.publisher.send(MESSAGE)
    bench.recover()
    await bench.publisher.send(MESSAGE)


async def test_silence_is_an_error(bench: Bench) -> None:
    """Without an acknowledgement in time nobody knows; afterwards messages go through again."""
    bench.fall_silent()
    with pytest.raises(BackendUnavailable):
        await bench.publisher.send(MESSAGE)
    bench.recover()
    await bench.publisher.send(MESSAGE)
    assert bench.arrived == [("trade_update", 5, 8, 11)] * 2


async def test_size_grows_with_the_items(bench: Bench) -> None:
    """What a message measures is at least its items, in bytes."""
    small = bench.publisher.size(MESSAGE._replace(items=[]))
    large = bench.publisher.size(MESSAGE._replace(items=[{"s": "😀" * 100}]))
    assert large - small >= 400


async def test_the_envelope_is_that_of_the_contract(server: Server) -> None:
    """Version, chain, stream, rows and items, and nothing else."""
    async with server.serving() as url:
        publisher = publisher_to(url)
        await publisher.send(MESSAGE)
        await publisher.close()
    ((event, data),) = server.got
    assert event == "trade_update"
    numbers = {"epoch": 5, "first": 8, "seq": 11}
    assert data == {"v": 1, "chain": 31337, "stream": "31337", "items": MESSAGE.items} | numbers


@pytest.mark.parametrize(
    "answer", [None, {}, {"ok": False}, {"ok": 1}, {"ok": "true"}, [], "ok", True, {"error": 1}]
)
async def test_only_ok_is_yes(server: Server, answer: object) -> None:
    """Every other acknowledgement is a refusal."""
    server.answer = answer
    async with server.serving() as url:
        publisher = publisher_to(url, timeout_s=2)
        with pytest.raises(BackendRefused):
            await publisher.send(MESSAGE)
        await publisher.close()


async def test_one_link_serves_all_messages(server: Server) -> None:
    """A link is made once and kept."""
    async with server.serving() as url:
        publisher = publisher_to(url)
        for _ in range(3):
            await publisher.open()
            await publisher.send(MESSAGE)
        await publisher.close()
    assert server.links == 1


async def test_a_wrong_token_is_told(server: Server) -> None:
    """The error names the setting; it is retried, for the backend may be configured later."""
    async with server.serving() as url:
        publisher = publisher_to(url, token="another-long-text")
        with pytest.raises(BackendUnavailable, match="BACKEND_AUTH_TOKEN"):
            await publisher.open()
        await publisher.close()
    assert server.links == 0


async def test_a_backend_that_is_away_is_retryable(server: Server) -> None:
    """Nobody listens: each attempt fails by itself and leaves nothing open, however many there are."""
    async with server.serving() as url:
        pass
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        publisher = publisher_to(url)
        for _ in range(2):
            with pytest.raises(BackendUnavailable):
                await publisher.send(MESSAGE)
        await publisher.close()
        del publisher
        gc.collect()
        await asyncio.sleep(0)
    assert not [str(warning.message) for warning in left_open]


async def test_a_link_that_closes_is_not_waited_for(server: Server) -> None:
    """When the backend hangs up instead of answering, the error comes at once and not by the timeout."""
    server.hang_up = True
    async with server.serving() as url:
        publisher = publisher_to(url, timeout_s=20)
        async with asyncio.timeout(5):
            with pytest.raises(BackendUnavailable):
                await publisher.send(MESSAGE)
        server.hang_up = False
        await publisher.send(MESSAGE)
        await publisher.close()
    assert server.links == 2


async def test_a_late_acknowledgement_is_not_the_next_ones(server: Server) -> None:
    """The link on which none came in time is closed: a late yes cannot be taken for another message's."""
    server.silent = True
    async with server.serving() as url:
        publisher = publisher_to(url)
        with pytest.raises(BackendUnavailable):
            await publisher.send(MESSAGE)
        server.silent, server.answer = False, {"ok": False}
        with pytest.raises(BackendRefused):
            await publisher.send(MESSAGE._replace(seq=12))
        await publisher.close()
    assert server.links == 2


async def test_sending_can_be_cancelled(server: Server) -> None:
    """A stop is not held up by an acknowledgement that does not come."""
    server.silent = True
    async with server.serving() as url:
        publisher = publisher_to(url, timeout_s=20)
        task = asyncio.create_task(publisher.send(MESSAGE))
        await server.received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await publisher.close()


def every(kind: type[Exception]) -> set[type[Exception]]:
    """A class and all its subclasses in python-socketio."""
    return {kind, *(child for direct in kind.__subclasses__() for child in every(direct))}


class Broken:
    """A client whose every emit fails."""

    connected = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def emit(self, *_args: object, **_options: object) -> None:
        """Fail."""
        raise self._error

    async def shutdown(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(every(exceptions.SocketIOError), key=lambda kind: kind.__name__),
        ConnectionResetError,
        OSError,
        TimeoutError,
    ],
)
async def test_every_exception_of_the_client_is_mapped(kind: type[Exception]) -> None:
    """No exception class of python-socketio or of the network leaves the publisher as it is."""
    publisher = publisher_to("http://127.0.0.1:1")
    publisher._client = Broken(kind("text"))
    with pytest.raises(BackendUnavailable):
        await publisher.send(MESSAGE)
    await publisher.close()

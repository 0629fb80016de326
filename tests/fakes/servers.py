"""Real servers for contract tests, on free ports of 127.0.0.1, stopped when the context ends."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from listener.demo.processes import start_valkey

START_TIMEOUT_S = 20.0


@contextmanager
def valkey_server(directory: Path) -> Iterator[int]:
    """An embedded Valkey; its port."""
    server = start_valkey(directory, save="", appendonly="no")
    try:
        yield server.port
    finally:
        server.stop()


@contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """The machine's Redis, 7 or newer; its port."""
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: install it, e.g. 'sudo apt-get install redis-server'"
    port = _free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with subprocess.Popen(
        [*command, "--dir", str(directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with Redis(port=port) as client:
        while True:
            with suppress(RedisConnectionError):
                client.ping()
                return
            assert process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)


class TcpProxy:
    """Between a client and a server; loses answers when told to.

    Attributes:
        port: where it listens.
        swallow: answers are read and thrown away.
        connections: how many were made so far.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.swallow = False
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways."""
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, there_writer}

        async def forth() -> None:
            while data := await reader.read(65_536):
                there_writer.write(data)
                await there_writer.drain()

        async def back() -> None:
            while data := await there_reader.read(65_536):
                if not self.swallow:
                    writer.write(data)
                    await writer.drain()

        tasks = [asyncio.create_task(forth()), asyncio.create_task(back())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, there_writer):
                await _close(end)
                self._writers.discard(end)

    async def cut(self) -> None:
        """Reset all connections."""
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.02)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server; its port. Its connections are closed with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            await _close(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*list(tasks), return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[TcpProxy]:
    """A proxy in front of a port."""
    proxy = TcpProxy(port)
    async with listening(proxy.serve) as listens:
        proxy.port = listens
        yield proxy


@asynccontextmanager
async def scripted_redis(*answers: bytes) -> AsyncIterator[int]:
    """A server that greets a client as Redis does and then gives these raw answers, one a command."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            count = int((await reader.readuntil(b"\r\n"))[1:])
            words: list[bytes] = []
            for _ in range(count):
                size = int((await reader.readuntil(b"\r\n"))[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            greeting = words[0].upper() in {b"CLIENT", b"HELLO", b"SELECT"}
            writer.write(b"+OK\r\n" if greeting or not left else left.pop(0))
            await writer.drain()

    async with listening(handle) as port:
        yield port

"""The HTTP server's patience, with an application that answers everything at length."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Final

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from listener.application.errors import InvalidConfiguration
from listener.infrastructure.gateway import server as server_module
from listener.infrastructure.gateway.server import HEAD_MAX, PIPELINED_MAX, ServerOptions, make_server
from listener.infrastructure.listening import listen, port_of

BODY: Final = b"x" * 2_000_000
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST: Final = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PATIENCE_S: Final = 0.5


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Something long."""
    await Response(BODY)(scope, receive, send)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server with little patience."""
    monkeypatch.setattr(server_module, "HEAD_S", PATIENCE_S)
    monkeypatch.setattr(server_module, "STALLED_S", PATIENCE_S)
    server = make_server(answer, ServerOptions(100))
    listening = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    await server.up.wait()
    yield port_of(listening)
    server.should_exit = True
    await task


async def everything(reader: asyncio.StreamReader, pause_s: float = 0.0) -> int:
    """Bytes until the server hangs up."""
    got = 0
    with suppress(ConnectionResetError):
        while part := await reader.read(65_536):
            got += len(part)
            await asyncio.sleep(pause_s)
    return got


async def test_a_head_that_does_not_come(port: int) -> None:
    """Nothing at all, or half a head: hung up on after a while, not before."""
    for sent in (b"", b"GET / HT", REQUEST[:-2]):
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(10):
            assert await everything(reader) == 0
        assert time.monotonic() - began >= PATIENCE_S * 0.9
        writer.close()


async def test_a_head_that_comes_in_time(port: int) -> None:
    """In pieces, and again on the same connection after a pause longer than a head may take."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        for piece in (REQUEST[:10], REQUEST[10:]):
            writer.write(piece)
            await asyncio.sleep(PATIENCE_S / 3)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(BODY)) == BODY
        await asyncio.sleep(PATIENCE_S * 1.5)
    writer.close()


async def test_the_second_head_may_not_be_half(port: int) -> None:
    """The patience begins anew with the first byte after an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(BODY))
    writer.write(REQUEST[:10])
    async with asyncio.timeout(PATIENCE_S * 8):
        assert await everything(reader) == 0
    writer.close()


async def test_who_does_not_read_is_hung_up_on(port: int) -> None:
    """The rest of the answers is not kept for whoever never takes them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    writer.transport.pause_reading()
    writer.write(REQUEST * PIPELINED_MAX)
    await asyncio.sleep(PATIENCE_S * 2)
    writer.transport.resume_reading()
    async with asyncio.timeout(10):
        assert await everything(reader) < PIPELINED_MAX * len(BODY)
    writer.close()


async def test_who_reads_slowly_gets_it_all(port: int) -> None:
    """Longer than the patience altogether, but never silent for so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=16_384)
    writer.write(REQUEST * 3 + LAST)
    began = time.monotonic()
    async with asyncio.timeout(20):
        assert await everything(reader, 0.005) > 4 * len(BODY)
    assert time.monotonic() - began > PATIENCE_S
    writer.close()


@pytest.mark.parametrize(("requests", "answered"), [(PIPELINED_MAX, True), (5_000, False)])
async def test_requests_that_do_not_wait(port: int, requests: int, answered: bool) -> None:
    """A few are answered in order; thousands would take memory before the first is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST * (requests - 1) + LAST)
    async with asyncio.timeout(20):
        assert (await everything(reader) > requests * len(BODY)) is answered
    writer.close()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """WebSockets that echo; requests get a word."""
    if scope["type"] == "http":
        await Response(b"ok")(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def test_live_sockets_are_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """They outlive the patience for heads, and neither they nor those that ended take a request's place."""
    monkeypatch.setattr(server_module, "HEAD_S", PATIENCE_S)
    monkeypatch.setattr(server_module, "STALLED_S", PATIENCE_S)
    server = make_server(echo, ServerOptions(3))
    listening = listen("127.0.0.1", 0)
    port = port_of(listening)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    await server.up.wait()
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}", proxy=None)) for _ in range(8)
        ]
        for _ in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(LAST)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(PATIENCE_S * 1.5)
        for socket in sockets:
            await socket.send("still here")
            assert await socket.recv() == "still here"
        idle = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LAST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        for one in (*idle, writer):
            one.close()
    server.should_exit = True
    await task


async def test_a_head_without_an_end(port: int) -> None:
    """It is refused once it is too long; one just short of that is read."""
    for size, status in ((HEAD_MAX - 200, b"HTTP/1.1 200"), (2 * HEAD_MAX, b"HTTP/1.1 400")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\nX-Long: " + b"x" * size)
        await asyncio.sleep(0.1)
        writer.write(b"\r\n\r\n" if size < HEAD_MAX else b"")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(status)
        writer.close()


def test_a_certificate_that_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The settings are named."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    path.write_text("none")
    with pytest.raises(InvalidConfiguration, match="GATEWAY_TLS_CERT"):
        make_server(answer, ServerOptions(1, (), path, path))

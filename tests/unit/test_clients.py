"""A client's buffer: bounded, in order, and whoever does not read goes."""

import asyncio

import pytest

from listener.infrastructure.gateway.clients import REFUSED_MAX, Client, ClientLimits, Frame
from listener.infrastructure.gateway.raw_sockets import framed
from listener.infrastructure.gateway.rooms import Kind, RoomName
from tests.fakes.clock import ManualTime

A, B = RoomName(Kind.TRADES, "a"), RoomName(Kind.TRADES, "b")


class Link:
    """A transport that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.sent: list[bytes] = []
        self.closed = False

    def offer(self, frame: Frame) -> bool:
        """See `Connection.offer`."""
        if self.open.is_set():
            self.sent.append(frame.body)
        return self.open.is_set()

    async def send(self, frame: Frame) -> None:
        """See `Connection.send`."""
        await self.open.wait()
        self.sent.append(frame.body)

    async def close(self) -> None:
        """See `Connection.close`."""
        self.closed = True


def frame(room: RoomName | None, text: str = "") -> Frame:
    """A message."""
    return Frame("update", b'{"x":"%b"}' % text.encode(), room)


async def test_order_is_kept() -> None:
    """What had to wait is sent before what came later."""
    link = Link()
    client = Client(link, ClientLimits(), ManualTime())
    writing = asyncio.create_task(client.write())
    client.push([frame(A, "1"), frame(A, "2")])
    await asyncio.sleep(0)
    link.open.set()
    client.push([frame(A, "3")])
    for _ in range(10):
        await asyncio.sleep(0)
    client.push([frame(A, "4")])
    assert link.sent == [b'{"x":"%d"}' % number for number in (1, 2, 3, 4)]
    client.close()
    await writing
    assert link.closed


@pytest.mark.parametrize("limits", [ClientLimits(messages=4), ClientLimits(bytes=400)])
async def test_the_fullest_room_goes(limits: ClientLimits) -> None:
    """When too much waits, what waits of the fullest room is dropped, and that is said."""
    client = Client(Link(), limits, ManualTime())
    assert client.push([frame(A, "x" * 80), frame(B, "x"), frame(A, "x" * 80), frame(B, "x")]) == set()
    assert client.push([frame(A, "x" * 200)]) == {A}
    assert [waiting.room for waiting in client._waiting] == [B, B]
    assert client.overflows == 1
    assert client.drained


async def test_one_large_message_may_wait_alone() -> None:
    """A snapshot larger than the buffer is sent, alone."""
    client = Client(Link(), ClientLimits(bytes=100), ManualTime())
    assert client.push([frame(A, "x" * 1_000)]) == set()
    assert len(client._waiting) == 1
    assert not client.drained


async def test_too_many_answers_end_the_client() -> None:
    """Who asks on and on without reading the answers is disconnected."""
    client = Client(Link(), ClientLimits(messages=3), ManualTime())
    for _ in range(4):
        client.push([frame(None)])
    assert client.closed
    assert not client._waiting


async def test_who_does_not_read_is_disconnected() -> None:
    """A link that takes nothing for `stalled_s` is ended."""
    link = Link()
    client = Client(link, ClientLimits(stalled_s=0.05), ManualTime())
    client.push([frame(A)])
    async with asyncio.timeout(5):
        await client.write()
    assert client.closed
    assert link.closed


async def test_cancelling_ends_the_link() -> None:
    """A writer that is cancelled says so, and leaves no open link."""
    link = Link()
    client = Client(link, ClientLimits(), ManualTime())
    writing = asyncio.create_task(client.write())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert link.closed


async def test_questions_have_a_rate() -> None:
    """So many questions at once, then so many a second; who never stops is disconnected."""
    time = ManualTime()
    client = Client(Link(), ClientLimits(ops_per_s=2, ops_burst=3), time)
    assert [client.may_ask() for _ in range(4)] == [True, True, True, False]
    time.now += 1
    assert [client.may_ask() for _ in range(3)] == [True, True, False]
    for _ in range(REFUSED_MAX):
        assert not client.may_ask()
    assert client.closed


def test_frames() -> None:
    """The event comes first in a plain message; a message without fields is none the worse."""
    assert Frame("pong", b'{"t":1}').plain == b'{"event":"pong","t":1}'
    assert Frame("pong", b"{}").plain == b'{"event":"pong"}'


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_framing(size: int) -> None:
    """A frame is what another implementation makes of the text."""
    from websockets.frames import Frame as Known  # noqa: PLC0415 - only here
    from websockets.frames import Opcode  # noqa: PLC0415

    text = b"x" * size
    assert framed(text) == Known(Opcode.TEXT, text).serialize(mask=False)

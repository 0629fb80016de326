"""Failure cards: faults that a TCP proxy plays at a chosen place of a conversation with a real server."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, Literal, NamedTuple, TypeVar

import pytest

from tests.fakes.servers import listening

T = TypeVar("T")

BOUND_S: Final = 10.0
"""Whatever is awaited ends within this time, or the test fails. Far beyond the timeouts under test."""
CHUNK: Final = 65_536
NO_LINGER: Final = struct.pack("ii", 1, 0)

Way = Literal["pass", "drop", "hold", "reset", "tear"]


class Card(NamedTuple):
    """A fault.

    Attributes:
        ask: what happens to bytes on their way to the server. `hold`: they arrive when the test releases
            them, even if the client has hung up. `tear`: the first half arrives, then the link ends.
        answer: what happens to bytes on their way back.
        cancelled: the caller gives up as soon as the fault has taken effect.
    """

    name: str
    ask: Way = "pass"
    answer: Way = "pass"
    cancelled: bool = False

    @property
    def arrives(self) -> bool:
        """Whether the server gets the question, once what was held is released."""
        return self.ask in {"pass", "hold"}

    @property
    def silent(self) -> bool:
        """Whether the caller learns of it by his own timeout only."""
        return not {self.ask, self.answer} & {"reset", "tear"}


SWALLOWED: Final = Card("swallowed", answer="drop")
DELAYED: Final = Card("delayed", answer="hold")
RESET: Final = Card("reset", answer="reset")
TORN_ANSWER: Final = Card("torn-answer", answer="tear")
RESET_BEFORE: Final = Card("reset-before", ask="reset")
TORN_QUESTION: Final = Card("torn-question", ask="tear")
LATE: Final = Card("late", ask="hold")
HALF_OPEN: Final = Card("half-open", ask="drop", answer="drop")
CANCELLED: Final = Card("cancelled", answer="hold", cancelled=True)
CANCELLED_BEFORE: Final = Card("cancelled-before", ask="hold", cancelled=True)

CARDS: Final = (
    SWALLOWED,
    DELAYED,
    RESET,
    TORN_ANSWER,
    RESET_BEFORE,
    TORN_QUESTION,
    LATE,
    HALF_OPEN,
    CANCELLED,
    CANCELLED_BEFORE,
)


def every_card(*cards: Card) -> pytest.MarkDecorator:
    """A test for each card."""
    return pytest.mark.parametrize("card", cards or CARDS, ids=lambda card: card.name)


@dataclass(eq=False, slots=True)
class _Link:
    """One connection through the wire, and what is held of it."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    armed: bool
    answers: int = 0
    caught: bool = False
    late: bool = False
    asks_held: list[bytes] = field(default_factory=list)
    answers_held: list[bytes] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        """End both connections as a crash does."""
        for _, writer in (self.client, self.server):
            end = writer.get_extra_info("socket")
            with suppress(OSError):
                end.setsockopt(SOL_SOCKET, SO_LINGER, NO_LINGER)
            writer.transport.abort()


class Wire:
    """A TCP proxy in front of a port of 127.0.0.1.

    Attributes:
        port: where it listens.
        connections: how many were made so far.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._card: Card | None = None
        self._after = 0
        self._anew = True
        self._links: set[_Link] = set()
        self._news = asyncio.Event()
        self.port = 0
        self.connections = 0

    @property
    def links(self) -> int:
        """Connections that are open."""
        return len(self._links)

    @property
    def caught(self) -> int:
        """Connections on which the card has taken effect, since it was played."""
        return sum(link.caught for link in self._links)

    def play(self, card: Card, after: int = 0, *, anew: bool | None = None) -> None:
        """From now on connections suffer from `card`, once `after` answers have passed on each.

        Args:
            card: the fault.
            after: see above.
            anew: whether connections that are made later suffer too. By default they do if the card is a
                silent one, and work after a reset: a retry would succeed.
        """
        self._card, self._after = card, after
        self._anew = card.silent if anew is None else anew
        for link in self._links:
            link.answers, link.caught, link.armed = 0, False, True

    def heal(self) -> None:
        """What comes from now on passes; what is held stays held, and all that follows it there."""
        self._card = None

    async def release(self) -> None:
        """Heal, deliver what is held, and wait until the server has dealt with it."""
        self.heal()
        late = [link for link in self._links if link.late]
        for link in list(self._links):
            link.let_go.set()
            for held, (_, writer) in ((link.asks_held, link.server), (link.answers_held, link.client)):
                data = b"".join(held)
                held.clear()
                await _carry(writer, data)
        for link in late:
            await soon(link.answered.wait())

    async def wait_caught(self, links: int = 1) -> None:
        """Return when the card has taken effect on so many connections."""
        await self._wait(lambda: self.caught >= links)

    async def wait_links(self, links: int) -> None:
        """Return when so many connections are open."""
        await self._wait(lambda: self.links == links)

    async def _wait(self, reached: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(BOUND_S):
                while not reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pytest.fail(f"{self.links} connections are open, the card has met {self.caught}")

    def reset(self) -> None:
        """Reset all connections."""
        for link in list(self._links):
            link.reset()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes of one connection both ways."""
        self.connections += 1
        server = await asyncio.open_connection("127.0.0.1", self._target)
        link = _Link((reader, writer), server, armed=self._anew)
        self._links.add(link)
        self._news.set()
        ways = [asyncio.create_task(way(link)) for way in (self._forth, self._back)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            self._news.set()
            for end in (writer, server[1]):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _forth(self, link: _Link) -> None:
        while data := await link.client[0].read(CHUNK):
            if not await self._meet(link, data, self._way(link, "ask"), link.asks_held, link.server[1]):
                return
        if link.late:
            await link.let_go.wait()
            await link.answered.wait()

    async def _back(self, link: _Link) -> None:
        while data := await link.server[0].read(CHUNK):
            if link.let_go.is_set():
                link.answered.set()
            way = self._way(link, "answer")
            if not await self._meet(link, data, way, link.answers_held, link.client[1]):
                return
            link.answers += 1
        link.answered.set()

    def _way(self, link: _Link, direction: Literal["ask", "answer"]) -> Way:
        if self._card is None or not link.armed or link.answers < self._after:
            return "pass"
        return self._card.ask if direction == "ask" else self._card.answer

    async def _meet(
        self, link: _Link, data: bytes, way: Way, held: list[bytes], sink: asyncio.StreamWriter
    ) -> bool:
        """Deal with some bytes; whether the link goes on."""
        if way != "pass":
            link.caught = True
            self._news.set()
        if way == "hold" or held:
            held.append(data)
            link.late = link.late or held is link.asks_held
        elif way == "reset":
            link.reset()
        elif way == "tear":
            await _carry(sink, data[: len(data) // 2])
        elif way == "pass":
            await _carry(sink, data)
        return way not in {"reset", "tear"}


async def _carry(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, whether or not somebody still reads."""
    if data and not writer.is_closing():
        with suppress(OSError):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def wired(port: int) -> AsyncIterator[Wire]:
    """A wire to a port."""
    wire = Wire(port)
    async with listening(wire.serve) as listens:
        wire.port = listens
        yield wire


async def soon(work: Awaitable[T]) -> T:
    """The result of something that must not take long.

    Raises:
        TimeoutError: it did.
    """
    async with asyncio.timeout(BOUND_S):
        return await work


async def suffer(
    wire: Wire,
    card: Card,
    calls: Sequence[Coroutine[Any, Any, object]],
    *,
    after: int = 0,
    anew: bool | None = None,
) -> list[BaseException | object]:
    """Make calls at the same time while a card is played; what each of them ended with.

    Afterwards the wire passes what is new, and holds what it held. `after` and `anew` are those of `play`.
    """
    wire.play(card, after, anew=anew)
    tasks = [asyncio.create_task(call) for call in calls]
    if card.cancelled:
        await wire.wait_caught(len(tasks))
        for task in tasks:
            assert task.cancel(), f"{task} had ended before the card took effect"
    ended = await soon(asyncio.gather(*tasks, return_exceptions=True))
    wire.heal()
    return list(ended)


def expected(card: Card, *errors: type[Exception]) -> tuple[type[BaseException], ...]:
    """What a caller gets: his own cancellation, or one of our errors."""
    return (asyncio.CancelledError,) if card.cancelled else errors

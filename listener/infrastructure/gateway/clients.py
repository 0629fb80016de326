"""A client of the live sockets: what waits to be sent to it, bounded, and how often it may ask.

Who reads slower than is sent loses what waits of the fullest rooms and gets their newest snapshot later; who
does not read at all is disconnected.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from listener.infrastructure.gateway.rooms import RoomName

REFUSED_MAX: Final = 100
"""Questions beyond the rate that are refused, one after the other, before the client is disconnected."""


class ClientLimits(NamedTuple):
    """Bounds of each client.

    Attributes:
        subscriptions: rooms.
        messages: messages that wait.
        bytes: and their size. One message may be larger if it is alone.
        stalled_s: how long a client may not read while something waits for it.
        ops_per_s: questions a second, on average.
        ops_burst: questions at once.
    """

    subscriptions: int = 100
    messages: int = 500
    bytes: int = 2_000_000
    stalled_s: float = 15.0
    ops_per_s: float = 20.0
    ops_burst: int = 120


class Frame:
    """A message, encoded once for each transport and shared by all its receivers."""

    __slots__ = ("body", "event", "io_wire", "packet", "plain", "room", "wire")

    def __init__(self, event: str, body: bytes, room: RoomName | None = None) -> None:
        self.event = event
        self.body = body
        self.room = room
        self.plain = b'{"event":"%b"%b%b' % (event.encode(), b"," if len(body) > 2 else b"", body[1:])
        self.wire: bytes | None = None
        self.io_wire: bytes | None = None
        self.packet: object = None
        """What WebSocket, Socket.IO on it, and Socket.IO make of it, kept for the next receiver."""

    def __len__(self) -> int:
        return len(self.plain)


class Connection(Protocol):
    """The transport below a client.

    Attributes:
        transport: its name, for metrics.
    """

    transport: str

    def offer(self, frame: Frame) -> bool:
        """Send now if nothing is in the way; whether it was sent."""
        ...

    async def send(self, frame: Frame) -> None:
        """Send, and wait until there is room for more. Raises `OSError` if the link is gone."""
        ...

    async def close(self) -> None:
        """End the link, soon. Raises nothing."""
        ...


class Client:
    """One client.

    Args:
        connection: its transport.
        limits: its bounds.
        clock: seconds, for measuring.

    Attributes:
        rooms: its rooms.
        overflows: how often something that waited was dropped.
        fault: a word for why it was disconnected by us; empty if it was not.
    """

    def __init__(self, connection: Connection, limits: ClientLimits, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._waiting: deque[Frame] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._allowance, self._asked_at = float(limits.ops_burst), clock()
        self._refused = 0
        self._sending = False
        self.rooms: set[RoomName] = set()
        self.overflows = 0
        self.closed = False
        self.fault = ""

    @property
    def transport(self) -> str:
        """The name of its transport."""
        return self._connection.transport

    @property
    def drained(self) -> bool:
        """Whether so little waits that a snapshot may be added."""
        return len(self._waiting) * 2 <= self._limits.messages and self._bytes * 2 <= self._limits.bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting and not self._sending

    def may_ask(self) -> bool:
        """Count a question; whether it is within the rate. Who goes on and on is disconnected."""
        now, limits = self._clock(), self._limits
        earned = (now - self._asked_at) * limits.ops_per_s
        self._allowance = min(self._allowance + earned, float(limits.ops_burst))
        self._asked_at = now
        if self._allowance >= 1:
            self._allowance -= 1
            self._refused = 0
            return True
        self._refused += 1
        if self._refused > REFUSED_MAX:
            self.close("flood")
        return False

    def push(self, frames: Sequence[Frame]) -> set[RoomName]:
        """Send frames, or have them wait.

        Returns:
            Rooms of which something was dropped: they need a snapshot once this client is `drained`.
        """
        for at, frame in enumerate(frames):
            if self.closed:
                break
            if self._waiting or self._sending or not self._connection.offer(frame):
                return self._queue(frames[at:])
        return set()

    def _queue(self, frames: Sequence[Frame]) -> set[RoomName]:
        self._waiting.extend(frames)
        self._bytes += sum(map(len, frames))
        self._wake.set()
        dropped: set[RoomName] = set()
        while self._over():
            room = self._fullest()
            if room is None:  # nothing but answers: nobody asks so much who reads
                self.close("slow")
                break
            self._drop(room)
            dropped.add(room)
        self.overflows += bool(dropped)
        return dropped

    def _over(self) -> bool:
        over = len(self._waiting) > self._limits.messages or self._bytes > self._limits.bytes
        return over and len(self._waiting) > 1

    def _fullest(self) -> RoomName | None:
        sizes: dict[RoomName, int] = {}
        for frame in self._waiting:
            if frame.room is not None:
                sizes[frame.room] = sizes.get(frame.room, 0) + len(frame)
        return max(sizes, key=lambda room: sizes[room]) if sizes else None

    def _drop(self, room: RoomName) -> None:
        self._waiting = deque(frame for frame in self._waiting if frame.room != room)
        self._bytes = sum(map(len, self._waiting))

    def forget(self, room: RoomName) -> None:
        """Drop what waits of a room that the client has left."""
        self._drop(room)

    async def write(self) -> None:
        """Send what waits, until the client is closed or does not read. The link is ended with it."""
        try:
            while not self.closed:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                frame = self._waiting.popleft()
                self._bytes -= len(frame)
                self._sending = True
                async with asyncio.timeout(self._limits.stalled_s):
                    await self._connection.send(frame)
                self._sending = False
        except TimeoutError:
            self.close("slow")
        except OSError:
            self.closed = True
        finally:
            self.close()
            await self._connection.close()

    def close(self, fault: str = "") -> None:
        """End it: the link is aborted by `write`, what waits is not sent.

        Args:
            fault: a word for what it did wrong.
        """
        self.fault = self.fault or fault
        self.closed = True
        self._waiting.clear()
        self._bytes = 0
        self._wake.set()

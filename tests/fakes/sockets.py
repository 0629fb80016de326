"""What a client of the live sockets makes of their messages, and a transport that stops when told to."""

import asyncio
from typing import Any

import orjson

from listener.infrastructure.gateway.clients import Frame

Place = tuple[int, int]


class Mirror:
    """What one client knows of one room. Follows docs/sockets.md to the letter, and checks it.

    Attributes:
        position: the row up to which it holds; None before the first snapshot.
        items: candles by open time, trades and alerts by id, markets by id, or the figures.
        resumed: whether the last answer to a subscription was not a snapshot.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self.kind = room.partition(":")[0]
        self.position: Place | None = None
        self.items: dict[Any, dict[str, Any]] = {}
        self.closed: int | None = None
        self.snapshots = self.updates = self.reorgs = 0
        self.resumed = False

    def apply(self, event: str, message: dict[str, Any]) -> None:
        """Take a message of this room."""
        place = message["epoch"], message["seq"]
        if event == "snapshot":
            self.snapshots += 1
            self.items, self.resumed = {}, False
            self.closed = message.get("closed")
            self._take(message["items"])
        elif event == "resumed":
            assert place == self.position, f"{self.room}: resumed at {place}, not at {self.position}"
            self.resumed = True
        else:
            assert self.position is not None, f"{self.room}: {event} before a snapshot"
            assert place > self.position, f"{self.room}: {event} {place} after {self.position}"
            self._follow(event, message)
        self.position = place

    def _follow(self, event: str, message: dict[str, Any]) -> None:
        if event == "reorg":
            self.reorgs += 1
            ancestor = message["ancestor"]["number"]
            if self.kind == "trades":
                self.items = {id_: trade for id_, trade in self.items.items() if trade["b"] <= ancestor}
            return
        assert event == "update", event
        self.updates += 1
        self.closed = message.get("closed", self.closed)
        if self.kind == "trades":
            twice = self.items.keys() & {trade["id"] for trade in message["items"]}
            assert not twice, f"{self.room}: {twice} are told twice"
        if self.kind == "alerts":  # an id may come again: retracted, and then on the new branch
            twice = [alert for alert in message["items"] if alert == self.items.get(alert["id"])]
            assert not twice, f"{self.room}: {twice} are told twice"
        if self.kind == "stats":
            self.items = {}
        self._take(message["items"])

    def _take(self, items: list[dict[str, Any]]) -> None:
        name = {"candles": "t", "trades": "id", "alerts": "id", "markets": "s", "stats": None}[self.kind]
        for item in items:
            key = item[name] if name else ""
            if item.get("deleted"):
                self.items.pop(key, None)
            else:
                self.items[key] = item


class Mirrors(dict[str, Mirror]):
    """What one client knows, by room.

    Attributes:
        others: messages that are not about the data of a room.
        left: rooms that were left; what was under way is passed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.others: list[tuple[str, dict[str, Any]]] = []
        self.left: set[str] = set()

    def hear(self, event: str, message: dict[str, Any]) -> None:
        """Take any message."""
        if event in {"snapshot", "update", "reorg", "resumed"}:
            if message["room"] in self.left:
                return
            self.setdefault(message["room"], Mirror(message["room"])).apply(event, message)
        else:
            self.others.append((event, message))

    def read(self, text: str | bytes) -> None:
        """Take a message of `/ws`."""
        message = orjson.loads(text)
        self.hear(message.pop("event"), message)


class FakeConnection:
    """`Connection` that hands everything to `Mirrors`, or holds it back.

    Attributes:
        flowing: clear it, and nothing goes through.
        ended: the hub has hung up.
    """

    transport = "fake"

    def __init__(self, mirrors: Mirrors) -> None:
        self.mirrors = mirrors
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.ended = False
        self.sent = 0

    def offer(self, frame: Frame) -> bool:
        """See `Connection.offer`."""
        if not self.flowing.is_set():
            return False
        self._take(frame)
        return True

    async def send(self, frame: Frame) -> None:
        """See `Connection.send`."""
        await self.flowing.wait()
        self._take(frame)

    async def close(self) -> None:
        """See `Connection.close`."""
        self.ended = True

    def _take(self, frame: Frame) -> None:
        self.sent += 1
        self.mirrors.read(frame.plain)

"""What clients of the live sockets ask, whatever the transport. Documented in docs/sockets.md."""

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from listener.application.errors import ListenerError
from listener.application.interfaces import RowId
from listener.domain.errors import DomainError
from listener.infrastructure.gateway.clients import Client, Frame
from listener.infrastructure.gateway.hub import Hub
from listener.infrastructure.gateway.rooms import RoomName

MESSAGE_BYTES_MAX: Final = 16_384
"""Of a question; a longer one ends the link."""
ROOM_CHARACTERS_MAX: Final = 160
NUMBER_MAX: Final = 2**63 - 1
OPS: Final = ("subscribe", "unsubscribe", "ping", "get_status")
MESSAGES: Final = {
    "bad_request": 'write a JSON object such as {"op":"subscribe","room":"markets"}',
    "unknown_op": f"ask one of {', '.join(OPS)}",
    "too_many_requests": "too many questions, wait a second",
    "too_many_subscriptions": "this client is in as many rooms as it may be",
    "too_many_rooms": "there are as many rooms as there may be",
    "closed": "this client is being disconnected",
    "unavailable": "data is not available just now, try again",
}


class Problem(NamedTuple):
    """Why something that was asked is not done.

    Attributes:
        code: a word for programs.
        message: for people.
        room: which room it is about; empty: none.
    """

    code: str
    message: str
    room: str = ""

    def body(self) -> bytes:
        """As clients get it."""
        fields = {"code": self.code, "message": self.message}
        return orjson.dumps({**fields, "room": self.room} if self.room else fields)


def problem(code: str, room: str = "") -> Problem:
    """A problem with its usual words."""
    return Problem(code, MESSAGES[code], room)


def parse(text: str | bytes) -> tuple[str, Mapping[str, object]] | Problem:
    """The question in a JSON object with the field `op`."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        return problem("bad_request")
    op = fields.get("op") if isinstance(fields, dict) else None
    return (op, fields) if isinstance(op, str) else problem("bad_request")


async def ask(hub: Hub, client: Client, op: str, fields: Mapping[str, object]) -> Problem | None:
    """Do what a client asks; what it is told in answer is pushed to it.

    Returns:
        Why not; None if it is done.
    """
    if not client.may_ask():
        return problem("too_many_requests")
    match op:
        case "subscribe" | "unsubscribe":
            return _rooms(hub, client, op, fields)
        case "ping":
            hub.push(client, [Frame("pong", b'{"t":%d}' % (time.time_ns() // 1_000_000))])
        case "get_status":
            try:
                status = await hub.status(client)
            except ListenerError:
                return problem("unavailable")
            hub.push(client, [Frame("status", orjson.dumps(status))])
        case _:
            return problem("unknown_op")
    return None


def _rooms(hub: Hub, client: Client, op: str, fields: Mapping[str, object]) -> Problem | None:
    text = fields.get("room")
    if not isinstance(text, str) or len(text) > ROOM_CHARACTERS_MAX:
        return Problem("unknown_room", "name a room, as text")
    try:
        name = RoomName.parse(text)
    except DomainError as error:
        return Problem("unknown_room", str(error), text)
    if op == "unsubscribe":
        hub.unsubscribe(client, name)
        hub.push(client, [Frame("unsubscribed", orjson.dumps({"room": text}))])
        return None
    after = _position(fields)
    if isinstance(after, Problem):
        return after._replace(room=text)
    refused = hub.subscribe(client, name, after)
    return problem(refused, text) if refused else None


def _position(fields: Mapping[str, object]) -> RowId | Problem | None:
    """`epoch` and `seq`: both or neither."""
    numbers = [fields.get("epoch"), fields.get("seq")]
    if numbers == [None, None]:
        return None
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= NUMBER_MAX:
            return Problem("bad_position", "epoch and seq are whole numbers, and belong together")
    epoch, seq = numbers
    assert isinstance(epoch, int)  # noqa: S101 - for the type checker
    assert isinstance(seq, int)  # noqa: S101
    return RowId(epoch, seq)

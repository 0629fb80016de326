"""`/ws`: the live sockets over plain WebSocket, JSON objects both ways."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qs

import orjson
from starlette.types import Receive, Scope, Send

from listener.infrastructure.gateway.asking import MESSAGE_BYTES_MAX, Problem, ask, parse, problem
from listener.infrastructure.gateway.clients import Client, Frame
from listener.infrastructure.gateway.hub import Hub
from listener.infrastructure.gateway.raw_sockets import RawSocket, framed, raw_of
from listener.infrastructure.gateway.security import Refused

AUTH_S: Final = 5.0
"""Who shows no key while connecting has so long to send `{"op":"auth","key":…}`."""
UNAUTHORIZED, TOO_MANY = 4401, 1013
"""Codes of closing (RFC 6455, 7.4): of our own, and "try again later"."""

Door = Callable[[str | None, Scope], None]
"""Lets a key in, or raises `Refused`."""


class PlainConnection:
    """`Connection` over ASGI, or past it where the server is ours."""

    transport = "websocket"

    def __init__(self, send: Send, raw: RawSocket | None) -> None:
        self._send = send
        self._raw = raw

    def offer(self, frame: Frame) -> bool:
        """See `Connection.offer`."""
        raw = self._raw
        if raw is None or not raw.ready:
            return False
        if frame.wire is None:
            frame.wire = framed(frame.plain)
        raw.write(frame.wire)
        return True

    async def send(self, frame: Frame) -> None:
        """See `Connection.send`."""
        raw = self._raw
        if raw is None:
            await self._send({"type": "websocket.send", "text": frame.plain.decode()})
            return
        await raw.drained()
        if not raw.open:
            raise OSError("the link is gone")
        self.offer(frame)

    async def close(self) -> None:
        """See `Connection.close`."""
        if self._raw:
            self._raw.abort()
            return
        with suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": TOO_MANY})


class PlainSocket:
    """An ASGI application for WebSocket connections.

    Args:
        hub: rooms and their members.
        door: lets a key in.
        needs_key: whether anybody needs one.
    """

    def __init__(self, hub: Hub, door: Door, *, needs_key: bool) -> None:
        self._hub = hub
        self._door = door
        self._needs_key = needs_key
        self._guests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from its handshake to its end."""
        await receive()
        key = shown_key(scope)
        asked = self._needs_key and key is None
        try:
            if not asked:
                self._door(key, scope)
        except Refused as refused:
            await refuse(send, refused)
            return
        await send({"type": "websocket.accept"})
        if asked and not await self._authenticated(scope, receive, send):
            return
        connection = PlainConnection(send, raw_of(scope))
        client = self._hub.join(connection)
        if client is None:
            await send({"type": "websocket.close", "code": TOO_MANY, "reason": "too many clients"})
            return
        try:
            await self._serve(client, receive)
        finally:
            self._hub.leave(client)

    async def _serve(self, client: Client, receive: Receive) -> None:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(client.write(), name="socket")
            while not client.closed:
                message = await receive()
                if message["type"] != "websocket.receive":
                    break
                refused = await self._handle(client, message.get("text"))
                if refused:
                    self._hub.push(client, [Frame("error", refused.body())])
            client.close()
            await writing

    async def _handle(self, client: Client, text: str | None) -> Problem | None:
        if text is None:
            return problem("bad_request") if client.may_ask() else problem("too_many_requests")
        asked = parse(text) if len(text) <= MESSAGE_BYTES_MAX else problem("bad_request")
        if isinstance(asked, Problem):
            return asked if client.may_ask() else problem("too_many_requests")
        return await ask(self._hub, client, *asked)

    async def _authenticated(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the first message is a key that is let in."""
        key: object = None
        with suppress(TimeoutError):
            async with asyncio.timeout(AUTH_S):
                message = await receive()
                if message["type"] != "websocket.receive":
                    return False
                asked = parse(message.get("text") or "")
                if not isinstance(asked, Problem) and asked[0] == "auth":
                    key = asked[1].get("key")
        try:
            self._door(key if isinstance(key, str) else None, scope)
        except Refused as refused:
            with suppress(OSError):
                body = Problem(refused.code, str(refused)).body()
                await send({"type": "websocket.send", "text": Frame("error", body).plain.decode()})
                await send({"type": "websocket.close", "code": UNAUTHORIZED, "reason": refused.code})
            return False
        return True


def shown_key(scope: Scope) -> str | None:
    """The key in `Authorization: Bearer`, `X-API-Key` or `?key=`: browsers can set no headers here."""
    headers = dict(scope["headers"])
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer" and token:
        return str(token.strip().decode("latin-1"))
    if shown := headers.get(b"x-api-key"):
        return str(shown.strip().decode("latin-1"))
    try:
        shown_keys = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=64).get("key")
    except ValueError:
        return None
    return shown_keys[0] if shown_keys else None


async def refuse(send: Send, refused: Refused) -> None:
    """Answer a handshake with an error."""
    body = orjson.dumps({"error": {"code": refused.code, "message": str(refused)}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

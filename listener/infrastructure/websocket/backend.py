"""The link to the Node backend: a Socket.IO client whose every message is acknowledged."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

import aiohttp
import orjson
import socketio
from socketio.exceptions import SocketIOError

from listener.application.envelopes import Envelope
from listener.application.errors import BackendRefused, BackendUnavailable
from listener.application.interfaces import Message
from listener.infrastructure.breaker import Breaker

CLOSE_S: Final = 2.0
FAILURES: Final = 5
RECOVERY_S: Final = 2.0
"""The breaker around the backend: so many failures in a row, and nobody asks for so long."""


class _Json:
    """The interface that python-socketio expects of a JSON module."""

    @staticmethod
    def dumps(value: object, **_options: object) -> str:
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_options: object) -> Any:  # noqa: ANN401 - any JSON value
        return orjson.loads(text)


class SocketIoBackend:
    """`UpdatePublisher` over Socket.IO.

    python-socketio neither queues nor repeats what is lost on a closing link, so every message waits for
    its acknowledgement; a link on which none comes in time is closed and made anew. Not to be used by
    two tasks at once.

    Args:
        url: of the backend.
        token: sent as `auth.token`.
        chain_id: the envelope's `chain`.
        stream: the envelope's `stream`.
        timeout_s: for connecting and for each acknowledgement.
    """

    def __init__(self, url: str, token: str, chain_id: int, stream: str, timeout_s: float) -> None:
        self._url = url
        self._token = token
        self._envelope = Envelope(chain_id, stream)
        self._timeout_s = timeout_s
        self._client: socketio.AsyncClient | None = None
        self._session: aiohttp.ClientSession | None = None
        self._answered: asyncio.Future[object] | None = None
        self._breaker = Breaker(
            "backend",
            failures=FAILURES,
            recovery_s=RECOVERY_S,
            counts=(BackendUnavailable, BackendRefused),
            refusal=BackendUnavailable,
        )

    @property
    def health(self) -> str:
        """State of the circuit breaker: `closed`, `open` or `half-open`."""
        return self._breaker.state

    async def send(self, message: Message) -> None:
        """See `UpdatePublisher.send`."""
        await self._breaker.run(lambda: self._send(message))

    async def _send(self, message: Message) -> None:
        client = await self._connected()
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answered = answered
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.emit(
                    message.event, self._envelope.around(message), callback=partial(_settle, answered)
                )
                answer = await answered
        except (TimeoutError, SocketIOError, OSError) as error:
            await self.close()
            raise BackendUnavailable(
                f"backend: {message.event} was not acknowledged: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            raise BackendRefused(f"backend: {message.event} was answered with {str(answer)[:200]}")

    async def open(self) -> None:
        """See `UpdatePublisher.open`."""
        if self._client is None or not self._client.connected:
            await self._breaker.run(self._connected)

    def size(self, message: Message) -> int:
        """See `UpdatePublisher.size`."""
        return len(orjson.dumps(self._envelope.around(message)))

    async def _connected(self) -> socketio.AsyncClient:
        if self._client is not None and self._client.connected:
            return self._client
        await self.close()
        self._session = aiohttp.ClientSession()  # ours: the client leaves its own open when it cannot connect
        client = socketio.AsyncClient(
            http_session=self._session, reconnection=False, json=_Json, handle_sigint=False
        )
        client.on("disconnect", self._disconnected)
        try:
            async with asyncio.timeout(2 * self._timeout_s):  # for the first packet it waits without end
                await client.connect(
                    self._url,
                    auth={"token": self._token},
                    transports=["websocket"],
                    wait_timeout=self._timeout_s,
                )
        except (TimeoutError, SocketIOError, OSError) as error:
            await self.close()
            raise BackendUnavailable(
                f"backend: cannot connect: {error}; is it running, and is BACKEND_AUTH_TOKEN its token?"
            ) from error
        self._client = client
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # wait_for, used inside, can lose it before Python 3.12
            raise asyncio.CancelledError
        return client

    def _disconnected(self, reason: str = "") -> None:
        """Do not wait for an acknowledgement that cannot come any more."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError(f"the link was closed: {reason}"))

    async def close(self) -> None:
        """Close the link."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await client.shutdown()
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _settle(answered: asyncio.Future[object], answer: object = None, *_more: object) -> None:
    if not answered.done():
        answered.set_result(answer)

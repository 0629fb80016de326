"""WebSockets of uvicorn, with a way past ASGI for messages that many clients get.

A message from a server is the same bytes for every receiver. ASGI has each connection frame it anew, and that
takes most of the time of telling thousands of clients. `RawSocket.write` takes bytes that were framed once.
"""

import asyncio
import struct
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

RAW: Final = "raw_socket"
"""Where a connection's `RawSocket` is found in the `state` of its ASGI scope."""
TEXT: Final = 0x81
"""First byte of a text message in one frame (RFC 6455, 5.2)."""
BUFFER_BYTES_MAX: Final = 262_144
"""What may wait below us before a client counts as behind."""


def framed(text: bytes) -> bytes:
    """A text message in one frame, uncompressed and, as from a server, unmasked."""
    size = len(text)
    if size < 126:
        return bytes((TEXT, size)) + text
    if size < 65_536:
        return struct.pack("!BBH", TEXT, 126, size) + text
    return struct.pack("!BBQ", TEXT, 127, size) + text


class RawSocket(WebSocketsSansIOProtocol):
    """A WebSocket connection that also takes ready frames."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be found by the application."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(BUFFER_BYTES_MAX)
        self.app_state = {**self.app_state, RAW: self}

    @property
    def ready(self) -> bool:
        """Whether frames may be written, and nothing is in the way."""
        return self.open and self.writable.is_set()

    @property
    def open(self) -> bool:
        """Whether frames may be written."""
        return self.conn.state is State.OPEN and not self.close_sent and not self.transport.is_closing()

    def write(self, frame: bytes) -> None:
        """Write a frame of `framed`."""
        self.transport.write(frame)

    async def drained(self) -> None:
        """Wait until more may be written. The caller limits the time."""
        await self.writable.wait()

    def abort(self) -> None:
        """End the link at once, whatever has not been sent."""
        self.transport.abort()


def raw_of(scope: Any) -> RawSocket | None:  # noqa: ANN401 - ASGI's
    """The connection below an ASGI scope; None under another server."""
    raw = (scope.get("state") or {}).get(RAW)
    return raw if isinstance(raw, RawSocket) else None

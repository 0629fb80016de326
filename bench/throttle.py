"""A TCP link that lets only so many bytes a second pass, in each direction."""

import contextlib
import socket
import threading
import time
from typing import Final

from tests.e2e.proxy import Proxy

CHUNK_BYTES: Final = 16_384


class SlowLink(Proxy):
    """A port of its own in front of a port of 127.0.0.1.

    Args:
        target: the port behind it.
        bytes_per_s: of each connection and direction.
    """

    def __init__(self, target: int, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        super().__init__(target)

    def _pump(self, source: socket.socket, sink: socket.socket, flows: threading.Event) -> None:
        free_at = time.monotonic()
        try:
            while data := source.recv(CHUNK_BYTES):
                flows.wait()
                free_at = max(free_at, time.monotonic()) + len(data) / self._bytes_per_s
                sink.sendall(data)
                time.sleep(max(free_at - time.monotonic(), 0))
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

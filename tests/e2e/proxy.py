"""A TCP proxy that can be away, hang, or swallow answers, as networks do."""

import contextlib
import socket
import struct
import threading
from typing import Final, Self

CHUNK: Final = 65_536
NO_LINGER: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards a port of its own to a port of 127.0.0.1. Starts away, unless told otherwise.

    Args:
        target: the port behind it.
        away: refuse connections until `open`.
    """

    def __init__(self, target: int, *, away: bool = False) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._asks, self._answers = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._socket = self._bound(0)
        self.port = int(self._socket.getsockname()[1])
        if not away:
            self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closed = True
        self._stop_listening()
        self._asks.set()
        self._answers.set()
        self._reset_links()
        for thread in self._threads:
            thread.join(5)
        self._socket.close()

    def open(self) -> None:
        """Forward both ways; what has hung goes on."""
        self._asks.set()
        self._answers.set()
        if not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._socket.listen()
            self._start(self._accept, self._socket)

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._stop_listening()
        self._socket = self._bound(self.port)
        self._reset_links()

    def hang(self) -> None:
        """Keep connections, accept new ones, and forward nothing."""
        self._asks.clear()
        self._answers.clear()

    def swallow_answers(self) -> None:
        """Forward what is asked, and nothing of what is answered."""
        self._answers.clear()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        """A socket that holds the port: until it listens, connections are refused."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        return held

    def _stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _reset_links(self) -> None:
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            for end in link:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._links.append((client, server))
            self._start(self._pump, client, server, self._asks)
            self._start(self._pump, server, client, self._answers)

    def _pump(self, source: socket.socket, sink: socket.socket, flows: threading.Event) -> None:
        try:
            while data := source.recv(CHUNK):
                flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

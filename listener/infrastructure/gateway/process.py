"""The gateway as a process of its own, watched by the one that follows the chain.

The two share a pair of sockets: the child writes a byte when it serves and one every few seconds after that;
each sees from the other's end closing that it is gone. Nothing of FastAPI is imported here.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from listener.application.errors import GatewayStopped

START_S: Final = 30.0
"""From the start of the process until it serves."""
BEAT_S: Final = 2.0
"""Between two bytes of the child."""
SILENCE_S: Final = 20.0
"""A child that is silent for so long hangs."""
LAST_WORDS_S: Final = 0.5
"""A child that hung up ends by itself within so long, and has an exit code."""
STOP_S: Final = 3.0
"""From asking it to end until it is killed."""


class GatewayProcess:
    """Starts the gateway, and ends with it.

    Args:
        command: the program and its arguments; the two descriptors and the address are added.
        listening: the public port's socket.
        upstream: address of our own health server.
        serves: called when the gateway answers at the public port.
        gone: called when it does not any more.
    """

    def __init__(
        self,
        listening: socket.socket,
        upstream: str,
        serves: Callable[[], Awaitable[None]],
        gone: Callable[[], Awaitable[None]],
        command: Sequence[str] = (sys.executable, "-m", "listener.serving"),
    ) -> None:
        self._command = command
        self._listening = listening
        self._upstream = upstream
        self._serves = serves
        self._gone = gone

    async def run(self) -> None:
        """One life of the gateway.

        Raises:
            GatewayStopped: it ended, hung, or did not start.
        """
        ours, theirs = socket.socketpair()
        with ours:
            try:
                process = await self._start(theirs)
            finally:
                theirs.close()
            try:
                await self._watch(ours)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await process.wait()
            finally:
                ours.close()
                await self._end(process)
        raise GatewayStopped(f"the gateway's process ended with {process.returncode}")

    async def _start(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        descriptors = (self._listening.fileno(), theirs.fileno())
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                "--listening",
                str(descriptors[0]),
                "--parent",
                str(descriptors[1]),
                "--upstream",
                self._upstream,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            raise GatewayStopped(f"the gateway's process cannot be started: {error}") from error

    async def _watch(self, ours: socket.socket) -> None:
        """Return when the child is gone.

        Raises:
            GatewayStopped: it hangs.
        """
        ours.settimeout(0)
        loop = asyncio.get_running_loop()
        patience_s, told = START_S, False
        try:
            while True:
                try:
                    async with asyncio.timeout(patience_s):
                        heard = await loop.sock_recv(ours, 64)
                except TimeoutError:
                    raise GatewayStopped(f"the gateway was silent for {patience_s:.0f} s") from None
                except OSError:
                    return
                if not heard:
                    return
                if not told:
                    patience_s, told = SILENCE_S, True
                    await self._serves()
        finally:
            if told:
                await self._gone()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask it to end, and kill it if it does not."""
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Parent:
    """The other end, in the gateway's process.

    Args:
        descriptor: of the socket that was handed over.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(0)

    async def beat(self) -> None:
        """Say that we serve, now and every few seconds; returns when the parent is gone."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await loop.sock_sendall(self._socket, b".")
                try:
                    async with asyncio.timeout(BEAT_S):
                        await loop.sock_recv(self._socket, 64)
                except TimeoutError:
                    continue
                return
        except OSError:
            return

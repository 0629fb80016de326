"""A part of the service as a process of its own, watched by the one that follows the chain.

The two share a pair of sockets: the child writes a byte when it works and one every few seconds after that;
each sees from the other's end closing that it is gone. Nothing that only a child needs is imported here.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from listener.application.errors import Retryable

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


class Program(NamedTuple):
    """What runs in a child.

    Attributes:
        name: for messages.
        command: the program and its arguments; `--parent` and a descriptor are added.
        stopped: the error that says that it is gone.
    """

    name: str
    command: Sequence[str]
    stopped: type[Retryable]


async def _nobody() -> None:
    """Is told, and does nothing."""


class ChildProcess:
    """Starts a program, and ends with it.

    Args:
        program: see there.
        sockets: handed over, each as a descriptor behind its option.
        serves: called when it works.
        gone: called when it does not any more.
    """

    def __init__(
        self,
        program: Program,
        sockets: Mapping[str, socket.socket] | None = None,
        serves: Callable[[], Awaitable[None]] = _nobody,
        gone: Callable[[], Awaitable[None]] = _nobody,
    ) -> None:
        self._program = program
        self._sockets = sockets or {}
        self._serves = serves
        self._gone = gone

    async def run(self) -> None:
        """One life of the child.

        Raises:
            Retryable: the program's own: it ended, hung, or did not start.
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
        raise self._program.stopped(f"{self._program.name} ended with {process.returncode}")

    async def _start(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        handed = {**self._sockets, "--parent": theirs}
        words = [word for option, each in handed.items() for word in (option, str(each.fileno()))]
        try:
            return await asyncio.create_subprocess_exec(
                *self._program.command,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[each.fileno() for each in handed.values()],
                start_new_session=True,
            )
        except OSError as error:
            raise self._program.stopped(f"{self._program.name} cannot be started: {error}") from error

    async def _watch(self, ours: socket.socket) -> None:
        """Return when the child is gone.

        Raises:
            Retryable: it hangs.
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
                    raise self._program.stopped(
                        f"{self._program.name} was silent for {patience_s:.0f} s"
                    ) from None
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
    """The other end, in the child.

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

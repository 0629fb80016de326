"""The supervised child: a program of the test's stands for the gateway."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from listener.application.errors import GatewayStopped
from listener.infrastructure import child_process
from listener.infrastructure.child_process import ChildProcess, Program
from listener.infrastructure.listening import listen

BEGIN: Final = """
import socket, sys, time, signal
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
parent = socket.socket(fileno=int(words["--parent"]))
listening = socket.socket(fileno=int(words["--listening"]))
assert listening.getsockname()[1] and words["--upstream"] == "http://127.0.0.1:1"
"""
"""What each stand-in begins with."""


class Seen:
    """What the process told its owner."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.told = asyncio.Event()

    async def serves(self) -> None:
        """It answers at the port."""
        self.calls.append("serves")
        self.told.set()

    async def gone(self) -> None:
        """It does not any more."""
        self.calls.append("gone")


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A public port."""
    with listen("127.0.0.1", 0) as listening:
        yield listening


def child_of(port: socket.socket, seen: Seen, program: str) -> ChildProcess:
    """A supervised program."""
    command = (sys.executable, "-c", program, "--upstream", "http://127.0.0.1:1")
    return supervised(port, seen, command)


def supervised(port: socket.socket, seen: Seen, command: Sequence[str]) -> ChildProcess:
    """A child that is handed the port."""
    named = Program("the gateway's process", command, GatewayStopped)
    return ChildProcess(named, {"--listening": port}, seen.serves, seen.gone)


async def test_a_life(port: socket.socket) -> None:
    """It serves, then it is gone: told once each, in this order, and its end is an error that passes."""
    seen = Seen()
    with pytest.raises(GatewayStopped, match="ended with 7"):
        await child_of(port, seen, BEGIN + "parent.send(b'..'); time.sleep(0.2); sys.exit(7)").run()
    assert seen.calls == ["serves", "gone"]


async def test_a_child_that_never_serves(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and nobody is told that it serves."""
    monkeypatch.setattr(child_process, "START_S", 0.5)
    seen = Seen()
    with pytest.raises(GatewayStopped, match="silent"):
        await child_of(port, seen, BEGIN + "time.sleep(60)").run()
    assert seen.calls == []


async def test_a_child_that_hangs(port: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves and then is silent, deaf to the request to end: it is killed."""
    monkeypatch.setattr(child_process, "SILENCE_S", 0.3)
    monkeypatch.setattr(child_process, "STOP_S", 0.3)
    seen = Seen()
    program = "signal.signal(signal.SIGTERM, signal.SIG_IGN); parent.send(b'.'); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(GatewayStopped, match="silent"):
        await child_of(port, seen, BEGIN + program).run()
    assert time.monotonic() - began < 10
    assert seen.calls == ["serves", "gone"]


async def test_a_program_that_is_not_there(port: socket.socket) -> None:
    """What cannot be started is an error that passes, not the end of the service."""
    seen = Seen()
    missing = supervised(port, seen, ("/nowhere/program",))
    with pytest.raises(GatewayStopped, match="cannot be started"):
        await missing.run()


async def test_who_is_stopped_stops_the_child(port: socket.socket) -> None:
    """Cancelled, it asks the child to end and waits for that; the port is still ours."""
    seen = Seen()
    known = _children()
    task = asyncio.create_task(child_of(port, seen, BEGIN + "parent.send(b'.'); time.sleep(60)").run())
    async with asyncio.timeout(10):
        await seen.told.wait()
    (pid,) = _children() - known
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
    assert seen.calls == ["serves", "gone"]
    assert port.getsockname()[1]


def _children() -> set[int]:
    """Processes that this one has started."""
    texts = [(thread / "children").read_text() for thread in Path("/proc/self/task").iterdir()]
    return {int(pid) for text in texts for pid in text.split()}


def _descriptors() -> int:
    """How many are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_leaks(port: socket.socket) -> None:
    """After many lives as many descriptors are open as before."""
    seen = Seen()
    for _ in range(3):
        with pytest.raises(GatewayStopped):
            await child_of(port, seen, BEGIN + "parent.send(b'.')").run()
    before = _descriptors()
    for _ in range(5):
        with pytest.raises(GatewayStopped):
            await child_of(port, seen, BEGIN + "parent.send(b'.')").run()
    assert _descriptors() == before

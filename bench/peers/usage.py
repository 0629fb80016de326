"""Processor time and memory of a process and everything it has started, from /proc."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PATIENCE_S: Final = 10.0
POLL_S: Final = 0.05

_TIMES: Final = slice(11, 15)
"""Fields of /proc/*/stat after the name: user and system time, own and of ended children."""


class Usage(NamedTuple):
    """What processes use.

    Attributes:
        cpu_s: processor time so far, that of ended children included.
        rss_mb: resident memory now; what processes share of a database's buffers counts once.
    """

    cpu_s: float
    rss_mb: float


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for children in (PROC / str(one) / "task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def usage(pid: int) -> Usage:
    """Of a process and its descendants."""
    ticks, own_kb, shared_kb = 0, 0, 0
    for one in tree(pid):
        fields = _stat(one)
        ticks += sum(map(int, fields[_TIMES]))
        memory = dict(_memory(one))
        own_kb += memory.get("RssAnon", 0) + memory.get("RssFile", 0)
        shared_kb = max(shared_kb, memory.get("RssShmem", 0))
    return Usage(ticks / TICKS_PER_S, (own_kb + shared_kb) / 1024)


def end(pid: int) -> None:
    """Ask a process and its descendants to end, each by its id; kill what is still there after a while."""
    pids = tree(pid)
    for stop in (signal.SIGTERM, signal.SIGKILL):
        for one in pids:
            with suppress(ProcessLookupError):
                os.kill(one, stop)
        deadline = time.monotonic() + PATIENCE_S
        while pids and time.monotonic() < deadline:
            pids = [one for one in pids if _is_running(one)]
            time.sleep(POLL_S)


def _is_running(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _memory(pid: int) -> Iterator[tuple[str, int]]:
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("Rss"):
                name, _, value = line.partition(":")
                yield name, int(value.split()[0])

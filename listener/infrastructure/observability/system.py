"""What the process uses of the machine."""

import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_STARTED: Final = time.monotonic()
_PAGE: Final = resource.getpagesize()


class SystemMetrics(NamedTuple):
    """Of this process. `open_files` is -1 where the system does not say.

    Attributes:
        memory_bytes: resident now; where the system does not say, the most that it ever was.
        cpu_seconds: used since the start, in user and kernel mode.
        cpu_share: of one core, on average since the start.
    """

    memory_bytes: int
    cpu_seconds: float
    cpu_share: float
    open_files: int
    threads: int
    uptime_s: float
    loop_lag_s: float


def get_system_metrics(loop_lag_s: float = 0.0) -> SystemMetrics:
    """What the process uses now.

    Args:
        loop_lag_s: how late its event loop was last seen to be; only `LoopLag` knows.
    """
    uptime_s = max(time.monotonic() - _STARTED, 1e-6)
    used = os.times()
    cpu_seconds = used.user + used.system
    return SystemMetrics(
        memory_bytes=_memory(),
        cpu_seconds=round(cpu_seconds, 3),
        cpu_share=round(cpu_seconds / uptime_s, 4),
        open_files=_open_files(),
        threads=threading.active_count(),
        uptime_s=round(uptime_s, 3),
        loop_lag_s=round(loop_lag_s, 6),
    )


def _memory() -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208 - only their number
    return -1

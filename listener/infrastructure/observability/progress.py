"""Progress of catching up: a bar on a terminal, a log line now and then otherwise."""

import sys
import time
from typing import Final

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S: Final = 5.0


class ProgressDisplay:
    """Shows blocks, trades a second and the time left."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("listener")
        self._bar: Progress | None = None
        self._started = 0.0
        self._first = 0
        self._line_at = 0.0

    def begin(self, number: int) -> None:
        """Catching up begins at block `number`."""
        self._started, self._first = time.monotonic(), number

    def update(self, number: int, target: int, trades: int) -> None:
        """Catching up has come to block `number` of `target`, with `trades` in all."""
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-6)
        rate = trades / elapsed
        if sys.stderr.isatty():
            self._show(number, target, rate)
        elif now - self._line_at >= LINE_EVERY_S or number == target:
            self._line_at = now
            speed = (number - self._first) / elapsed
            left = (target - number) / speed if speed else 0.0
            self._log.info(
                "Catching up",
                block=number,
                target=target,
                trades=trades,
                trades_per_s=round(rate),
                left_s=round(left),
            )

    def _show(self, number: int, target: int, rate: float) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("catching up"),
                BarColumn(),
                TextColumn("block {task.completed:.0f}/{task.total:.0f}, {task.fields[rate]:.0f} trades/s,"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("blocks", total=target, completed=number, rate=rate)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=number, total=target, rate=rate)

    def done(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
        self._bar = None

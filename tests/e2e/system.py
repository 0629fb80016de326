"""The system under test as its user sees it: processes, Redis keys, HTTP."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from listener.demo.launchpad import Launchpad, Parameters
from listener.demo.processes import Child, start_backend, start_listener
from tests import oracle

CHAIN_ID = 31337
TOKEN = "token-of-the-tests"
WAIT_S = 40.0
DAY_MS = 86_400_000
DEFAULT_INTERVALS = ("1m", "5m", "15m", "1h", "4h", "1d")
DEFAULT_RETENTION = {
    "1m": 3 * DAY_MS,
    "5m": 10 * DAY_MS,
    "15m": 30 * DAY_MS,
    "1h": 120 * DAY_MS,
    "4h": 365 * DAY_MS,
}


class System:
    """A chain, a Valkey, and whatever a test starts beside them."""

    def __init__(self, chain_port: int, redis_port: int, directory: Path) -> None:
        self.http = f"http://127.0.0.1:{chain_port}"
        self.ws = f"ws://127.0.0.1:{chain_port}"
        self.redis_port = redis_port
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.directory = directory
        self.listener: Child | None = None
        self.backend: Child | None = None
        self._redis = redis.Redis(port=redis_port, decode_responses=True)

    def deploy(self, parameters: Parameters | None = None) -> Launchpad:
        """Deploy a factory."""
        return Launchpad(self.http, parameters)

    def start_backend(self, **environment: str) -> Child:
        """Start the Node backend."""
        port = self.backend.found.rpartition(":")[2] if self.backend else "0"
        self.backend = start_backend(
            self.redis_url,
            CHAIN_ID,
            TOKEN,
            int(port),
            self.directory / "backend.log",
            ENABLE_DEBUG="1",
            **environment,
        )
        return self.backend

    def start_listener(self, factory: str, *, ready: str = "Listener started", **settings: str) -> Child:
        """Start the listener, with the backend if one runs."""
        environment = {
            "BLOCKCHAIN_HTTP_URL": self.http,
            "BLOCKCHAIN_WS_URL": self.ws,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": factory,
            "REDIS_URL": self.redis_url,
            "LOG_LEVEL": "INFO",
        }
        if self.backend:
            environment |= {"BACKEND_SOCKET_URL": self.backend.found, "BACKEND_AUTH_TOKEN": TOKEN}
        self.listener = start_listener(
            environment | settings, ready=ready, log=self.directory / "listener.log"
        )
        return self.listener

    def wait_for_block(self, number: int) -> None:
        """Wait until a block is committed."""
        key = f"head:{{{CHAIN_ID}}}"
        self.wait(lambda: int(self._redis.hget(key, "number") or -1) >= number, f"block {number}")

    def wait_delivered(self, timeout_s: float = WAIT_S) -> None:
        """Wait until the backend has acknowledged every row."""

        def delivered() -> bool:
            newest = self._redis.xrevrange(f"outbox:{{{CHAIN_ID}}}", count=1)
            done = self._redis.hget(f"cursor:{{{CHAIN_ID}}}", "acknowledged")
            return bool(newest) and newest[0][0] == done

        self.wait(delivered, "delivery", timeout_s)

    def wait(self, reached: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Poll until something is so.

        Raises:
            AssertionError: it did not happen in time, or the listener ended; with its last lines.
        """
        deadline = time.monotonic() + timeout_s
        while not reached():
            ended = self.listener is not None and self.listener.process.poll() is not None
            if ended or time.monotonic() > deadline:
                lines = "\n".join(self.listener.lines[-15:]) if self.listener else ""
                raise AssertionError(f"waited for {what} in vain:\n{lines}")
            time.sleep(0.02)

    def settle(self, differences: Callable[[], list[str]], timeout_s: float = 10.0) -> None:
        """Compare until nothing differs: figures that roll off follow the last block by a moment.

        Raises:
            AssertionError: something still differs when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while (found := differences()) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert found == [], "\n".join(found[:30])

    def backend_state(self) -> dict[str, Any]:
        """What the backend holds."""
        assert self.backend is not None
        found: dict[str, Any] = get_json(self.backend.found + "/debug/state")[1]
        return found

    def backend_view(self) -> dict[str, Any]:
        """What the backend holds, in the form in which the oracle compares it."""
        markets = self.backend_state()["state"]["markets"]
        return {
            "markets": {s: {"record": m["market"], "stats": m["stats"]} for s, m in markets.items()},
            "candles": {(s, i): c for s, m in markets.items() for i, c in m["candles"].items()},
            "trades": {s: m["trades"] for s, m in markets.items()},
        }

    def expected(
        self, *factories: str, price_mode: str = "execution", start_block: int = 0
    ) -> oracle.Expected:
        """What the oracle says of the chain, once all is mined that was sent; with default intervals."""
        call = oracle.http_rpc(self.http)
        self.wait(lambda: call("txpool_status", [])["pending"] == "0x0", "an empty pool")
        known = [factory.lower() for factory in factories]
        chain = oracle.read_chain(call, 0, int(call("eth_blockNumber", []), 16), known)
        settings = oracle.Settings(
            factories=known,
            intervals=DEFAULT_INTERVALS,
            price_mode=price_mode,
            retention=DEFAULT_RETENTION,
            start_block=start_block,
        )
        return oracle.compute(chain, settings)

    def equals_oracle(
        self, *factories: str, price_mode: str = "execution", start_block: int = 0, timeout_s: float = WAIT_S
    ) -> oracle.Expected:
        """Wait until Redis holds what the oracle says of the chain as it is now, and the listener lives.

        Raises:
            AssertionError: it does not come to that in time.
        """
        truth = self.expected(*factories, price_mode=price_mode, start_block=start_block)
        assert truth.last_block
        key, block = f"head:{{{CHAIN_ID}}}", truth.last_block.hash
        self.wait(lambda: self._redis.hget(key, "hash") == block, f"block {truth.last_block}", timeout_s)
        self.settle(lambda: oracle.compare_redis(self._redis, CHAIN_ID, truth))
        assert self.listener
        assert self.listener.process.poll() is None
        return truth

    def backend_equals_redis(self, timeout_s: float = WAIT_S) -> None:
        """Wait until the backend has everything, and what it holds is what Redis holds.

        Raises:
            AssertionError: it does not come to that in time.
        """
        self.wait_delivered(timeout_s)
        self.settle(
            lambda: oracle.compare_node_view(
                self._redis, CHAIN_ID, self.backend_view(), intervals=DEFAULT_INTERVALS
            )
        )
        for market, trades in self.backend_view()["trades"].items():
            ids = [trade["id"] for trade in trades]
            assert len(ids) == len(set(ids)), f"{market} has trades twice"

    def records(self) -> list[dict[str, Any]]:
        """The listener's log lines."""
        assert self.listener
        return [json.loads(line) for line in list(self.listener.lines) if line.startswith("{")]

    def wait_log(self, event: str, *, after: int = 0, **fields: object) -> dict[str, Any]:
        """Wait for a log line whose event begins so and that has these fields; the line.

        Args:
            event: the beginning of the event.
            after: so many lines are passed over.
            **fields: what else it must say.
        """
        found: list[dict[str, Any]] = []

        def logged() -> bool:
            found[:] = [
                record
                for record in self.records()[after:]
                if record["event"].startswith(event) and fields.items() <= record.items()
            ]
            return bool(found)

        self.wait(logged, f"a line {event!r} {fields}")
        return found[0]

    def health(self, path: str = "/health") -> str:
        """Where the listener's health is."""
        port = next(record["health_port"] for record in self.records() if "health_port" in record)
        return f"http://127.0.0.1:{port}{path}"

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of `/ready`."""
        return get_json(self.health("/ready"))

    def wait_ready(self, status: int, reason: str = "") -> None:
        """Wait until `/ready` answers so, with a reason that begins with `reason`."""

        def answers() -> bool:
            found, body = self.ready()
            return found == status and any(text.startswith(reason) for text in [*body["reasons"], ""])

        self.wait(answers, f"/ready with {status} {reason}")

    def ended(self, timeout_s: float = 20.0) -> tuple[int, str]:
        """Exit code and output of a listener that ends by itself.

        Raises:
            subprocess.TimeoutExpired: it does not.
        """
        assert self.listener
        self.listener.process.wait(timeout_s)
        return self.listener.stop(), "\n".join(self.listener.lines)

    def use_redis(self, port: int) -> None:
        """Use another server from now on."""
        self._redis.close()
        self._redis = redis.Redis(port=port, decode_responses=True)
        self.redis_port = port
        self.redis_url = f"redis://127.0.0.1:{port}/0"

    def redis_pid(self) -> int:
        """Process id of Valkey."""
        return int(self._redis.info("server")["process_id"])

    def dump(self) -> dict[str, bytes]:
        """Everything in Redis, in its own serialisation."""
        plain = redis.Redis(port=self.redis_port)
        try:
            return {key.decode(): plain.dump(key) for key in sorted(plain.scan_iter(count=1000))}
        finally:
            plain.close()

    def close(self) -> None:
        """Stop what was started."""
        for child in (self.listener, self.backend):
            if child:
                child.stop()
        self._redis.close()


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """A process that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def get_json(url: str) -> tuple[int, Any]:
    """Status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)

"""The system under test as its user sees it: processes, Redis keys, HTTP."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from listener.demo.launchpad import Launchpad, Parameters
from listener.demo.processes import Child, start_backend, start_listener

CHAIN_ID = 31337
TOKEN = "token-of-the-tests"
WAIT_S = 40.0


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

    def wait_delivered(self) -> None:
        """Wait until the backend has acknowledged every row."""

        def delivered() -> bool:
            newest = self._redis.xrevrange(f"outbox:{{{CHAIN_ID}}}", count=1)
            done = self._redis.hget(f"cursor:{{{CHAIN_ID}}}", "acknowledged")
            return bool(newest) and newest[0][0] == done

        self.wait(delivered, "delivery")

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

    def close(self) -> None:
        """Stop what was started."""
        for child in (self.listener, self.backend):
            if child:
                child.stop()
        self._redis.close()


def get_json(url: str) -> tuple[int, Any]:
    """Status and body of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)

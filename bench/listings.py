"""Events of 100 blocks for a listing service: from Redis, and from a node.

    .venv/bin/python -m bench.listings --per-block 10

A real anvil with trades of our contracts, so many in each block, a listener that records them while it
follows the chain, and the gateway that it starts. One client asks for the newest 100 blocks again and again,
then for the same ones after Redis was told not to cover them. Anvil and Valkey have the core of the servers.
Prints JSON.
"""

import argparse
import http.client
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from redis import Redis

from bench.anvil import CHAIN_ID, Chain
from bench.system import SERVERS_CORE, machine, pinned
from listener.demo.processes import start_anvil, start_listener, start_valkey

BLOCKS: Final = 100
REQUESTS: Final = 100
PATIENCE_S: Final = 60.0
SETTINGS: Final = {
    "FINALITY_WINDOW": "1",
    "AUDIT_WINDOW": "0",
    "POLL_INTERVAL_MS": "50",
    "LISTING_INTERVAL_MS": "50",
    "GATEWAY_RATE_PER_S": "0",
    "LOG_LEVEL": "WARNING",
}


class Service:
    """Asks the gateway on one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request("GET", f"/dexscreener{path}")
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def latest(self) -> int:
        """The newest block that may be asked for; -1: none yet."""
        status, body = self.get("/latest-block")
        return int(json.loads(body)["block"]["blockNumber"]) if status == 200 else -1

    def wait(self, number: int) -> None:
        """Wait until a block may be asked for.

        Raises:
            TimeoutError: it takes too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while self.latest() < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"block {number} was not recorded")
            time.sleep(0.05)

    def timed(self, last: int, requests: int) -> dict[str, Any]:
        """Milliseconds of an answer, and what it holds."""
        took: list[float] = []
        body = b""
        for _ in range(requests):
            started = time.perf_counter()
            status, body = self.get(f"/events?fromBlock={last - BLOCKS + 1}&toBlock={last}")
            took.append((time.perf_counter() - started) * 1000)
            assert status == 200, body
        took.sort()
        return {
            "p50_ms": round(statistics.median(took), 2),
            "p95_ms": round(took[int(len(took) * 0.95)], 2),
            "events": len(json.loads(body)["events"]),
            "bytes": len(body),
        }


def measure(per_block: int, directory: Path) -> dict[str, Any]:
    """One run."""
    with ExitStack() as stack:
        with pinned(SERVERS_CORE):
            anvil = stack.enter_context(start_anvil())
            valkey = start_valkey(directory / "valkey")
        stack.callback(valkey.stop)
        chain = Chain(anvil.found)
        environment = {
            "BLOCKCHAIN_HTTP_URL": chain.url,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": chain.launchpad.factory.address,
            "REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
        }
        curves = chain.create()
        listener = start_listener(environment | SETTINGS | {"LOG_LEVEL": "INFO"}, ready="Gateway serves")
        stack.callback(listener.stop)
        ports = (json.loads(line).get("health_port") for line in listener.lines if line.startswith("{"))
        service = Service(next(port for port in ports if port))
        service.wait(0)
        chain.trade(curves, (BLOCKS + 1) * per_block, per_block)
        last = chain.launchpad.web3.eth.block_number - 1
        service.wait(last)
        redis = stack.enter_context(Redis(port=valkey.port))
        members = redis.zrange(f"listing:{{{CHAIN_ID}}}", 0, -1)
        held = redis.memory_usage(f"listing:{{{CHAIN_ID}}}", 0)
        events = sum(len(json.loads(member)[2]) for member in members)
        found = {"redis": service.timed(last, REQUESTS)}
        redis.hset(f"coverage:{{{CHAIN_ID}}}", "first", last + 1)
        found["node"] = service.timed(last, REQUESTS // 5)
        assert found["redis"]["events"] == found["node"]["events"] == BLOCKS * per_block
        return {"per_block": per_block, **found, "redis_bytes_per_event": round(held / events)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-block", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(arguments.per_block, Path(directory))
    print(json.dumps({"machine": machine(), **found}, indent=2))


if __name__ == "__main__":
    main()

"""How many calls and HTTP requests a block costs at the provider, by mode.

    python bench/provider_cost.py [blocks [mode …]]

A real anvil mines a block every 0.4 s, every second one with a trade. The listener follows it in one mode
after another, and its own figures say what it asked for. Prints requests and calls, each a block.
"""

import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

from listener.demo.launchpad import ETHER, Launchpad
from listener.demo.processes import Child, start_anvil, start_listener, start_valkey

BLOCKS: Final = 40
EVERY_S: Final = 0.4
USUAL: Final = {
    "FINALITY_WINDOW": "4",
    "WEBHOOKS_ENABLED": "false",
    "POLL_INTERVAL_MS": "400",
}
MODES: Final[dict[str, dict[str, str]]] = {
    "default, with a WebSocket": {},
    "polling": {"ws": ""},
    "no listings": {"LISTINGS_ENABLED": "false"},
    "no second look": {"AUDIT_WINDOW": "0"},
    "neither": {"LISTINGS_ENABLED": "false", "AUDIT_WINDOW": "0"},
    "neither, no blooms": {"LISTINGS_ENABLED": "false", "AUDIT_WINDOW": "0", "BLOOM_POLICY": "off"},
    "neither, strict blooms": {"LISTINGS_ENABLED": "false", "AUDIT_WINDOW": "0", "BLOOM_POLICY": "strict"},
}
SAMPLE: Final = re.compile(r"(?m)^listener_(rpc_calls_total|rpc_request_seconds_count)\{(.*)\} (\S+)$")


def counts(port: str) -> dict[str, float]:
    """Calls by method, and all requests under `requests`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {"requests": 0.0}
    for name, labels, value in SAMPLE.findall(text):
        key = "requests" if name.startswith("rpc_request") else re.findall(r'method="(\w+)"', labels)[0]
        found[key] = found.get(key, 0.0) + float(value)
    return found


def measure(mode: dict[str, str], blocks: int) -> dict[str, float]:
    """What one block costs."""
    settings = USUAL | mode
    with tempfile.TemporaryDirectory() as folder, start_anvil() as chain, start_valkey(Path(folder)) as redis:
        url = f"127.0.0.1:{chain.found}"
        launchpad = Launchpad(f"http://{url}")
        curve = launchpad.create("Token", "T")
        environment = {
            "BLOCKCHAIN_HTTP_URL": f"http://{url}",
            "BLOCKCHAIN_WS_URL": f"ws://{url}",
            "CHAIN_ID": "31337",
            "BONDING_CURVE_FACTORY_ADDRESS": str(launchpad.factory.address),
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        } | settings
        if "ws" in environment:
            environment["BLOCKCHAIN_WS_URL"] = environment.pop("ws")
        with start_listener(environment, ready=r'"health_port":(\d+)') as listener:
            live(launchpad, curve, 6, listener)
            before = counts(listener.found)
            live(launchpad, curve, blocks, listener)
            after = counts(listener.found)
    return {key: (value - before.get(key, 0.0)) / blocks for key, value in after.items()}


def live(launchpad: Launchpad, curve: object, blocks: int, _listener: Child) -> None:
    """So many blocks at their pace."""
    for number in range(blocks):
        time.sleep(EVERY_S)
        if number % 2:
            launchpad.buy(curve, ETHER // 50, number % 9)  # type: ignore[arg-type]
        else:
            launchpad.rpc("evm_mine")
    time.sleep(2 * EVERY_S)


def main() -> None:
    """Measure each mode and print the table."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else BLOCKS
    wanted = sys.argv[2:] or MODES
    for name, mode in MODES.items():
        if name not in wanted:
            continue
        found = measure(mode, blocks)
        requests = found.pop("requests")
        calls = ", ".join(f"{method} {value:.2f}" for method, value in sorted(found.items()) if value > 0.004)
        print(f"| {name} | {requests:.2f} | {sum(found.values()):.2f} | {calls} |", flush=True)


if __name__ == "__main__":
    main()

"""End-to-end latency: block announced by a real node → committed in Redis → acknowledged by the backend.

    .venv/bin/python bench/latency.py --seconds 60 --rate 100 --block-time 1

Real anvil, Valkey, backend and listener on this machine. A block's clock starts when this process hears of it
over its own newHeads subscription; it stops at the listener's log lines of the commit and of the
acknowledgement that covers the block's last outbox row. Prints JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from web3 import Web3
from websockets.asyncio.client import connect

from listener.demo.launchpad import ETHER, Launchpad, Parameters, artifact
from listener.demo.processes import Child, start_anvil, start_backend, start_listener, start_valkey

TOKEN = "token-of-the-bench"
MARKETS = 10
WARM_UP_BLOCKS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=100, help="trades a second")
    parser.add_argument("--block-time", type=float, default=1)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        print(json.dumps(measure(stack, arguments.seconds, arguments.rate, arguments.block_time), indent=2))


def measure(stack: ExitStack, seconds: float, rate: int, block_time: float) -> dict[str, Any]:
    """Latencies in milliseconds and the listener's resident memory in MB."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    valkey = start_valkey(directory / "valkey")
    stack.callback(valkey.stop)
    redis_url = f"redis://127.0.0.1:{valkey.port}/0"
    chain = stack.enter_context(start_anvil("--accounts", "20"))
    launchpad = Launchpad(
        f"http://127.0.0.1:{chain.found}",
        Parameters(virtual_quote=3_000 * ETHER, graduation_threshold=30_000 * ETHER),
    )
    curves = [launchpad.create(f"Market {number}", f"M{number}") for number in range(MARKETS)]
    backend = stack.enter_context(start_backend(redis_url, 31337, TOKEN))
    listener = stack.enter_context(
        start_listener(
            {
                "BLOCKCHAIN_HTTP_URL": f"http://127.0.0.1:{chain.found}",
                "BLOCKCHAIN_WS_URL": f"ws://127.0.0.1:{chain.found}",
                "BONDING_CURVE_FACTORY_ADDRESS": launchpad.factory.address,
                "REDIS_URL": redis_url,
                "BACKEND_SOCKET_URL": backend.found,
                "BACKEND_AUTH_TOKEN": TOKEN,
                "LOG_LEVEL": "DEBUG",
                "PROCESSING_INTERVAL_MS": "50",
                "GATEWAY_ENABLED": "false",
            },
            ready="Following the head",
        )
    )
    launchpad.rpc("evm_setIntervalMining", *([int(block_time)] if block_time >= 1 else [block_time]))
    announced = asyncio.run(
        load(launchpad, [curve.address for curve in curves], int(chain.found), seconds, rate)
    )
    time.sleep(2)
    return evaluate(announced, listener, seconds, rate, block_time)


async def load(
    launchpad: Launchpad, curves: list[str], port: int, seconds: float, rate: int
) -> dict[int, float]:
    """Send buys at a steady rate; when each block was announced (Unix seconds)."""
    announced: dict[int, float] = {}

    async def hear() -> None:
        async with connect(f"ws://127.0.0.1:{port}") as socket:
            await socket.send('{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}')
            async for message in socket:
                heard = time.time()
                frame = json.loads(message)
                if "params" in frame:
                    announced[int(frame["params"]["result"]["number"], 16)] = heard

    hearing = asyncio.create_task(hear())
    contract = launchpad.web3.eth.contract(abi=artifact("BondingCurve")["abi"])
    accounts = [Web3.to_checksum_address(account) for account in launchpad.accounts]
    nonces = {account: int(launchpad.web3.eth.get_transaction_count(account)) for account in accounts}
    calls = {account: contract.encode_abi("buy", [0, account]) for account in accounts}
    per_tick = max(rate // 10, 1)
    sent = 0
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + seconds
        tick = time.monotonic()
        while time.monotonic() < deadline:
            batch = []
            for _ in range(per_tick):
                account = accounts[sent % len(accounts)]
                transaction = {
                    "from": account,
                    "to": curves[(sent // 7) % len(curves)],
                    "data": calls[account],
                    "value": hex(ETHER // 1000),
                    "gas": hex(200_000),
                    "nonce": hex(nonces[account]),
                }
                nonces[account] += 1
                sent += 1
                batch.append(
                    {"jsonrpc": "2.0", "id": sent, "method": "eth_sendTransaction", "params": [transaction]}
                )
            async with session.post(f"http://127.0.0.1:{port}", json=batch) as answer:
                await answer.read()
            tick += 0.1
            await asyncio.sleep(max(tick - time.monotonic(), 0))
    await asyncio.sleep(2)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    return announced


def evaluate(
    announced: dict[int, float], listener: Child, seconds: float, rate: int, block_time: float
) -> dict[str, Any]:
    """Join the node's announcements with the listener's log lines."""
    committed: dict[int, tuple[float, int, int]] = {}
    acknowledged: list[tuple[int, float]] = []
    for line in listener.lines:
        event = json.loads(line)
        if event["event"] == "Trades committed":
            committed[event["block"]] = (_time(event), event["seq"], event["trades"])
        elif event["event"] == "Updates acknowledged":
            acknowledged.append((event["seq"], _time(event)))
    to_redis, to_node, trades = [], [], 0
    for block, (when, seq, count) in sorted(committed.items())[WARM_UP_BLOCKS:]:
        done = next((at for last, at in acknowledged if last >= seq), None)
        if block in announced and done is not None:
            to_redis.append((when - announced[block]) * 1000)
            to_node.append((done - announced[block]) * 1000)
            trades += count
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": seconds,
        "trades_per_s_wanted": rate,
        "trades_per_s": round(trades / (len(to_node) * block_time), 1) if to_node else 0,
        "block_time_s": block_time,
        "blocks": len(to_node),
        "announced_to_redis_ms": _figures(to_redis),
        "announced_to_node_acknowledged_ms": _figures(to_node),
        "listener_rss_mb": _rss_mb(listener.process.pid),
    }


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _figures(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "p50": round(cuts[49], 2),
        "p95": round(cuts[94], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(values), 2),
    }


def _rss_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main()

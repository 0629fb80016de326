"""The backfill on a real node: trades a second, and the share of time that the listener waits for anvil.

    .venv/bin/python -m bench.anvil --trades 20000

Real trades of our contracts on a local anvil, sent in batches and mined 200 a block, then 64 empty blocks,
and a listener that begins with an empty Redis. Anvil has the core of the servers. The listener runs under
`bench.waits`, which measures when its event loop has nothing to do while a request to the node is under way.

At the end Redis is compared with the oracle, which reads the chain by itself.
"""

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from redis import Redis
from web3 import Web3

from bench.replay import call_of
from bench.system import (
    LISTENER_CORE,
    SERVERS_CORE,
    WrongResult,
    cpu_s,
    events,
    machine,
    peak_rss_mb,
    pinned,
    stop,
)
from bench.waits import Waits
from listener.demo.launchpad import ETHER, Curve, Launchpad, Parameters, artifact
from listener.demo.processes import Child, ProcessFailed, start_anvil, start_valkey
from tests import oracle
from tests.e2e.system import DEFAULT_INTERVALS, DEFAULT_RETENTION

CHAIN_ID: Final = 31337
ACCOUNTS: Final = 50
MARKETS: Final = 50
TRADES_PER_BLOCK: Final = 200
BLOCK_S: Final = 2
EMPTY_BLOCKS: Final = 64
GAS: Final = 300_000
SEED: Final = 1
PATIENCE_S: Final = 300.0


class Chain:
    """An anvil with trades.

    Args:
        port: of anvil.
    """

    def __init__(self, port: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.launchpad = Launchpad(
            self.url, Parameters(virtual_quote=3_000 * ETHER, graduation_threshold=30_000 * ETHER)
        )

    def fill(self, trades: int) -> None:
        """Create markets and buy in them, the first ones far more often."""
        self.trade(self.create(), trades)
        self._call(call_of("anvil_mine", EMPTY_BLOCKS))

    def create(self) -> list[Curve]:
        """Create markets."""
        return [self.launchpad.create(f"Market {number}", f"M{number}") for number in range(MARKETS)]

    def trade(self, curves: Sequence[Curve], trades: int, per_block: int = TRADES_PER_BLOCK) -> None:
        """Buy, so often in a block; from now on blocks are mined when they are asked for."""
        self._call(call_of("evm_setAutomine", False))  # noqa: FBT003 - of JSON-RPC
        for batch in self._buys(curves, trades, per_block):
            self._call(*batch)
            self._call(call_of("evm_increaseTime", BLOCK_S), call_of("evm_mine"))

    def _buys(self, curves: Sequence[Curve], trades: int, per_block: int) -> Iterator[list[dict[str, Any]]]:
        chosen = random.Random(SEED).choices(  # noqa: S311 - a workload
            curves, weights=[1 / rank for rank in range(1, len(curves) + 1)], k=trades
        )
        contract = self.launchpad.web3.eth.contract(abi=artifact("BondingCurve")["abi"])
        accounts = [Web3.to_checksum_address(account) for account in self.launchpad.accounts]
        nonces = {
            account: int(self.launchpad.web3.eth.get_transaction_count(account)) for account in accounts
        }
        data = {account: contract.encode_abi("buy", [0, account]) for account in accounts}
        batch: list[dict[str, Any]] = []
        for number, curve in enumerate(chosen):
            account = accounts[number % len(accounts)]
            transaction = {
                "from": account,
                "to": curve.address,
                "data": data[account],
                "value": hex(ETHER // 1000 + number),
                "gas": hex(GAS),
                "nonce": hex(nonces[account]),
            }
            nonces[account] += 1
            batch.append(call_of("eth_sendTransaction", transaction))
            if len(batch) == per_block or number + 1 == trades:
                yield batch
                batch = []

    def _call(self, *calls: dict[str, Any]) -> None:
        """A batch.

        Raises:
            RuntimeError: the node refused one of the calls.
        """
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(calls).encode(), headers)  # noqa: S310 - our own
        with urllib.request.urlopen(request) as reply:  # noqa: S310 - our own node
            for answer in json.load(reply):
                if "error" in answer:
                    raise RuntimeError(str(answer["error"]))

    def tip(self) -> int:
        """Number of the newest block."""
        return int(self.launchpad.web3.eth.block_number)


def run(
    chain: Chain, node: Child, truth: oracle.Expected, trades: int, settings: Mapping[str, str]
) -> dict[str, Any]:
    """Figures of one backfill.

    Raises:
        WrongResult: Redis does not hold what it must.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(SERVERS_CORE):
            valkey = stack.enter_context(start_valkey(directory / "valkey"))
        redis = stack.enter_context(Redis(port=valkey.port, decode_responses=True))
        environment = {
            "BLOCKCHAIN_HTTP_URL": chain.url,
            "BONDING_CURVE_FACTORY_ADDRESS": chain.launchpad.factory.address,
            "REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "WEBSOCKET_PORT": "0",
            "GATEWAY_ENABLED": "false",
            "PYTHONUNBUFFERED": "1",
        }
        report = directory / "waits.json"
        used_by_node = cpu_s(node)
        with pinned(LISTENER_CORE):
            listener = Child(
                "listener",
                [sys.executable, "-m", "bench.waits", str(report)],
                environment=environment | dict(settings),
            )
        stack.enter_context(listener)
        wait_for(redis, chain.tip(), listener)
        used_by_node = cpu_s(node) - used_by_node
        peak_mb = peak_rss_mb(listener.process.pid)
        stop(listener)
        begun = next(at for at, _ in events(listener.lines, "Catching up"))
        last = [at for at, _ in events(listener.lines, "Trades committed")][-1]
        waits = Waits.read(report)
        if differences := oracle.compare_redis(redis, CHAIN_ID, truth):
            raise WrongResult("differences from the oracle:\n" + "\n".join(differences[:20]))
        seconds = last - begun
        return {
            "trades_per_s": round(trades / seconds),
            "seconds": round(seconds, 3),
            "waits_for_node_share": round(waits.node_s / waits.whole_s, 3),
            "waits_else_share": round(waits.else_s / waits.whole_s, 3),
            "busy_share": round(waits.busy_s / waits.whole_s, 3),
            "node_cpu_s": round(used_by_node, 2),
            "listener_peak_rss_mb": peak_mb,
        }


def wait_for(redis: "Redis", number: int, listener: Child) -> None:
    """Return when a block is committed.

    Raises:
        WrongResult: the listener ended, or it took too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while int(redis.hget(f"head:{{{CHAIN_ID}}}", "number") or -1) < number:
        if listener.process.poll() is not None or time.monotonic() > deadline:
            raise WrongResult(f"block {number} was not committed: " + "\n".join(listener.lines[-15:]))
        time.sleep(0.1)


def expected(chain: Chain, trades: int) -> oracle.Expected:
    """What the oracle reads from the chain.

    Raises:
        WrongResult: the chain has other trades than were sent.
    """
    factories = [chain.launchpad.factory.address]
    found = oracle.compute(
        oracle.read_chain(oracle.http_rpc(chain.url), 0, chain.tip(), factories),
        oracle.Settings(factories=factories, intervals=DEFAULT_INTERVALS, retention=DEFAULT_RETENTION),
    )
    if (counted := sum(map(len, found.ticks.values()))) != trades:
        raise WrongResult(f"{counted} trades on the chain instead of {trades}")
    return found


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trades", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = dict(pair.split("=", 1) for pair in arguments.settings)
    about = machine()
    options = ("--accounts", str(ACCOUNTS), "--balance", "1000000", "--disable-block-gas-limit")
    with pinned(SERVERS_CORE):
        node = start_anvil(*options)
    try:
        with node:
            chain = Chain(node.found)
            chain.fill(arguments.trades)
            truth = expected(chain, arguments.trades)
            runs = [run(chain, node, truth, arguments.trades, settings) for _ in range(arguments.runs)]
    except (WrongResult, ProcessFailed) as error:
        sys.exit(f"No result: {error}")
    middle = statistics.median_low(one["trades_per_s"] for one in runs)
    median = next(one for one in runs if one["trades_per_s"] == middle)
    workload = {"trades": arguments.trades, "markets": MARKETS, "trades_per_block": TRADES_PER_BLOCK}
    result = {"benchmark": "anvil", **about, "workload": workload, "median": median, "runs": runs}
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    print(f"{arguments.trades} trades on anvil: {json.dumps(median)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

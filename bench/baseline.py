"""The straightforward pipeline for the same work, to have something to compare `bench/backfill.py` with.

    .venv/bin/python -m bench.baseline --trades 20000

Written as one would with web3.py's own tools: `get_logs` by ranges of blocks, `process_log` of the contract's
ABI, `Decimal` candles of the same six intervals in memory, and for each trade one Redis pipeline that writes
its candles, the newest 200 trades and simple statistics. Same replay node, same Valkey, one core for the
program. It checks nothing that the listener checks: no block hashes, no finality, no reorgs, no rolling day,
and a crash between two commands leaves half a trade.

At its end the trades in its daily candles must be as many as were made, or else exit code 1.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from redis import Redis
from web3 import Web3
from web3.contract import Contract
from web3.types import EventData

from bench.replay import Behaviour, start_replay
from bench.system import HOUR_S, LISTENER_CORE, SERVERS_CORE, machine, pinned
from bench.workload import DECIMALS, Shape, Workload, add_arguments, shape_of
from listener.demo.processes import start_valkey

INTERVALS_S: Final = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": 86_400}
RANGE_BLOCKS: Final = 50
TRADES_KEPT: Final = 200

ABI: Final[list[dict[str, Any]]] = [
    {
        "type": "event",
        "name": "CurveCreated",
        "anonymous": False,
        "inputs": [
            {"name": "token", "type": "address", "indexed": True},
            {"name": "curve", "type": "address", "indexed": True},
            {"name": "creator", "type": "address", "indexed": True},
            {"name": "name", "type": "string", "indexed": False},
            {"name": "symbol", "type": "string", "indexed": False},
        ],
    },
    {
        "type": "event",
        "name": "Trade",
        "anonymous": False,
        "inputs": [
            {"name": "token", "type": "address", "indexed": True},
            {"name": "trader", "type": "address", "indexed": True},
            {"name": "isBuy", "type": "bool", "indexed": False},
            {"name": "base", "type": "uint256", "indexed": False},
            {"name": "quote", "type": "uint256", "indexed": False},
            {"name": "fee", "type": "uint256", "indexed": False},
            {"name": "reserveBase", "type": "uint256", "indexed": False},
            {"name": "reserveQuote", "type": "uint256", "indexed": False},
        ],
    },
]

Candle = dict[str, Any]


class Pipeline:
    """From logs to Redis, a trade at a time.

    Args:
        web3: the node.
        redis: where candles go.
    """

    def __init__(self, web3: Web3, redis: "Redis") -> None:
        self._web3 = web3
        self._redis = redis
        self._contract: type[Contract] = web3.eth.contract(abi=ABI)
        self._topics = [
            Web3.to_hex(Web3.keccak(text=f"{entry['name']}({','.join(i['type'] for i in entry['inputs'])})"))
            for entry in ABI
        ]
        self._candles: dict[tuple[str, str], Candle] = {}
        self._stats: dict[str, dict[str, Any]] = {}

    def run(self, last: int) -> int:
        """Take in blocks 1 to `last`; how many trades there were."""
        trades = 0
        for event, timestamp in self._events(last):
            if event["event"] == "CurveCreated":
                self._create(event["args"], timestamp)
            else:
                self._trade(event, timestamp)
                trades += 1
        return trades

    def _events(self, last: int) -> Iterator[tuple[EventData, int]]:
        """Decoded events, each with the time of its block."""
        created, traded = self._contract.events.CurveCreated(), self._contract.events.Trade()
        for first in range(1, last + 1, RANGE_BLOCKS):
            logs = self._web3.eth.get_logs(
                {
                    "fromBlock": first,
                    "toBlock": min(first + RANGE_BLOCKS - 1, last),
                    "topics": [self._topics],
                }
            )
            times: dict[int, int] = {}
            for log in logs:
                number = log["blockNumber"]
                if number not in times:
                    times[number] = self._web3.eth.get_block(number)["timestamp"]
                event = created if Web3.to_hex(log["topics"][0]) == self._topics[0] else traded
                yield event.process_log(log), times[number]

    def _create(self, args: dict[str, Any], timestamp: int) -> None:
        market = args["token"].lower()
        record = {
            "name": args["name"],
            "symbol": args["symbol"],
            "curve": args["curve"].lower(),
            "createdAt": str(timestamp),
        }
        self._redis.hset(f"market:{market}", mapping=record)  # type: ignore[arg-type]

    def _trade(self, event: EventData, timestamp: int) -> None:
        args = event["args"]
        market = args["token"].lower()
        base, quote = (Decimal(args[name]).scaleb(-DECIMALS) for name in ("base", "quote"))
        price = quote / base
        pipe = self._redis.pipeline(transaction=False)
        for interval, seconds in INTERVALS_S.items():
            candle = self._candle(market, interval, timestamp - timestamp % seconds)
            update(candle, price, base, quote, is_buy=args["isBuy"])
            key = f"candles:{market}:{interval}"
            pipe.hset(key, str(candle["t"]), json.dumps(candle, default=str))
            pipe.zadd(f"{key}:times", {str(candle["t"]): candle["t"]})
        trade = {
            "id": f"{event['blockNumber']}-{event['logIndex']}",
            "tx": Web3.to_hex(event["transactionHash"]),
            "t": timestamp,
            "side": "buy" if args["isBuy"] else "sell",
            "trader": args["trader"].lower(),
            "p": price,
            "v": base,
            "q": quote,
        }
        pipe.lpush(f"trades:{market}", json.dumps(trade, default=str))
        pipe.ltrim(f"trades:{market}", 0, TRADES_KEPT - 1)
        stats = self._stats.setdefault(market, {"volume": Decimal(0), "count": 0})
        stats["volume"] += base
        stats["count"] += 1
        stats["lastPrice"] = price
        pipe.hset(f"stats:{market}", mapping={name: str(value) for name, value in stats.items()})
        pipe.execute()

    def _candle(self, market: str, interval: str, open_time: int) -> Candle:
        candle = self._candles.get((market, interval))
        if candle is None or candle["t"] != open_time:
            candle = {"t": open_time, "v": Decimal(0), "q": Decimal(0), "V": Decimal(0), "n": 0}
            self._candles[market, interval] = candle
        return candle


def update(candle: Candle, price: Decimal, base: Decimal, quote: Decimal, *, is_buy: bool) -> None:
    """Take a trade into a candle."""
    candle.setdefault("o", price)
    candle["h"] = max(candle.get("h", price), price)
    candle["l"] = min(candle.get("l", price), price)
    candle["c"] = price
    candle["v"] += base
    candle["q"] += quote
    if is_buy:
        candle["V"] += base
    candle["n"] += 1


def trades_in_candles(redis: "Redis") -> int:
    """Trades in all daily candles."""
    return sum(
        json.loads(candle)["n"]
        for key in redis.scan_iter("candles:*:1d", count=1000)
        for candle in redis.hvals(key)
    )


def run(workload: Workload, behaviour: Behaviour, cache: str) -> dict[str, Any]:
    """Figures of one run."""
    shape = workload.shape
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(SERVERS_CORE):
            valkey = stack.enter_context(start_valkey(directory))
            node, http_url, _ = start_replay(shape, behaviour, cache)
        stack.enter_context(node)
        redis = stack.enter_context(Redis(port=valkey.port, decode_responses=True))
        stack.enter_context(pinned(LISTENER_CORE))
        pipeline = Pipeline(Web3(Web3.HTTPProvider(http_url)), redis)
        began, used = time.perf_counter(), time.process_time()
        trades = pipeline.run(shape.blocks)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        if not trades == trades_in_candles(redis) == shape.trades:
            sys.exit(f"No result: {trades} trades, {trades_in_candles(redis)} in candles")
        redis_us = sum(figures["usec"] for figures in redis.info("commandstats").values())
    return {
        "trades_per_s": round(trades / seconds),
        "trades_per_cpu_s": round(trades / cpu),
        "seconds": round(seconds, 3),
        "cpu_us_per_trade": round(cpu / trades * 1e6, 2),
        "redis_command_us_per_trade": round(redis_us / trades, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(trades=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shape: Shape = shape_of(arguments)
    workload = Workload.open(shape, arguments.cache)
    behaviour = Behaviour(tip_time=int(time.time()) // HOUR_S * HOUR_S)
    runs = [run(workload, behaviour, str(arguments.cache)) for _ in range(arguments.runs)]
    middle = statistics.median_low(one["trades_per_s"] for one in runs)
    median = next(one for one in runs if one["trades_per_s"] == middle)
    result = {
        "benchmark": "baseline",
        **machine(),
        "workload": shape._asdict(),
        "median": median,
        "runs": runs,
    }
    rates = ", ".join(str(one["trades_per_s"]) for one in runs)
    print(f"{shape.trades} trades with plain web3.py code: {median['trades_per_s']} trades/s (runs: {rates})")
    print(
        f"CPU {median['cpu_us_per_trade']} us a trade, Redis commands {median['redis_command_us_per_trade']}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

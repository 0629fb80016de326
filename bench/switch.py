"""How long Redis stands still while `resync` puts a new generation in the place of the live one.

    python bench/switch.py [markets]

Fills an embedded Valkey with two generations of so many markets (record, statistics, trades, six intervals)
and switches. Prints keys moved, milliseconds, and microseconds a key; the median of five.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis

from listener.application.rules import Finality, Rules
from listener.demo.processes import start_valkey
from listener.domain.value_objects import Interval
from listener.infrastructure.redis.client import Command, Database
from listener.infrastructure.redis.generations import RedisGenerations
from listener.infrastructure.redis.keys import Keys

NAMES = ("1m", "5m", "15m", "1h", "4h", "1d")
RULES = Rules(
    tuple(map(Interval.parse, NAMES)), frozenset(NAMES), "execution", {}, 200, Finality(64), frozenset()
)
ROUNDS = 5


async def fill(database: Database, keys: Keys, markets: int) -> None:
    """One generation: ten candles an interval, ten trades."""
    await database.run("HSET", keys.settings, "setting:OHLCV_INTERVALS", ",".join(NAMES), "base", 0)
    head: dict[str, str | int] = {
        "number": 1,
        "hash": "0x1",
        "timestamp": 1,
        "asOf": 1,
        "gen": 1,
        "epoch": 1,
        "seq": 0,
    }
    await database.run("HSET", keys.head, *(word for pair in head.items() for word in pair))
    for start in range(0, markets, 500):
        commands: list[Command] = []
        for number in range(start, min(start + 500, markets)):
            market = f"0x{number:040x}"
            commands.append(("ZADD", keys.markets, number, market))
            commands.append(("HSET", keys.market(market), "name", market))
            commands.append(("HSET", keys.stats(market), "count", 1))
            commands.append(("RPUSH", keys.trades(market), *["{}" * 100] * 10))
            for name in NAMES:
                members = [word for at in range(10) for word in (at, f"{at}" * 200)]
                commands.append(("ZADD", keys.candles(market, name), *members))
        await database.run_all(commands)


async def measure(port: int, markets: int) -> tuple[int, float]:
    """Keys moved and seconds."""
    redis = Redis(port=port)
    await redis.flushall()
    database = Database(redis, 600)
    live = Keys(31337)
    beside = live.beside("resync")
    await fill(database, live, markets)
    await fill(database, beside, markets)
    generations = RedisGenerations(database, live, beside, RULES)
    moved = int(await redis.dbsize())
    started = time.perf_counter()
    await generations.switch(2)
    seconds = time.perf_counter() - started
    await database.close()
    return moved, seconds


def main() -> None:
    """Measure and print."""
    markets = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory, start_valkey(Path(directory)) as valkey:
        results = [asyncio.run(measure(valkey.port, markets)) for _ in range(ROUNDS)]
    keys = results[0][0]
    median = statistics.median(seconds for _, seconds in results)
    sys.stdout.write(f"{keys} keys, {median * 1000:.0f} ms, {median / keys * 1e6:.2f} us a key\n")


if __name__ == "__main__":
    main()

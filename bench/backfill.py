"""Backfill: how many trades a second the listener turns into candles in Redis.

    .venv/bin/python -m bench.backfill --trades 100000 --runs 3
    .venv/bin/python -m bench.backfill --profile backfill.prof
    .venv/bin/python -m bench.backfill --stages

A replay node, an embedded Valkey and a real `python -m listener.main` without a backend: the listener has
one core of its own, Redis and the node share the other. The clock starts when the listener says `Catching
up`, before its first request for logs, and stops when it has committed the last trade; CPU times are of the
same period. On a busy machine only they say something: wall time is what others leave over.

After each run everything in Redis is compared with the oracle for a seeded sample of markets (`--check all`:
for all of them), and the number of trades in all daily candles with the number that were made. A difference
means that there is no result, and exit code 1. `--profile` and `--stages` slow the listener down: their runs
say where time goes, not how fast it is.
"""

import argparse
import json
import os
import platform
import pstats
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from redis import Redis

from bench.replay import CHAIN_ID, Behaviour, ReplayChain, start_replay
from bench.stages import StageTimes
from bench.workload import (
    DECIMALS,
    FACTORY,
    Workload,
    add_arguments,
    address,
    block_hash,
    market_name,
    market_symbol,
    shape_of,
)
from listener.demo.processes import REPOSITORY, Child, Valkey, start_valkey
from tests import oracle
from tests.e2e.system import DEFAULT_INTERVALS, DEFAULT_RETENTION

HOUR_S: Final = 3600
POLL_S: Final = 0.1
PATIENCE_S: Final = 900.0
PROFILE_ROWS: Final = 25
DAILY: Final = "1d"
LISTENER_CORE: Final = 0
SERVERS_CORE: Final = 1


class WrongResult(Exception):
    """Redis does not hold what it must, or the listener ended."""


@dataclass(slots=True)
class Options:
    """What is measured.

    Attributes:
        settings: of the listener, beside those that name its servers.
        aof: whether Redis writes its append-only file, synced every second.
        check: how many markets are compared with the oracle; None: all.
        profile: where cProfile writes; None: no profile.
        stages: whether CPU time is measured by stage.
    """

    settings: dict[str, str] = field(default_factory=dict)
    aof: bool = False
    check: int | None = 25
    profile: Path | None = None
    stages: bool = False


class Bench:
    """One workload, served and checked.

    Args:
        workload: the trades.
        behaviour: of the replay node.
        cache: where the replay node finds the workload.
        options: what is measured.
    """

    def __init__(self, workload: Workload, behaviour: Behaviour, cache: Path, options: Options) -> None:
        self._workload = workload
        self._behaviour = behaviour
        self._cache = cache
        self._options = options
        self._sample = sample(workload, options.check)
        self._expected = expected(workload, behaviour, self._sample, options.settings)

    def run(self) -> dict[str, Any]:
        """Figures of one run.

        Raises:
            WrongResult: Redis does not hold what it must.
        """
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            config = {"appendonly": "yes", "appendfsync": "everysec"} if self._options.aof else {}
            with pinned(SERVERS_CORE):
                valkey = stack.enter_context(start_valkey(directory / "valkey", **config))
                node, http_url, ws_url = start_replay(self._workload.shape, self._behaviour, str(self._cache))
            stack.enter_context(node)
            redis = stack.enter_context(Redis(port=valkey.port, decode_responses=True))
            environment = {
                "BLOCKCHAIN_HTTP_URL": http_url,
                "BLOCKCHAIN_WS_URL": ws_url,
                "CHAIN_ID": str(CHAIN_ID),
                "BONDING_CURVE_FACTORY_ADDRESS": FACTORY,
                "REDIS_URL": f"redis://127.0.0.1:{valkey.port}/0",
                "WEBSOCKET_PORT": "0",
                "PYTHONUNBUFFERED": "1",
                "LOG_LEVEL": "INFO",
            }
            stages = directory / "stages.json"
            started = time.time()
            with pinned(LISTENER_CORE):
                listener = Child(
                    "listener",
                    [sys.executable, *self._program(stages)],
                    environment=environment | self._options.settings,
                    ready="Catching up",
                )
            stack.enter_context(listener)
            measured = self._measure(listener, node, valkey, redis, started)
            self._check(redis)
            code = listener.stop()
            if code != 0:
                raise WrongResult(f"the listener ended with {code}: " + "\n".join(listener.lines[-5:]))
            if self._options.stages:
                measured["stages"] = StageTimes.read(stages).per_trade(self._workload.shape.trades)
            return measured

    def _program(self, stages: Path) -> list[str]:
        if self._options.stages:
            return ["-m", "bench.stages", str(stages)]
        if self._options.profile:
            return ["-m", "cProfile", "-o", str(self._options.profile), "-m", "listener.main"]
        return ["-m", "listener.main"]

    def _measure(
        self, listener: Child, node: Child, valkey: Valkey, redis: "Redis", started: float
    ) -> dict[str, Any]:
        """Wait until the head is the last block; times, memory, and what Redis did."""
        shape = self._workload.shape
        children = {"listener": listener, "redis": valkey, "node": node}
        before = {name: cpu_s(child) for name, child in children.items()}
        redis.config_resetstat()
        self._wait_for(redis, listener, shape.blocks)
        used = {name: cpu_s(child) - before[name] for name, child in children.items()}
        commands = redis.info("commandstats")
        self._wait_for(redis, listener, shape.blocks + self._behaviour.tail)
        begun, ended, commits = history(listener.lines, shape.blocks)
        candles = stored_candles(redis, self._sample)
        trades = shape.trades
        return {
            "seconds_from_start": round(ended - started, 3),
            "seconds": round(ended - begun, 3),
            "trades_per_s": round(trades / (ended - begun)),
            "trades_per_s_from_start": round(trades / (ended - started)),
            "trades_per_cpu_s": round(trades / used["listener"]),
            "commits": commits,
            "listener_peak_rss_mb": peak_rss_mb(listener.process.pid),
            "redis_memory_mb": round(redis.info("memory")["used_memory"] / 1e6, 1),
            "cpu_us_per_trade": {name: round(used[name] / trades * 1e6, 2) for name in used},
            "cpu_share": {name: round(used[name] / (ended - begun), 3) for name in used},
            "redis_commands": command_figures(commands, trades, shape.blocks),
            "candles": candles,
        }

    def _wait_for(self, redis: "Redis", listener: Child, number: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while int(redis.hget(f"head:{{{CHAIN_ID}}}", "number") or -1) < number:
            if listener.process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult(f"block {number} was not committed: " + "\n".join(listener.lines[-15:]))
            time.sleep(POLL_S)

    def _check(self, redis: "Redis") -> None:
        found = oracle.compare_redis(SampledRedis(redis, self._sample), CHAIN_ID, self._expected)
        announced = self._workload.announced
        if (stored := redis.zcard(f"markets:{{{CHAIN_ID}}}")) != len(announced):
            found.append(f"{stored} markets instead of {len(announced)}")
        if (counted := trades_in_candles(redis, announced)) != self._workload.shape.trades:
            found.append(f"{counted} trades in daily candles instead of {self._workload.shape.trades}")
        if found:
            raise WrongResult(f"{len(found)} differences from the oracle:\n" + "\n".join(found[:20]))


class SampledRedis:
    """A Redis that shows the markets of a sample only.

    Args:
        redis: a client that decodes.
        markets: numbers of the markets to show.
    """

    def __init__(self, redis: "Redis", markets: set[int]) -> None:
        self._redis = redis
        self._shown = {address("token", market) for market in markets}

    def scan_iter(self, count: int) -> Iterator[str]:
        """Keys, without those of other markets."""
        for key in self._redis.scan_iter(count=count):
            market = next((part for part in key.split(":") if part.startswith("0x")), None)
            if market is None or market in self._shown:
                yield key

    def zrange(self, key: str, first: int, last: int, *, withscores: bool) -> list[Any]:
        """Members of a sorted set, without other markets."""
        members: list[Any] = self._redis.zrange(key, first, last, withscores=withscores)
        if key.startswith("markets:"):
            return [member for member in members if member[0] in self._shown]
        return members

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any other command
        return getattr(self._redis, name)


def sample(workload: Workload, most: int | None) -> set[int]:
    """Markets to be checked: the busiest and some others, or all."""
    announced = sorted(workload.announced)
    if most is None or most >= len(announced):
        return set(announced)
    chosen = random.Random(workload.shape.seed).sample(announced, most)  # noqa: S311 - no secret
    return {announced[0], *chosen}


def expected(
    workload: Workload, behaviour: Behaviour, markets: set[int], settings: Mapping[str, str]
) -> oracle.Expected:
    """What the oracle says of the markets."""
    chain = ReplayChain(workload, behaviour)
    blocks = [
        oracle.Block(number, block_hash(number), int(chain.head(number)["timestamp"], 16))
        for number in range(chain.last + 1)
    ]
    metadata = {
        address("token", market): oracle.TokenMetadata(DECIMALS, market_name(market), market_symbol(market))
        for market in markets
    }
    intervals = settings.get("OHLCV_INTERVALS", ",".join(DEFAULT_INTERVALS)).split(",")
    return oracle.compute(
        oracle.Chain(blocks, workload.of_markets(markets), metadata, block_hash(0)),
        oracle.Settings(
            factories=[FACTORY],
            intervals=intervals,
            price_mode=settings.get("PRICE_MODE", "execution"),
            retention=DEFAULT_RETENTION,
        ),
    )


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started here run on one core."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & ours or ours)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def history(lines: Sequence[str], last: int) -> tuple[float, float, int]:
    """When the listener began to catch up, when it had committed the last trade, and in how many commits."""
    begun = ended = 0.0
    commits = 0
    for line in lines:
        record = json.loads(line) if line.startswith("{") else {}
        event, when = record.get("event"), record.get("timestamp", "")
        if event == "Catching up" and not begun:
            begun = datetime.fromisoformat(when).timestamp()
        if event == "Trades committed" and record["block"] <= last:
            ended = datetime.fromisoformat(when).timestamp()
            commits += 1
    return begun, ended, commits


def cpu_s(child: Child) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mb(pid: int) -> int:
    """Most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def command_figures(stats: Mapping[str, Any], trades: int, blocks: int) -> dict[str, Any]:
    """Commands by name, and what they took; a script's time includes that of the commands it calls."""
    by_name = {name.removeprefix("cmdstat_"): figures for name, figures in stats.items()}
    scripts = sum(by_name[name]["usec"] for name in ("evalsha", "eval") if name in by_name)
    calls = sum(figures["calls"] for figures in by_name.values())
    inner = sum(figures["usec"] for name, figures in by_name.items() if name not in {"evalsha", "eval"})
    return {
        "calls": calls,
        "calls_per_block": round(calls / blocks, 1),
        "calls_per_trade": round(calls / trades, 3),
        "script_us_per_trade": round(scripts / trades, 2),
        "command_us_per_trade": round(inner / trades, 2),
        "by_name": {
            name: {"calls": figures["calls"], "usec": figures["usec"]}
            for name, figures in sorted(by_name.items(), key=lambda item: -item[1]["usec"])
        },
    }


def stored_candles(redis: "Redis", markets: set[int]) -> dict[str, float]:
    """How many candles the markets have, and bytes for each, its share of the key included."""
    keys = [
        f"candles:{{{CHAIN_ID}}}:{address('token', market)}:{interval}"
        for market in sorted(markets)
        for interval in DEFAULT_INTERVALS
    ]
    candles = sum(int(redis.zcard(key)) for key in keys)
    size = sum(int(redis.memory_usage(key, samples=0) or 0) for key in keys)
    return {"sampled": candles, "bytes_each": round(size / candles, 1) if candles else 0}


def trades_in_candles(redis: "Redis", markets: Mapping[int, int]) -> int:
    """Trades in all daily candles."""
    pipe = redis.pipeline(transaction=False)
    for market in markets:
        pipe.zrange(f"candles:{{{CHAIN_ID}}}:{address('token', market)}:{DAILY}", 0, -1)
    return sum(json.loads(candle)["n"] for candles in pipe.execute() for candle in candles)


def machine() -> dict[str, Any]:
    """Where figures come from."""
    model = ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {model}",
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else ""),
    }


def git(*words: str) -> str:
    """What git says; empty if it says nothing."""
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip()


def median_of(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The run with the median rate; of an even number, the slower one of the two."""
    middle = statistics.median_low(run["trades_per_s"] for run in runs)
    return next(run for run in runs if run["trades_per_s"] == middle)


def table(result: Mapping[str, Any]) -> str:
    """The figures for a terminal."""
    run, shape = result["median"], result["workload"]
    rates = ", ".join(str(one["trades_per_s"]) for one in result["runs"])
    cpu, share, commands = run["cpu_us_per_trade"], run["cpu_share"], run["redis_commands"]
    rows = {
        "trades/s": f"{run['trades_per_s']} (runs: {rates}); from process start "
        f"{run['trades_per_s_from_start']}",
        "trades/CPU s": f"{run['trades_per_cpu_s']} of the listener",
        "CPU, us a trade": f"listener {cpu['listener']}, Redis {cpu['redis']}, node {cpu['node']}",
        "CPU, share of a core": f"listener {share['listener']}, Redis {share['redis']}, node {share['node']}",
        "Redis, a block": f"{commands['calls_per_block']} commands",
        "Redis, a trade": f"{commands['calls_per_trade']} commands, {commands['script_us_per_trade']} us in "
        f"scripts, {commands['command_us_per_trade']} us of these in commands",
        "memory": f"listener {run['listener_peak_rss_mb']} MB at most, Redis {run['redis_memory_mb']} MB, "
        f"{run['candles']['bytes_each']} bytes a candle",
    }
    heading = (
        f"{shape['trades']} trades, {shape['markets']} markets, {shape['trades_per_block']} a block; "
        f"{run['commits']} commits; {result['checked']} markets equal the oracle"
    )
    lines = [heading, *(f"{name:<22}{text}" for name, text in rows.items())]
    if "stages" in run:
        lines += ["CPU by stage, us a trade:"]
        lines += [f"  {name:<28}{us:8.2f}" for name, us in run["stages"].items()]
    return "\n".join(lines)


def print_profile(file: Path) -> None:
    """The functions with the most time of their own."""
    print("own time:")
    pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(PROFILE_ROWS)


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--block-s", type=float, default=2.0, help="chain time between blocks")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--commit-trades", type=int, help="the listener's BATCH_SIZE")
    parser.add_argument("--settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--most-logs", type=int, default=0, help="the node refuses more in one reply")
    parser.add_argument("--aof", action="store_true", help="Redis writes appendonly, everysec")
    parser.add_argument("--check", default="25", help="markets to compare with the oracle, or all")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--profile", type=Path, help="run once under cProfile and keep its file")
    parser.add_argument("--stages", action="store_true", help="measure CPU time by stage")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = dict(pair.split("=", 1) for pair in arguments.settings)
    if arguments.commit_trades:
        settings["BATCH_SIZE"] = str(arguments.commit_trades)
    shape = shape_of(arguments)
    workload = Workload.open(shape, arguments.cache)
    behaviour = Behaviour(
        block_s=arguments.block_s,
        tip_time=int(time.time()) // HOUR_S * HOUR_S,
        most_logs=arguments.most_logs,
    )
    check = None if arguments.check == "all" else int(arguments.check)
    options = Options(settings, arguments.aof, check, arguments.profile, arguments.stages)
    about = machine()
    try:
        bench = Bench(workload, behaviour, arguments.cache, options)
        runs = [bench.run() for _ in range(1 if arguments.profile else arguments.runs)]
    except WrongResult as error:
        sys.exit(f"No result: {error}")
    result = {
        "benchmark": "backfill",
        **about,
        "workload": shape._asdict(),
        "block_s": arguments.block_s,
        "aof": arguments.aof,
        "settings": settings,
        "checked": len(sample(workload, check)),
        "median": median_of(runs),
        "runs": runs,
    }
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    print(table(result))
    if arguments.profile:
        print_profile(arguments.profile)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

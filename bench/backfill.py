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
import pstats
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis import Redis

from bench.replay import CHAIN_ID, Behaviour
from bench.stages import StageTimes
from bench.system import (
    HOUR_S,
    LISTENER,
    Sampler,
    Servers,
    WrongResult,
    core_wait_s,
    cpu_s,
    events,
    expected,
    machine,
    peak_rss_mb,
    sample,
    stop,
)
from bench.workload import Workload, add_arguments, address, shape_of
from listener.demo.processes import Child, ProcessFailed
from tests.e2e.system import DEFAULT_INTERVALS

PROFILE_ROWS: Final = 25


@dataclass(slots=True)
class Options:
    """What is measured.

    Attributes:
        settings: of the listener, beside those that name its servers.
        aof: whether Redis writes its append-only file, synced every second.
        check: how many markets are compared with the oracle; None: all.
        profile: where cProfile writes; None: no profile.
        stages: whether CPU time is measured by stage.
        redis_bytes_per_s: what the link to Redis lets pass; 0: everything.
    """

    settings: dict[str, str] = field(default_factory=dict)
    aof: bool = False
    check: int | None = 25
    profile: Path | None = None
    stages: bool = False
    redis_bytes_per_s: float = 0


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
            servers = stack.enter_context(
                Servers(
                    self._workload,
                    self._behaviour,
                    self._cache,
                    aof=self._options.aof,
                    redis_bytes_per_s=self._options.redis_bytes_per_s,
                )
            )
            stages = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "stages.json"
            started = time.time()
            listener = servers.start_listener(
                self._options.settings, self._program(stages), ready="Catching up"
            )
            stack.enter_context(listener)
            sampler = stack.enter_context(Sampler(servers, listener))
            measured = self._measure(servers, listener, started)
            sampler.look()
            measured["samples"] = [one._asdict() for one in sampler.samples]
            servers.settle(listener)
            stop(listener)
            servers.check(self._sample, self._expected)
            if self._options.stages:
                measured["stages"] = StageTimes.read(stages).per_trade(self._workload.shape.trades)
            return measured

    def _program(self, stages: Path) -> Sequence[str]:
        if self._options.stages:
            return ["-m", "bench.stages", str(stages)]
        if self._options.profile:
            return ["-m", "cProfile", "-o", str(self._options.profile), *LISTENER]
        return LISTENER

    def _measure(self, servers: Servers, listener: Child, started: float) -> dict[str, Any]:
        """Wait until the head is the last block; times, memory, and what Redis did."""
        shape, redis = self._workload.shape, servers.redis
        children = {"listener": listener, "redis": servers.valkey, "node": servers.node}
        before = {name: cpu_s(child) for name, child in children.items()}
        waited = core_wait_s(listener)
        redis.config_resetstat()
        servers.wait_for(shape.blocks, listener)
        used = {name: cpu_s(child) - before[name] for name, child in children.items()}
        waited = core_wait_s(listener) - waited
        commands = redis.info("commandstats")
        servers.wait_for(shape.blocks + self._behaviour.tail, listener)
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
            "core_taken_share": round(waited / (ended - begun), 3),
            "redis_commands": command_figures(commands, trades, shape.blocks),
            "candles": candles,
        }


def history(lines: Sequence[str], last: int) -> tuple[float, float, int]:
    """When the listener began to catch up, when it had committed the last trade, and in how many commits."""
    begun = ended = 0.0
    commits = 0
    for when, record in events(lines, "Catching up", "Trades committed"):
        if record["event"] == "Catching up":
            begun = begun or when
        elif record["block"] <= last:
            ended = when
            commits += 1
    return begun, ended, commits


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
        "taken by others": f"{run['core_taken_share']} of the listener's core while it was ready to run",
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
    except (WrongResult, ProcessFailed) as error:
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

"""How the listener behaves where there is more of everything, or less of what it needs.

    .venv/bin/python -m bench.scale
    .venv/bin/python -m bench.scale --part idle --part slow-redis --json scale.json

markets       backfill of the same number of trades in 100, 1,000 and 10,000 markets
growth        a backfill ten times as long: processor time a trade in slices, the first against the last
memory        resident memory over time of a backfill with 10,000 active markets
idle          what 100,000 markets without a trade cost: memory, and a start up to the first commit
slow-redis    backfill over links to Redis that let less and less pass
slow-backend  live, while the link to the backend lets less pass than there is to tell

Each run is checked against the oracle, as in `bench.backfill` and `bench.live`, whose workloads, processes
and clocks these are.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.backfill import Bench, Options
from bench.live import CASES, LiveBench, call
from bench.replay import Behaviour
from bench.system import (
    HOUR_S,
    Sampler,
    Servers,
    WrongResult,
    events,
    expected,
    machine,
    peak_rss_mb,
    rss_mb,
    sample,
    stop,
)
from bench.workload import CACHE, Shape, Workload
from listener.demo.processes import ProcessFailed

CHECKED: Final = 25
CHECKED_OF_LONG: Final = 5
MANY_MARKETS: Final = 10_000
MB: Final = 1_000_000
FIRST_LOOK_S: Final = 0.1
BLOCKS_AFTER_START: Final = 20
INTERVAL_MS: Final = 500


class Size(NamedTuple):
    """How large the measurements are.

    Attributes:
        trades: of an ordinary backfill.
        rounds: a long one has so many times more.
        memory_rounds: the same for the one with many markets.
        idle: markets.
        slow_trades: of a backfill over a slow link.
        redis_mb_per_s: these links, in megabytes a second; 0: as fast as it goes.
        live_blocks: with a slow backend.
        backend_mb_per_s: the same for its links.
    """

    trades: int = 1_000_000
    rounds: int = 10
    memory_rounds: int = 3
    idle: int = 100_000
    slow_trades: int = 200_000
    redis_mb_per_s: tuple[float, ...] = (0, 20, 8)
    live_blocks: int = 80
    backend_mb_per_s: tuple[float, ...] = (0, 0.25)


QUICK: Final = Size(trades=50_000, rounds=3, memory_rounds=2, idle=5_000, slow_trades=50_000, live_blocks=20)


class Scale:
    """The measurements.

    Args:
        size: how large they are.
        cache: where generated workloads are kept.
        settings: of the listener, beside those that name its servers.
    """

    def __init__(self, size: Size, cache: Path, settings: Mapping[str, str]) -> None:
        self._size = size
        self._cache = cache
        self._settings = dict(settings)
        self.parts: dict[str, Callable[[], dict[str, Any]]] = {
            "markets": self.markets,
            "growth": self.growth,
            "memory": self.memory,
            "idle": self.idle,
            "slow-redis": self.slow_redis,
            "slow-backend": self.slow_backend,
        }

    def _backfill(self, shape: Shape, redis_bytes_per_s: float = 0) -> dict[str, Any]:
        workload = Workload.open(shape, self._cache)
        check = CHECKED_OF_LONG if shape.template else CHECKED
        options = Options(self._settings, check=check, redis_bytes_per_s=redis_bytes_per_s)
        behaviour = Behaviour(tip_time=int(time.time()) // HOUR_S * HOUR_S)
        run = Bench(workload, behaviour, self._cache, options).run()
        return {"trades": shape.trades, "markets": shape.markets, **run}

    def markets(self) -> dict[str, Any]:
        """By number of markets, one backfill."""
        runs = {}
        for markets in (100, 1_000, MANY_MARKETS):
            runs[str(markets)] = self._backfill(Shape(self._size.trades, markets))
        return {
            "runs": runs,
            "summary": [
                {
                    "markets": int(markets),
                    "trades_per_s": run["trades_per_s"],
                    "listener_us": run["cpu_us_per_trade"]["listener"],
                    "redis_us": run["cpu_us_per_trade"]["redis"],
                    "peak_mb": run["listener_peak_rss_mb"],
                }
                for markets, run in runs.items()
            ],
        }

    def growth(self) -> dict[str, Any]:
        """Slices of a long backfill, each as long as an ordinary one."""
        size = self._size
        shape = Shape(size.trades * size.rounds, template=size.trades)
        run = self._backfill(shape)
        return {
            "run": run,
            "summary": slices(run["samples"], size.trades // shape.trades_per_block, shape.trades_per_block),
        }

    def memory(self) -> dict[str, Any]:
        """Resident memory of a backfill with many markets."""
        size = self._size
        shape = Shape(size.trades * size.memory_rounds, MANY_MARKETS, template=size.trades)
        run = self._backfill(shape)
        last = size.trades // shape.trades_per_block
        early = [one["rss_mb"] for one in run["samples"] if one["block"] <= last]
        late = [one["rss_mb"] for one in run["samples"] if one["block"] > last]
        summary = {
            "markets": MANY_MARKETS,
            "trades": shape.trades,
            "first_round_mb": max(early),
            "later_mb": max(late, default=0.0),
            "end_mb": run["samples"][-1]["rss_mb"],
            "peak_mb": run["listener_peak_rss_mb"],
        }
        return {"run": run, "summary": [summary]}

    def idle(self) -> dict[str, Any]:
        """Restarts of a listener with and without idle markets in Redis."""
        return {"summary": [self._restart(idle) for idle in (0, self._size.idle)]}

    def _restart(self, idle: int) -> dict[str, Any]:
        """Fill Redis, stop, let the chain grow, start again."""
        shape = Shape(idle + 60 * 200, 10, idle=idle)
        workload = Workload.open(shape, self._cache)
        behaviour = Behaviour(
            block_s=INTERVAL_MS / 1000,
            tail=0,
            tip=shape.blocks - BLOCKS_AFTER_START,
            tip_time=int(time.time()),
            interval_ms=INTERVAL_MS,
        )
        with Servers(workload, behaviour, self._cache) as servers:
            loading = time.monotonic()
            with servers.start_listener(self._settings | {"LOG_LEVEL": "WARNING"}) as listener:
                servers.wait_for(shape.blocks - BLOCKS_AFTER_START, listener)
                loading_mb = peak_rss_mb(listener.process.pid)
                stop(listener)
            loading = time.monotonic() - loading
            call(servers.http_url, "replay_live")
            time.sleep(2 * INTERVAL_MS / 1000)
            started = time.time()
            with (
                servers.start_listener(self._settings) as listener,
                Sampler(servers, listener, FIRST_LOOK_S) as sampler,
            ):
                servers.wait_for(shape.blocks, listener)
                resident, peak = rss_mb(listener.process.pid), peak_rss_mb(listener.process.pid)
                servers.settle(listener)
                stop(listener)
            first: dict[str, float] = {}
            for at, record in events(listener.lines, "Listener started", "Trades committed"):
                first.setdefault(record["event"], at)
            markets = sample(workload, CHECKED)
            servers.check(markets, expected(workload, behaviour, markets, self._settings))
            committed = (one.cpu_s for one in sampler.samples if one.at >= first["Trades committed"])
            return {
                "idle_markets": idle,
                "loading_s": round(loading, 1),
                "loading_peak_mb": loading_mb,
                "to_first_commit_s": round(first["Trades committed"] - started, 2),
                "of_these_imports_s": round(first["Listener started"] - started, 2),
                "cpu_to_first_commit_s": next(committed),
                "rss_mb": resident,
                "peak_mb": peak,
                "redis_mb": round(servers.redis.info("memory")["used_memory"] / MB, 1),
                "samples": [one._asdict() for one in sampler.samples],
            }

    def slow_redis(self) -> dict[str, Any]:
        """By what the link to Redis lets pass, one backfill."""
        summary = []
        for mb_per_s in self._size.redis_mb_per_s:
            run = self._backfill(Shape(self._size.slow_trades), mb_per_s * MB)
            summary.append(
                {
                    "mb_per_s": mb_per_s,
                    "trades_per_s": run["trades_per_s"],
                    "listener_us": run["cpu_us_per_trade"]["listener"],
                    "peak_mb": run["listener_peak_rss_mb"],
                }
            )
        return {"summary": summary}

    def slow_backend(self) -> dict[str, Any]:
        """By what the link to the backend lets pass, one live run."""
        case = CASES["large"]._replace(blocks=self._size.live_blocks)
        summary = []
        for mb_per_s in self._size.backend_mb_per_s:
            bench = LiveBench(
                case, self._cache, self._settings, backend=True, backend_bytes_per_s=mb_per_s * MB
            )
            run = bench.run()
            summary.append(
                {
                    "mb_per_s": mb_per_s,
                    **{f"to_redis_{name}_ms": run["to_redis_ms"][name] for name in ("p50", "p95", "p99")},
                    "rows_waiting": run["rows_waiting"],
                    "rss_mb": run["memory"]["rss_mb"],
                    "peak_mb": run["memory"]["peak_mb"],
                }
            )
        return {"summary": summary}


def slices(
    samples: Sequence[Mapping[str, float]], blocks: int, trades_per_block: int
) -> list[dict[str, Any]]:
    """What trades cost in slices of so many blocks: microseconds of processor time a trade."""
    last = int(samples[-1]["block"])
    marks = [at_block(samples, number) for number in range(0, last + 1, blocks)]
    trades = blocks * trades_per_block
    return [
        {
            "up_to_trades": (place + 1) * trades,
            "trades_per_s": round(trades / (after["at"] - before["at"])),
            "listener_us": round((after["cpu_s"] - before["cpu_s"]) / trades * 1e6, 2),
            "redis_us": round((after["redis_cpu_s"] - before["redis_cpu_s"]) / trades * 1e6, 2),
            "rss_mb": round(after["rss_mb"], 1),
        }
        for place, (before, after) in enumerate(pairwise(marks))
    ]


def at_block(samples: Sequence[Mapping[str, float]], number: int) -> dict[str, float]:
    """The figures when a block was committed, in proportion between the two nearest samples."""
    place = next((place for place, one in enumerate(samples) if one["block"] >= number), len(samples) - 1)
    after, before = samples[place], samples[max(place - 1, 0)]
    span = after["block"] - before["block"]
    share = (number - before["block"]) / span if span else 1.0
    return {name: before[name] + share * (after[name] - before[name]) for name in after}


def table(part: str, summary: Sequence[Mapping[str, Any]]) -> str:
    """The figures for a terminal."""
    lines = (
        "  ".join(f"{name} {value}" for name, value in row.items() if name != "samples") for row in summary
    )
    return "\n  ".join([part, *lines])


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", action="append", help="one of those above; by default all of them")
    parser.add_argument("--quick", action="store_true", help="smaller workloads")
    parser.add_argument("--settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where generated workloads are kept")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = dict(pair.split("=", 1) for pair in arguments.settings)
    about = machine()
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    scale = Scale(QUICK if arguments.quick else Size(), arguments.cache, settings)
    results = {}
    try:
        for part in arguments.part or scale.parts:
            results[part] = scale.parts[part]()
            print(table(part, results[part]["summary"]), flush=True)
    except (WrongResult, ProcessFailed) as error:
        sys.exit(f"No result: {error}")
    if arguments.json:
        whole = {"benchmark": "scale", **about, "settings": settings, "results": results}
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()

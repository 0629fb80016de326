"""Live: how long after the node has a new block its trades are in Redis, and acknowledged by the backend.

    .venv/bin/python -m bench.live
    .venv/bin/python -m bench.live --case few --case many --backend --json live.json
    .venv/bin/python -m bench.live --trades-per-block 100 --markets 10 --interval-ms 250 --blocks 200

A replay node whose chain grows, an embedded Valkey and a real `python -m listener.main`, with `--backend`
also the real Node backend. The listener has one core, all servers share the other. Blocks are announced over
the WebSocket; every one is committed with its before-images, as none of them is final yet.

A block's clock starts when the node makes it known and stops at the log line of its commit, and at that of
the acknowledgement that covers its last update. Blocks of the warm-up do not count. Rollbacks are counted
from the head that shows the fork to the commit that undoes its blocks, and to the commit of that head.

At the end Redis is compared with the oracle, as in `bench.backfill`.
"""

import argparse
import json
import signal
import statistics
import sys
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.replay import CHAIN_ID, Behaviour, ReplayChain, call_of
from bench.system import (
    LISTENER,
    SERVERS_CORE,
    Sampler,
    Servers,
    WrongResult,
    core_wait_s,
    cpu_s,
    events,
    expected,
    machine,
    peak_rss_mb,
    pinned,
    rss_mb,
    sample,
    stop,
)
from bench.throttle import SlowLink
from bench.workload import CACHE, Shape, Workload
from listener.demo.processes import Child, ProcessFailed, start_backend

TOKEN: Final = "token-of-the-bench"
CHECKED: Final = 10
HISTORY_BLOCKS: Final = 100
WARM_UP_BLOCKS: Final = 20
TOLD: Final = ("-m", "bench.told")
DELIVERY_S: Final = 60.0


class Case(NamedTuple):
    """What is measured.

    Attributes:
        title: for people.
        trades_per_block: in every block.
        markets: how many are traded.
        skew: of their popularity.
        interval_ms: between blocks.
        blocks: so many are measured.
        fork_every: blocks between two forks; 0: none.
    """

    title: str
    trades_per_block: int
    markets: int
    skew: float = 1.0
    interval_ms: float = 250
    blocks: int = 150
    fork_every: int = 0

    @property
    def shape(self) -> Shape:
        """The workload."""
        blocks = HISTORY_BLOCKS + WARM_UP_BLOCKS + self.blocks
        return Shape(
            trades=blocks * self.trades_per_block,
            markets=self.markets,
            trades_per_block=self.trades_per_block,
            skew=self.skew,
        )

    def behaviour(self) -> Behaviour:
        """Of a replay node whose chain is to grow in step with the clock."""
        return Behaviour(
            block_s=self.interval_ms / 1000,
            tail=0,
            tip=HISTORY_BLOCKS,
            tip_time=int(time.time()),
            interval_ms=self.interval_ms,
            fork_every=self.fork_every,
        )


CASES: Final = {
    "few": Case("100 trades over 10 markets", 100, 10),
    "many": Case("100 trades over some 70 markets", 100, 200, skew=0.5),
    "large": Case("500 trades over some 250 markets", 500, 400, skew=0.5),
    "sustained": Case("2,500 trades every 250 ms", 2_500, 1_000, blocks=120),
    "rollback": Case("100 trades, 3 blocks replaced", 100, 200, skew=0.5, blocks=120, fork_every=6),
}


class LiveBench:
    """One case, run and checked.

    Args:
        case: what is measured.
        cache: where generated workloads are kept.
        settings: of the listener, beside those that name its servers.
        backend: whether there is one.
        backend_bytes_per_s: what the link to it lets pass; 0: everything.
        profile: where cProfile writes; None: no profile.
        beside: entered once history is there, and left when all is measured.
    """

    def __init__(
        self,
        case: Case,
        cache: Path,
        settings: Mapping[str, str] | None = None,
        *,
        backend: bool = False,
        backend_bytes_per_s: float = 0,
        profile: Path | None = None,
        beside: Callable[[Servers, Child], AbstractContextManager[object]] | None = None,
    ) -> None:
        self._case = case
        self._cache = cache
        self._settings = dict(settings or {})
        self._backend = backend
        self._backend_bytes_per_s = backend_bytes_per_s
        self._profiler = ("-m", "cProfile", "-o", str(profile)) if profile else ()
        self._beside = beside
        self._workload = Workload.open(case.shape, cache)

    def run(self) -> dict[str, Any]:
        """The figures.

        Raises:
            WrongResult: Redis does not hold what it must.
        """
        case, workload = self._case, self._workload
        behaviour = case.behaviour()
        with ExitStack() as stack:
            servers = stack.enter_context(Servers(workload, behaviour, self._cache))
            settings, program = dict(self._settings), LISTENER
            if self._backend:
                settings |= self._start_backend(stack, servers)
                program = TOLD
            listener = stack.enter_context(servers.start_listener(settings, (*self._profiler, *program)))
            sampler = stack.enter_context(Sampler(servers, listener))
            servers.wait_for(HISTORY_BLOCKS, listener)
            with self._beside(servers, listener) if self._beside else nullcontext():
                call(servers.http_url, "replay_live")
                servers.wait_for(HISTORY_BLOCKS + WARM_UP_BLOCKS, listener)
                used = self._measure(servers, listener)
            released = {int(number): at for number, at in call(servers.http_url, "replay_released").items()}
            waiting = rows_waiting(servers)
            if self._backend and not self._backend_bytes_per_s:
                self._wait_delivered(servers)
            memory = {"rss_mb": rss_mb(listener.process.pid), "peak_mb": peak_rss_mb(listener.process.pid)}
            servers.settle(listener)
            stop(listener)
            markets = sample(workload, CHECKED)
            servers.check(markets, expected(workload, behaviour, markets, settings))
            first = HISTORY_BLOCKS + WARM_UP_BLOCKS + 1
            return {
                "title": case.title,
                "case": case._asdict(),
                "backend": self._backend,
                "markets_per_block": round(workload.distinct_markets(first, workload.shape.blocks), 1),
                "checked": len(markets),
                **latencies(listener.lines, released, first),
                **rollbacks(listener.lines, released, ReplayChain(workload, behaviour).forks),
                **used,
                "memory": memory,
                "rows_waiting": waiting,
                "samples": [one._asdict() for one in sampler.samples],
            }

    def _start_backend(self, stack: ExitStack, servers: Servers) -> dict[str, str]:
        with pinned(SERVERS_CORE):
            url = servers.environment["REDIS_URL"]
            found = stack.enter_context(start_backend(url, CHAIN_ID, TOKEN)).found
            if self._backend_bytes_per_s:
                target = int(found.rpartition(":")[2])
                link = stack.enter_context(SlowLink(target, self._backend_bytes_per_s))
                found = f"http://127.0.0.1:{link.port}"
        return {"BACKEND_SOCKET_URL": found, "BACKEND_AUTH_TOKEN": TOKEN}

    def _measure(self, servers: Servers, listener: Child) -> dict[str, Any]:
        """Wait for the last block; processor time and Redis commands a block."""
        children = {"listener": listener, "redis": servers.valkey, "node": servers.node}
        before = {name: cpu_s(child) for name, child in children.items()}
        waited = core_wait_s(listener)
        servers.redis.config_resetstat()
        first = servers.committed()
        servers.wait_for(self._workload.shape.blocks, listener)
        blocks = self._workload.shape.blocks - first
        waited = core_wait_s(listener) - waited
        stats = servers.redis.info("commandstats")
        scripts = sum(stats[name]["usec"] for name in stats if name in {"cmdstat_evalsha", "cmdstat_eval"})
        return {
            "cpu_ms_per_block": {
                name: round((cpu_s(child) - before[name]) / blocks * 1000, 2)
                for name, child in children.items()
            },
            "core_taken_ms_per_block": round(waited / blocks * 1000, 2),
            "redis_script_us_per_block": round(scripts / blocks),
            "redis_calls_per_block": round(sum(one["calls"] for one in stats.values()) / blocks),
        }

    def _wait_delivered(self, servers: Servers) -> None:
        deadline = time.monotonic() + DELIVERY_S
        while waiting := rows_waiting(servers):
            if time.monotonic() > deadline:
                raise WrongResult(f"{waiting} rows were not delivered in {DELIVERY_S} s")
            time.sleep(0.1)


def rows_waiting(servers: Servers) -> int:
    """Rows that the backend has not acknowledged; those that fell off the outbox's end count too."""
    newest: Any = servers.redis.xrevrange(f"outbox:{{{CHAIN_ID}}}", count=1)
    done: Any = servers.redis.hget(f"cursor:{{{CHAIN_ID}}}", "acknowledged") or "0-0"
    return int(newest[0][0].partition("-")[2]) - int(done.partition("-")[2]) if newest else 0


def call(url: str, method: str) -> Any:  # noqa: ANN401 - the result of any method
    """A call of the replay node."""
    request = urllib.request.Request(url, json.dumps(call_of(method)).encode())  # noqa: S310 - our own
    with urllib.request.urlopen(request) as reply:  # noqa: S310 - our own server
        return json.load(reply)["result"]


def latencies(lines: Iterable[str], released: Mapping[int, float], first: int) -> dict[str, Any]:
    """By block from `first` on, milliseconds to Redis and to the backend's acknowledgement.

    What counts is the first commit that covers a block, whether it has the block alone or others with it.
    """
    committed: dict[int, tuple[float, int]] = {}
    acknowledged: list[tuple[int, float]] = []
    newest = first - 1
    for at, record in events(lines, "Trades committed", "Updates acknowledged"):
        if record["event"] == "Updates acknowledged":
            acknowledged.append((record["seq"], at))
        for number in range(newest + 1, record.get("block", newest) + 1):
            committed[number] = at, record["seq"]
            newest = number
    measured = sorted(committed)
    to_redis = [(committed[number][0] - released[number]) * 1000 for number in measured]
    result = {"blocks": len(measured), "to_redis_ms": figures(to_redis)}
    if acknowledged:
        covering = (bisect_left(acknowledged, (committed[number][1], 0.0)) for number in measured)
        to_node = [
            (acknowledged[place][1] - released[number]) * 1000
            for number, place in zip(measured, covering, strict=True)
            if place < len(acknowledged)
        ]
        if len(to_node) == len(measured):
            result["to_node_ms"] = figures(to_node)
    return result


def rollbacks(
    lines: Iterable[str], released: Mapping[int, float], forks: Mapping[int, int]
) -> dict[str, Any]:
    """Milliseconds from a head that shows a fork to the commit that undoes blocks, and to the head's own."""
    if not forks:
        return {}
    undone, followed = [], []
    fork: int | None = None
    for at, record in events(lines, "Reorg rolled back", "Trades committed"):
        if record["event"] == "Reorg rolled back":
            fork = forks[record["ancestor"] + 1]
            undone.append((at - released[fork]) * 1000)
        elif record["block"] == fork:
            followed.append((at - released[record["block"]]) * 1000)
            fork = None
    return {"rollback_ms": figures(undone), "rollback_and_follow_ms": figures(followed)}


def figures(values: Sequence[float]) -> dict[str, Any]:
    """Percentiles of milliseconds, and all values in order."""
    if len(values) < 2:
        raise WrongResult(f"{len(values)} values are too few")
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "n": len(values),
        "p50": round(cuts[49], 2),
        "p95": round(cuts[94], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(values), 2),
        "values": [round(value, 2) for value in sorted(values)],
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures for a terminal."""
    names = {
        "to_redis_ms": "to Redis",
        "to_node_ms": "acknowledged by Node",
        "rollback_ms": "rolled back",
        "rollback_and_follow_ms": "… and followed",
    }
    cpu = result["cpu_ms_per_block"]
    with_backend = ", with the backend" if result["backend"] else ""
    blocks = f"{result['markets_per_block']} markets a block, {result['blocks']} blocks{with_backend}"
    lines = [f"{result['title']}: {blocks}; {result['checked']} markets equal the oracle"]
    for key, name in names.items():
        if key in result:
            ms = result[key]
            lines.append(
                f"  {name:<22}p50 {ms['p50']:7.2f}  p95 {ms['p95']:7.2f}  p99 {ms['p99']:7.2f}  "
                f"max {ms['max']:7.2f} ms"
            )
    busy = f"listener {cpu['listener']}, Redis {cpu['redis']}, node {cpu['node']}"
    used = f"{result['redis_calls_per_block']} commands, {result['redis_script_us_per_block']} us in scripts"
    lines += [
        f"  {'CPU, ms a block':<22}{busy}; others took {result['core_taken_ms_per_block']} of the listener's",
        f"  {'Redis, a block':<22}{used}",
    ]
    lines.append(f"  {'memory':<22}{result['memory']['rss_mb']} MB, {result['memory']['peak_mb']} at most")
    return "\n".join(lines)


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """What the options name."""
    if arguments.trades_per_block:
        markets = arguments.markets
        title = f"{arguments.trades_per_block} trades, {markets} markets"
        return [
            Case(
                title,
                arguments.trades_per_block,
                markets,
                arguments.skew,
                arguments.interval_ms or 250,
                arguments.blocks or 150,
                arguments.fork_every,
            )
        ]
    chosen = [CASES[name] for name in arguments.case or CASES]
    return [
        case._replace(
            interval_ms=arguments.interval_ms or case.interval_ms, blocks=arguments.blocks or case.blocks
        )
        for case in chosen
    ]


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="by default all of them")
    parser.add_argument("--trades-per-block", type=int, help="a case of your own")
    parser.add_argument("--markets", type=int, default=10)
    parser.add_argument("--skew", type=float, default=1.0, help="exponent of the markets' popularity")
    parser.add_argument("--fork-every", type=int, default=0, help="blocks between two forks; 0: none")
    parser.add_argument("--interval-ms", type=float, help="between two blocks")
    parser.add_argument("--blocks", type=int, help="measured, after the warm-up")
    parser.add_argument("--backend", action="store_true", help="with the Node backend")
    parser.add_argument("--settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where generated workloads are kept")
    parser.add_argument("--profile", type=Path, help="keep the cProfile of the last case")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = dict(pair.split("=", 1) for pair in arguments.settings)
    about = machine()
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    results = []
    try:
        for case in cases_of(arguments):
            bench = LiveBench(
                case, arguments.cache, settings, backend=arguments.backend, profile=arguments.profile
            )
            result = bench.run()
            print(table(result), flush=True)
            results.append(result)
    except (WrongResult, ProcessFailed) as error:
        sys.exit(f"No result: {error}")
    if arguments.json:
        whole = {"benchmark": "live", **about, "settings": settings, "results": results}
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()

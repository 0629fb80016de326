"""The listener and other indexers, one after the other, on the same trades: how fast, and at what price.

    make bench-peers
    .venv/bin/python -m bench.peers.run --trades 100000 --peers ponder,envio,ours,baseline --json peers.json

Each run starts a new node (bench/peers/node.py for the peers, bench/replay.py for the listener and the
baseline; the same workload and block times) and a new database. The clock starts when an indexer begins to
index, not when its process starts, and stops when a look into the database, each 50 ms, finds the last trade
in the figures of its market. Processor time is of the same period, and of the whole tree of processes. Then
the tables are held against the oracle; a difference means that there is no result, and exit code 1.

`ponder` gives two rows: cold, and once more into other tables with the chain's data in Ponder's cache, which
is its engine alone. The peers and their database may use every core; the listener and the baseline have one,
and Redis and the node another. `--pin` treats the peers like the listener.
"""

import argparse
import http.client
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from bench import baseline
from bench.backfill import Bench, Options
from bench.peers.check import differences
from bench.peers.indexers import Indexer, NotInstalled, envio, generate_envio, ponder
from bench.peers.node import CALLS
from bench.peers.postgres import Postgres, Session
from bench.peers.report import (
    INDEXER,
    NODE,
    OURS,
    STORE,
    Figures,
    Look,
    baseline_figures,
    figures_of,
    listener_figures,
    medians,
    ratios,
    table,
)
from bench.peers.usage import end, usage
from bench.replay import Behaviour, call_of
from bench.system import (
    HOUR_S,
    LISTENER_CORE,
    SERVERS_CORE,
    WrongResult,
    expected,
    machine,
    pinned,
    sample,
)
from bench.workload import Shape, Workload, add_arguments, shape_of
from listener.demo.processes import Child, ProcessFailed

NODE_PORT: Final = 28545
"""Fixed, as it becomes part of Envio's generated code."""
CHECKED: Final = 25
ASK_S: Final = 0.05
ASKED_FOR_A_LOOK: Final = 2
PATIENCE_S: Final = 900.0
NODE_READY: Final = r"Replaying on (http://\S+)"
PEERS: Final = ("ponder", "envio", "ours", "ours-aof", "baseline")


class PeersBench:
    """The workload, and what every peer's tables must hold.

    Args:
        workload: the trades.
        behaviour: of the node.
        cache: where nodes find the workload.
        port: of the node.
        pin: whether a peer has one core only.
    """

    def __init__(
        self, workload: Workload, behaviour: Behaviour, cache: Path, port: int, *, pin: bool
    ) -> None:
        self._workload = workload
        self._behaviour = behaviour
        self._cache = cache
        self._port = port
        self._pin = pin
        self._sample = sample(workload, CHECKED)
        self._expected = expected(workload, behaviour, self._sample, {})

    def run(self, indexers: Sequence[Indexer]) -> Iterator[Figures]:
        """Figures of each, one after the other with the same database.

        Raises:
            WrongResult: the tables do not hold what they must.
        """
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            directory.chmod(0o755)
            with self._core(SERVERS_CORE):
                postgres = stack.enter_context(Postgres(directory / "postgres"))
            for indexer in indexers:
                with self._core(SERVERS_CORE):
                    node = self._node()
                with node:
                    figures = self._measure(indexer, node, postgres)
                found = differences(postgres, indexer.tables, self._workload, self._expected, self._sample)
                if found:
                    raise WrongResult(f"{indexer.name}, {len(found)} differences:\n" + "\n".join(found[:20]))
                yield figures

    def _core(self, core: int) -> AbstractContextManager[None]:
        return pinned(core) if self._pin else nullcontext()

    def _node(self) -> Child:
        shape = self._workload.shape
        options = {
            "trades": shape.trades,
            "markets": shape.markets,
            "trades-per-block": shape.trades_per_block,
            "seed": shape.seed,
            "cache": self._cache,
            "tip-time": self._behaviour.tip_time,
            "most-logs": self._behaviour.most_logs,
            "port": self._port,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return Child("node", [sys.executable, "-m", "bench.peers.node", *words], ready=NODE_READY)

    def _measure(self, indexer: Indexer, node: Child, postgres: Postgres) -> Figures:
        trades = self._workload.shape.trades
        with Session(postgres) as session:
            started = time.time()
            with self._core(LISTENER_CORE):
                child = indexer.start(node.found, postgres)
            pids = {
                INDEXER: child.process.pid,
                STORE: postgres.process.pid,
                NODE: node.process.pid,
            }
            try:
                looks = list(watch(child, pids, lambda: session.number(indexer.tables.stored) >= trades))
                calls = calls_of(node.found)
                began = indexer.began(child.lines, calls)
            finally:
                end(child.process.pid)
                child.stop()
        figures = figures_of(looks, started, began, trades)
        return {"name": indexer.name, **figures, "calls": {name: call[0] for name, call in calls.items()}}


def watch(child: Child, pids: Mapping[str, int], is_done: Callable[[], bool]) -> Iterator[Look]:
    """Look at the processes until it is done; the last look is of then.

    Raises:
        WrongResult: the child ended, or takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    for asked in count():
        done = is_done()
        if done or asked % ASKED_FOR_A_LOOK == 0:
            yield Look(time.time(), {name: usage(pid) for name, pid in pids.items()})
        if done:
            return
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise WrongResult(f"{child.name} did not get to the end:\n" + "\n".join(child.lines[-15:]))
        time.sleep(ASK_S)


def calls_of(node_url: str) -> Mapping[str, Sequence[float]]:
    """By method, how often the node was asked and when first."""
    connection = http.client.HTTPConnection(node_url.removeprefix("http://"))
    connection.request("POST", "/", json.dumps(call_of(CALLS)))
    with connection.getresponse() as response:
        result: Mapping[str, Sequence[float]] = json.loads(response.read())["result"]
    connection.close()
    return result


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is run in each round.

    Attributes:
        peers: names, of `PEERS`.
        peers_bench: runs the other indexers.
        bench: runs the listener.
        durable_bench: the same, with a Redis that keeps what it is told.
        baseline: the workload of the baseline, the node's behaviour and where the workload is kept.
    """

    peers: Sequence[str]
    peers_bench: PeersBench
    bench: Bench
    durable_bench: Bench
    baseline: tuple[Workload, Behaviour, str]

    def run(self) -> Iterator[Figures]:
        """One round."""
        for peer in self.peers:
            match peer:
                case "ponder":
                    yield from self.peers_bench.run(
                        [ponder("Ponder, cold", "cold"), ponder("Ponder, cached", "warm")]
                    )
                case "envio":
                    yield from self.peers_bench.run([envio("Envio")])
                case "ours":
                    yield listener_figures(OURS, self.bench.run())
                case "ours-aof":
                    yield listener_figures(f"{OURS}, AOF everysec", self.durable_bench.run())
                case _:
                    yield baseline_figures(baseline.run(*self.baseline))


def arguments_of() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--baseline-trades", type=int, default=20_000, help="it has no need for more")
    parser.add_argument("--port", type=int, default=NODE_PORT, help="of the node")
    parser.add_argument("--most-logs", type=int, default=0, help="the node refuses more in one reply")
    parser.add_argument("--pin", action="store_true", help="a peer has one core, its servers the other")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args()


def main() -> None:
    """Measure, check and print."""
    arguments = arguments_of()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    peers = arguments.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        sys.exit(f"Unknown: {', '.join(sorted(unknown))}")
    shape: Shape = shape_of(arguments)
    cache: Path = arguments.cache
    workload = Workload.open(shape, cache)
    shorter = Workload.open(shape._replace(trades=min(shape.trades, arguments.baseline_trades)), cache)
    behaviour = Behaviour(
        tip_time=int(time.time()) // HOUR_S * HOUR_S,
        most_logs=arguments.most_logs,
    )
    about = machine()
    try:
        if "envio" in peers:
            generate_envio(f"http://127.0.0.1:{arguments.port}")
        rounds = Rounds(
            peers,
            PeersBench(workload, behaviour, cache, arguments.port, pin=arguments.pin),
            Bench(workload, behaviour, cache, Options()),
            Bench(workload, behaviour, cache, Options(aof=True)),
            (shorter, behaviour, str(cache)),
        )
        runs = []
        for number in range(arguments.runs):
            for run in rounds.run():
                print(f"run {number + 1}: {run['name']}, {run['trades_per_s']} trades/s", file=sys.stderr)
                runs.append(run)
    except (WrongResult, ProcessFailed, NotInstalled) as error:
        sys.exit(f"No result: {error}")
    rows = medians(runs)
    result = {
        "benchmark": "peers",
        **about,
        "workload": shape._asdict(),
        "most_logs": arguments.most_logs,
        "pinned": arguments.pin,
        "medians": rows,
        "ratios": ratios(rows),
        "runs": runs,
    }
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    print(table(rows, result["ratios"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

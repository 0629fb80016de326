"""What the measurements share: processes on their cores, their figures, and the comparison with the oracle.

The listener has one core of its own; Redis, the replay node and the backend share the other.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from redis import Redis

from bench.replay import CHAIN_ID, Behaviour, ReplayChain, start_replay
from bench.throttle import SlowLink
from bench.workload import (
    DECIMALS,
    FACTORY,
    Workload,
    address,
    block_hash,
    market_name,
    market_symbol,
)
from listener.demo.processes import REPOSITORY, Child, Valkey, start_valkey
from tests import oracle
from tests.e2e.system import DEFAULT_INTERVALS, DEFAULT_RETENTION

MINUTE_S: Final = 60
HOUR_S: Final = 3600
STOPPING_S: Final = 5
POLL_S: Final = 0.1
PATIENCE_S: Final = 900.0
DAILY: Final = "1d"
LISTENER_CORE: Final = 0
SERVERS_CORE: Final = 1
MARKETS_AT_ONCE: Final = 10_000
BEARABLE_TRADES: Final = 200_000
"""Of larger workloads the oracle is not asked about the busiest market."""
AOF: Final = {"appendonly": "yes", "appendfsync": "everysec"}
LISTENER: Final = ("-m", "listener.main")


class WrongResult(Exception):
    """Redis does not hold what it must, or the listener ended."""


class Servers:
    """A replay node and an embedded Valkey, on a core of their own; a context manager.

    Args:
        workload: what the node serves.
        behaviour: how.
        cache: where the node finds the workload.
        aof: whether Redis writes its append-only file, synced every second.
        redis_bytes_per_s: what the listener's link to Redis lets pass; 0: everything.
    """

    def __init__(
        self,
        workload: Workload,
        behaviour: Behaviour,
        cache: Path,
        *,
        aof: bool = False,
        redis_bytes_per_s: float = 0,
    ) -> None:
        self.workload = workload
        self.behaviour = behaviour
        self._cache = cache
        self._config = AOF if aof else {}
        self._redis_bytes_per_s = redis_bytes_per_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with pinned(SERVERS_CORE):
                self.valkey: Valkey = stack.enter_context(start_valkey(directory, **self._config))
                self.node, self.http_url, self.ws_url = start_replay(
                    self.workload.shape, self.behaviour, str(self._cache)
                )
                self._redis_port = self.valkey.port
                if self._redis_bytes_per_s:
                    link = stack.enter_context(SlowLink(self.valkey.port, self._redis_bytes_per_s))
                    self._redis_port = link.port
            stack.enter_context(self.node)
            self.redis: Redis = stack.enter_context(Redis(port=self.valkey.port, decode_responses=True))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """The listener's settings that name its servers; without a gateway, which would be measured, too."""
        return {
            "BLOCKCHAIN_HTTP_URL": self.http_url,
            "BLOCKCHAIN_WS_URL": self.ws_url,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": FACTORY,
            "REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/0",
            "WEBSOCKET_PORT": "0",
            "GATEWAY_ENABLED": "false",
            "PYTHONUNBUFFERED": "1",
            "LOG_LEVEL": "INFO",
        }

    def start_listener(
        self, settings: Mapping[str, str], program: Sequence[str] = LISTENER, ready: str = ""
    ) -> Child:
        """The listener on its own core."""
        with pinned(LISTENER_CORE):
            return Child(
                "listener",
                [sys.executable, *program],
                environment=self.environment | dict(settings),
                ready=ready,
            )

    def wait_for(self, number: int, listener: Child) -> None:
        """Return when a block is committed.

        Raises:
            WrongResult: the listener ended, or it took too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while self.committed() < number:
            if listener.process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult(f"block {number} was not committed: " + "\n".join(listener.lines[-15:]))
            time.sleep(POLL_S)

    def settle(self, listener: Child) -> None:
        """Return when all figures are as of the minute of the wall clock, and that has not nearly passed.

        Raises:
            WrongResult: the listener ended, or it took too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            as_of = oracle.read_as_of(self.redis, CHAIN_ID)
            minute, past_minute_s = divmod(time.time(), MINUTE_S)
            is_due = self.redis.zcount(f"due:{{{CHAIN_ID}}}", "-inf", as_of)
            is_old = as_of < minute * MINUTE_S * 1000
            if not is_due and not is_old and past_minute_s < MINUTE_S - STOPPING_S:
                return
            if listener.process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult("figures were not brought up to date: " + "\n".join(listener.lines[-15:]))
            time.sleep(POLL_S)

    def committed(self) -> int:
        """Number of the newest committed block; -1 if there is none."""
        number = self.redis.hget(f"head:{{{CHAIN_ID}}}", "number")
        return -1 if number is None else int(number)

    def check(self, markets: set[int], expected: oracle.Expected) -> None:
        """Compare what Redis holds of some markets with the oracle, and count the trades of all of them.

        Raises:
            WrongResult: it differs.
        """
        found = oracle.compare_redis(SampledRedis(self.redis, markets), CHAIN_ID, expected)
        announced = self.workload.announced
        if (stored := self.redis.zcard(f"markets:{{{CHAIN_ID}}}")) != len(announced):
            found.append(f"{stored} markets instead of {len(announced)}")
        made = self.workload.shape.trades - len(ReplayChain(self.workload, self.behaviour).forks)
        if (counted := trades_in_candles(self.redis, announced)) != made:
            found.append(f"{counted} trades in daily candles instead of {made}")
        if found:
            raise WrongResult(f"{len(found)} differences from the oracle:\n" + "\n".join(found[:20]))


def stop(listener: Child) -> None:
    """End the listener.

    Raises:
        WrongResult: it ended with an error.
    """
    if (code := listener.stop()) != 0:
        raise WrongResult(f"the listener ended with {code}: " + "\n".join(listener.lines[-5:]))


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
    """Markets to be checked: some, and the busiest one if the oracle can bear its trades; or all."""
    announced = sorted(workload.announced)
    if most is None or most >= len(announced):
        return set(announced)
    chosen = set(random.Random(workload.shape.seed).sample(announced, most))  # noqa: S311 - no secret
    busiest = announced[0]
    return chosen | {busiest} if workload.shape.trades <= BEARABLE_TRADES else chosen - {busiest}


def expected(
    workload: Workload, behaviour: Behaviour, markets: set[int], settings: Mapping[str, str]
) -> oracle.Expected:
    """What the oracle says of the markets."""
    chain = ReplayChain(workload, behaviour)
    chain.tip = chain.last
    blocks = [
        oracle.Block(number, chain.hash(number), int(chain.head(number)["timestamp"], 16))
        for number in range(chain.last + 1)
    ]
    metadata = {
        address("token", market): oracle.TokenMetadata(DECIMALS, market_name(market), market_symbol(market))
        for market in markets
    }
    intervals = settings.get("OHLCV_INTERVALS", ",".join(DEFAULT_INTERVALS)).split(",")
    return oracle.compute(
        oracle.Chain(blocks, chain.of_markets(markets), metadata, block_hash(0)),
        oracle.Settings(
            factories=[FACTORY],
            intervals=intervals,
            price_mode=settings.get("PRICE_MODE", "execution"),
            retention=DEFAULT_RETENTION,
        ),
    )


def trades_in_candles(redis: "Redis", markets: Iterable[int]) -> int:
    """Trades in all daily candles."""
    wanted = [f"candles:{{{CHAIN_ID}}}:{address('token', market)}:{DAILY}" for market in markets]
    counted = 0
    for start in range(0, len(wanted), MARKETS_AT_ONCE):
        pipe = redis.pipeline(transaction=False)
        for key in wanted[start : start + MARKETS_AT_ONCE]:
            pipe.zrange(key, 0, -1)
        counted += sum(json.loads(candle)["n"] for candles in pipe.execute() for candle in candles)
    return counted


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started here run on one core."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & ours or ours)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def events(lines: Iterable[str], *names: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """Log lines of some events, each with its time in Unix seconds."""
    for line in lines:
        if line.startswith("{") and (record := json.loads(line)).get("event") in names:
            yield datetime.fromisoformat(record["timestamp"]).timestamp(), record


class Sample(NamedTuple):
    """A process at one moment.

    Attributes:
        at: Unix seconds.
        block: the newest committed block.
        rss_mb: resident memory.
        cpu_s: processor time used so far.
        redis_cpu_s: the same of Redis.
    """

    at: float
    block: int
    rss_mb: float
    cpu_s: float
    redis_cpu_s: float


class Sampler:
    """Looks at the listener again and again while it works; a context manager.

    Args:
        servers: where blocks are committed.
        listener: whose memory and processor time are read.
        every_s: between two looks.

    Attributes:
        samples: oldest first.
    """

    def __init__(self, servers: Servers, listener: Child, every_s: float = 1.0) -> None:
        self.samples: list[Sample] = []
        self._servers = servers
        self._listener = listener
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with suppress(OSError, IndexError):  # it has ended
                self.look()
            if self._over.wait(self._every_s):
                return

    def look(self) -> None:
        """Take a sample now."""
        used, resident = cpu_s(self._listener), rss_mb(self._listener.process.pid)
        of_redis = cpu_s(self._servers.valkey)
        self.samples.append(Sample(time.time(), self._servers.committed(), resident, used, of_redis))


def cpu_s(child: Child) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def core_wait_s(child: Child) -> float:
    """How long a process was ready to run while others had its core; 0 where the system does not say."""
    with suppress(OSError):
        fields = Path(f"/proc/{child.process.pid}/schedstat").read_text().split()
        return int(fields[1]) / 1e9
    return 0.0


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return _status_mb(pid, "VmRSS")


def peak_rss_mb(pid: int) -> float:
    """Most resident memory that a process has had."""
    return _status_mb(pid, "VmHWM")


def _status_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition(f"{field}:")[2].split()[0]) / 1024, 1)


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

"""The datafeed under load: history of 500 bars, so many requests a second, open loop.

    .venv/bin/python -m bench.gateway_udf --rate 500 --seconds 20

Requests come at fixed times whether or not earlier ones are answered, and each is timed from the instant at
which it was due: a server that stalls is charged for everybody who waited. The gateway has one core to itself
(`--core`), Valkey and the clients share the other. `--bare` serves the datafeed's routes alone, without the
gateway's own layers. Prints JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from redis import Redis

from listener.demo.processes import start_valkey

CHAIN: Final = 31337
MARKETS: Final = 50
CANDLES: Final = 3_000
BARS: Final = 500
CONNECTIONS: Final = 64
START_TIMEOUT_S: Final = 20.0
WARM_UP_S: Final = 2.0
NEWEST_S: Final = 1_767_571_200


def market(number: int) -> str:
    """Id of a market."""
    return f"0x{0xA0000 + number:040x}"


def fill(redis: "Redis[bytes]") -> None:
    """Markets with candles as the service writes them, every third minute empty."""
    chance = random.Random(1)  # noqa: S311 - not secret
    redis.hset(f"stream:{{{CHAIN}}}", "setting:OHLCV_INTERVALS", "1m,5m,15m,1h,4h,1d")
    for number in range(MARKETS):
        members = {}
        price = 10**9
        for back in range(CANDLES):
            t = (NEWEST_S - 60 * (back + back // 2)) * 1000
            texts = []
            for _ in range(6):
                price = max(price + chance.randint(-(10**7), 10**7), 10**8)
                texts.append(f"0.{price:018d}".rstrip("0"))
            fields = {"t": t, **dict(zip(("o", "h", "l", "c", "pc"), texts, strict=False))}
            fields |= {"v": f"{chance.randint(1, 10**6)}.{chance.randint(1, 10**17):017d}".rstrip("0")}
            fields |= {"q": texts[5], "V": fields["v"], "Q": texts[5], "n": 3, "N": 2}
            fields |= {"f": f"{back}-1", "L": f"{back}-9"}
            members[json.dumps(fields, separators=(",", ":"))] = t
        redis.zadd(f"candles:{{{CHAIN}}}:{market(number)}:1m", members)
        record = {"symbol": f"M{number}", "name": f"Market {number}", "quoteSymbol": "ETH", "venue": "curve"}
        redis.hset(f"market:{{{CHAIN}}}:{market(number)}", mapping=record)
        redis.zadd(f"markets:{{{CHAIN}}}", {market(number): number})


def request(chance: random.Random, port: int) -> bytes:
    """A chart that scrolls back somewhere."""
    end = NEWEST_S - 60 * chance.randrange(CANDLES)
    path = f"/udf/history?symbol={market(chance.randrange(MARKETS))}&resolution=1"
    path += f"&from={end - 30_000}&to={end + 1}&countback={BARS}"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes) -> int:
    """One request on an open connection; bytes of the answer's body."""
    writer.write(asked)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    assert body.startswith(b'{"s":"ok"'), body[:100]
    return length


async def load(port: int, rate: int, seconds: float) -> dict[str, Any]:
    """Send requests at their times; latencies in milliseconds."""
    chance = random.Random(2)  # noqa: S311 - not secret
    due: asyncio.Queue[float] = asyncio.Queue()
    took: list[float] = []
    sizes: list[int] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                at = await due.get()
                sizes.append(await exchange(reader, writer, request(chance, port)))
                took.append((time.perf_counter() - at) * 1000)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client()) for _ in range(CONNECTIONS)]
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            at = started + number / rate
            if (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            due.put_nowait(at)
        while len(took) < int(rate * seconds):  # noqa: ASYNC110 - a hundredth of a second is no matter
            await asyncio.sleep(0.01)
        elapsed = time.perf_counter() - started
        for task in clients:
            task.cancel()
    took.sort()
    return {
        "requests": len(took),
        "rate": round(len(took) / elapsed, 1),
        "ms": {f"p{q}": round(took[min(int(len(took) * q / 100), len(took) - 1)], 2) for q in (50, 90, 99)}
        | {"max": round(took[-1], 2)},
        "bytes": round(sum(sizes) / len(sizes)),
    }


def serve_bare(port: int, redis_url: str) -> None:
    """The datafeed's routes and nothing else."""
    import uvicorn  # noqa: PLC0415 - the server's process only
    from fastapi import FastAPI  # noqa: PLC0415

    from listener.infrastructure.clock import SystemClock  # noqa: PLC0415
    from listener.infrastructure.gateway.udf import udf_routes  # noqa: PLC0415
    from listener.infrastructure.redis.client import Database  # noqa: PLC0415
    from listener.infrastructure.redis.keys import Keys  # noqa: PLC0415
    from listener.infrastructure.redis.reader import RedisReader  # noqa: PLC0415

    class Nothing:
        """An index that is not asked."""

        def search(self, _text: str, _limit: int) -> list[str]:
            """No market."""
            return []

    app = FastAPI()
    reader = RedisReader(Database.connect(redis_url, 5), Keys(CHAIN))
    app.include_router(udf_routes(reader, Nothing(), SystemClock()))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def command(arguments: argparse.Namespace, port: int, redis_url: str) -> tuple[list[str], dict[str, str]]:
    """How the gateway is started, and its environment."""
    if arguments.bare:
        return [sys.executable, "-m", "bench.gateway_udf", "--serve", str(port), redis_url], dict(os.environ)
    environment = os.environ | {
        "WEBSOCKET_PORT": str(port),
        "REDIS_URL": redis_url,
        "CHAIN_ID": str(CHAIN),
        "BONDING_CURVE_FACTORY_ADDRESS": market(0),
        "GATEWAY_RATE_PER_S": "0",
    }
    return [sys.executable, "-m", "listener.cli", "serve"], environment


def measure(stack: ExitStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start everything, warm up, measure."""
    load_before = os.getloadavg()[0]
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    valkey = start_valkey(directory, save="", appendonly="no")
    stack.callback(valkey.stop)
    with Redis(port=valkey.port) as redis:
        fill(redis)
        valkey_pid = int(redis.info("server")["process_id"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words, environment = command(arguments, port, f"redis://127.0.0.1:{valkey.port}/0")
    server = subprocess.Popen(words, env=environment)  # noqa: S603 - our own
    stack.callback(server.wait, 10)
    stack.callback(server.terminate)
    wait_for(port, server)
    cores = os.sched_getaffinity(0)
    if arguments.core and len(cores) > 1:
        own = max(cores)
        pin(server.pid, {own})
        pin(os.getpid(), cores - {own})
        pin(valkey_pid, cores - {own})
    asyncio.run(load(port, arguments.rate, WARM_UP_S))
    before, started = cpu_s(server.pid), time.perf_counter()
    figures = asyncio.run(load(port, arguments.rate, arguments.seconds))
    used, elapsed = cpu_s(server.pid) - before, time.perf_counter() - started
    return {
        "bars": BARS,
        "gateway": "routes alone" if arguments.bare else "listener serve",
        "own_core": arguments.core,
        **figures,
        "cpu_share": round(used / elapsed, 3),
        "cpu_ms_per_request": round(used / figures["requests"] * 1000, 3),
        "memory_mb": round(memory_bytes(server.pid) / 1e6, 1),
        "load_before": load_before,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def pin(pid: int, cores: set[int]) -> None:
    """Keep all threads of a process on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def cpu_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Until it listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert server.poll() is None, "the gateway ended"
        assert time.monotonic() < deadline, "the gateway did not start"
        time.sleep(0.05)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--core", action="store_true", help="a core for the gateway alone")
    parser.add_argument("--bare", action="store_true", help="the datafeed's routes alone")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "REDIS_URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_bare(int(arguments.serve[0]), arguments.serve[1])
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped then, too
    with ExitStack() as stack:
        print(json.dumps(measure(stack, arguments), indent=2))


if __name__ == "__main__":
    main()

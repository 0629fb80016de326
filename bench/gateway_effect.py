"""What the gateway costs the follower: from a block at the node to its commit, with and without a gateway.

    .venv/bin/python -m bench.gateway_effect
    .venv/bin/python -m bench.gateway_effect --sockets 200 --requests 200 --blocks 100 --rounds 2

As `bench.live`, case `few` (100 trades over 10 markets every 250 ms), in four ways:

* `off`: no gateway, no backend: no rows are written.
* `rows`: no gateway, but rows are written, for a backend that is away. What is beyond this is the gateway's.
* `idle`: a gateway that nobody asks.
* `loaded`: live sockets in rooms of the markets that trade, half of them plain and half Socket.IO, and REST
  requests for candles and trades of these markets.

All clients are one process of its own at the lowest priority, as they would be on other machines. Nothing is
tied to a core: the system spreads listener, gateway, Valkey, replay node and clients over what there is.
Prints a table, with `--json` all figures.
"""

# ruff: noqa: PLC0415 - the clients' process imports what it needs

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.live import CASES, LiveBench, figures
from bench.system import Servers, events, machine
from bench.workload import CACHE, address
from listener.demo.processes import REPOSITORY, Child

CASE: Final = CASES["few"]
WAYS: Final = ("off", "rows", "idle", "loaded")
ON: Final = {"GATEWAY_ENABLED": "true", "GATEWAY_RATE_PER_S": "0"}
AWAY: Final = {"BACKEND_SOCKET_URL": "http://127.0.0.1:9", "BACKEND_AUTH_TOKEN": "nobody-listens"}
SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {"off": {}, "rows": AWAY, "idle": ON, "loaded": ON}
START_S: Final = 30.0
KINDS: Final = ("candles:{}:1m", "trades:{}", "stats:{}")
CONNECT_TOGETHER: Final = 20


class Beside:
    """What runs beside the listener in one of the ways.

    Attributes:
        found: its figures.
    """

    def __init__(self, way: str, sockets: int, requests: int) -> None:
        self._way = way
        self._load = (str(sockets), str(requests))
        self.found: dict[str, Any] = {}

    @contextmanager
    def __call__(self, servers: Servers, listener: Child) -> Iterator[None]:
        """Untie all from their cores; with a gateway, wait for it, and load it."""
        untie([listener.process.pid, servers.valkey.process.pid, servers.node.process.pid])
        if self._way in {"off", "rows"}:
            yield
            return
        port = serving(listener)
        gateway = child_of(listener.process.pid)
        untie([gateway])
        if self._way == "idle":
            before, began = cpu_of(gateway), time.monotonic()
            yield
        else:
            clients = self._start_clients(port)
            try:
                before, began = cpu_of(gateway), time.monotonic()
                yield
                self.found |= self._end(clients)
            finally:
                clients.kill()
                clients.wait()
        self.found["gateway_cpu"] = round((cpu_of(gateway) - before) / (time.monotonic() - began), 3)

    def _start_clients(self, port: int) -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "bench.gateway_effect", "--clients", str(port), *self._load]
        pipe = subprocess.PIPE
        clients = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY)  # noqa: S603
        assert clients.stdout
        if clients.stdout.readline() != "connected\n":
            clients.kill()
            clients.wait()
            raise RuntimeError("the clients could not connect")
        return clients

    @staticmethod
    def _end(clients: "subprocess.Popen[str]") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(clients.communicate("\n", timeout=30)[0])
        return found


def untie(pids: Sequence[int]) -> None:
    """Let all threads of processes run on any core."""
    cores = range(os.cpu_count() or 1)
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def serving(listener: Child) -> int:
    """The gateway's port, once it serves."""
    deadline = time.monotonic() + START_S
    while not any(events(listener.lines, "Gateway serves")):
        if time.monotonic() > deadline or listener.process.poll() is not None:
            raise RuntimeError("no gateway: " + "\n".join(listener.lines[-10:]))
        time.sleep(0.1)
    return next(int(record["health_port"]) for _, record in events(listener.lines, "Listener started"))


def child_of(pid: int) -> int:
    """The one process that a process has started."""
    [child] = {
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    }
    return child


def cpu_of(pid: int) -> float:
    """Processor seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def be_clients(port: int, sockets: int, requests: int) -> None:
    """All clients, until standard input ends; prints what they saw."""
    import aiohttp

    os.nice(19)
    markets = [address("token", number) for number in range(CASE.markets)]
    counts = {"messages": 0, "lost": 0, "failed": 0}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks: list[asyncio.Task[None]] = []
        for first in range(0, sockets, CONNECT_TOGETHER):
            told = []
            for number in range(first, min(first + CONNECT_TOGETHER, sockets)):
                room = KINDS[number % len(KINDS)].format(markets[number % len(markets)])
                told.append(asyncio.Event())
                listening = listen(session, port, room, counts, told[-1], plain=number % 2 == 0)
                tasks.append(asyncio.create_task(listening))
            async with asyncio.timeout(START_S):
                await asyncio.gather(*(event.wait() for event in told))
        print("connected", flush=True)
        taken_ms: list[float] = []
        asking = asyncio.create_task(ask(session, port, markets, requests, taken_ms, counts))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for task in (asking, *tasks):
            task.cancel()
        await asyncio.gather(asking, *tasks, return_exceptions=True)
    summary = {**figures(taken_ms), "values": None} if len(taken_ms) > 1 else None
    print(json.dumps({"rest_ms": summary, **counts}), flush=True)


async def listen(
    session: Any,  # noqa: ANN401 - imported late
    port: int,
    room: str,
    counts: dict[str, int],
    told: asyncio.Event,
    *,
    plain: bool,
) -> None:
    """One live client. Socket.IO is spoken by hand: packets 0 (open), 2 (ping), 40 and 42 (event)."""
    path = "/ws" if plain else "/socket.io/?EIO=4&transport=websocket"
    async with session.ws_connect(f"http://127.0.0.1:{port}{path}", max_msg_size=0) as link:
        if plain:
            await link.send_str(json.dumps({"op": "subscribe", "room": room}))
        async for message in link:
            text = message.data
            if '"snapshot"' in text[:24]:
                told.set()
            elif '"update"' in text[:24]:
                counts["messages"] += 1
            elif text.startswith("0{"):
                await link.send_str("40")
            elif text.startswith("40{"):
                await link.send_str(f'42["subscribe",{{"room":"{room}"}}]')
            elif text == "2":
                await link.send_str("3")
    counts["lost"] += 1


async def ask(
    session: Any,  # noqa: ANN401 - imported late
    port: int,
    markets: Sequence[str],
    rate: int,
    taken_ms: list[float],
    counts: dict[str, int],
) -> None:
    """Requests at a steady rate, whether the ones before are answered or not."""
    choose = random.Random(5)  # noqa: S311 - no secret

    async def one(path: str) -> None:
        began = time.monotonic()
        async with session.get(f"http://127.0.0.1:{port}/api/v1/markets/{path}") as answer:
            await answer.read()
            counts["failed"] += answer.status != 200
        taken_ms.append((time.monotonic() - began) * 1000)

    began, sent = time.monotonic(), 0
    async with asyncio.TaskGroup() as tasks:
        while rate:
            what = "candles?interval=1m&limit=300" if sent % 2 else "trades?limit=50"
            tasks.create_task(one(f"{choose.choice(markets)}/{what}"))
            sent += 1
            await asyncio.sleep(max(began + sent / rate - time.monotonic(), 0))


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All ways, again and again, so that what else happens on the machine meets each of them."""
    results = []
    for number in range(arguments.rounds):
        for way in arguments.way or WAYS:
            beside = Beside(way, arguments.sockets, arguments.requests)
            load: Callable[[Servers, Child], AbstractContextManager[None]] = beside
            case = CASE._replace(blocks=arguments.blocks)
            found = LiveBench(case, arguments.cache, SETTINGS[way], beside=load).run()
            result = {"way": way, "round": number, **beside.found, "load": os.getloadavg()[0]}
            result |= {name: found[name] for name in ("to_redis_ms", "cpu_ms_per_block", "blocks")}
            print(line(result), flush=True)
            results.append(result)
    return results


def line(result: Mapping[str, Any]) -> str:
    """One result for a terminal."""
    ms, cpu = result["to_redis_ms"], result["cpu_ms_per_block"]["listener"]
    text = f"  {result['way']:<8}p50 {ms['p50']:6.2f}  p95 {ms['p95']:6.2f}  p99 {ms['p99']:6.2f}  "
    text += f"max {ms['max']:6.2f} ms; listener {cpu:5.2f} ms a block"
    if "gateway_cpu" in result:
        text += f"; gateway {result['gateway_cpu'] * 100:.0f} % of a core"
    if rest := result.get("rest_ms"):
        text += f"; {rest['n']} requests, p50 {rest['p50']:.1f} p99 {rest['p99']:.1f} ms, "
        text += f"{result['failed']} failed; {result['messages']} messages, {result['lost']} lost"
    return text


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--way", action="append", choices=WAYS, help="by default all of them")
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--requests", type=int, default=200, help="a second")
    parser.add_argument("--blocks", type=int, default=100, help="measured in each way, after the warm-up")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where generated workloads are kept")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--clients", type=int, nargs=3, metavar=("PORT", "SOCKETS", "REQUESTS"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.clients:
        asyncio.run(be_clients(*arguments.clients))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    about = machine()
    print(f"{about['machine']}; Python {about['python']}, commit {about['commit']}, load {about['load']}")
    results = measure(arguments)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"benchmark": "gateway_effect", **about, "results": results}) + "\n"
        )


if __name__ == "__main__":
    main()

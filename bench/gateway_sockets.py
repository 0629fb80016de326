"""Live sockets under load: how long from a room's flush until each of its members has the message.

    .venv/bin/python bench/gateway_sockets.py --clients 2000 --rooms 50 --rate 1000 --seconds 20

Four processes on this machine: Valkey, a writer that commits trades as the listener does (five blocks a
second), the gateway's sockets on uvicorn, and all clients in one process. Each client is in one room; of
every ten rooms, six are candles of a minute, two trades, two 24 h figures, each of a market of its own. A
message's clock starts when the hub takes up its room, before anything is read for it, and stops when the
client has the whole message. All processes read the same monotonic clock. Prints JSON.
"""

# ruff: noqa: PLC0415 - each process imports what it needs, so that its memory is its own

import argparse
import asyncio
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

CHAIN_ID: Final = 31337
BLOCKS_PER_S: Final = 5
WARM_UP_S: Final = 3.0
CONNECT_TOGETHER: Final = 50
KINDS: Final = (
    "candles",
    "candles",
    "candles",
    "trades",
    "stats",
    "candles",
    "candles",
    "candles",
    "trades",
    "stats",
)
REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def room_name(number: int) -> str:
    """Room of that number."""
    kind, market = KINDS[number % len(KINDS)], f"0x{0xA0000 + number:040x}"
    return f"candles:{market}:1m" if kind == "candles" else f"{kind}:{market}"


async def write(url: str, markets: int, rate: int, seconds: float) -> dict[str, Any]:
    """Commit trades at a steady rate; says how well that went."""
    from listener.application.rules import Finality
    from listener.infrastructure.redis.client import Database
    from listener.infrastructure.redis.keys import Keys
    from listener.infrastructure.redis.outbox import OutboxBounds
    from listener.infrastructure.redis.store import RedisStore
    from tests.fakes.build import created, rules, swap, token, token_info
    from tests.fakes.chain import LocalChain
    from tests.fakes.writer import Writer

    by = rules("5m", "15m", "1h", "4h", "1d", finality=Finality(64))
    database, keys = Database.connect(url, 5.0), Keys(CHAIN_ID)
    chain = LocalChain(time=int(time.time() * 1000))
    chain.tokens.update({token(number): token_info(number) for number in range(markets)})
    writer = Writer(chain, RedisStore(database, keys, by, OutboxBounds(100_000, 128_000_000)), by)
    await writer.start(now=int(time.time() * 1000))
    await database.run("HSET", keys.settings, "setting:OHLCV_INTERVALS", "1m,5m,15m,1h,4h,1d")
    chain.mine(*(created(number) for number in range(markets)))
    await writer.follow()
    print("ready", flush=True)
    start, trades, late, busy = time.monotonic(), 0, 0.0, 0.0
    for number in range(int(seconds * BLOCKS_PER_S)):
        wait = start + number / BLOCKS_PER_S - time.monotonic()
        late = max(late, -wait)
        await asyncio.sleep(max(wait, 0))
        began = time.process_time()
        count = rate // BLOCKS_PER_S
        chain.mine(
            *(swap((number * count + at) % markets, 10**18 + at, 10**15 + number) for at in range(count)),
            after_ms=1000 // BLOCKS_PER_S,
        )
        await writer.follow()
        trades += count
        busy += time.process_time() - began
    took = time.monotonic() - start
    await database.close()
    return {
        "trades": trades,
        "per_s": round(trades / took),
        "late_s": round(late, 3),
        "cpu": round(busy / took, 3),
    }


async def serve(url: str, log: str) -> None:
    """The sockets, and when each room was taken up, until standard input ends."""
    import uvicorn
    from starlette.responses import PlainTextResponse

    from listener.application.services.supervisor import keep_running
    from listener.infrastructure.clock import SystemClock
    from listener.infrastructure.gateway.hub import Hub
    from listener.infrastructure.gateway.raw_sockets import RawSocket
    from listener.infrastructure.gateway.room_reads import RoomReads
    from listener.infrastructure.gateway.security import Security
    from listener.infrastructure.gateway.sockets import Sockets
    from listener.infrastructure.redis.client import Database
    from listener.infrastructure.redis.keys import Keys
    from listener.infrastructure.redis.row_feed import RowFeed
    from tests.fakes.observer import RecordingObserver

    taken: list[tuple[str, int, int]] = []

    class Timed(Hub):
        _taken_up = 0
        _last: object = None

        async def _tell(self, names: Sequence[Any]) -> None:
            self._taken_up = time.monotonic_ns()
            await super()._tell(names)

        def push(self, client: Any, frames: Sequence[Any]) -> None:  # noqa: ANN401
            for frame in frames:
                if frame is not self._last and frame.event == "update":
                    self._last = frame
                    taken.append((str(frame.room), _number(frame.body, b'"seq":'), self._taken_up))
            super().push(client, frames)

    keys, reading, following = Keys(CHAIN_ID), Database.connect(url, 5.0), Database.connect(url, 5.0)
    feed, hub = RowFeed(following, keys), Timed(RoomReads(reading, keys), time.monotonic)
    hub.start(await feed.start())
    feed.subscribe(hub.take)
    app = Sockets(hub, Security(), PlainTextResponse(""))
    config = uvicorn.Config(
        app,
        port=0,
        ws=RawSocket,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        backlog=4_096,
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        for part in (feed.run, hub.run, app.run):
            tasks.create_task(keep_running(part, SystemClock(), RecordingObserver()))
        tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        figures = hub.figures
        Path(log).write_text(  # noqa: ASYNC240 - at the end
            json.dumps({"taken": taken, "figures": {n: getattr(figures, n) for n in figures.__slots__}})
        )
        os._exit(0)  # thousands of links need no farewell


def _number(text: bytes, name: bytes) -> int:
    at = text.index(name) + len(name)
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    return int(text[at:end])


class Receiver(asyncio.Protocol):
    """One client: subscribes to a room, and notes when messages of it came."""

    def __init__(self, port: int, room: int, transport: str, got: list[tuple[int, int, int]]) -> None:
        self._port, self._room, self._kind, self._got = port, room, transport, got
        self._buffer = bytearray()
        self._open = False
        self.snapshot = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Shake hands."""
        self._transport = transport
        path = "/ws" if self._kind == "plain" else "/socket.io/?EIO=4&transport=websocket"
        transport.write(REQUEST.format(path=path, port=self._port).encode())  # type: ignore[attr-defined]

    def connection_lost(self, _error: Exception | None) -> None:
        """The server hung up."""
        self.lost = True

    def data_received(self, data: bytes) -> None:
        """Messages, whole or in part."""
        now = time.monotonic_ns()
        self._buffer += data
        if not self._open:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            del self._buffer[: end + 4]
            self._open = True
            question = f'{{"op":"subscribe","room":"{room_name(self._room)}"}}'
            self._say(question if self._kind == "plain" else "40")
        while len(self._buffer) >= 2:
            size, head = self._buffer[1], 2
            if size == 126:
                size, head = (
                    struct.unpack_from("!H", self._buffer, 2)[0] if len(self._buffer) >= 4 else 1 << 30,
                    4,
                )
            elif size == 127:
                size, head = (
                    struct.unpack_from("!Q", self._buffer, 2)[0] if len(self._buffer) >= 10 else 1 << 30,
                    10,
                )
            if len(self._buffer) < head + size:
                return
            opcode, text = self._buffer[0] & 15, bytes(self._buffer[head : head + size])
            del self._buffer[: head + size]
            self._heard(opcode, text, now)

    def _heard(self, opcode: int, text: bytes, now: int) -> None:
        if opcode == 9:
            self._transport.write(struct.pack("!BB4x", 0x8A, 0x80 | len(text)) + text)  # type: ignore[attr-defined]
        elif text.startswith((b'{"event":"update"', b'42["update"')):
            self._got.append((self._room, _number(text, b'"seq":'), now))
        elif text.startswith((b'{"event":"snapshot"', b'42["snapshot"')):
            if not self.snapshot.done():
                self.snapshot.set_result(None)
        elif text == b"2":
            self._say("3")
        elif text.startswith(b"40"):
            self._say(f'42["subscribe",{{"room":"{room_name(self._room)}"}}]')

    def _say(self, text: str) -> None:
        assert len(text) < 126
        self._transport.write(struct.pack("!BB4x", 0x81, 0x80 | len(text)) + text.encode())  # type: ignore[attr-defined]


async def receive(port: int, clients: int, rooms: int, transport: str) -> None:
    """All clients, until standard input ends; prints what came."""
    loop = asyncio.get_running_loop()
    got: list[tuple[int, int, int]] = []
    receivers: list[Receiver] = []
    started = time.monotonic()
    for first in range(0, clients, CONNECT_TOGETHER):
        numbers = range(first, min(first + CONNECT_TOGETHER, clients))
        made = await asyncio.gather(
            *(
                loop.create_connection(
                    lambda n=n: Receiver(port, n % rooms, transport, got), "127.0.0.1", port
                )  # type: ignore[misc]
                for n in numbers
            )
        )
        receivers += [receiver for _, receiver in made]
    await asyncio.gather(*(receiver.snapshot for receiver in receivers))
    print(json.dumps({"connected_s": round(time.monotonic() - started, 2)}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps({"got": got, "lost": sum(receiver.lost for receiver in receivers)}), flush=True)


def usage(pid: int) -> tuple[float, float, float]:
    """Processor seconds, resident MB and the most there ever was."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    size, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), size, peak


async def child(stack: AsyncExitStack, *words: str) -> asyncio.subprocess.Process:
    """One of the other processes."""
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *words, stdin=pipe, stdout=pipe, limit=1 << 30,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip

    async def stop() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(stop)
    return process


async def line(process: asyncio.subprocess.Process) -> str:
    """What it says next."""
    assert process.stdout
    async with asyncio.timeout(180):
        return (await process.stdout.readline()).decode()


def tell(process: asyncio.subprocess.Process) -> None:
    """End its wait."""
    assert process.stdin
    process.stdin.write(b"\n")


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start all, wait, compare."""
    from listener.demo.processes import start_valkey

    directory = Path(tempfile.mkdtemp())
    log = directory / "taken.json"
    async with AsyncExitStack() as stack:
        valkey = start_valkey(directory / "valkey", save="", appendonly="no")
        stack.callback(valkey.stop)
        url = f"redis://127.0.0.1:{valkey.port}/0"
        whole = str(arguments.seconds + WARM_UP_S + arguments.clients / 100)
        writer = await child(
            stack, "--part", "write", "--url", url, "--rooms", str(arguments.rooms),
            "--rate", str(arguments.rate), "--seconds", whole,
        )  # fmt: skip
        assert await line(writer) == "ready\n"
        server = await child(stack, "--part", "serve", "--url", url, "--log", str(log))
        port = (await line(server)).strip()
        empty = usage(server.pid)
        receiver = await child(
            stack, "--part", "receive", "--port", port, "--clients", str(arguments.clients),
            "--rooms", str(arguments.rooms), "--transport", arguments.transport,
        )  # fmt: skip
        connected = json.loads(await line(receiver))
        await asyncio.sleep(WARM_UP_S)
        began, cpu = time.monotonic_ns(), [usage(process.pid) for process in (server, receiver)]
        await asyncio.sleep(arguments.seconds)
        ended = time.monotonic_ns()
        spent = [usage(process.pid) for process in (server, receiver)]
        tell(receiver)
        got = json.loads(await line(receiver))
        tell(server)
        await server.wait()
        written = json.loads(await line(writer))
    logged = json.loads(log.read_text())
    seconds = (ended - began) / 1e9
    return {
        "clients": arguments.clients, "rooms": arguments.rooms, "transport": arguments.transport,
        "seconds": round(seconds, 1), "written": written, **connected,
        **_latencies(logged["taken"], got["got"], began, ended),
        "disconnected": got["lost"], "hub": logged["figures"],
        "gateway_cpu": round((spent[0][0] - cpu[0][0]) / seconds, 3),
        "clients_cpu": round((spent[1][0] - cpu[1][0]) / seconds, 3),
        "gateway_rss_mb": {"empty": round(empty[1]), "end": round(spent[0][1]), "peak": round(spent[0][2])},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
    }  # fmt: skip


def _latencies(taken: Sequence[Any], got: Sequence[Any], began: int, ended: int) -> dict[str, Any]:
    """From taking up a room to having its message, of messages that were taken up while we looked."""
    rooms = {room_name(number): number for number in range(10_000)}
    starts = {
        (rooms[name], seq): at for name, seq, at in taken if name in rooms and began <= at < ended - 10**9
    }
    took = sorted((now - starts[room, seq]) / 1e6 for room, seq, now in got if (room, seq) in starts)
    at = lambda share: round(took[min(int(len(took) * share), len(took) - 1)], 1)  # noqa: E731
    return {
        "messages": len(took), "per_s": round(len(took) / ((ended - began) / 1e9 - 1)),
        "flushes": len(starts),
        "ms": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": round(took[-1], 1)},
    }  # fmt: skip


def main() -> None:
    """Measure and print, or be one of the processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--rate", type=int, default=1_000, help="trades a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--transport", choices=["plain", "socket.io"], default="plain")
    for name in ("part", "url", "log", "port"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.part:
        case "write":
            print(
                json.dumps(
                    asyncio.run(write(arguments.url, arguments.rooms, arguments.rate, arguments.seconds))
                )
            )
        case "serve":
            asyncio.run(serve(arguments.url, arguments.log))
        case "receive":
            asyncio.run(receive(int(arguments.port), arguments.clients, arguments.rooms, arguments.transport))
        case _:
            print(json.dumps(asyncio.run(measure(arguments)), indent=2))


if __name__ == "__main__":
    main()

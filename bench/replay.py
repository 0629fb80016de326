"""A replay node: serves a generated workload over JSON-RPC, faster than any real node.

    .venv/bin/python -m bench.replay --trades 100000
    .venv/bin/python -m bench.replay --start-live-at 400 --interval-ms 250
    .venv/bin/python -m bench.replay --measure

HTTP (single calls and batches) and WebSocket on two ports; prints both addresses when it is ready. Logs are
slices of pre-encoded JSON, so a reply costs little more than copying it into the socket.

With `--interval-ms` the chain grows: the tip is block `--start-live-at` until somebody calls `replay_live`,
and then one block more at each interval. `replay_released` answers when each was released, in Unix seconds by
block number. With `--fork-every` the chain forks each time that the number of the new block is a multiple of
it: `--fork-depth` blocks below it have other hashes from then on, and each of them has lost its last log.

`--measure` starts a second process, asks it for 200 blocks of 200 trades and prints how long it takes.
"""

import argparse
import asyncio
import http.client
import json
import socket
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.workload import (
    DECIMALS,
    FACTORY,
    SUPPLY,
    Shape,
    Workload,
    add_arguments,
    block_hash,
    market_name,
    market_symbol,
    shape_of,
    string_words,
)
from listener.demo.processes import Child
from listener.infrastructure.blockchain.venues.bonding_curve import CURVE_CREATED, TRADE

CHAIN_ID: Final = 31337
TAIL: Final = 64
"""Empty blocks after the last trade, so that all trades are final."""
READY: Final = r"Replaying on (http://\S+ ws://\S+)"
MEASURED_BLOCKS: Final = 200
ROUNDS: Final = 20
SEND_BUFFER_BYTES: Final = 4 * 1024 * 1024
LARGE_BYTES: Final = 16_384
"""Smaller pieces of a reply are joined before they are written."""
NO_BODIES: Final = False
"""Of transactions: their hashes are enough."""

Pieces = list[bytes | memoryview]

_BEFORE_A_LOG: Final = b',{"address":"'
_TRANSACTION: Final = b'"transactionHash":"'
_BLOOM: Final = "0x" + "00" * 256
_ZERO_HASH: Final = "0x" + "00" * 32
_NOT_OFFERED: Final = (-32601, "the method does not exist/is not available")
_TOO_MANY: Final = (-32005, "query returned more than {} results")


class Refused(Exception):
    """A JSON-RPC error.

    Args:
        code: of the error.
        message: of the error.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the node serves its workload.

    Attributes:
        block_s: chain time between blocks.
        tail: empty blocks after the last trade.
        finality: blocks behind the tip that are not `finalized`.
        tip: the newest block at first; None: the last.
        tip_time: its time, Unix seconds.
        most_logs: more logs than that in one reply are refused; 0: never.
        receipts: whether they are offered.
        interval_ms: between two new blocks; 0: the chain stands still.
        fork_every: a new block whose number is a multiple of it stands on another branch; 0: none does.
        fork_depth: so many blocks are replaced by each fork, fewer than there are between two forks.
    """

    block_s: float = 2.0
    tail: int = TAIL
    finality: int = 64
    tip: int | None = None
    tip_time: int = 0
    most_logs: int = 0
    receipts: bool = True
    interval_ms: float = 0
    fork_every: int = 0
    fork_depth: int = 3


class ReplayChain:
    """Answers JSON-RPC calls from a workload.

    Args:
        workload: what to serve.
        behaviour: how.
    """

    def __init__(self, workload: Workload, behaviour: Behaviour) -> None:
        self._workload = workload
        self._behaviour = behaviour
        self.last = workload.shape.blocks + behaviour.tail
        self.tip = self.last if behaviour.tip is None else min(behaviour.tip, self.last)
        self._genesis_time = behaviour.tip_time - self.tip * behaviour.block_s
        self._start = self.tip
        self._places = {block_hash(number): (number, 0) for number in range(self.last + 1)}
        self.forks = self._forks_above()
        self._places |= {block_hash(number, 1): (number, 1) for number in self.forks}
        self.released: dict[int, float] = {}
        self.live = asyncio.Event()

    def reply(self, request: Any) -> Pieces:  # noqa: ANN401 - whatever a client sends
        """A whole reply to a call or a batch."""
        if not isinstance(request, list):
            return self._reply(request)
        pieces: Pieces = []
        for call in request:
            pieces += (b"," if pieces else b"[", *self._reply(call))
        return [*pieces, b"]"]

    def _reply(self, call: dict[str, Any]) -> Pieces:
        start = b'{"jsonrpc":"2.0","id":%b,' % orjson.dumps(call.get("id"))
        try:
            return [start, b'"result":', *self._result(call["method"], call.get("params") or []), b"}"]
        except Refused as error:
            told = {"code": error.code, "message": str(error)}
            return [start, b'"error":', orjson.dumps(told), b"}"]

    def _result(self, method: str, params: Sequence[Any]) -> Pieces:
        """The result of one call."""
        if method == "eth_getLogs":
            return self._logs(params[0])
        if method == "eth_getBlockByNumber":
            return self._header(self._number(params[0]))
        if method == "eth_getBlockByHash":
            return self._header(*self._places.get(params[0], (None,)))
        if method == "eth_getBlockReceipts" and self._behaviour.receipts:
            return self._receipts(params[0])
        return [orjson.dumps(self._value(method, params), option=orjson.OPT_NON_STR_KEYS)]

    def _value(self, method: str, params: Sequence[Any]) -> Any:  # noqa: ANN401 - of any method
        """The result of a call whose result is small."""
        match method:
            case "eth_call":
                return token_answer(self._workload, params[0]["to"], params[0]["data"])
            case "eth_chainId":
                return hex(CHAIN_ID)
            case "eth_blockNumber":
                return hex(self.tip)
            case "eth_getCode":
                exists = params[0].lower() == FACTORY and (self._number(params[1]) or 0) > 0
                return "0x60" if exists else "0x"
            case "replay_live":
                return self.live.set()
            case "replay_released":
                return self.released
        raise Refused(*_NOT_OFFERED)

    def _number(self, tag: str) -> int | None:
        """Number of a block; None if there is none yet."""
        match tag:
            case "latest" | "pending":
                return self.tip
            case "finalized" | "safe":
                return max(self.tip - self._behaviour.finality, 0)
            case "earliest":
                return 0
        return number if (number := int(tag, 16)) <= self.tip else None

    def _forks_above(self) -> dict[int, int]:
        """By number of a block that is replaced once, the block whose release does it."""
        every, depth = self._behaviour.fork_every, self._behaviour.fork_depth
        forks = range(every, self.last + 1, every) if every else ()
        return {
            number: fork
            for fork in forks
            if fork - depth > self._start
            for number in range(fork - depth, fork)
        }

    def branch(self, number: int) -> int:
        """Which version of a block is on the chain now."""
        return int(self.forks.get(number, self.last + 1) <= self.tip)

    def hash(self, number: int) -> str:
        """Hash of a block on the chain."""
        return block_hash(number, self.branch(number))

    def logs(self, first: int, last: int, branch: int | None = None) -> bytes | memoryview:
        """Logs of blocks as the inside of a JSON list, on the chain or on a branch."""
        replaced = {number for number in self.forks if first <= number <= last}
        if branch is None:
            replaced = {number for number in replaced if self.branch(number)}
        if not replaced or branch == 0:
            return self._workload.logs(first, last)
        parts = []
        for number in range(first, last + 1):
            logs = bytes(self._workload.logs(number, number))
            if number in replaced:
                old, new = (block_hash(number, at).encode() for at in (0, 1))
                logs = logs.rpartition(_BEFORE_A_LOG)[0].replace(old, new)
            parts += [logs] if logs else []
        return b",".join(parts)

    def of_markets(self, markets: set[int]) -> list[dict[str, Any]]:
        """Every log on the chain that announces or trades one of these markets."""
        found = []
        for log in self._workload.of_markets(markets):
            number = int(log["blockNumber"], 16)
            if not self.branch(number):
                found.append(log)
            elif int(log["logIndex"], 16) < self._workload.count(number, number) - 1:
                found.append({**log, "blockHash": self.hash(number)})
        return found

    def _header(self, number: int | None, branch: int | None = None) -> Pieces:
        if number is None or number > self.tip:
            return [b"null"]
        at = self.branch(number)
        head = self.head(number) if branch in {None, at} else self._head_on(number, 1 - at)
        fields = orjson.dumps(head)
        return [fields[:-1], b',"transactions":[', self._workload.hashes(number), b"]}"]

    def head(self, number: int) -> dict[str, Any]:
        """Header of a block on the chain."""
        return self._head_on(number, self.branch(number))

    def _head_on(self, number: int, branch: int) -> dict[str, Any]:
        fork, parent_fork = self.forks.get(number), self.forks.get(number - 1)
        parent_branch = branch if fork and fork == parent_fork else self.branch(number - 1)
        return {
            "number": hex(number),
            "hash": block_hash(number, branch),
            "parentHash": block_hash(number - 1, parent_branch) if number else _ZERO_HASH,
            "timestamp": hex(int(self._genesis_time + number * self._behaviour.block_s)),
            "logsBloom": _BLOOM,
            "nonce": "0x0000000000000000",
            "sha3Uncles": _ZERO_HASH,
            "transactionsRoot": _ZERO_HASH,
            "stateRoot": _ZERO_HASH,
            "receiptsRoot": _ZERO_HASH,
            "miner": FACTORY,
            "difficulty": "0x0",
            "extraData": "0x",
            "size": "0x400",
            "gasLimit": "0x1c9c380",
            "gasUsed": "0xe4e1c0",
            "baseFeePerGas": "0x7",
            "mixHash": _ZERO_HASH,
            "uncles": [],
        }

    def _logs(self, wanted: dict[str, Any]) -> Pieces:
        branch: int | None = None
        if "blockHash" in wanted:
            first, branch = self._places.get(wanted["blockHash"], (self.tip + 1, None))
            last = first
            if first > self.tip:
                raise Refused(-32000, "unknown block")
        else:
            bounds = (self._number(wanted.get(name, "latest")) for name in ("fromBlock", "toBlock"))
            first, last = (self.tip if bound is None else bound for bound in bounds)
        most = self._behaviour.most_logs
        if most and self._workload.count(first, last) > most:
            raise Refused(_TOO_MANY[0], _TOO_MANY[1].format(most))
        logs = self.logs(first, last, branch)
        if matches_all(wanted):
            return [b"[", logs, b"]"]
        return [orjson.dumps([log for log in orjson.loads(listed(logs)) if matches(log, wanted)])]

    def _receipts(self, tag: str) -> Pieces:
        """Receipts with the fields that say something of logs, made without decoding these."""
        by_hash = len(tag) == len(_ZERO_HASH)
        number, branch = self._places.get(tag, (None, None)) if by_hash else (self._number(tag), None)
        if number is None or number > self.tip:
            return [b"null"]
        logs: dict[bytes, list[bytes]] = {}
        for log in bytes(self.logs(number, number, branch)).split(_BEFORE_A_LOG):
            whole = log if log.startswith(_BEFORE_A_LOG[1:]) else _BEFORE_A_LOG[1:] + log
            transaction = whole.partition(_TRANSACTION)[2][: len(_ZERO_HASH)]
            logs.setdefault(transaction, []).append(whole)
        own_hash = block_hash(number, self.branch(number) if branch is None else branch)
        place = b'"blockHash":"%b","blockNumber":"%#x","status":"0x1"' % (own_hash.encode(), number)
        receipts = [
            b'{%b%b",%b,"logs":[%b]}' % (_TRANSACTION, transaction, place, b",".join(some))
            for transaction, some in logs.items()
            if transaction
        ]
        return [b"[", b",".join(receipts), b"]"]

    def release(self) -> bool:
        """Make the next block the tip; False if there is none."""
        if self.tip >= self.last:
            return False
        self.tip += 1
        self.released[self.tip] = time.time()
        return True


def listed(inside: bytes | memoryview) -> bytes:
    """The inside of a JSON list as a JSON list."""
    return b"".join((b"[", inside, b"]"))


def matches_all(wanted: dict[str, Any]) -> bool:
    """Whether a filter lets every log of a workload pass."""
    topics = (wanted.get("topics") or [None])[0]
    return "address" not in wanted and (topics is None or {CURVE_CREATED, TRADE} <= set(topics))


def matches(log: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a filter by addresses and by topic 0 lets a log pass."""
    for found, allowed in (
        (log["address"], wanted.get("address")),
        (log["topics"][0], (wanted.get("topics") or [None])[0]),
    ):
        if allowed is not None and found not in map(str.lower, _listed(allowed)):
            return False
    return True


def _listed(value: str | Iterable[str]) -> Iterable[str]:
    return [value] if isinstance(value, str) else value


def token_answer(workload: Workload, token: str, data: str) -> str:
    """What an ERC-20 token of the workload answers to a call.

    Raises:
        Refused: it is no token, or has no such function.
    """
    market = workload.markets.get(token.lower())
    if market is not None:
        match data[:10]:
            case "0x313ce567":
                return f"0x{DECIMALS:064x}"
            case "0x06fdde03":
                return f"0x{32:064x}{string_words(market_name(market))}"
            case "0x95d89b41":
                return f"0x{32:064x}{string_words(market_symbol(market))}"
            case "0x18160ddd":
                return f"0x{SUPPLY:064x}"
    raise Refused(3, "execution reverted")


class HttpServer(asyncio.Protocol):
    """As much of HTTP/1.1 as JSON-RPC clients use: POST with a Content-Length, kept alive.

    Args:
        chain: whose answers to send.
    """

    def __init__(self, chain: ReplayChain) -> None:
        self._chain = chain
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        own: socket.socket = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._received += data
        while True:
            head, found, _ = self._received.partition(b"\r\n\r\n")
            length = content_length(head)
            start = len(head) + len(found)
            if not found or len(self._received) < start + length:
                return
            body = bytes(self._received[start : start + length])
            del self._received[: start + length]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        pieces = self._chain.reply(orjson.loads(body))
        size = sum(map(len, pieces))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        small: Pieces = [head]
        for piece in pieces:
            if len(piece) >= LARGE_BYTES:
                self._transport.write(b"".join(small))
                self._transport.write(piece)
                small = []
            else:
                small.append(piece)
        self._transport.write(b"".join(small))


def content_length(head: bytes | bytearray) -> int:
    """Of a request; 0 if it does not say."""
    for line in bytes(head).split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


class Heads:
    """Subscriptions to newHeads.

    Args:
        chain: the chain that grows.
        interval_s: between two heads; 0: it does not grow.
    """

    def __init__(self, chain: ReplayChain, interval_s: float) -> None:
        self._chain = chain
        self._interval_s = interval_s
        self._subscribers: set[ServerConnection] = set()

    async def serve(self, peer: ServerConnection) -> None:
        """One WebSocket: calls like any others, and `eth_subscribe`."""
        try:
            async for message in peer:
                call = orjson.loads(message)
                if isinstance(call, dict) and call["method"] == "eth_subscribe":
                    reply = orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "result": "0x1"})
                    await peer.send(reply.decode())
                    self._subscribers.add(peer)
                else:
                    await peer.send(b"".join(self._chain.reply(call)).decode())
        except ConnectionClosed:
            pass
        finally:
            self._subscribers.discard(peer)

    async def grow(self) -> None:
        """Release a block at each interval, and tell the subscribers."""
        await self._chain.live.wait()
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval_s
        while self._interval_s:
            await asyncio.sleep(due - loop.time())
            due += self._interval_s
            if not self._chain.release():
                return
            params = {"subscription": "0x1", "result": self._chain.head(self._chain.tip)}
            frame = orjson.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}).decode()
            for peer in list(self._subscribers):
                await peer.send(frame)


async def replay(workload: Workload, behaviour: Behaviour, port: int) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    chain = ReplayChain(workload, behaviour)
    heads = Heads(chain, behaviour.interval_ms / 1000)
    server = await loop.create_server(lambda: HttpServer(chain), "127.0.0.1", port)
    async with server, serve(heads.serve, "127.0.0.1", 0) as sockets:
        ports = [listening.sockets[0].getsockname()[1] for listening in (server, sockets.server)]
        print("Replaying on http://127.0.0.1:{} ws://127.0.0.1:{}".format(*ports), flush=True)
        await heads.grow()
        await asyncio.Event().wait()


def start_replay(shape: Shape, behaviour: Behaviour, cache: str) -> tuple[Child, str, str]:
    """A replay node in a process of its own; the addresses of its HTTP and WebSocket ports."""
    options = {
        "trades": shape.trades,
        "markets": shape.markets,
        "trades-per-block": shape.trades_per_block,
        "seed": shape.seed,
        "skew": shape.skew,
        "idle": shape.idle,
        "template": shape.template,
        "cache": cache,
        "block-s": behaviour.block_s,
        "tail": behaviour.tail,
        "finality": behaviour.finality,
        "tip-time": behaviour.tip_time,
        "most-logs": behaviour.most_logs,
        "interval-ms": behaviour.interval_ms,
        "fork-every": behaviour.fork_every,
        "fork-depth": behaviour.fork_depth,
        **({} if behaviour.tip is None else {"start-live-at": behaviour.tip}),
    }
    command = [sys.executable, "-m", "bench.replay"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command += [] if behaviour.receipts else ["--no-receipts"]
    child = Child("replay", command, ready=READY)
    http_url, ws_url = child.found.split()
    return child, http_url, ws_url


def measure(shape: Shape, cache: str) -> str:
    """How long a reply of 200 blocks takes, request to last byte, and a batch of their headers."""
    child, http_url, _ = start_replay(shape, Behaviour(tip_time=int(time.time())), cache)
    with child:
        connection = http.client.HTTPConnection(http_url.removeprefix("http://"))
        last = min(MEASURED_BLOCKS, shape.blocks)
        logs = call_of("eth_getLogs", {"fromBlock": "0x1", "toBlock": hex(last)})
        headers = [call_of("eth_getBlockByNumber", hex(number), NO_BODIES) for number in range(1, 101)]
        lines = []
        for name, request in ((f"logs of {last} blocks", logs), ("100 headers", headers)):
            milliseconds, size = timed(connection, request)
            lines.append(
                f"{name}: {statistics.median(milliseconds):.1f} ms (least {min(milliseconds):.1f}), "
                f"{size / 1e6:.1f} MB"
            )
        return "\n".join(lines)


def call_of(method: str, *params: Any) -> dict[str, Any]:  # noqa: ANN401 - params of any method
    """A JSON-RPC call."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def timed(connection: http.client.HTTPConnection, request: object) -> tuple[list[float], int]:
    """Milliseconds of repeated requests, and bytes of the reply."""
    milliseconds, size = [], 0
    buffer = bytearray(1 << 20)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        connection.request("POST", "/", json.dumps(request))
        with connection.getresponse() as response:
            size = 0
            while count := response.readinto(buffer):
                size += count
        milliseconds.append((time.perf_counter() - started) * 1000)
    return milliseconds, size


def main() -> None:
    """Serve, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    default = Behaviour()
    parser.add_argument("--port", type=int, default=0, help="of HTTP; 0: a free one")
    parser.add_argument("--block-s", type=float, default=default.block_s, help="chain time between blocks")
    parser.add_argument("--tail", type=int, default=default.tail, help="empty blocks after the last trade")
    parser.add_argument("--finality", type=int, default=default.finality)
    parser.add_argument(
        "--tip-time", type=int, default=int(time.time()), help="of the first tip, Unix seconds"
    )
    parser.add_argument("--most-logs", type=int, default=0, help="refuse replies with more; 0: never")
    parser.add_argument("--no-receipts", action="store_true")
    parser.add_argument("--start-live-at", type=int, help="the first tip; by default the last block")
    parser.add_argument("--interval-ms", type=float, default=0, help="between two new blocks")
    parser.add_argument("--fork-every", type=int, default=0, help="blocks between two forks; 0: none")
    parser.add_argument("--fork-depth", type=int, default=default.fork_depth)
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    shape = shape_of(arguments)
    workload = Workload.open(shape, arguments.cache)
    if arguments.measure:
        print(measure(shape, str(arguments.cache)))
        return
    behaviour = Behaviour(
        arguments.block_s,
        arguments.tail,
        arguments.finality,
        arguments.start_live_at,
        arguments.tip_time,
        arguments.most_logs,
        not arguments.no_receipts,
        arguments.interval_ms,
        arguments.fork_every,
        arguments.fork_depth,
    )
    try:
        asyncio.run(replay(workload, behaviour, arguments.port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

"""The replay node with what other indexers ask for beside.

    .venv/bin/python -m bench.peers.node --trades 100000

* Blocks with whole transactions, if the second parameter says so.
* Logs by emitter and first topic from an index: parsing every log for each filter would measure the node.
* A bloom filter that lets everything pass, where a block has logs.
* `net_version`, and `peers_calls`: by method, how often it was asked for and when first, in Unix seconds.

HTTP only. The chain stands still.
"""

import argparse
import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from bench.replay import (
    CHAIN_ID,
    Behaviour,
    HttpServer,
    Pieces,
    Refused,
    ReplayChain,
    listed,
)
from bench.workload import Workload, add_arguments, address, block_hash, shape_of

FULL_BLOOM: Final = "0x" + "ff" * 256
CALLS: Final = "peers_calls"
_TOPIC_START: Final = b'"topics":["'
_TOPIC_LENGTH: Final = 66
_ADDRESS: Final = slice(len('{"address":"'), len('{"address":"') + 42)
_INPUT: Final = "0x" + "ab" * 68
_WORD: Final = "0x" + "1f" * 32


class PeersChain(ReplayChain):
    """Answers what other indexers ask for.

    Args:
        workload: what to serve.
        behaviour: how.
    """

    def __init__(self, workload: Workload, behaviour: Behaviour) -> None:
        super().__init__(workload, behaviour)
        self._logs_of = [split(listed(workload.logs(number, number))) for number in range(self.last + 1)]
        self._whole: dict[int, bytes] = {}
        self.calls: dict[str, list[float]] = {}

    def _result(self, method: str, params: Sequence[Any]) -> Pieces:
        if method == CALLS:
            return [orjson.dumps(self.calls)]
        self.calls.setdefault(method, [0, time.time()])[0] += 1
        if method == "net_version":
            return [b'"%d"' % CHAIN_ID]
        if method == "eth_getBlockByNumber" and params[1]:
            return [self._whole_block(self._number(params[0]))]
        return super()._result(method, params)

    def _whole_block(self, number: int | None) -> bytes:
        """A block with its transactions."""
        if number is None or number > self.tip:
            return b"null"
        if number not in self._whole:
            hashes = orjson.loads(listed(self._workload.hashes(number)))
            transactions = [transaction(one, index, number) for index, one in enumerate(hashes)]
            self._whole[number] = orjson.dumps({**self.head(number), "transactions": transactions})
        return self._whole[number]

    def head(self, number: int) -> dict[str, Any]:
        """A block's header."""
        fields = super().head(number)
        return {**fields, "logsBloom": FULL_BLOOM} if self._workload.count(number, number) else fields

    def _logs(self, wanted: dict[str, Any]) -> Pieces:
        if "blockHash" in wanted:
            return super()._logs(wanted)
        emitters = allowed(wanted.get("address"))
        first_topic, *others = wanted.get("topics") or [None]
        if any(other is not None for other in others):
            raise Refused(-32602, "filters by the first topic only")
        topics = allowed(first_topic)
        bounds = (self._number(wanted.get(name, "latest")) for name in ("fromBlock", "toBlock"))
        first, last = (self.tip if bound is None else bound for bound in bounds)
        most = self._behaviour.most_logs
        found = [
            log
            for logs in self._logs_of[first : last + 1]
            for emitter, topic, log in logs
            if (emitters is None or emitter in emitters) and (topics is None or topic in topics)
        ]
        if most and len(found) > most:
            raise Refused(-32005, f"query returned more than {most} results")
        return [b"[", b",".join(found), b"]"]


def split(logs: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Emitter, first topic and JSON of each log of a block."""
    found = []
    for log in logs[1:-1].split(b',{"address"'):
        if log:
            whole = log if log.startswith(b"{") else b'{"address"' + log
            topic = whole.index(_TOPIC_START) + len(_TOPIC_START)
            found.append((whole[_ADDRESS], whole[topic : topic + _TOPIC_LENGTH], whole))
    return found


def allowed(value: str | Iterable[str] | None) -> set[bytes] | None:
    """What a filter lets pass; None: everything."""
    if value is None:
        return None
    return {one.lower().encode() for one in ([value] if isinstance(value, str) else value)}


def transaction(own_hash: str, index: int, number: int) -> dict[str, Any]:
    """A transaction of a block; only its hash and place mean something."""
    return {
        "hash": own_hash,
        "blockHash": block_hash(number),
        "blockNumber": hex(number),
        "transactionIndex": hex(index),
        "from": address("sender", index),
        "to": address("router"),
        "input": _INPUT,
        "value": "0x2386f26fc10000",
        "nonce": hex(number),
        "gas": "0x493e0",
        "gasPrice": "0x7",
        "maxFeePerGas": "0x7",
        "maxPriorityFeePerGas": "0x0",
        "type": "0x2",
        "chainId": hex(CHAIN_ID),
        "accessList": [],
        "v": "0x0",
        "yParity": "0x0",
        "r": _WORD,
        "s": _WORD,
    }


async def serve(chain: PeersChain, port: int) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpServer(chain), "127.0.0.1", port)
    async with server:
        print(f"Replaying on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--tip-time", type=int, default=int(time.time()), help="Unix seconds")
    parser.add_argument("--most-logs", type=int, default=0, help="refuse replies with more; 0: never")
    arguments = parser.parse_args()
    workload = Workload.open(shape_of(arguments), arguments.cache)
    chain = PeersChain(workload, Behaviour(tip_time=arguments.tip_time, most_logs=arguments.most_logs))
    try:
        asyncio.run(serve(chain, arguments.port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

"""A JSON-RPC node that serves a `LocalChain` over HTTP, and misbehaves as a test says."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from aiohttp import web
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from listener.domain.facts import BlockFacts, Fact, Graduated, Malformed, MarketAnnounced, Swapped
from listener.domain.value_objects import BlockRef
from tests.fakes.chain import LocalChain

CREATED_TOPIC: Final = "0x" + keccak(text="CurveCreated(address,address,address,string,string)").hex()
TRADE_TOPIC: Final = (
    "0x" + keccak(text="Trade(address,address,bool,uint256,uint256,uint256,uint256,uint256)").hex()
)
GRADUATED_TOPIC: Final = "0x" + keccak(text="Graduated(address,address,uint256,uint256)").hex()

DECIMALS, NAME, SYMBOL = "0x313ce567", "0x06fdde03", "0x95d89b41"

Json = dict[str, Any]


def word(value: int) -> str:
    """A 256-bit word without `0x`."""
    return f"{value:064x}"


def indexed(address: str) -> str:
    """An address as a topic."""
    return "0x" + "0" * 24 + address[2:]


def returned(kind: str, value: object) -> Json:
    """A contract's answer."""
    return {"result": "0x" + encode([kind], [value]).hex()}


def log_of(fact: Fact, block: BlockRef, transaction: int = 0) -> Json:
    """The log that states a fact, in the block's transaction of that index."""
    topics, data = _stated(fact)
    return {
        "address": fact.announcer if isinstance(fact, MarketAnnounced) else fact.source,
        "topics": topics,
        "data": data,
        "blockNumber": hex(block.number),
        "blockHash": block.hash,
        "transactionHash": fact.tx_hash,
        "transactionIndex": hex(transaction),
        "logIndex": hex(fact.log_index),
        "removed": False,
    }


def logs_of(facts: BlockFacts) -> list[Json]:
    """The logs that state a block's facts, its transactions in the order of their first log."""
    places = {tx: place for place, tx in enumerate(dict.fromkeys(fact.tx_hash for fact in facts.facts))}
    return [log_of(fact, facts.block, places[fact.tx_hash]) for fact in facts.facts]


def _stated(fact: Fact) -> tuple[list[str], str]:
    match fact:
        case MarketAnnounced():
            data = "0x" + encode(["string", "string"], ["a name", "A"]).hex()
            return [CREATED_TOPIC, *map(indexed, (fact.token, fact.source, fact.creator))], data
        case Swapped():
            assert fact.market is not None
            assert fact.reserves is not None
            numbers = (int(fact.is_buy), fact.base, fact.quote, fact.fee or 0, *fact.reserves)
            return [TRADE_TOPIC, indexed(fact.market), indexed(fact.trader)], "0x" + "".join(
                map(word, numbers)
            )
        case Graduated():
            assert fact.market is not None
            successor = fact.successor or "0x" + "0" * 40
            liquidity = "".join(map(word, fact.liquidity or (1, 2)))
            return [GRADUATED_TOPIC, indexed(fact.market), indexed(successor)], "0x" + liquidity
        case Malformed():
            return [TRADE_TOPIC], "0x"


def bloom_of(logs: list[Json]) -> str:
    """The logs bloom of a block, bit by bit as the yellow paper has it."""
    bloom = bytearray(256)
    for log in logs:
        for value in (log["address"], *log["topics"]):
            digest = keccak(hexstr=value)
            for first, second in zip(digest[0:6:2], digest[1:6:2], strict=True):
                bit = (first << 8 | second) & 2047
                bloom[255 - bit // 8] |= 1 << bit % 8
    return "0x" + bloom.hex()


NO_BLOOM: Final = "0x" + "00" * 256
FULL_BLOOM: Final = "0x" + "ff" * 256


@dataclass(slots=True)
class Raw:
    """A raw HTTP answer, or none."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0


@dataclass(slots=True)
class FakeNode:
    """The node.

    Attributes:
        behind: how many of the newest blocks it does not know yet.
        raw: raw answers to the requests to come; None: an honest one.
        spoil: changes the answer to one call: method, parameters and honest answer in, answer out.
        bloom: what headers say instead of the logs' bloom; None: the right one.
        receipts: whether they are offered for whole blocks, one by one, or not at all.
        lose: what `eth_getLogs` leaves of the logs, for the next `lose_calls` calls.
        most_logs: `eth_getLogs` cuts longer answers there, and says nothing.
        final: how many blocks below the tip `finalized` is; None: the tag is not known.
        contracts: what `eth_call` answers, by address and selector.
        asked: method and parameters of every call.
    """

    chain: LocalChain
    behind: int = 0
    raw: deque[Raw | None] = field(default_factory=deque)
    spoil: Callable[[str, list[Any], Json], Json] = lambda _method, _params, answer: answer
    bloom: str | None = None
    receipts: Literal["block", "each", "none"] = "block"
    lose: Callable[[list[Json]], list[Json]] = lambda logs: logs
    lose_calls: int = 1_000_000
    most_logs: int = 1_000_000
    final: int | None = 2
    contracts: dict[tuple[str, str], Json] = field(default_factory=dict)
    asked: list[tuple[str, list[Any]]] = field(default_factory=list)
    requests: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one HTTP request."""
        self.requests += 1
        calls = orjson.loads(await request.read())
        raw = self.raw.popleft() if self.raw else None
        if raw is not None:
            await asyncio.sleep(raw.delay_s)
            return web.Response(body=raw.body, status=raw.status, headers=raw.headers)
        answer = [self._answer(call) for call in calls] if isinstance(calls, list) else self._answer(calls)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    def _answer(self, call: Json) -> Json:
        method, params = call["method"], call["params"]
        self.asked.append((method, params))
        answer = self.spoil(method, params, self._honest(method, params))
        return {"jsonrpc": "2.0", "id": call["id"], **answer}

    @property
    def _known(self) -> list[BlockFacts]:
        return self.chain.blocks[: len(self.chain.blocks) - self.behind]

    def _honest(self, method: str, params: list[Any]) -> Json:  # noqa: PLR0911 - one a method
        match method:
            case "eth_chainId":
                return {"result": hex(self.chain.chain_id)}
            case "eth_getBlockByNumber" if params[0] == "finalized" and self.final is None:
                return {"error": {"code": -32602, "message": "hex string without 0x prefix"}}
            case "eth_getBlockByNumber":
                number = self._number(params[0])
                return {"result": self._header(self._known[number]) if number < len(self._known) else None}
            case "eth_getBlockByHash":
                found = [facts for facts in self._known if facts.block.hash == params[0]]
                return {"result": self._header(found[0]) if found else None}
            case "eth_getLogs":
                return self._logs(params[0])
            case "eth_getBlockReceipts" if self.receipts == "block":
                found = [facts for facts in self._known if facts.block.hash == params[0]]
                return {"result": self._receipts(found[0]) if found else None}
            case "eth_getTransactionReceipt" if self.receipts != "none":
                receipts = [receipt for facts in self._known for receipt in self._receipts(facts)]
                return {"result": next((r for r in receipts if r["transactionHash"] == params[0]), None)}
            case "eth_call":
                return self._call(params[0])
            case "eth_getCode":
                deployed = self.chain.codes.get(params[0])
                return {"result": "0x60" if deployed is not None and int(params[1], 16) >= deployed else "0x"}
        return {"error": {"code": -32601, "message": f"the method {method} does not exist/is not available"}}

    def _number(self, tag: str) -> int:
        newest = len(self._known) - 1
        if tag == "finalized":
            return max(newest - (self.final or 0), 0)
        return newest if tag == "latest" else int(tag, 16)

    def _header(self, facts: BlockFacts) -> Json:
        block = facts.block
        logs = [log_of(fact, block) for fact in facts.facts]
        return {
            "number": hex(block.number),
            "hash": block.hash,
            "parentHash": block.parent_hash,
            "timestamp": hex(block.timestamp // 1000),
            "logsBloom": bloom_of(logs) if self.bloom is None else self.bloom,
            "transactions": list(dict.fromkeys(fact.tx_hash for fact in facts.facts)),
        }

    def _receipts(self, facts: BlockFacts) -> list[Json]:
        logs = logs_of(facts)
        return [
            {
                "transactionHash": each,
                "blockHash": facts.block.hash,
                "status": "0x1",
                "logs": [log for log in logs if log["transactionHash"] == each],
            }
            for each in dict.fromkeys(log["transactionHash"] for log in logs)
        ]

    def _logs(self, wanted: Json) -> Json:
        if "blockHash" in wanted:
            blocks = [facts for facts in self._known if facts.block.hash == wanted["blockHash"]]
            if not blocks:
                return {"error": {"code": -32000, "message": "unknown block"}}
        else:
            first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
            blocks = self._known[first : last + 1]
        topics = wanted["topics"][0]
        logs = [log for facts in blocks for log in logs_of(facts)]
        own = [log for log in logs if log["topics"][0] in topics]
        if self.lose_calls > 0:
            self.lose_calls -= 1
            own = self.lose(own)
        return {"result": own[: self.most_logs]}

    def _call(self, call: Json) -> Json:
        token, selector = call["to"], call["data"]
        if (token, selector) in self.contracts:
            return self.contracts[token, selector]
        info = self.chain.tokens.get(token)
        if info is None:
            return {"error": {"code": 3, "message": "execution reverted", "data": "0x"}}
        if selector == DECIMALS:
            return returned("uint8", info.decimals)
        return returned("string", info.name if selector == NAME else info.symbol)


@asynccontextmanager
async def serving(node: FakeNode) -> AsyncIterator[str]:
    """Serve a node; its URL."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{key:.*}", node.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()

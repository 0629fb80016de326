"""Nodes that serve a timeline over JSON-RPC, and the link to them: `HttpRpc`'s surface without HTTP."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
import orjson
from eth_utils.crypto import keccak

from listener.application.errors import NodeSlow, NodeUnavailable
from listener.domain.facts import BlockFacts
from listener.infrastructure.blockchain.rpc import Reply, RpcError, result
from tests.fakes.node import DECIMALS, NAME, Json, log_of, returned
from tests.simulation.loop import Process
from tests.simulation.timeline import Timeline

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

TIMEOUT_S: Final = 10.0
NULL: Final = msgspec.Raw(b"null")
UNKNOWN: Final = Reply(error=RpcError(-32000, "unknown block"))

Missing = Literal["none", "some", "all", "last"]
Bloom = Literal["true", "zero", "full"]


@dataclass(frozen=True)
class NodeFaults:
    """What may go wrong with the nodes, each a share of requests unless it says otherwise.

    Attributes:
        slow: answered after seconds.
        silent: not answered in time.
        refuse: HTTP 429 or 5xx.
        lag_s: the second node knows what the first knew so long ago; 0: there is one node.
        orphans: nodes answer for blocks of losing forks when asked by hash.
        missing: logs that `eth_getLogs` leaves out of a new block,
        missing_s: for so long, unless it is final earlier.
        receipts: share of requests for receipts that come too early.
        bloom: what headers say instead of the truth, for ever.
        finalized: the node calls a block final that lies so far below its tip; None: it knows no such thing.
    """

    slow: float = 0
    silent: float = 0
    refuse: float = 0
    lag_s: float = 0
    orphans: bool = False
    missing: Missing = "none"
    missing_s: float = 0
    receipts: float = 0
    bloom: Bloom = "true"
    finalized: int | None = None


class Pages:
    """What is said of blocks, encoded once for all runs on a timeline."""

    def __init__(self) -> None:
        self._headers: dict[tuple[str, Bloom], msgspec.Raw] = {}
        self._logs: dict[str, list[bytes]] = {}
        self._receipts: dict[str, msgspec.Raw] = {}
        self._bits: dict[str, int] = {}

    def header(self, facts: BlockFacts, bloom: Bloom) -> msgspec.Raw:
        """A block's header."""
        block = facts.block
        page = self._headers.get((block.hash, bloom))
        if page is None:
            bits = {"true": self._bloom(facts), "zero": 0, "full": 2**2048 - 1}[bloom]
            page = self._headers[block.hash, bloom] = _raw(
                {
                    "number": hex(block.number),
                    "hash": block.hash,
                    "parentHash": block.parent_hash,
                    "timestamp": hex(block.timestamp // 1000),
                    "logsBloom": f"0x{bits:0512x}",
                    "transactions": _transactions(facts),
                }
            )
        return page

    def logs(self, facts: BlockFacts) -> list[bytes]:
        """A block's logs, each by itself."""
        pages = self._logs.get(facts.block.hash)
        if pages is None:
            logs = [log_of(fact, facts.block) for fact in facts.facts]
            pages = self._logs[facts.block.hash] = list(map(orjson.dumps, logs))
        return pages

    def receipts(self, facts: BlockFacts) -> msgspec.Raw:
        """A block's receipts."""
        page = self._receipts.get(facts.block.hash)
        if page is None:
            page = self._receipts[facts.block.hash] = _raw(
                [
                    {
                        "transactionHash": each,
                        "blockHash": facts.block.hash,
                        "logs": [log_of(f, facts.block) for f in facts.facts if f.tx_hash == each],
                    }
                    for each in _transactions(facts)
                ]
            )
        return page

    def _bloom(self, facts: BlockFacts) -> int:
        """As the yellow paper says: three bits for each address and topic."""
        bloom = 0
        for fact in facts.facts:
            log = log_of(fact, facts.block)
            for value in (log["address"], *log["topics"]):
                if value not in self._bits:
                    digest = keccak(hexstr=value)
                    places = [int.from_bytes(digest[at : at + 2]) % 2048 for at in (0, 2, 4)]
                    self._bits[value] = sum(1 << place for place in set(places))
                bloom |= self._bits[value]
        return bloom


class SimNodes:
    """The nodes behind one address."""

    def __init__(self, world: "World", pages: Pages) -> None:
        self._world = world
        self._timeline: Timeline = world.timeline
        self._pages = pages
        self._faults = world.plan.faults.node

    def answer(self, method: str, params: Sequence[Any], seen_s: float) -> Reply:  # noqa: PLR0911 - one a method
        """What a node says that knows what happened up to `seen_s`."""
        chain = self._timeline.at(seen_s)
        match method:
            case "eth_getBlockByNumber":
                return self._header(self._by_tag(chain, params[0]))
            case "eth_getBlockByHash":
                return self._header(self._by_hash(chain, params[0], seen_s))
            case "eth_getLogs":
                return self._logs(chain, params[0], seen_s)
            case "eth_getBlockReceipts":
                found = self._by_hash(chain, params[0], seen_s)
                if found is None or self._world.happens(self._faults.receipts):
                    return Reply(result=NULL)
                return Reply(result=self._pages.receipts(found))
            case "eth_chainId":
                return Reply(result=_raw(hex(self._timeline.local.chain_id)))
            case "eth_call":
                return self._call(params[0])
            case "eth_getCode":
                deployed = self._timeline.local.codes.get(params[0])
                there = deployed is not None and int(params[1], 16) >= deployed
                return Reply(result=_raw("0x60" if there else "0x"))
        return Reply(error=RpcError(-32601, f"the method {method} does not exist/is not available"))

    def _header(self, facts: BlockFacts | None) -> Reply:
        return Reply(result=self._pages.header(facts, self._faults.bloom) if facts else NULL)

    def _by_tag(self, chain: Sequence[BlockFacts], tag: str) -> BlockFacts | None:
        if tag == "latest":
            return chain[-1]
        if tag == "finalized":
            depth = self._faults.finalized
            return None if depth is None else chain[max(len(chain) - 1 - depth, 0)]
        number = int(tag, 16)
        return chain[number] if number < len(chain) else None

    def _by_hash(self, chain: Sequence[BlockFacts], wanted: str, seen_s: float) -> BlockFacts | None:
        born_s, facts = self._timeline.born.get(wanted, (0, None))
        if facts is None or born_s > seen_s:
            return None
        number = facts.block.number
        canonical = number < len(chain) and chain[number].block.hash == wanted
        return facts if canonical or self._faults.orphans else None

    def _logs(self, chain: Sequence[BlockFacts], wanted: Json, seen_s: float) -> Reply:
        if "blockHash" in wanted:
            found = self._by_hash(chain, wanted["blockHash"], seen_s)
            if found is None:
                return UNKNOWN
            blocks: Sequence[BlockFacts] = [found]
        else:
            first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
            if last >= len(chain):
                return UNKNOWN
            blocks = chain[first : last + 1]
        logs = [log for facts in blocks for log in self._given(facts, seen_s)]
        return Reply(result=msgspec.Raw(b"[" + b",".join(logs) + b"]"))

    def _given(self, facts: BlockFacts, seen_s: float) -> Sequence[bytes]:
        """The logs of a block that the node gives away already; of final blocks, all of them."""
        logs, missing = self._pages.logs(facts), self._faults.missing
        if not logs or missing == "none" or not self._world.faulty:
            return logs
        above = len(self._timeline.at(self._world.loop.time())) - 1 - facts.block.number
        if above >= self._world.plan.finality:
            return logs
        if seen_s - self._timeline.born[facts.block.hash][0] > self._faults.missing_s:
            return logs
        if missing == "all":
            return ()
        return logs[:-1] if missing == "last" else logs[::2]

    def _call(self, call: Json) -> Reply:
        info = self._timeline.local.tokens.get(call["to"])
        if info is None:
            return Reply(error=RpcError(3, "execution reverted"))
        selector = call["data"]
        if selector == DECIMALS:
            answer = returned("uint8", info.decimals)
        else:
            answer = returned("string", info.name if selector == NAME else info.symbol)
        return Reply(result=_raw(answer["result"]))


class SimRpc:
    """`HttpRpc` of one process."""

    host: Final = "sim"

    def __init__(self, process: Process, world: "World") -> None:
        self._process = process
        self._world = world
        self._rng = Random(world.rng.random())
        self._views: Iterator[float] = self._alternate(world.plan.faults.node.lag_s)

    async def call(self, method: str, params: Sequence[object], kind: type[T]) -> T | None:
        """See `HttpRpc.call`."""
        return result((await self.batch([(method, params)]))[0], method, kind)

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Reply]:
        """See `HttpRpc.batch`: one request, answered by one node."""
        world, faults, draw = self._world, self._world.plan.faults.node, self._rng.random
        world.check_alive(self._process)
        answered: asyncio.Future[list[Reply]] = world.loop.create_future()
        delay_s = 0.01 + 0.1 * draw()
        if world.faulty:
            if draw() < faults.refuse:
                status = "429" if draw() < 0.5 else "503"
                world.later(delay_s, fail, answered, NodeUnavailable(f"sim: HTTP {status}"))
                return await answered
            if draw() < faults.silent:
                world.later(TIMEOUT_S, fail, answered, NodeSlow(f"sim: no answer in {TIMEOUT_S} s"))
                return await answered
            if draw() < faults.slow:
                delay_s += 4 * draw()
        world.later(delay_s, self._serve, calls, answered)
        return await answered

    def _serve(self, calls: Sequence[tuple[str, Sequence[object]]], answered: "asyncio.Future[Any]") -> None:
        world = self._world
        if self._process.dead or answered.done():
            return
        lag_s = next(self._views) if world.faulty else 0
        seen_s = world.loop.time() - lag_s
        replies = [world.nodes.answer(method, params, seen_s) for method, params in calls]
        world.note("node", calls[-1][0], calls[-1][1][:1], lag_s)
        answered.set_result(replies)

    def _alternate(self, lag_s: float) -> Iterator[float]:
        """Which node is asked: now one, now the other."""
        while True:
            for view in (0.0, lag_s):
                for _ in range(self._rng.choice((1, 1, 2, 4, 8))):
                    yield view


def fail(answered: "asyncio.Future[Any]", error: Exception) -> None:
    """Answer with an error, if anybody still waits."""
    if not answered.done():
        answered.set_exception(error)
        answered.exception()  # the dead do not look


def _transactions(facts: BlockFacts) -> list[str]:
    return list(dict.fromkeys(fact.tx_hash for fact in facts.facts))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(value))

"""Contract of `ChainSource`: a fake, and JSON-RPC against a node that can be told to misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest

from listener.application.errors import (
    InconsistentReply,
    InvalidConfiguration,
    ListenerError,
    NodeBehind,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
    Retryable,
)
from listener.application.interfaces import ChainIdentity, ChainSource
from listener.domain.entities import TokenInfo
from listener.domain.facts import BlockFacts, Malformed
from listener.domain.value_objects import Address, BlockRef
from listener.infrastructure.blockchain import rpc as rpc_module
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import BondingCurve
from tests.fakes.build import (
    CHAIN_ID,
    FACTORY,
    STRANGER,
    created,
    digest,
    graduate,
    malformed,
    swap,
    token,
    token_info,
)
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.node import DECIMALS, NAME, SYMBOL, FakeNode, Json, Raw, returned, serving

TOKEN = Address(token(0))
Call = Callable[[ChainSource], Any]


class Bench:
    """A source and the chain behind it."""

    def __init__(self, chain: LocalChain, source: ChainSource, backing: FakeChain | FakeNode) -> None:
        self.chain = chain
        self.source = source
        self._backing = backing

    def lag(self, blocks: int) -> None:
        """The node does not know the newest blocks."""
        self._backing.behind = blocks


def chain_of_everything() -> LocalChain:
    """Each kind of fact, empty blocks, and a block with logs of several."""
    chain = LocalChain()
    chain.mine(created(0), swap(0, 2**256 - 1, 1, fee=2**255))
    chain.mine()
    chain.mine(swap(0, 3, 7, buy=False), graduate(0), graduate(1, ""), malformed(STRANGER))
    chain.mine(created(1, tx="a"), swap(1, tx="a"), swap(1, tx="b"))
    chain.mine_empty(3)
    chain.codes[FACTORY] = 3
    return chain


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    """A node of a chain of everything."""
    return FakeNode(chain_of_everything())


@pytest.fixture
async def source(node: FakeNode) -> AsyncIterator[RpcChainSource]:
    """The real adapter on the node."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        yield RpcChainSource(rpc, BondingCurve.decoders)
        await rpc.close()


@pytest.fixture(params=["fake", "rpc"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Both kinds of source."""
    chain = chain_of_everything()
    if request.param == "fake":
        fake = FakeChain(chain)
        yield Bench(chain, fake, fake)
        return
    node = FakeNode(chain)
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        yield Bench(chain, RpcChainSource(rpc, BondingCurve.decoders), node)
        await rpc.close()


def facts_of(found: BlockFacts) -> list[object]:
    """Facts, without the wording of what did not decode."""
    return [fact._replace(reason="") if isinstance(fact, Malformed) else fact for fact in found.facts]


def same(found: BlockFacts, expected: BlockFacts) -> bool:
    """Whether two blocks say the same."""
    return found.block == expected.block and facts_of(found) == facts_of(expected)


async def test_a_chain_is_told_by_its_id_and_genesis(bench: Bench) -> None:
    """Chain id and hash of block 0."""
    assert await bench.source.identity() == ChainIdentity(CHAIN_ID, bench.chain.blocks[0].block.hash)


async def test_the_tip_is_the_newest_block(bench: Bench) -> None:
    """The tip moves with the chain, time in milliseconds."""
    assert await bench.source.tip() == bench.chain.tip
    bench.chain.mine()
    assert await bench.source.tip() == bench.chain.tip


async def test_blocks_are_found_by_number(bench: Bench) -> None:
    """Every block of the chain, and none that is not there yet."""
    for facts in bench.chain.blocks:
        assert await bench.source.block(facts.block.number) == facts.block
    with pytest.raises(NodeBehind):
        await bench.source.block(len(bench.chain.blocks))


async def test_facts_are_what_logs_say(bench: Bench) -> None:
    """Each block's facts, in log order, to the last unit; what does not decode is marked."""
    for expected in bench.chain.blocks:
        assert same(await bench.source.facts(expected.block), expected)


async def test_facts_of_an_orphaned_block_are_not_there(bench: Bench) -> None:
    """A block that was forked away, or never known, is not answered with nothing: the node is behind."""
    gone = bench.chain.tip
    bench.chain.fork(1)
    bench.chain.mine(swap(0))
    with pytest.raises(NodeBehind):
        await bench.source.facts(gone)


async def test_a_lagging_node_says_so(bench: Bench) -> None:
    """What it does not know yet is an error and never an empty list."""
    bench.chain.mine(swap(0))
    bench.lag(2)
    assert (await bench.source.tip()).number == bench.chain.tip.number - 2
    with pytest.raises(NodeBehind):
        await bench.source.block(bench.chain.tip.number)
    with pytest.raises(NodeBehind):
        await bench.source.facts(bench.chain.tip)
    with pytest.raises(NodeBehind):
        await bench.source.facts_between(1, bench.chain.tip.number)


@pytest.mark.parametrize(("first", "last"), [(1, 7), (1, 1), (2, 2), (2, 3), (5, 7), (0, 4)])
async def test_ranges_have_what_matters(bench: Bench, first: int, last: int) -> None:
    """Blocks with facts, ascending, and in any case the first and the last."""
    found = await bench.source.facts_between(first, last)
    numbers = [facts.block.number for facts in found]
    expected = [f for f in bench.chain.blocks[first : last + 1] if f.facts or f.block.number in {first, last}]
    assert numbers == [facts.block.number for facts in expected]
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


async def test_tokens_say_what_they_are(bench: Bench) -> None:
    """Decimals, name and symbol; one that cannot be read is absent."""
    bench.chain.tokens[Address(token(1))] = None
    found = await bench.source.tokens([Address(token(n)) for n in (0, 1, 2)])
    assert dict(found) == {token(0): token_info(0), token(2): token_info(2)}
    assert not await bench.source.tokens([])


@pytest.mark.parametrize("deployed", [0, 1, 4, 7])
async def test_a_deployment_is_found(bench: Bench, deployed: int) -> None:
    """The first block with code, wherever it lies."""
    bench.chain.codes[FACTORY] = deployed
    assert await bench.source.deployment_block(FACTORY) == deployed


async def test_no_contract_is_a_wrong_setting(bench: Bench) -> None:
    """Without code at the tip the address, or the chain, is wrong."""
    with pytest.raises(InvalidConfiguration):
        await bench.source.deployment_block(STRANGER)


EVERY_CALL: dict[str, Call] = {
    "identity": lambda source: source.identity(),
    "tip": lambda source: source.tip(),
    "block": lambda source: source.block(1),
    "facts": lambda source: source.facts(chain_of_everything().blocks[1].block),
    "facts_between": lambda source: source.facts_between(1, 7),
    "tokens": lambda source: source.tokens([TOKEN]),
    "deployment_block": lambda source: source.deployment_block(FACTORY),
}
every_call = pytest.mark.parametrize("call", EVERY_CALL.values(), ids=EVERY_CALL.keys())


@every_call
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
async def test_an_http_error_is_retryable(
    node: FakeNode, source: RpcChainSource, call: Call, status: int
) -> None:
    """Whatever a provider or a proxy answers instead of JSON, it may pass; the status is told."""
    node.raw.append(Raw(b"<html>no</html>", status))
    with pytest.raises(NodeUnavailable, match=f"HTTP {status}"):
        await call(source)


NONSENSE = {
    "nothing": b"",
    "text": b"upstream connect error",
    "null": b"null",
    "number": b"1",
    "empty object": b"{}",
    "empty list": b"[]",
    "list of nothing": b"[null]",
    "cut": b'{"jsonrpc":"2.0","id":1,"result":{"number":"0x1"',
    "not utf-8": b'{"id":1,"result":"\xff\xfe"}',
    "result null": b'{"jsonrpc":"2.0","id":1,"result":null}',
    "other id": b'[{"jsonrpc":"2.0","id":77777,"result":null}]',
    "wrong type": b'{"jsonrpc":"2.0","id":1,"result":[1,2,3]}',
    "error text": b'{"jsonrpc":"2.0","id":1,"error":"no"}',
    "error of null": b'{"jsonrpc":"2.0","id":1,"error":{"code":null,"message":null}}',
    "deep": b'{"id":1,"result":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@every_call
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE.keys())
async def test_a_nonsensical_reply_is_retryable(
    node: FakeNode, source: RpcChainSource, call: Call, body: bytes
) -> None:
    """A reply that is not what was asked for is an error of ours that may pass, never another."""
    node.raw.append(Raw(body))
    try:
        await call(source)
    except Retryable:
        return
    except InvalidConfiguration:
        assert call is EVERY_CALL["deployment_block"]
        return
    raise AssertionError("the reply was believed")


@every_call
async def test_a_slow_node_is_given_up(node: FakeNode, call: Call) -> None:
    """Every call has a time limit."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 0.1)
        node.raw.append(Raw(b"{}", delay_s=1))
        with pytest.raises(Retryable, match=r"0\.1"):
            await call(RpcChainSource(rpc, BondingCurve.decoders))
        await rpc.close()


@every_call
async def test_a_node_that_is_away_is_retryable(call: Call) -> None:
    """Nobody listens: the error names the host and nothing of the URL's path."""
    async with serving(FakeNode(LocalChain())) as url:
        gone = url
    rpc = HttpRpc(gone + "v3/secret-key", 2)
    with pytest.raises(NodeUnavailable) as raised:
        await call(RpcChainSource(rpc, BondingCurve.decoders))
    await rpc.close()
    assert "127.0.0.1" in str(raised.value)
    assert "secret-key" not in str(raised.value)


async def test_a_broken_transfer_is_retryable(node: FakeNode, source: RpcChainSource) -> None:
    """A body that is shorter than announced, or encoded as it is not, is no reply."""
    node.raw.append(Raw(b"not gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(NodeUnavailable):
        await source.tip()
    async with asyncio.timeout(5):
        server = await asyncio.start_server(_half_an_answer, "127.0.0.1", 0)
        rpc = HttpRpc(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 2)
        with pytest.raises(NodeUnavailable):
            await RpcChainSource(rpc, BondingCurve.decoders).tip()
        await rpc.close()
        server.close()
        await server.wait_closed()


async def _half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"id":1')
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_a_huge_reply_is_not_kept(
    node: FakeNode, source: RpcChainSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply is read up to a bound; beyond it a smaller range is asked for."""
    monkeypatch.setattr(rpc_module, "MAX_REPLY_BYTES", 100_000)
    node.raw.append(Raw(b'{"id":1,"result":[' + b" " * 300_000 + b"]}"))
    with pytest.raises(RangeTooLarge):
        await source.facts_between(1, 2)
    assert await source.tip() == node.chain.tip


def failing(method: str, code: int, message: str) -> Callable[[str, list[Any], Json], Json]:
    """One method answers with an error."""

    def spoil(asked: str, _params: list[Any], answer: Json) -> Json:
        return {"error": {"code": code, "message": message}} if asked == method else answer

    return spoil


TOO_LARGE = [
    (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
    (-32602, "range 1000000 exceeds limit of 10000"),
    (-32602, "query exceeds max block range 5000"),
    (-32602, "query exceeds max results 20000, retry with the range 1-100"),
    (-32614, "eth_getLogs is limited to a 10,000 range"),
    (-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range."),
    (
        -32600,
        "You can make eth_getLogs requests with up to a 500 block range. This range should work: [0x1, 0x2]",
    ),
    (-32600, "block range too high"),
    (-32000, "block range is larger than max block range, block range = 5120, max block range = 5000"),
    (-32000, "block range is bigger than maxBlockRange"),
    (-32000, "block range is too wide (maximum 1024)"),
    (-32000, "exceed maximum block range: 5000"),
    (-32000, "requested too many blocks from 1 to 5000, maximum is set to 2048"),
    (-32000, "Too many logs requested. Max logs per response is 20000."),
    (-32000, "Requested range exceeds maximum RPC range limit"),
]


@pytest.mark.parametrize(("code", "message"), TOO_LARGE)
async def test_refused_ranges_are_told_apart(
    node: FakeNode, source: RpcChainSource, code: int, message: str
) -> None:
    """Nodes word it freely: each of these asks for a smaller range, and says so."""
    node.spoil = failing("eth_getLogs", code, message)
    with pytest.raises(RangeTooLarge):
        await source.facts_between(1, 7)


@pytest.mark.parametrize("status", [400, 413])
async def test_refused_ranges_may_come_with_an_http_error(
    node: FakeNode, source: RpcChainSource, status: int
) -> None:
    """Some providers answer with an HTTP error whose body is the JSON-RPC error."""
    error = {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": -32614, "message": "eth_getLogs is limited to a 10,000 range"},
    }
    node.raw.append(Raw(orjson.dumps(error), status))
    with pytest.raises(RangeTooLarge):
        await source.facts_between(1, 7)


RATE_LIMITS = [
    (429, "Too Many Requests"),
    (-32005, "daily request count exceeded, request rate limited"),
    (-32005, "rate limit exceeded"),
    (-32029, "Too many requests, reason: call rate limit exhausted"),
    (-32000, "Your app has exceeded its compute units per second capacity."),
    (-32003, "monthly quota reached"),
    (-32000, "request throttled"),
]


@every_call
@pytest.mark.parametrize(("code", "message"), RATE_LIMITS)
async def test_a_rate_limit_is_waited_out(
    node: FakeNode, source: RpcChainSource, call: Call, code: int, message: str
) -> None:
    """It says nothing about the chain, a range, a token or a setting: try again later."""
    node.spoil = lambda _method, _params, _answer: {"error": {"code": code, "message": message}}
    with pytest.raises(NodeUnavailable):
        await call(source)


@pytest.mark.parametrize(
    "message", ["unknown block", "block not found", "header not found", "Block not found"]
)
async def test_an_unknown_block_is_a_node_behind(
    node: FakeNode, source: RpcChainSource, message: str
) -> None:
    """The usual words for a block that the node does not know."""
    node.spoil = failing("eth_getLogs", -32000, message)
    with pytest.raises(NodeBehind):
        await source.facts(node.chain.tip)


async def test_a_missing_method_is_fatal(node: FakeNode, source: RpcChainSource) -> None:
    """A node without logs is not the node we need, and will not become it."""
    node.spoil = failing("eth_getLogs", -32601, "the method eth_getLogs does not exist/is not available")
    with pytest.raises(NodeUnsuitable, match="eth_getLogs"):
        await source.facts_between(1, 2)


@every_call
async def test_an_unknown_error_is_retryable(node: FakeNode, source: RpcChainSource, call: Call) -> None:
    """Words nobody has seen yet count as passing."""
    node.spoil = lambda _method, _params, _answer: {"error": {"code": -32099, "message": "the dog ate it"}}
    try:
        await call(source)
    except Retryable:
        return
    except InvalidConfiguration:
        assert call is EVERY_CALL["deployment_block"]
        return
    raise AssertionError("the error was swallowed")


@pytest.mark.parametrize("message", ["batch requests are not supported", "rate limit exceeded"])
async def test_a_batch_may_be_answered_by_one_error(
    node: FakeNode, source: RpcChainSource, message: str
) -> None:
    """One error for a whole batch is that error for each of its calls."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
    node.raw.append(Raw(orjson.dumps(error)))
    with pytest.raises(NodeUnavailable, match=message):
        await source.facts(node.chain.tip)


async def test_replies_of_a_batch_may_be_out_of_order(node: FakeNode, source: RpcChainSource) -> None:
    """Replies are matched by id."""
    expected = await source.facts(node.chain.blocks[1].block)
    honest = node._answer
    ids = iter((3, 4))
    bodies = [
        honest(
            {"id": next(ids), "method": "eth_getBlockByHash", "params": [node.chain.blocks[1].block.hash]}
        ),
        honest({"id": next(ids), "method": "eth_getLogs", "params": [{**node.asked[1][1][0]}]}),
    ]
    node.raw.append(Raw(orjson.dumps(bodies[::-1])))
    assert await source.facts(node.chain.blocks[1].block) == expected


async def test_large_batches_are_split(node: FakeNode, source: RpcChainSource) -> None:
    """No request has more calls than providers take, and replies keep their order."""
    for _ in range(150):
        node.chain.mine(swap(0))
    node.requests = 0
    found = await source.facts_between(1, node.chain.tip.number)
    assert [facts.block.number for facts in found if facts.block.number > 7] == list(range(8, 158))
    assert node.requests == 1 + 2


def logs_become(change: Callable[[list[Json]], Any]) -> Callable[[str, list[Any], Json], Json]:
    """The node's logs are not what they should be."""

    def spoil(method: str, _params: list[Any], answer: Json) -> Json:
        return (
            {"result": change(answer["result"])} if method == "eth_getLogs" and "result" in answer else answer
        )

    return spoil


def with_field(name: str, value: object) -> Callable[[list[Json]], Any]:
    """The last log has another value in one field."""
    return lambda logs: [*logs[:-1], {**logs[-1], name: value}]


INCONSISTENT = {
    "another block's hash": with_field("blockHash", digest("other")),
    "another block's number": with_field("blockNumber", "0x2"),
    "out of order": lambda logs: logs[::-1],
    "twice": lambda logs: [*logs, logs[-1]],
    "number is no hex": with_field("blockNumber", "one"),
    "index is no hex": with_field("logIndex", "0xzz"),
    "index is empty": with_field("logIndex", ""),
    "index is negative": with_field("logIndex", "-0x1"),
}
INCOMPLETE = {
    "null": lambda _logs: None,
    "text": lambda _logs: "0x",
    "a log of nothing": lambda _logs: [{}],
    "pending": with_field("blockNumber", None),
    "topics of numbers": with_field("topics", [1, 2]),
}


@pytest.mark.parametrize(
    "change", [*INCONSISTENT.values(), *INCOMPLETE.values()], ids=[*INCONSISTENT, *INCOMPLETE]
)
async def test_logs_that_cannot_be_are_not_believed(
    node: FakeNode, source: RpcChainSource, change: Callable[[list[Json]], Any]
) -> None:
    """Logs of another block, out of order, doubled or incomplete: ask again, commit nothing."""
    node.spoil = logs_become(change)
    with pytest.raises(Retryable):
        await source.facts(node.chain.blocks[1].block)
    with pytest.raises(Retryable):
        await source.facts_between(1, 1)


@pytest.mark.parametrize("name", INCONSISTENT)
async def test_contradictions_are_called_so(node: FakeNode, source: RpcChainSource, name: str) -> None:
    """Two answers that contradict each other are told as that."""
    node.spoil = logs_become(INCONSISTENT[name])
    with pytest.raises(InconsistentReply):
        await source.facts(node.chain.blocks[1].block)


async def test_logs_beyond_the_range_are_not_believed(node: FakeNode, source: RpcChainSource) -> None:
    """A node that answers for other blocks than asked is not believed."""
    honest = node._honest(
        "eth_getLogs", [{"fromBlock": "0x1", "toBlock": "0x4", "topics": [[*BondingCurve.decoders]]}]
    )
    node.spoil = logs_become(lambda _logs: honest["result"])
    with pytest.raises(InconsistentReply):
        await source.facts_between(1, 3)
    with pytest.raises(InconsistentReply):
        await source.facts_between(2, 4)


async def test_logs_of_others_are_left_out(node: FakeNode, source: RpcChainSource) -> None:
    """A node that ignores the filter changes nothing: what is not ours says nothing."""

    def more(logs: list[Json]) -> list[Json]:
        foreign = {**logs[-1], "topics": [digest("Transfer")], "logIndex": "0x9"}
        return [*logs, foreign, {**foreign, "topics": [], "logIndex": "0xa"}]

    node.spoil = logs_become(more)
    expected = node.chain.blocks[1]
    assert same(await source.facts(expected.block), expected)


@pytest.mark.parametrize("removed", [True, None])
async def test_removed_is_ignored(node: FakeNode, source: RpcChainSource, *, removed: bool | None) -> None:
    """Clients differ in it: hashes decide."""
    node.spoil = logs_become(with_field("removed", removed))
    expected = node.chain.blocks[1]
    assert same(await source.facts(expected.block), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", "0x99"),
        ("number", "x"),
        ("number", "-0x1"),
        ("hash", digest("other")),
        ("hash", "0x12"),
        ("parentHash", digest("other")),
        ("parentHash", None),
        ("timestamp", "0x1"),
        ("timestamp", ""),
    ],
)
async def test_headers_that_cannot_be_are_not_believed(
    node: FakeNode, source: RpcChainSource, name: str, value: object
) -> None:
    """A header that differs from the block asked for, or is none, stops the block."""

    def spoil(method: str, _params: list[Any], answer: Json) -> Json:
        if not method.startswith("eth_getBlock"):
            return answer
        return {"result": {**answer["result"], name: value}}

    node.spoil = spoil
    with pytest.raises(Retryable):
        await source.facts(node.chain.blocks[1].block)


@pytest.mark.parametrize("chain_id", ["", "0x", "one", "0xzz", None, 1])
async def test_a_chain_id_that_is_none_is_retryable(
    node: FakeNode, source: RpcChainSource, chain_id: object
) -> None:
    """What is no number is no chain id, and nothing is concluded from it."""
    node.spoil = lambda method, _params, answer: {"result": chain_id} if method == "eth_chainId" else answer
    with pytest.raises(Retryable):
        await source.identity()


@pytest.mark.parametrize("value", [None, {}, {"number": "0x0"}, "0x"])
async def test_a_genesis_that_is_none_is_retryable(
    node: FakeNode, source: RpcChainSource, value: object
) -> None:
    """Without block 0 a chain cannot be told from another."""
    node.spoil = lambda method, _params, answer: (
        {"result": value} if method == "eth_getBlockByNumber" else answer
    )
    with pytest.raises(Retryable):
        await source.identity()


async def test_numbers_other_than_asked_are_not_believed(node: FakeNode, source: RpcChainSource) -> None:
    """The header of another block is not that of this one."""
    other = node._header(node.chain.blocks[2])
    node.spoil = lambda method, _params, answer: (
        {"result": other} if method == "eth_getBlockByNumber" else answer
    )
    with pytest.raises(InconsistentReply):
        await source.facts_between(1, 1)


async def test_a_block_of_another_number_is_not_believed(node: FakeNode, source: RpcChainSource) -> None:
    """Asked for one number, answered with another: not committed under it."""
    other = node._header(node.chain.blocks[2])
    node.spoil = lambda method, _params, answer: (
        {"result": other} if method == "eth_getBlockByNumber" else answer
    )
    with pytest.raises(InconsistentReply):
        await source.block(1)


async def read(node: FakeNode, source: RpcChainSource, selector: str, answer: Json) -> TokenInfo | None:
    """What is read of a token one of whose functions answers so."""
    node.contracts[TOKEN, selector] = answer
    return (await source.tokens([TOKEN])).get(TOKEN)


REVERTS: dict[str, Json] = {
    "geth": {"error": {"code": 3, "message": "execution reverted", "data": "0x"}},
    "with reason": {"error": {"code": 3, "message": "execution reverted: not today"}},
    "old geth": {"error": {"code": -32000, "message": "execution reverted"}},
    "hardhat": {
        "error": {"code": -32603, "message": "Error: VM Exception while processing transaction: reverted"}
    },
    "nethermind": {"error": {"code": -32015, "message": "VM execution error."}},
    "invalid": {"error": {"code": -32000, "message": "invalid opcode: INVALID"}},
    "gas": {"error": {"code": -32000, "message": "out of gas"}},
}


@pytest.mark.parametrize("answer", REVERTS.values(), ids=REVERTS.keys())
async def test_decimals_that_revert_make_a_token_unreadable(
    node: FakeNode, source: RpcChainSource, answer: Json
) -> None:
    """The token's own refusal, in each node's words."""
    assert await read(node, source, DECIMALS, answer) is None


@pytest.mark.parametrize("answer", REVERTS.values(), ids=REVERTS.keys())
async def test_a_symbol_that_reverts_is_replaced(
    node: FakeNode, source: RpcChainSource, answer: Json
) -> None:
    """Name and symbol are for people: without them the shortened address serves."""
    info = await read(node, source, SYMBOL, answer)
    assert info is not None
    assert (info.decimals, info.name) == (18, "Token 0")
    assert info.symbol.startswith(TOKEN[:6])
    assert len(info.symbol) < 16


@pytest.mark.parametrize("reason", ["rate limit exceeded", "quota", "too many requests", "generate"])
@pytest.mark.parametrize("code", [3, -32000])
async def test_a_token_cannot_pose_as_a_rate_limit(
    node: FakeNode, source: RpcChainSource, reason: str, code: int
) -> None:
    """The reason of a revert is the token's to choose: it must not stop the chain by it for ever."""
    answer = {"error": {"code": code, "message": f"execution reverted: {reason}"}}
    assert await read(node, source, DECIMALS, answer) is None


@pytest.mark.parametrize(
    ("code", "message"), [*RATE_LIMITS, (-32000, "missing trie node"), (-32603, "internal error")]
)
@pytest.mark.parametrize("selector", [DECIMALS, NAME, SYMBOL])
async def test_a_nodes_failure_is_not_the_tokens(
    node: FakeNode, source: RpcChainSource, selector: str, code: int, message: str
) -> None:
    """A rate limit or a failing node is retried: a good token must not be refused for ever by it."""
    with pytest.raises(NodeUnavailable):
        await read(node, source, selector, {"error": {"code": code, "message": message}})


@pytest.mark.parametrize(
    ("answer", "decimals"),
    [
        (returned("uint256", 0), 0),
        (returned("uint256", 255), 255),
        (returned("uint256", 256), None),
        (returned("uint256", 2**256 - 1), None),
        ({"result": "0x"}, None),
        ({"result": "0x12"}, None),
        ({"result": None}, None),
        ({"result": "zz"}, None),
    ],
)
async def test_decimals_are_a_uint8(
    node: FakeNode, source: RpcChainSource, answer: Json, decimals: int | None
) -> None:
    """From 0 to 255; anything else is no number of decimals and is not guessed."""
    info = await read(node, source, DECIMALS, answer)
    assert (None if info is None else info.decimals) == decimals


@pytest.mark.parametrize(
    ("answer", "symbol"),
    [
        (returned("bytes32", b"MKR" + b"\0" * 29), "MKR"),
        (returned("string", "  ONE  "), "ONE"),
        (returned("string", "É😀"), "É😀"),
        (returned("string", "a\x00b\x1b[31m\n\u202e"), "ab[31m"),
        (returned("string", "😀" * 250_000), "😀" * 64),
        (returned("string", ""), None),
        (returned("bytes32", b"\xff" * 32), None),
        (returned("bytes", b"\xff\xfe"), None),
        (returned("bytes32", b"\0" * 32), None),
        ({"result": "0x" + "ff" * 64}, None),
        ({"result": "0x" + "00" * 31 + "20" + "ff" * 32}, None),
        ({"result": "0x" + "00" * 31 + "20" + "00" * 28 + "7fffffff"}, None),
        ({"result": "0x" + "ab" * 33}, None),
        ({"result": "0x"}, None),
    ],
)
async def test_symbols_are_short_and_printable(
    node: FakeNode, source: RpcChainSource, answer: Json, symbol: str | None
) -> None:
    """Text or bytes32, cut to a length, without control characters; nonsense gives the short address."""
    info = await read(node, source, SYMBOL, answer)
    assert info is not None
    if symbol is None:
        assert info.symbol.startswith(TOKEN[:6])
    else:
        assert info.symbol == symbol


async def test_one_bad_token_does_not_spoil_the_others(node: FakeNode, source: RpcChainSource) -> None:
    """Each token is read for itself."""
    node.contracts[TOKEN, DECIMALS] = {"result": "0x"}
    found = await source.tokens([Address(token(n)) for n in range(4)])
    assert set(found) == {token(1), token(2), token(3)}


async def test_a_node_without_old_state_is_a_wrong_setting(node: FakeNode, source: RpcChainSource) -> None:
    """It cannot say when a contract was deployed: START_BLOCK must, and the error shows how."""
    node.spoil = lambda method, params, answer: (
        {"error": {"code": -32000, "message": "missing trie node 0x12 (path ) state is not available"}}
        if method == "eth_getCode" and params[1] != hex(node.chain.tip.number)
        else answer
    )
    with pytest.raises(InvalidConfiguration, match=r"START_BLOCK=[0-9]+"):
        await source.deployment_block(FACTORY)


@pytest.mark.parametrize(("code", "message"), RATE_LIMITS)
async def test_a_search_for_a_deployment_outlives_a_rate_limit(
    node: FakeNode, source: RpcChainSource, code: int, message: str
) -> None:
    """A node that has had enough in the middle of the search keeps its old state all the same: try again."""
    node.spoil = failing("eth_getCode", code, message)
    with pytest.raises(NodeUnavailable):
        await source.deployment_block(FACTORY)


async def test_ranges_ask_for_our_events_only(node: FakeNode, source: RpcChainSource) -> None:
    """The node filters by topic 0 of all venues; addresses are not listed, markets are too many."""
    await source.facts_between(1, 2)
    (wanted,) = next(params for method, params in node.asked if method == "eth_getLogs")
    assert set(wanted["topics"][0]) == set(BondingCurve.decoders)
    assert "address" not in wanted


async def test_blocks_near_the_head_are_asked_for_by_hash(node: FakeNode, source: RpcChainSource) -> None:
    """By number a lagging node could answer with nothing, and nobody would notice."""
    await source.facts(node.chain.tip)
    (wanted,) = next(params for method, params in node.asked if method == "eth_getLogs")
    assert wanted["blockHash"] == node.chain.tip.hash
    assert "fromBlock" not in wanted


async def test_errors_of_a_source_are_ours(node: FakeNode, source: RpcChainSource) -> None:
    """Random damage to any reply never brings out an error that is not ours."""
    wholes = [b'{"jsonrpc":"2.0","id":1,"result":"0x1"}', orjson.dumps([node._header(node.chain.blocks[1])])]
    for whole in wholes:
        for cut in range(len(whole)):
            node.raw.append(Raw(whole[:cut] + b"\x00" + whole[cut + 1 :]))
            try:
                await source.facts(BlockRef(1, digest(1), digest(0), 0))
            except ListenerError:
                continue
            raise AssertionError("the reply was believed")


def every(kind: type[Exception]) -> set[type[Exception]]:
    """A class and all its subclasses."""
    return {kind, *(child for direct in kind.__subclasses__() for child in every(direct))}


def without_arguments(kind: type[Exception]) -> bool:
    """Whether an exception can be made of nothing."""
    try:
        kind()
    except TypeError:
        return False
    return True


SIMPLE = sorted(filter(without_arguments, every(aiohttp.ClientError)), key=lambda kind: kind.__name__)


class BrokenSession:
    """A client session whose every request fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def post(self, *_args: object, **_options: object) -> None:
        """Fail."""
        raise self._error

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("kind", [*SIMPLE, OSError, ConnectionResetError, TimeoutError])
async def test_every_exception_of_the_client_is_mapped(kind: type[Exception]) -> None:
    """No exception class of aiohttp or of the network leaves the source as it is."""
    rpc = HttpRpc("http://127.0.0.1:1/", 1)
    rpc._session = BrokenSession(kind())  # type: ignore[assignment]
    with pytest.raises(NodeUnavailable):
        await RpcChainSource(rpc, BondingCurve.decoders).tip()
    await rpc.close()

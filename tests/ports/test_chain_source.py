"""Contract of `ChainSource`: a fake, and JSON-RPC against a node that can be told to misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from listener.application.errors import (
    InconsistentReply,
    InvalidConfiguration,
    ListenerError,
    NodeBehind,
    NodeLimited,
    NodeSlow,
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
from listener.infrastructure.blockchain.bloom import BloomPolicy
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import PATIENCE_LOOKS, RpcChainSource
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
from tests.fakes.node import (
    DECIMALS,
    FULL_BLOOM,
    NAME,
    NO_BLOOM,
    SYMBOL,
    FakeNode,
    Json,
    Raw,
    bloom_of,
    log_of,
    returned,
    serving,
)
from tests.fakes.servers import listening

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
async def node() -> FakeNode:
    """A node of a chain of everything."""
    return FakeNode(chain_of_everything())


@pytest.fixture
async def source(node: FakeNode) -> AsyncIterator[RpcChainSource]:
    """The real adapter on the node."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        yield RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts)
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
        yield Bench(chain, RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts), node)
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
        (await bench.source.history(1, bench.chain.tip.number)).facts()


@pytest.mark.parametrize(("first", "last"), [(1, 7), (1, 1), (2, 2), (2, 3), (5, 7), (0, 4)])
async def test_ranges_have_what_matters(bench: Bench, first: int, last: int) -> None:
    """Blocks with facts, ascending, and in any case the first and the last."""
    found = (await bench.source.history(first, last)).facts()
    numbers = [facts.block.number for facts in found]
    expected = [f for f in bench.chain.blocks[first : last + 1] if f.facts or f.block.number in {first, last}]
    assert numbers == [facts.block.number for facts in expected]
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


async def test_tokens_say_what_they_are(bench: Bench) -> None:
    """Decimals, name and symbol; one that cannot be read is absent."""
    bench.chain.tokens[Address(token(1))] = None
    found = await bench.source.tokens([Address(token(n)) for n in (0, 1, 2)])
    assert dict(found) == {Address(token(n)): token_info(n) for n in (0, 2)}
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
    "history": lambda source: source.history(1, 7),
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
            await call(RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts))
        await rpc.close()


@every_call
async def test_a_node_that_is_away_is_retryable(call: Call) -> None:
    """Nobody listens: the error names the host and nothing of the URL's path."""
    async with serving(FakeNode(LocalChain())) as url:
        gone = url
    rpc = HttpRpc(gone + "v3/secret-key", 2)
    with pytest.raises(NodeUnavailable) as raised:
        await call(RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts))
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
            await RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts).tip()
        await rpc.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc no\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /v3/secret-key\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_errors_of_the_protocol_do_not_tell_the_url(answer: bytes) -> None:
    """The client's own texts have the whole of it, key included."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            await writer.drain()

    async with listening(handle) as port:
        rpc = HttpRpc(f"http://127.0.0.1:{port}/v3/secret-key", 2)
        with pytest.raises(NodeUnavailable) as raised:
            await rpc.call("eth_chainId", (), str)
        await rpc.close()
    assert "secret-key" not in str(raised.value)


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
        (await source.history(1, 2)).facts()
    assert await source.tip() == node.chain.tip


def failing(method: str, code: int, message: str) -> Callable[[str, list[Any], Json], Json]:
    """One method answers with an error."""

    def spoil(asked: str, _params: list[Any], answer: Json) -> Json:
        return {"error": {"code": code, "message": message}} if asked == method else answer

    return spoil


TOO_LARGE = [
    # Infura, INFURA/infura#237; Arbitrum, Polygon zkEVM and zkSync word it alike.
    (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
    (-32602, "range 1000000 exceeds limit of 10000"),
    (-32602, "Query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
    (-32000, "logs matched by query exceeds limit of 10000"),
    # Alchemy, bancorprotocol/webapp#523, boundless-xyz/boundless#838; Aurora.
    (-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range."),
    (
        -32600,
        "You can make eth_getLogs requests with up to a 500 block range. This range should work: [0x1, 0x2]",
    ),
    (
        -32600,
        "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Upgrade",
    ),
    # QuickNode, OffchainLabs/arbitrum-sdk#609; Blast, BlockPI, 1RPC: ponder-sh/ponder, getLogsRetryHelper.
    (-32614, "eth_getLogs is limited to a 10,000 range"),
    (-32000, "eth_getLogs is limited to 0 - 50 blocks range"),
    (-32602, "eth_getLogs is limited to 1024 block range. Please check the parameter requirements"),
    (-32600, "This request exceeds the range allowed for your plan (1001 > 1000)"),
    (-32000, "response size should not greater than 10000000 bytes"),
    # Ankr, thirdweb, Cloudflare, Chainstack, Coinbase, Merkle, OP Labs: the same.
    (-32600, "block range is too wide"),
    (-32000, "maximum [from, to] blocks distance: 10000"),
    (-32602, "Maximum allowed number of requested blocks is 3500"),
    (-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800"),
    (-32600, "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits"),
    (-32602, "please limit the query to at most 1000 blocks"),
    (-32000, "eth_getLogs range is too large, max is 10k blocks"),
    (-32020, "backend response too large"),
    (-32600, "Block range is too large"),
    (-32000, "block range greater than 5000 max"),
    (-32000, "block range exceeds 1000"),
    (-32000, "query must be smaller than size 1024"),
    # LlamaNodes.
    (-32603, "eth_getLogs range is too large, max is 1k blocks"),
    # dRPC.
    (-32600, "ranges over 10000 blocks are not supported on freetier"),
    (35, "Query timeout exceeded. Consider reducing your block range"),
    # publicnode.
    (-32701, "exceed maximum block range: 50000"),
    # BSC nodes and forks of geth with a limit: enviodev/hyperindex#605, AlphaWallet/alpha-wallet-ios#5277.
    (-32000, "block range is larger than max block range, block range = 5120, max block range = 5000"),
    (-32000, "block range is bigger than maxBlockRange"),
    (-32600, "block range too high"),
    (-32000, "exceed maximum block range: 5000"),
    # Besu, Erigon (erigontech/erigon#19721), cdk-erigon#1706, Nethermind, Avalanche, Moonbeam#3250.
    (-32005, "Requested range exceeds maximum RPC range limit"),
    (-32602, "query block range exceeds server limit, narrow your filter: 1000"),
    (-32000, "query returns too many logs, narrow your filter: 20000"),
    (-32005, "block range too large, max range: 1000"),
    (-32000, "Too many logs requested. Max logs per response is 20000."),
    (-32000, "requested too many blocks from 1 to 5000, maximum is set to 2048"),
    (-32603, "block range is too wide (maximum 1024)"),
    # geth with a limit, Reth (paradigmxyz/reth#23810), Hyperliquid.
    (-32000, "query exceeds max results"),
    (-32602, "query exceeds max block range 5000"),
    (-32602, "query exceeds max results 20000, retry with the range 1-100"),
]


@pytest.mark.parametrize(("code", "message"), TOO_LARGE)
async def test_refused_ranges_are_told_apart(
    node: FakeNode, source: RpcChainSource, code: int, message: str
) -> None:
    """Nodes word it freely: each of these asks for a smaller range, and says so."""
    node.spoil = failing("eth_getLogs", code, message)
    with pytest.raises(RangeTooLarge):
        (await source.history(1, 7)).facts()


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
        (await source.history(1, 7)).facts()


RATE_LIMITS = [
    # EIP-1474, and what public BSC nodes answer.
    (-32005, "limit exceeded"),
    (429, "Too Many Requests"),
    # Infura, status-im/status-go#4807.
    (-32005, "project ID request rate exceeded"),
    (-32005, "daily request count exceeded, request rate limited"),
    (-32005, "exceeded project rate limit"),
    # Tenderly, fluencelabs/dev-rewards#20; Ankr, TheRPC.
    (-32005, "rate limit exceeded"),
    (-32029, "Too many requests, reason: call rate limit exhausted"),
    (-32029, "slow down"),
    # Alchemy, latticexyz/mud#1522.
    (-32000, "Your app has exceeded its compute units per second capacity. If you have retries enabled, …"),
    (429, "Your app has exceeded its concurrent requests capacity."),
    (429, "Monthly capacity limit exceeded. Visit https://dashboard.alchemyapi.io/settings/billing"),
    # QuickNode, the same.
    (-32012, "credits limited to 6000/sec"),
    (-32007, "25/second request limit reached"),
    (-32003, "daily request limit reached - upgrade your account"),
    (-32003, "monthly quota reached"),
    # Base, base/node#368; Chainstack; Hyperliquid; others.
    (-32016, "over rate limit"),
    (-32005, "You've exceeded the RPS limit available on the current plan."),
    (-32005, "rate limited"),
    (15, "Too many request, try again later"),
    (-32000, "request throttled"),
]


@every_call
@pytest.mark.parametrize(("code", "message"), RATE_LIMITS)
async def test_a_rate_limit_is_waited_out(
    node: FakeNode, source: RpcChainSource, call: Call, code: int, message: str
) -> None:
    """It says nothing about the chain, a range, a token or a setting: try again later."""
    node.spoil = lambda _method, _params, _answer: {"error": {"code": code, "message": message}}
    with pytest.raises(NodeLimited):
        await call(source)


@pytest.mark.parametrize(
    ("data", "message", "wait_s"),
    [
        ({"rate": {"allowed_rps": 5, "backoff_seconds": 30, "current_rps": 5.2}}, "rate limit", 30),
        (None, "Too many requests, reason: call rate limit exhausted, retry in 10s", 10),
        (None, "Too many requests, retry in 1m0s", 60),
        (None, "rate limit exceeded, try again in 250ms", 0.25),
        (None, "rate limit exceeded, retry after 99999999 s", 3600),
        (None, "rate limit exceeded, try again later", None),
        ("0x", "rate limit exceeded", None),
    ],
)
async def test_a_limit_that_says_how_long_is_heard(
    node: FakeNode, source: RpcChainSource, data: object, message: str, wait_s: float | None
) -> None:
    """In the data as Infura does, or in the text; at most an hour, whatever it says."""
    error = {"code": -32005, "message": message, "data": data}
    node.spoil = lambda _method, _params, _answer: {"error": error}
    with pytest.raises(NodeLimited) as raised:
        await source.tip()
    assert raised.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"Retry-After": "86400"}, 3600),
        (
            {
                "Date": "Sat, 21 Nov 2026 10:00:00 GMT",
                "Retry-After": "Sat, 21 Nov 2026 10:00:20 GMT",
            },
            20,
        ),
        ({"Date": "Sat, 21 Nov 2026 10:00:00 GMT", "Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
async def test_http_429_says_when_to_come_again(
    node: FakeNode, source: RpcChainSource, headers: dict[str, str], wait_s: float | None
) -> None:
    """`Retry-After` in both of its forms; what is neither is left out."""
    node.raw.append(Raw(b"slow down", 429, headers))
    with pytest.raises(NodeLimited, match="HTTP 429") as raised:
        await source.tip()
    assert raised.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("exceed max addresses or topics per search position", NodeUnavailable),
        ("exceed max topics", NodeUnavailable),
        ("invalid block range params", NodeUnavailable),
        ("internal error while integrating the aggregate", NodeUnavailable),
        ("no backend is currently healthy to serve traffic", NodeUnavailable),
        ("block range extends beyond current head block", NodeBehind),
        (
            "One of the blocks specified in filter (fromBlock, toBlock or blockHash) cannot be found",
            NodeBehind,
        ),
        ("requested from block 7 after last accepted block 5", NodeBehind),
        ("cannot query unfinalized data", NodeBehind),
    ],
)
async def test_other_refusals_are_neither(
    node: FakeNode, source: RpcChainSource, message: str, kind: type[Exception]
) -> None:
    """Words that sound like a limit, and are none: no smaller range would help, nor a pause."""
    node.spoil = failing("eth_getLogs", -32000, message)
    with pytest.raises(kind) as raised:
        (await source.history(1, 7)).facts()
    assert not isinstance(raised.value, NodeLimited | RangeTooLarge)


async def test_a_size_told_in_the_data_is_heard(node: FakeNode, source: RpcChainSource) -> None:
    """Tenderly says only there what is wrong: bobanetwork/boba_legacy#827."""
    data = {"error_id": "4ed9", "payload": "range 9009594 is bigger than range limit 2000"}
    error = {"code": -32602, "message": "invalid params", "data": data}
    node.spoil = lambda method, _params, answer: {"error": error} if method == "eth_getLogs" else answer
    with pytest.raises(RangeTooLarge):
        (await source.history(1, 7)).facts()


@pytest.mark.parametrize(
    "message", ["query timeout exceeded", "request timed out", "context deadline exceeded"]
)
async def test_a_range_that_takes_too_long_is_too_large(
    node: FakeNode, source: RpcChainSource, message: str
) -> None:
    """For one block it is the node that is slow."""
    node.spoil = failing("eth_getLogs", -32000, message)
    with pytest.raises(RangeTooLarge):
        (await source.history(1, 7)).facts()
    with pytest.raises(NodeSlow):
        (await source.history(1, 1)).facts()


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
        (await source.history(1, 2)).facts()


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
    found = (await source.history(1, node.chain.tip.number)).facts()
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
        (await source.history(1, 1)).facts()


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
        (await source.history(1, 3)).facts()
    with pytest.raises(InconsistentReply):
        (await source.history(2, 4)).facts()


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
        (await source.history(1, 1)).facts()


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
    assert set(found) == {Address(token(n)) for n in (1, 2, 3)}


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


LOST: dict[str, Callable[[list[Json]], list[Json]]] = {
    "all": lambda _logs: [],
    "the last": lambda logs: logs[:-1],
    "the first": lambda logs: logs[1:],
    "all but one": lambda logs: logs[:1],
}
lost = pytest.mark.parametrize("lose", LOST.values(), ids=LOST.keys())


@asynccontextmanager
async def looking(
    node: FakeNode, bloom: BloomPolicy, second: FakeNode | None = None
) -> AsyncIterator[RpcChainSource]:
    """A source with a policy, perhaps with a second node beside it."""
    async with serving(node) as url, serving(second or node) as other:
        rpc, another = HttpRpc(url, 5), HttpRpc(other, 5)
        yield RpcChainSource(
            rpc, BondingCurve.decoders, bloom, another if second else None, layouts=BondingCurve.layouts
        )
        await rpc.close()
        await another.close()


def asked(node: FakeNode, method: str) -> int:
    """How often a method was called."""
    return sum(name == method for name, _ in node.asked)


@lost
@pytest.mark.parametrize("bloom", ["strict", "lenient"])
@pytest.mark.parametrize("receipts", ["block", "each"])
async def test_get_logs_that_are_empty_or_partial_are_completed(
    node: FakeNode, bloom: BloomPolicy, receipts: Any, lose: Callable[[list[Json]], list[Json]]
) -> None:
    """A topic that the bloom has and no log is looked for in the receipts, whichever way they come."""
    node.lose, node.receipts = lose, receipts
    expected = node.chain.blocks[1]
    async with looking(node, bloom) as source:
        assert same(await source.facts(expected.block), expected)


async def test_without_a_policy_a_node_is_believed(node: FakeNode) -> None:
    """`off` never looks twice."""
    node.lose = LOST["all"]
    async with looking(node, "off") as source:
        assert not (await source.facts(node.chain.blocks[1].block)).facts
    assert asked(node, "eth_getBlockReceipts") == 0


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_no_receipts_are_read_without_a_doubt(node: FakeNode, bloom: BloomPolicy) -> None:
    """Blocks whose logs and bloom agree cost one request, as before."""
    async with looking(node, bloom) as source:
        for expected in node.chain.blocks:
            assert same(await source.facts(expected.block), expected)
    assert node.requests == len(node.chain.blocks)


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_one_of_many_trades_may_be_missed_by_a_bloom(node: FakeNode, bloom: BloomPolicy) -> None:
    """A bloom cannot count: a block that keeps a log of each topic passes. That is what the audit is for."""
    block = node.chain.mine(swap(0), swap(0), swap(0))
    node.lose = LOST["all but one"]
    async with looking(node, bloom) as source:
        assert len((await source.facts(block)).facts) == 1


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_a_node_that_has_neither_logs_nor_receipts_yet_is_waited_for(
    node: FakeNode, bloom: BloomPolicy
) -> None:
    """The block is not committed before its logs are there, and complete after."""
    node.lose, node.lose_calls = LOST["all"], 5
    node.spoil = lambda method, _params, answer: (
        {"result": None} if method == "eth_getBlockReceipts" and node.lose_calls else answer
    )
    expected = node.chain.blocks[1]
    async with looking(node, bloom) as source:
        for _ in range(4):
            with pytest.raises(NodeBehind):
                await source.facts(expected.block)
        assert same(await source.facts(expected.block), expected)


WRONG_BLOOM = bloom_of([{"address": STRANGER, "topics": [digest("Transfer")]}])
LYING = {"zero": NO_BLOOM, "ones": FULL_BLOOM, "wrong": WRONG_BLOOM, "empty": "", "no hex": "0x" + "zz" * 256}


@pytest.mark.parametrize("lie", LYING.values(), ids=LYING.keys())
@pytest.mark.parametrize("receipts", ["block", "each", "none"])
async def test_a_lying_bloom_does_not_stop_the_chain(node: FakeNode, lie: str, receipts: Any) -> None:
    """Some chains publish wrong ones for ever: a lenient source goes on, with the logs that came."""
    node.bloom, node.receipts = lie, receipts
    async with looking(node, "lenient") as source:
        for expected in node.chain.blocks:
            assert same(await source.facts(expected.block), expected)


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_a_full_bloom_raises_no_doubt(node: FakeNode, bloom: BloomPolicy) -> None:
    """It has everything, so it says nothing: no block costs a second look for it."""
    node.bloom = FULL_BLOOM
    async with looking(node, bloom) as source:
        for expected in node.chain.blocks:
            assert same(await source.facts(expected.block), expected)
    assert node.requests == len(node.chain.blocks)


@pytest.mark.parametrize("receipts", ["block", "each", "none"])
async def test_a_bloom_that_always_hints_does_not_stop_the_chain(node: FakeNode, receipts: Any) -> None:
    """One that has all of our topics in every block costs a second look each, no more."""
    topics = [*BondingCurve.decoders]
    node.bloom, node.receipts = bloom_of([{"address": STRANGER, "topics": topics}]), receipts
    async with looking(node, "lenient") as source:
        for expected in node.chain.blocks:
            assert same(await source.facts(expected.block), expected)


@pytest.mark.parametrize("name", ["zero", "wrong", "empty", "no hex"])
async def test_a_strict_source_refuses_a_lying_bloom(node: FakeNode, name: str) -> None:
    """Logs that the bloom denies are not committed until it agrees."""
    node.bloom = LYING[name]
    expected = node.chain.blocks[1]
    async with looking(node, "strict") as source:
        for _ in range(12):
            with pytest.raises(InconsistentReply):
                await source.facts(expected.block)
        node.bloom = None
        assert same(await source.facts(expected.block), expected)


async def test_a_strict_source_checks_the_bloom_against_all_receipts(node: FakeNode) -> None:
    """A bloom that has more than the receipts' logs belongs to others."""
    block = node.chain.blocks[1]
    logs = [log_of(fact, block.block) for fact in block.facts]
    more = {"address": STRANGER, "topics": [*BondingCurve.decoders]}
    node.bloom = bloom_of([*logs, more])
    async with looking(node, "strict") as source:
        with pytest.raises(InconsistentReply, match="bloom"):
            await source.facts(block.block)
    async with looking(node, "lenient") as source:
        assert same(await source.facts(block.block), block)


async def test_a_strict_source_needs_receipts(node: FakeNode) -> None:
    """Without them nothing can be settled; the error names the setting."""
    node.lose, node.receipts = LOST["all"], "none"
    async with looking(node, "strict") as source:
        with pytest.raises(NodeUnsuitable, match="BLOOM_POLICY"):
            await source.facts(node.chain.blocks[1].block)


async def test_without_receipts_logs_are_asked_for_again(node: FakeNode) -> None:
    """The second answer may have what the first had not yet."""
    node.lose, node.lose_calls, node.receipts = LOST["all"], 1, "none"
    expected = node.chain.blocks[1]
    async with looking(node, "lenient") as source:
        assert same(await source.facts(expected.block), expected)
        node.lose_calls = 100
        assert not (await source.facts(expected.block)).facts


def receipts_become(change: Callable[[list[Json]], Any]) -> Callable[[str, list[Any], Json], Json]:
    """The receipts of a block are not what they should be."""

    def spoil(method: str, _params: list[Any], answer: Json) -> Json:
        if method != "eth_getBlockReceipts" or "result" not in answer:
            return answer
        return {"result": change(answer["result"])}

    return spoil


BAD_RECEIPTS: dict[str, tuple[Callable[[list[Json]], Any], type[Exception]]] = {
    "null": (lambda _receipts: None, NodeBehind),
    "of another block": (lambda rs: [{**r, "blockHash": digest("other")} for r in rs], InconsistentReply),
    "without logs": (lambda rs: [{**r, "logs": []} for r in rs], InconsistentReply),
    "logs of another block": (
        lambda rs: [{**r, "logs": [{**log, "blockHash": digest("x")} for log in r["logs"]]} for r in rs],
        InconsistentReply,
    ),
    "logs twice": (lambda rs: [{**r, "logs": r["logs"] * 2} for r in rs], InconsistentReply),
    "logs with another index": (
        lambda rs: [{**r, "logs": [{**log, "logIndex": "0x7"} for log in r["logs"]]} for r in rs],
        InconsistentReply,
    ),
    "no receipts": (lambda rs: ["0x" for _ in rs], NodeUnavailable),
}


@pytest.mark.parametrize("name", BAD_RECEIPTS)
@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_receipts_that_cannot_be_are_not_believed(
    node: FakeNode, bloom: BloomPolicy, name: str
) -> None:
    """Neither the logs nor the receipts are taken while they contradict each other."""
    change, kind = BAD_RECEIPTS[name]
    node.lose, node.spoil = LOST["the last"], receipts_become(change)
    async with looking(node, bloom) as source:
        with pytest.raises(kind):
            await source.facts(node.chain.blocks[1].block)


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_receipts_that_are_short_are_completed(node: FakeNode, bloom: BloomPolicy) -> None:
    """A transaction without a receipt among its block's is asked for by itself."""
    node.lose, node.spoil = LOST["all"], receipts_become(lambda receipts: receipts[:1])
    expected = node.chain.blocks[4]
    async with looking(node, bloom) as source:
        assert same(await source.facts(expected.block), expected)
    assert asked(node, "eth_getTransactionReceipt") == 1


async def test_a_lenient_source_runs_out_of_patience(node: FakeNode) -> None:
    """Receipts that never come do not stop the chain for ever; the audit looks again later."""
    node.lose = LOST["all"]
    node.spoil = receipts_become(lambda _receipts: None)
    first, other = node.chain.blocks[1].block, node.chain.blocks[3].block
    async with looking(node, "lenient") as source:
        for _ in range(PATIENCE_LOOKS - 1):
            with pytest.raises(NodeBehind):
                await source.facts(first)
        assert not (await source.facts(first)).facts
        assert not (await source.facts(other)).facts
        node.spoil = FakeNode(node.chain).spoil
        assert same(await source.facts(first), node.chain.blocks[1])
        node.spoil = receipts_become(lambda _receipts: None)
        with pytest.raises(NodeBehind):
            await source.facts(other)


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_a_result_truncated_silently_is_completed(node: FakeNode, bloom: BloomPolicy) -> None:
    """A node that returns so many logs and no word: what the bloom has beyond them is found."""
    node.most_logs = 1
    expected = node.chain.blocks[4]
    async with looking(node, bloom) as source:
        assert same(await source.facts(expected.block), expected)


@pytest.mark.parametrize("cap", [0, 1, 2, 3])
async def test_a_range_truncated_silently_is_completed_by_blooms(node: FakeNode, cap: int) -> None:
    """A strict source reads every header of a range, and finds the blocks whose logs were left out."""
    node.most_logs = cap
    async with looking(node, "strict") as source:
        found = (await source.history(1, 7)).facts()
    expected = [facts for facts in node.chain.blocks[1:8] if facts.facts or facts.block.number in {1, 7}]
    assert len(found) == len(expected)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("cap", [0, 1, 2, 3])
async def test_a_range_truncated_silently_is_completed_by_a_second_node(node: FakeNode, cap: int) -> None:
    """Of two answers the fuller one counts, whoever gave it."""
    other = FakeNode(node.chain)
    for short, full in ((node, other), (other, node)):
        short.most_logs, full.most_logs = cap, 1_000
        async with looking(node, "lenient", other) as source:
            found = (await source.history(1, 7)).facts()
        assert sum(len(facts.facts) for facts in found) == sum(len(b.facts) for b in node.chain.blocks[1:8])


async def test_a_range_without_a_second_opinion_is_believed(node: FakeNode) -> None:
    """A lenient source takes one node's word for final blocks, and reads only the headers that it needs."""
    node.most_logs = 0
    async with looking(node, "lenient") as source:
        assert [facts.block.number for facts in (await source.history(1, 7)).facts()] == [1, 7]
    assert asked(node, "eth_getBlockByNumber") == 2


async def test_two_nodes_that_each_lack_something_are_not_believed(node: FakeNode) -> None:
    """Neither answer contains the other: ask again."""
    other = FakeNode(node.chain)
    node.lose, other.lose = LOST["the first"], LOST["the last"]
    async with looking(node, "lenient", other) as source:
        with pytest.raises(InconsistentReply):
            (await source.history(1, 7)).facts()


async def test_a_second_node_that_is_away_is_waited_for(node: FakeNode) -> None:
    """Who asks for two opinions gets two; a range that is too large for one is too large."""
    other = FakeNode(node.chain)
    async with looking(node, "lenient", other) as source:
        other.raw.append(Raw(b"", 503))
        with pytest.raises(NodeUnavailable, match="503"):
            (await source.history(1, 7)).facts()
        other.spoil = failing("eth_getLogs", -32600, "block range too high")
        with pytest.raises(RangeTooLarge):
            (await source.history(1, 7)).facts()


@pytest.mark.parametrize("final", [0, 2, 7])
async def test_the_finalized_block_is_the_nodes_own_word(
    node: FakeNode, source: RpcChainSource, final: int
) -> None:
    """Where the node knows the tag."""
    node.final = final
    assert await source.finalized() == node.chain.blocks[7 - final].block


@pytest.mark.parametrize(
    "answer",
    [
        {"result": None},
        {"error": {"code": -32602, "message": "hex string without 0x prefix"}},
        {"error": {"code": -39001, "message": "Unknown block"}},
        {"error": {"code": -32000, "message": "finalized block not found"}},
        {"error": {"code": -32603, "message": 'strconv.ParseUint: parsing "finalized": invalid syntax'}},
        {"error": {"code": -32602, "message": "unsupported block tag: finalized"}},
    ],
)
async def test_a_chain_without_finality_has_no_finalized_block(
    node: FakeNode, source: RpcChainSource, answer: Json
) -> None:
    """Each client says so in its own way (ethereum/execution-apis#879)."""
    node.spoil = lambda _method, params, honest: answer if params[:1] == ["finalized"] else honest
    assert await source.finalized() is None


async def test_a_failing_node_is_no_chain_without_finality(node: FakeNode, source: RpcChainSource) -> None:
    """Nothing is concluded from a limit, an outage or a header that is none."""
    node.raw.append(Raw(b"", 502))
    with pytest.raises(NodeUnavailable):
        await source.finalized()
    limit = {"code": -32005, "message": "rate limit exceeded, or invalid API key"}
    node.spoil = lambda _method, _params, _answer: {"error": limit}
    with pytest.raises(NodeLimited):
        await source.finalized()
    node.spoil = lambda _method, _params, _answer: {"error": {"code": -32000, "message": "the dog ate it"}}
    with pytest.raises(NodeUnavailable):
        await source.finalized()


async def test_a_digest_stands_for_the_logs(node: FakeNode, source: RpcChainSource) -> None:
    """It is the same however the node writes them, and another if anything differs."""
    block = node.chain.blocks[1].block
    usual = (await source.facts(block)).digest
    node.spoil = logs_become(
        lambda logs: [
            {**log, "address": "0x" + log["address"][2:].upper(), "data": "0x" + log["data"][2:].upper()}
            for log in logs
        ]
    )
    assert (await source.facts(block)).digest == usual
    digests = {usual}
    for name, value in (("address", STRANGER), ("data", "0x01"), ("logIndex", "0x9")):
        node.spoil = logs_become(with_field(name, value))
        digests.add((await source.facts(block)).digest)
    node.spoil = logs_become(lambda logs: [*logs[:-1], {**logs[-1], "topics": logs[-1]["topics"][:2]}])
    digests.add((await source.facts(block)).digest)
    assert len(digests) == 5


async def test_only_single_blocks_have_digests(node: FakeNode, source: RpcChainSource) -> None:
    """An empty block has one too; nobody compares those of history."""
    assert len((await source.facts(node.chain.blocks[2].block)).digest) == 16
    assert {facts.digest for facts in (await source.history(1, 7)).facts()} == {""}


async def test_ranges_ask_for_our_events_only(node: FakeNode, source: RpcChainSource) -> None:
    """The node filters by topic 0 of all venues; addresses are not listed, markets are too many."""
    (await source.history(1, 2)).facts()
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
        await RpcChainSource(rpc, BondingCurve.decoders, layouts=BondingCurve.layouts).tip()
    await rpc.close()

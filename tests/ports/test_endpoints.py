"""Several endpoints that look like one: who is asked, who rests, and who is never believed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from listener.application.errors import (
    InvalidConfiguration,
    NodeBehind,
    NodeLimited,
    NodeSlow,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
    WrongChain,
)
from listener.domain.value_objects import Address
from listener.infrastructure.blockchain.endpoints import (
    FAILURES,
    FOREIGN_S,
    LIMITED_S,
    RECOVERY_S,
    REST_MAX_S,
    Endpoints,
)
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import BondingCurve
from tests.fakes.build import CHAIN_ID, FACTORY, created, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.clock import ManualTime
from tests.fakes.node import DECIMALS, FakeNode, Json, Raw, serving

FIRST, SECOND, THIRD = "127.0.0.1 #1", "127.0.0.1 #2", "127.0.0.1 #3"


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> ManualTime:
    """The breakers' clock."""
    clock = ManualTime()
    monkeypatch.setattr("circuitbreaker.monotonic", clock)
    return clock


class Told:
    """What was said of endpoints."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """An endpoint rests."""
        self.lines.append(f"{service} rests {retry_in_s:.0f} s: {error}")

    def healthy(self, service: str) -> None:
        """It works again."""
        self.lines.append(f"{service} works")


class Group:
    """Nodes of one chain, and the endpoints on them."""

    def __init__(self, chain: LocalChain, nodes: list[FakeNode], endpoints: Endpoints, told: Told) -> None:
        self.chain = chain
        self.nodes = nodes
        self.endpoints = endpoints
        self.told = told
        self.source = RpcChainSource(endpoints, BondingCurve.decoders, layouts=BondingCurve.layouts)

    def requests(self) -> list[int]:
        """Requests to each node since the last call."""
        counts = [node.requests for node in self.nodes]
        for node in self.nodes:
            node.requests = 0
        return counts


def chain_of_trades() -> LocalChain:
    """A market and a few trades."""
    chain = LocalChain()
    chain.mine(created(0), swap(0))
    for _ in range(3):
        chain.mine(swap(0))
    chain.codes[FACTORY] = 1
    return chain


@pytest.fixture
async def group_of(time: ManualTime) -> AsyncIterator[Callable[..., Any]]:  # noqa: ARG001 - the breakers' clock
    """Makes a group of so many nodes."""
    async with AsyncExitStack() as stack:

        async def make(count: int, timeout_s: float = 5) -> Group:
            chain, told = chain_of_trades(), Told()
            nodes = [FakeNode(chain) for _ in range(count)]
            urls = [await stack.enter_async_context(serving(node)) for node in nodes]
            rpcs = [HttpRpc(url + "v3/secret-key", timeout_s) for url in urls]
            endpoints = Endpoints(rpcs, CHAIN_ID, told)
            stack.push_async_callback(endpoints.close)
            return Group(chain, nodes, endpoints, told)

        yield make


@pytest.fixture
async def two(group_of: Callable[..., Any]) -> Group:
    """A preferred node and a fallback."""
    group: Group = await group_of(2)
    return group


@pytest.fixture
async def one(group_of: Callable[..., Any]) -> Group:
    """A node alone."""
    group: Group = await group_of(1)
    return group


def away(node: FakeNode, requests: int = 1_000) -> None:
    """The node answers no more."""
    node.raw.extend([Raw(b"bad gateway", 502)] * requests)


def limited(node: FakeNode, headers: dict[str, str] | None = None) -> None:
    """The node has had enough, once."""
    node.raw.append(Raw(b"slow down", 429, headers or {}))


def failing(*methods: str, code: int, message: str) -> Callable[[str, list[Any], Json], Json]:
    """Some methods answer with an error."""

    def spoil(asked: str, _params: list[Any], answer: Json) -> Json:
        return {"error": {"code": code, "message": message}} if asked in methods else answer

    return spoil


async def test_the_first_endpoint_is_asked(two: Group) -> None:
    """The others stand by, and are not asked for anything."""
    for _ in range(5):
        assert await two.source.tip() == two.chain.tip
    assert two.requests() == [1 + 5, 0]
    assert two.endpoints.host == FIRST
    assert two.endpoints.health() == {FIRST: "ok", SECOND: "ok"}


@pytest.mark.parametrize("status", [401, 403, 404, 500, 502, 503, 504, 429])
async def test_rpc_down_the_next_one_answers_the_same_call(two: Group, status: int) -> None:
    """Whoever asks notices nothing, whatever the answer to a single call or a batch would have been."""
    two.nodes[0].raw.extend([Raw(b"no", status)] * 10)
    assert await two.source.tip() == two.chain.tip
    assert (await two.source.facts(two.chain.tip)).facts
    assert two.endpoints.host == SECOND
    assert two.endpoints.health()[FIRST].startswith("open, next try in ")
    assert f"HTTP {status}" in two.endpoints.health()[FIRST]


async def test_a_node_that_is_gone_is_replaced(group_of: Callable[..., Any]) -> None:
    """Connection refused, or no answer in time."""
    group: Group = await group_of(2, timeout_s=0.5)
    group.nodes[0].raw.append(Raw(b"{}", delay_s=3))
    assert await group.source.tip() == group.chain.tip
    assert "no answer in 0.5 s" in group.endpoints.health()[FIRST]
    assert group.endpoints.host == SECOND


async def test_urls_are_not_told(two: Group) -> None:
    """Their paths are keys."""
    away(two.nodes[0])
    away(two.nodes[1])
    with pytest.raises(NodeUnavailable) as raised:
        await two.source.tip()
    told = [str(raised.value), two.endpoints.host, *two.told.lines, *map(str, two.endpoints.health().items())]
    assert "secret-key" not in " ".join(told)


async def test_answers_of_several_nodes_are_not_mixed(two: Group, time: ManualTime) -> None:
    """One failure, and the fallback is asked until the first one had its rest; no going to and fro."""
    await two.source.tip()
    limited_once = Raw(b"hiccup", 500)
    two.nodes[0].raw.append(limited_once)
    await two.source.tip()
    two.requests()
    for _ in range(10):
        await two.source.tip()
    assert two.requests() == [0, 10]
    time.now += RECOVERY_S
    for _ in range(10):
        await two.source.tip()
    assert two.requests() == [1 + 10, 0]
    assert two.endpoints.host == FIRST


async def test_a_rest_grows_while_an_endpoint_stays_away(two: Group, time: ManualTime) -> None:
    """It is tried more and more rarely, at least every five minutes, and begins anew once it works."""
    away(two.nodes[0])
    rests = []
    for _ in range(10):
        await two.source.tip()
        rest = two.endpoints._endpoints[0].breaker.open_for_s
        rests.append(rest)
        time.now += rest
    assert rests == [min(RECOVERY_S * 2**n, REST_MAX_S) for n in range(10)]
    two.nodes[0].raw.clear()
    await two.source.tip()
    two.nodes[0].raw.append(Raw(b"", 500))
    await two.source.tip()
    assert two.endpoints._endpoints[0].breaker.open_for_s == RECOVERY_S


@pytest.mark.parametrize(
    ("headers", "rest_s"), [({"Retry-After": "40"}, 40), ({}, LIMITED_S), ({"Retry-After": "0"}, 1)]
)
async def test_a_rate_limit_is_honoured(
    two: Group, time: ManualTime, headers: dict[str, str], rest_s: float
) -> None:
    """HTTP 429 rests an endpoint at once, for as long as it says."""
    limited(two.nodes[0], headers)
    await two.source.tip()
    two.requests()
    time.now += rest_s - 0.5
    await two.source.tip()
    assert two.requests()[0] == 0
    time.now += 0.5
    await two.source.tip()
    assert two.requests()[0] > 0


@pytest.mark.parametrize("code", [-32012, -32029])
async def test_a_rate_limit_within_a_batch_is_one(two: Group, code: int) -> None:
    """Some providers answer each call of a batch with it."""
    two.nodes[0].spoil = failing("eth_getLogs", code=code, message="credits limited to 6000/sec")
    assert (await two.source.facts(two.chain.tip)).facts
    assert "6000/sec" in two.endpoints.health()[FIRST]


async def test_a_node_that_fails_inside_a_batch_is_replaced(two: Group) -> None:
    """It answers, and has nothing to say: the next one may."""
    two.nodes[0].spoil = failing("eth_getLogs", code=-32000, message="database is closed")
    assert (await two.source.facts(two.chain.tip)).facts
    assert "database is closed" in two.endpoints.health()[FIRST]


async def test_errors_of_contracts_are_not_an_endpoints(two: Group) -> None:
    """A hostile token cannot put an endpoint out of work, nor can a block without state."""
    contract = Address(token(0))
    two.nodes[0].contracts[contract, DECIMALS] = {"error": {"code": -32603, "message": "internal error"}}
    for _ in range(FAILURES + 1):
        with pytest.raises(NodeUnavailable):
            await two.source.tokens([contract])
    two.nodes[0].spoil = failing("eth_getCode", code=-32000, message="missing trie node")
    with pytest.raises(InvalidConfiguration):
        await two.source.deployment_block(FACTORY)
    assert two.endpoints.health() == {FIRST: "ok", SECOND: "ok"}


async def test_answers_are_not_failures(two: Group) -> None:
    """A block that is not there, a range that is too large, a tag that is not known."""
    two.nodes[0].behind = 2
    with pytest.raises(NodeBehind):
        await two.source.block(two.chain.tip.number)
    with pytest.raises(NodeBehind):
        await two.source.facts(two.chain.tip)
    two.nodes[0].spoil = failing("eth_getLogs", code=-32600, message="block range too high")
    for _ in range(FAILURES + 1):
        with pytest.raises(RangeTooLarge):
            (await two.source.history(1, 4)).facts()
    error = {"code": -32603, "message": 'strconv.ParseUint: parsing "finalized": invalid syntax'}
    two.nodes[0].spoil = lambda _method, params, answer: (
        {"error": error} if params[:1] == ["finalized"] else answer
    )
    for _ in range(FAILURES + 1):
        assert await two.source.finalized() is None
    assert two.endpoints.health() == {FIRST: "ok", SECOND: "ok"}
    assert two.requests()[1] == 0


async def test_a_method_that_one_does_not_offer_is_asked_of_the_next(two: Group) -> None:
    """For everything else the first one stays the first."""
    missing = failing("eth_getBlockReceipts", "eth_getLogs", code=-32601, message="method not found")
    two.nodes[0].spoil = missing
    assert ((await two.source.history(1, 4)).facts())[0].facts
    assert (await two.source.facts(two.chain.tip)).facts
    assert two.endpoints.health() == {FIRST: "ok", SECOND: "ok"}
    two.requests()
    await two.source.tip()
    assert two.requests() == [1, 0]
    two.nodes[1].spoil = missing
    with pytest.raises(NodeUnsuitable):
        (await two.source.history(1, 4)).facts()


async def test_a_range_that_takes_too_long_rests_nobody_for_it(group_of: Callable[..., Any]) -> None:
    """It may be the range's fault: the next one is asked, and only where that one answers the first rests."""
    group: Group = await group_of(2, timeout_s=0.5)
    await group.source.tip()
    group.nodes[0].raw.append(Raw(b"{}", delay_s=3))
    group.nodes[1].raw.extend([None, Raw(b"{}", delay_s=3)])
    with pytest.raises(RangeTooLarge):
        (await group.source.history(1, 4)).facts()
    assert group.endpoints.health() == {FIRST: "ok", SECOND: "ok"}
    group.nodes[0].raw.append(Raw(b"{}", delay_s=3))
    assert (await group.source.history(1, 4)).facts()
    assert group.endpoints.host == SECOND
    assert "no answer" in group.endpoints.health()[FIRST]


async def test_when_nobody_answers_the_first_ones_error_is_told(two: Group) -> None:
    """After so many failures nobody is asked any more, and the error says when."""
    away(two.nodes[0])
    two.nodes[1].raw.extend([Raw(b"down", 503)] * 1_000)
    for _ in range(FAILURES):
        with pytest.raises(NodeUnavailable, match="HTTP 502"):
            await two.source.tip()
    assert two.requests() == [FAILURES, FAILURES]
    with pytest.raises(NodeUnavailable, match=rf"{FIRST}: open, next try in 5 s.*{SECOND}: open, next try"):
        await two.source.tip()
    assert two.requests() == [0, 0]


async def test_calls_are_bounded(two: Group, time: ManualTime) -> None:
    """No retry storm: while all are away, each is asked a few times, then once for each rest."""
    for node in two.nodes:
        away(node)
    for _ in range(100):
        with pytest.raises(NodeUnavailable):
            await two.source.tip()
    assert two.requests() == [FAILURES, FAILURES]
    for _ in range(3):
        time.now += RECOVERY_S
        for _ in range(10):
            with pytest.raises(NodeUnavailable):
                await two.source.tip()
        assert two.requests() == [1, 1]


async def test_a_wrong_chain_id_of_the_first_is_fatal(two: Group) -> None:
    """Nothing is asked of a chain that is not ours; the settings must be put right."""
    two.nodes[0].spoil = lambda method, _params, answer: (
        {"result": "0x5"} if method == "eth_chainId" else answer
    )
    with pytest.raises(WrongChain, match="CHAIN_ID"):
        await two.source.tip()
    assert {method for method, _ in two.nodes[0].asked} <= {"eth_chainId", "eth_getBlockByNumber"}


async def test_a_wrong_chain_id_of_a_fallback_is_skipped_loudly(two: Group, time: ManualTime) -> None:
    """It is never believed, not for one call, and everybody is told."""
    two.nodes[1].chain = LocalChain(chain_id=5)
    await two.source.tip()
    away(two.nodes[0], 1)
    with pytest.raises(NodeUnavailable, match="502"):
        await two.source.tip()
    assert {method for method, _ in two.nodes[1].asked} <= {"eth_chainId", "eth_getBlockByNumber"}
    assert "serves another chain: id 5" in two.endpoints.health()[SECOND]
    assert any("serves another chain: id 5" in line for line in two.told.lines)
    two.requests()
    time.now += FOREIGN_S - 1
    for _ in range(3):
        assert await two.source.tip() == two.chain.tip
    assert two.requests()[1] == 0


async def test_another_genesis_is_another_chain(two: Group) -> None:
    """The same chain id is not enough: a dev chain or a fork has it too."""
    two.nodes[1].chain = LocalChain(salt="fork")
    await two.source.tip()
    away(two.nodes[0], 1)
    with pytest.raises(NodeUnavailable):
        await two.source.tip()
    assert "serves another chain" in two.endpoints.health()[SECOND]


async def test_an_endpoint_that_comes_back_as_another_chain_is_not_believed(
    two: Group, time: ManualTime
) -> None:
    """After each failure it has to show its chain again."""
    await two.source.tip()
    away(two.nodes[0], 1)
    await two.source.tip()
    two.nodes[0].chain = LocalChain(chain_id=5)
    time.now += RECOVERY_S
    assert await two.source.tip() == two.chain.tip
    assert two.endpoints.host == SECOND
    assert "serves another chain" in two.endpoints.health()[FIRST]


@pytest.mark.parametrize("answer", [{"result": None}, {"result": "0xzz"}, {"result": "five"}, {"result": 5}])
async def test_an_endpoint_that_cannot_show_its_chain_is_not_asked(two: Group, answer: Json) -> None:
    """No answer is no proof."""
    two.nodes[0].spoil = lambda method, _params, honest: answer if method == "eth_chainId" else honest
    assert await two.source.tip() == two.chain.tip
    assert two.endpoints.host == SECOND


async def test_rests_are_told_once(two: Group, time: ManualTime) -> None:
    """When it begins, and when the endpoint works again; not for each try in between."""
    away(two.nodes[0])
    for _ in range(3):
        await two.source.tip()
        time.now += REST_MAX_S
    two.nodes[0].raw.clear()
    await two.source.tip()
    assert [line.partition(": ")[0] for line in two.told.lines] == [
        f"endpoint {FIRST} rests 5 s",
        f"endpoint {FIRST} works",
    ]


async def test_a_third_one_helps_where_two_fail(group_of: Callable[..., Any]) -> None:
    """In order of preference."""
    group: Group = await group_of(3)
    away(group.nodes[0])
    limited(group.nodes[1])
    assert await group.source.tip() == group.chain.tip
    assert group.endpoints.host == THIRD
    assert [health == "ok" for health in group.endpoints.health().values()] == [False, False, True]


async def test_cancelled_calls_rest_nobody(two: Group) -> None:
    """A stop in the middle of a call, often enough to look like an outage."""
    await two.source.tip()
    two.nodes[0].raw.extend([Raw(b"{}", delay_s=5)] * (FAILURES + 1))
    for _ in range(FAILURES + 1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await two.source.tip()
    assert two.endpoints.health() == {FIRST: "ok", SECOND: "ok"}


async def test_one_alone_is_asked_once_for_each_call(one: Group) -> None:
    """As without us: its own errors, no second try, no questions about its chain."""
    for _ in range(3):
        one.nodes[0].raw.append(Raw(b"no", 503))
        with pytest.raises(NodeUnavailable, match="HTTP 503"):
            await one.source.tip()
    assert one.requests() == [3]
    assert await one.source.tip() == one.chain.tip
    assert one.requests() == [1]
    one.nodes[0].spoil = failing("eth_getLogs", code=-32601, message="not available")
    with pytest.raises(NodeUnsuitable):
        await one.source.facts(one.chain.tip)
    assert one.told.lines == []


async def test_one_alone_that_is_away_is_left_alone(one: Group, time: ManualTime) -> None:
    """After so many failures the error comes at once; then one call tries again."""
    away(one.nodes[0])
    for _ in range(FAILURES + 5):
        with pytest.raises(NodeUnavailable):
            await one.source.tip()
    assert one.requests() == [FAILURES]
    assert "HTTP 502" in one.endpoints.health()["127.0.0.1"]
    time.now += RECOVERY_S
    one.nodes[0].raw.clear()
    assert await one.source.tip() == one.chain.tip
    assert one.endpoints.health() == {"127.0.0.1": "ok"}


async def test_one_alone_is_limited_as_it_says(one: Group, time: ManualTime) -> None:
    """Its own error first; until it may be asked again, the refusal at once."""
    limited(one.nodes[0], {"Retry-After": "30"})
    with pytest.raises(NodeLimited):
        await one.source.tip()
    with pytest.raises(NodeUnavailable, match=r"next try in 30 s: 127\.0\.0\.1: HTTP 429"):
        await one.source.tip()
    assert one.requests() == [1]
    time.now += 30
    assert await one.source.tip() == one.chain.tip


async def test_slow_ranges_do_not_rest_one_alone(group_of: Callable[..., Any]) -> None:
    """Halving a range takes many of them; a single block that takes too long is the node's failure."""
    group: Group = await group_of(1, timeout_s=0.02)
    group.nodes[0].raw.extend([Raw(b"{}", delay_s=0.5)] * 50)
    for _ in range(FAILURES + 1):
        with pytest.raises(RangeTooLarge):
            (await group.source.history(1, 4)).facts()
    assert group.endpoints.health() == {"127.0.0.1": "ok"}
    for _ in range(FAILURES):
        with pytest.raises(NodeSlow):
            (await group.source.history(1, 1)).facts()
    assert group.endpoints.health()["127.0.0.1"].startswith("open")


async def test_nothing_asked_is_nothing_answered(one: Group) -> None:
    """An empty batch is no request."""
    assert await one.endpoints.batch([]) == []
    assert one.requests() == [0]


async def test_a_batch_is_answered_by_one_node(two: Group) -> None:
    """If the first one cannot answer all of it, none of its answers is used."""
    two.nodes[0].raw.extend([None, Raw(orjson.dumps([]))])
    replies = await two.endpoints.batch([("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))])
    assert len(replies) == 2
    assert {method for method, _ in two.nodes[1].asked} == {"eth_chainId", "eth_getBlockByNumber"}

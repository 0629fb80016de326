"""`ListingChain` on JSON-RPC, against a node that can be told to misbehave."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from listener.application.errors import InconsistentReply, NodeUnavailable, RangeTooLarge
from listener.application.listing import ListingChain, PoolTerms
from listener.domain.value_objects import Address
from listener.infrastructure.blockchain.bloom import BloomPolicy
from listener.infrastructure.blockchain.listing_source import RpcListingChain
from listener.infrastructure.blockchain.pool_terms import FACTORY as FACTORY_OF
from listener.infrastructure.blockchain.pool_terms import PARAMETERS
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.tokens import TOTAL_SUPPLY
from listener.infrastructure.blockchain.venues import BondingCurve
from tests.fakes.build import FACTORY, created, curve, graduate, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.node import FakeNode, Json, returned, serving

REVERTED: Final[Json] = {"error": {"code": 3, "message": "execution reverted", "data": "0x"}}
BROKEN: Final[Json] = {"error": {"code": -32000, "message": "database is closed"}}
WORDS: Final = [1_073, 30, 1_000, 85, 100]


@pytest.fixture
def node() -> FakeNode:
    """Blocks 1 and 3 have logs; block 3 has three in two transactions."""
    chain = LocalChain()
    chain.mine(created(0))
    chain.mine()
    chain.mine(swap(0, tx="a"), swap(0, buy=False, tx="b"), graduate(0, tx="b", liquidity=(7, 8)))
    chain.mine_empty(2)
    return FakeNode(chain)


@asynccontextmanager
async def connected(node: FakeNode, bloom: BloomPolicy = "lenient") -> AsyncIterator[ListingChain]:
    """A client of the node."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        source = RpcChainSource(rpc, BondingCurve.decoders, bloom, layouts=BondingCurve.layouts)
        try:
            yield RpcListingChain(rpc, source, BondingCurve.decoders)
        finally:
            await rpc.close()


async def test_blocks_have_their_transactions_places(node: FakeNode) -> None:
    """The first, the last, and those with logs; facts as the chain states them."""
    async with connected(node) as chain:
        blocks = await chain.blocks(1, 5)
    assert [(one.block, one.facts) for one in blocks] == [node.chain.blocks[n][:2] for n in (1, 3, 5)]
    assert [one.transactions for one in blocks] == [{0: 0}, {0: 0, 1: 1, 2: 1}, {}]


@pytest.mark.parametrize("policy", ["lenient", "strict"])
@pytest.mark.parametrize("receipts", ["block", "each"])
async def test_logs_that_a_node_leaves_out_are_found(
    node: FakeNode, policy: BloomPolicy, receipts: str
) -> None:
    """A service asks for a block once: headers' blooms are looked at even far from the head."""
    node.lose, node.receipts = lambda _logs: [], receipts  # type: ignore[assignment]
    async with connected(node, policy) as chain:
        blocks = await chain.blocks(0, 5)
    assert [len(one.facts) for one in blocks if one.facts] == [1, 3]
    assert blocks[2].transactions == {0: 0, 1: 1, 2: 1}


async def test_without_blooms_few_headers_are_read(node: FakeNode) -> None:
    """`BLOOM_POLICY=off` saves a header a block."""
    for policy, headers in (("off", 4), ("lenient", 6)):
        node.asked.clear()
        async with connected(node, policy) as chain:  # type: ignore[arg-type]
            await chain.blocks(0, 5)
        assert [method for method, _ in node.asked].count("eth_getBlockByNumber") == headers
        assert [method for method, _ in node.asked].count("eth_getLogs") == 1


@pytest.mark.parametrize("place", [None, "", "nonsense", "-0x1", "0x80000000"])
async def test_a_log_must_say_which_transaction_it_is_of(node: FakeNode, place: str | None) -> None:
    """A place that is missing or nonsense is not guessed."""

    def spoil(method: str, _params: object, answer: Json) -> Json:
        if method == "eth_getLogs":
            answer["result"][0]["transactionIndex"] = place
        return answer

    node.spoil = spoil
    async with connected(node) as chain:
        with pytest.raises(InconsistentReply, match="transaction"):
            await chain.blocks(0, 5)


async def test_blocks_must_follow_each_other(node: FakeNode) -> None:
    """Headers of two branches are not one range."""

    def spoil(method: str, params: list[object], answer: Json) -> Json:
        if method == "eth_getBlockByNumber" and params[0] == "0x2":
            answer["result"]["hash"] = "0x" + "5" * 64
        return answer

    node.spoil = spoil
    async with connected(node) as chain:
        with pytest.raises(InconsistentReply, match="does not follow"):
            await chain.blocks(0, 5)


async def test_a_refusal_for_its_size_passes_through(node: FakeNode) -> None:
    """Whoever asks makes the range smaller."""
    node.spoil = lambda method, _params, answer: (
        {"error": {"code": -32005, "message": "query returned more than 10000 results"}}
        if method == "eth_getLogs"
        else answer
    )
    async with connected(node) as chain:
        with pytest.raises(RangeTooLarge):
            await chain.blocks(0, 5)


async def test_terms_are_the_factorys(node: FakeNode) -> None:
    """Fee, and reserves that never existed; what no factory of this kind made has neither."""
    node.contracts[curve(0), FACTORY_OF] = node.contracts[curve(1), FACTORY_OF] = returned("address", FACTORY)
    node.contracts[FACTORY, PARAMETERS] = returned("uint256[5]", WORDS)
    node.contracts[curve(2), FACTORY_OF] = REVERTED
    node.contracts[curve(3), FACTORY_OF] = {"result": "0x"}
    pools = [curve(0), curve(1), curve(2), "0xpool:id", curve(3)]
    async with connected(node) as chain:
        told = await chain.terms(pools)
        assert told == [PoolTerms(100, (73, 30))] * 2 + [PoolTerms()] * 3
        assert [params[0]["to"] for _, params in node.asked].count(FACTORY) == 1
        assert await chain.terms(["0xpool:id"]) == [PoolTerms()]


@pytest.mark.parametrize("words", [WORDS[:4], [*WORDS, 1], [999, *WORDS[1:]], [*WORDS[:4], 10_001]])
async def test_terms_that_cannot_be_are_none(node: FakeNode, words: list[int]) -> None:
    """Another contract may have functions of these names."""
    node.contracts[curve(0), FACTORY_OF] = returned("address", FACTORY)
    node.contracts[FACTORY, PARAMETERS] = returned(f"uint256[{len(words)}]", words)
    async with connected(node) as chain:
        assert await chain.terms([curve(0)]) == [PoolTerms()]


async def test_a_supply_is_the_tokens_word(node: FakeNode) -> None:
    """None where it does not say; an error where the node is at fault, for terms as well."""
    asked = Address(token(0))
    async with connected(node) as chain:
        for answer, supply in (
            (returned("uint256", 2**256 - 1), 2**256 - 1),
            ({"result": "0x12"}, None),
            (REVERTED, None),
        ):
            node.contracts[asked, TOTAL_SUPPLY] = answer
            assert await chain.supply(asked) == supply
        node.contracts[asked, TOTAL_SUPPLY] = node.contracts[curve(0), FACTORY_OF] = BROKEN
        with pytest.raises(NodeUnavailable):
            await chain.supply(asked)
        with pytest.raises(NodeUnavailable):
            await chain.terms([curve(0)])


async def test_addresses_are_shown_with_their_checksum(node: FakeNode) -> None:
    """EIP-55, with an example of its own; other names stay as they are."""
    async with connected(node) as chain:
        example = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
        assert chain.shown(example.lower()) == example
        assert chain.shown("0xpool:id") == "0xpool:id"

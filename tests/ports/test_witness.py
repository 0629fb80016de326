"""Contract of `Witness`: a second account of blocks that agrees with the source's, or says why it cannot."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from listener.application.errors import (
    InconsistentReply,
    NodeBehind,
    NodeSlow,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
)
from listener.application.interfaces import Witness
from listener.demo.processes import start_anvil
from listener.domain.facts import Malformed, Swapped
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.bloom import BloomPolicy, bloom_of, parse_bloom
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import BondingCurve
from listener.infrastructure.blockchain.wire import Header
from listener.infrastructure.blockchain.witness import (
    BLOCKS_AT_ONCE,
    LogsWitness,
    ReceiptReader,
    ReceiptsWitness,
)
from tests.fakes.build import STRANGER, created, digest, graduate, malformed, swap
from tests.fakes.chain import LocalChain
from tests.fakes.node import GRADUATED_TOPIC, TRADE_TOPIC, FakeNode, Json, Raw, indexed, serving


class Bench:
    """A witness, the source that it is held against, and the node behind both."""

    def __init__(self, node: FakeNode, witness: Witness, source: RpcChainSource) -> None:
        self.node = node
        self.chain = node.chain
        self.witness = witness
        self.source = source

    def blocks(self, *numbers: int) -> list[BlockRef]:
        """Blocks by number; all of them if none is given."""
        return [self.chain.blocks[n].block for n in numbers or range(len(self.chain.blocks))]


def busy_chain() -> LocalChain:
    """Blocks with logs of every kind, several in a transaction, and empty ones."""
    chain = LocalChain()
    chain.mine(created(0, tx="a"), swap(0, tx="a"), swap(0, tx="b"))
    chain.mine_empty(2)
    chain.mine(swap(0), graduate(0), malformed(STRANGER))
    for _ in range(2 * BLOCKS_AT_ONCE):
        chain.mine(swap(0), swap(0))
    return chain


@pytest.fixture
async def node() -> FakeNode:
    """A node of a busy chain."""
    return FakeNode(busy_chain())


@pytest.fixture(params=["receipts", "receipts one by one", "logs"])
async def bench(request: pytest.FixtureRequest, node: FakeNode) -> AsyncIterator[Bench]:
    """Each kind of witness."""
    node.receipts = "each" if request.param == "receipts one by one" else "block"
    kind = LogsWitness if request.param == "logs" else ReceiptsWitness
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        source = RpcChainSource(rpc, BondingCurve.decoders, "off", layouts=BondingCurve.layouts)
        yield Bench(node, kind(rpc, BondingCurve.decoders), source)
        await rpc.close()


@pytest.fixture
async def receipts(node: FakeNode) -> AsyncIterator[ReceiptsWitness]:
    """A witness by receipts."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        yield ReceiptsWitness(rpc, BondingCurve.decoders)
        await rpc.close()


@pytest.fixture
async def logs(node: FakeNode) -> AsyncIterator[LogsWitness]:
    """A witness by logs."""
    async with serving(node) as url:
        rpc = HttpRpc(url, 5)
        yield LogsWitness(rpc, BondingCurve.decoders)
        await rpc.close()


async def test_it_agrees_with_an_honest_source(bench: Bench) -> None:
    """Facts and digests are the same to the last bit, for each block, in order."""
    expected = [await bench.source.facts(block) for block in bench.blocks()]
    assert list(await bench.witness.facts(bench.blocks())) == expected


async def test_blocks_need_not_be_contiguous(bench: Bench) -> None:
    """Any blocks, even one, even none."""
    for blocks in (bench.blocks(1, 4, 5, 9), bench.blocks(4), []):
        assert [found.block for found in await bench.witness.facts(blocks)] == blocks


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_it_finds_what_the_source_was_not_told(bench: Bench, keep: int) -> None:
    """Logs that a node left out, of a topic that others have too: no bloom would have told."""
    block = bench.blocks(1)[0]
    bench.node.lose, bench.node.lose_calls = lambda found: found[:keep], 1
    told = await bench.source.facts(block)
    (seen,) = await bench.witness.facts([block])
    assert told.digest != seen.digest
    assert len(seen.facts) == 3


async def test_a_node_that_is_behind_is_no_witness(bench: Bench) -> None:
    """What it does not know is not missing."""
    bench.node.behind = 2
    with pytest.raises(NodeBehind):
        await bench.witness.facts(bench.blocks())


async def test_another_branch_is_no_difference(bench: Bench) -> None:
    """A node that follows another fork says nothing of our blocks."""
    blocks = bench.blocks()
    bench.chain.fork(2)
    bench.chain.mine(swap(0), swap(0))
    bench.chain.mine(swap(0), swap(0))
    with pytest.raises((NodeBehind, InconsistentReply)):
        await bench.witness.facts(blocks)


@pytest.mark.parametrize("status", [429, 502])
async def test_an_outage_is_retryable(bench: Bench, status: int) -> None:
    """Nothing is concluded from it."""
    bench.node.raw.append(Raw(b"", status))
    with pytest.raises(NodeUnavailable):
        await bench.witness.facts(bench.blocks(1))


def becomes(method: str, change: Callable[[Any], Any]) -> Callable[[str, list[Any], Json], Json]:
    """One method's results are not what they should be."""

    def spoil(asked: str, _params: list[Any], answer: Json) -> Json:
        return {"result": change(answer["result"])} if asked == method and answer.get("result") else answer

    return spoil


async def test_receipts_are_asked_for_modestly(node: FakeNode, receipts: ReceiptsWitness) -> None:
    """A few blocks at a time: headers, then receipts."""
    blocks = [facts.block for facts in node.chain.blocks]
    await receipts.facts(blocks)
    slices = -(-len(blocks) // BLOCKS_AT_ONCE)
    assert node.requests == 2 * slices
    assert sum(method == "eth_getBlockReceipts" for method, _ in node.asked) == len(blocks) - 3


async def test_a_node_without_receipts_is_unsuitable(node: FakeNode, receipts: ReceiptsWitness) -> None:
    """It will not become a witness by waiting."""
    node.receipts = "none"
    with pytest.raises(NodeUnsuitable):
        await receipts.facts([node.chain.blocks[1].block])


async def test_receipts_of_a_block_that_are_refused_once_are_not_asked_for_again(
    node: FakeNode, receipts: ReceiptsWitness
) -> None:
    """From then on they are read one by one."""
    node.receipts = "each"
    for _ in range(3):
        assert (await receipts.facts([node.chain.blocks[1].block]))[0].facts
    assert sum(method == "eth_getBlockReceipts" for method, _ in node.asked) == 1


REFUSALS = [
    (-32601, "the method eth_getBlockReceipts does not exist/is not available"),
    (-32602, "invalid argument 0: hex string has length 64, want 40"),
    (-32004, "method not supported"),
    (-32600, "Unsupported method: eth_getBlockReceipts. See available methods at https://docs.alchemy.com"),
    (-32000, "rpc method is not whitelisted"),
]


@pytest.mark.parametrize(("code", "message"), REFUSALS)
async def test_refusals_of_whole_blocks_are_understood(
    node: FakeNode, receipts: ReceiptsWitness, code: int, message: str
) -> None:
    """Nodes say in several ways that they do not offer it."""
    error = {"error": {"code": code, "message": message}}
    node.spoil = lambda method, _params, answer: error if method == "eth_getBlockReceipts" else answer
    assert len((await receipts.facts([node.chain.blocks[1].block]))[0].facts) == 3


async def test_receipts_may_come_in_any_order(node: FakeNode, receipts: ReceiptsWitness) -> None:
    """Log indices order the logs."""
    expected = await receipts.facts([node.chain.blocks[1].block])
    node.spoil = becomes("eth_getBlockReceipts", lambda found: found[::-1])
    assert await receipts.facts([node.chain.blocks[1].block]) == expected


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda rs: [{**r, "blockHash": digest("other")} for r in rs], InconsistentReply),
        (lambda rs: [{**r, "logs": r["logs"] * 2} for r in rs], InconsistentReply),
        (lambda rs: [{**r, "logs": [{"address": 1}]} for r in rs], NodeUnavailable),
        (lambda _rs: {"not": "a list"}, NodeUnavailable),
    ],
)
async def test_receipts_that_cannot_be_are_no_testimony(
    node: FakeNode, receipts: ReceiptsWitness, change: Callable[[Any], Any], kind: type[Exception]
) -> None:
    """Of another block, doubled, or no receipts."""
    node.spoil = becomes("eth_getBlockReceipts", change)
    with pytest.raises(kind):
        await receipts.facts([node.chain.blocks[1].block])


async def test_a_missing_receipt_is_a_node_behind(node: FakeNode, receipts: ReceiptsWitness) -> None:
    """Each transaction has one: less is not the whole block."""
    node.spoil = becomes("eth_getBlockReceipts", lambda found: found[:-1])
    assert len((await receipts.facts([node.chain.blocks[1].block]))[0].facts) == 3
    short = node.spoil
    node.spoil = lambda method, params, answer: (
        {"result": None} if method == "eth_getTransactionReceipt" else short(method, params, answer)
    )
    with pytest.raises(NodeBehind):
        await receipts.facts([node.chain.blocks[1].block])


async def test_logs_are_asked_for_by_wide_ranges(node: FakeNode, logs: LogsWitness) -> None:
    """One request for contiguous blocks."""
    await logs.facts([facts.block for facts in node.chain.blocks])
    assert node.requests == 1


async def test_a_range_that_is_too_large_is_halved(node: FakeNode, logs: LogsWitness) -> None:
    """Down to single blocks, if need be."""
    blocks = [facts.block for facts in node.chain.blocks]
    whole = await logs.facts(blocks)

    def at_most_three(method: str, params: list[Any], answer: Json) -> Json:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) > 2:
            return {"error": {"code": -32600, "message": "block range too high"}}
        return answer

    node.spoil = at_most_three
    assert await logs.facts(blocks) == whole
    node.spoil = lambda method, _params, answer: (
        {"error": {"code": -32005, "message": "query returned more than 10000 results"}}
        if method == "eth_getLogs"
        else answer
    )
    with pytest.raises(RangeTooLarge):
        await logs.facts(blocks)


async def test_a_range_that_takes_too_long_is_halved(node: FakeNode) -> None:
    """A single block that takes too long is the node's failure."""
    blocks = [facts.block for facts in node.chain.blocks[:2]]
    async with serving(node) as url:
        rpc = HttpRpc(url, 0.5)
        witness = LogsWitness(rpc, BondingCurve.decoders)
        node.raw.append(Raw(b"{}", delay_s=3))
        assert [found.block for found in await witness.facts(blocks)] == blocks
        node.raw.append(Raw(b"{}", delay_s=3))
        with pytest.raises(NodeSlow):
            await witness.facts(blocks[:1])
        await rpc.close()


@pytest.mark.parametrize(("name", "value"), [("blockHash", digest("other")), ("blockNumber", "0x99")])
async def test_logs_of_other_blocks_are_no_testimony(
    node: FakeNode, logs: LogsWitness, name: str, value: str
) -> None:
    """They belong to another chain, or to nobody."""
    node.spoil = becomes("eth_getLogs", lambda found: [*found[:-1], {**found[-1], name: value}])
    with pytest.raises(InconsistentReply):
        await logs.facts([facts.block for facts in node.chain.blocks])


TRADE_WORDS = 6


def emitting(*topics: str) -> str:
    """Init code that emits a log of these topics and six zero words, and deploys nothing."""
    pushed = "".join("7f" + topic[2:] for topic in reversed(topics))
    return f"0x{pushed}60{32 * TRADE_WORDS:02x}6000a{len(topics)}00"


@pytest.fixture(scope="module")
def anvil() -> Iterator[str]:
    """A real node; its URL. A block is final when one comes after the next."""
    with start_anvil("--slots-in-an-epoch", "1") as chain:
        yield f"http://127.0.0.1:{chain.found}"


@pytest.fixture
async def real(anvil: str) -> AsyncIterator[HttpRpc]:
    """A chain of a few blocks: two of our events in one, a stranger's in another, and empty ones."""
    rpc = HttpRpc(anvil, 20)
    (sender, *_) = await rpc.call("eth_accounts", (), list[str]) or [""]
    await rpc.call("evm_setAutomine", (False,), type(None))
    ours = (TRADE_TOPIC, indexed(STRANGER), indexed(STRANGER))
    for codes in ([emitting(*ours), emitting(GRADUATED_TOPIC)], [], [emitting(digest("Transfer"))]):
        for code in codes:
            await rpc.call("eth_sendTransaction", ({"from": sender, "data": code, "gas": "0x50000"},), str)
        await rpc.call("evm_mine", (), str)
    yield rpc
    await rpc.close()


async def test_a_real_nodes_bloom_is_what_its_receipts_say(real: HttpRpc) -> None:
    """Of a block with transactions; and what we work out of the logs is the same."""
    source = RpcChainSource(real, BondingCurve.decoders, "strict", layouts=BondingCurve.layouts)
    tip = await source.tip()
    seen: dict[int, int] = {}
    for number in range(1, tip.number + 1):
        header = await real.call("eth_getBlockByNumber", (hex(number), False), Header)
        assert header is not None
        block = header.ref()
        logs = (await ReceiptReader(real).logs({block: header.transaction_hashes()}))[block]
        assert bloom_of(logs) == parse_bloom(header.logs_bloom)
        seen[len(logs)] = seen.get(len(logs), 0) + 1
    assert set(seen) == {0, 1, 2}


@pytest.mark.parametrize("bloom", ["strict", "lenient"])
async def test_all_accounts_of_a_real_node_agree(real: HttpRpc, bloom: BloomPolicy) -> None:
    """By hash, by range, by receipts and by logs: the same facts, the same digests."""
    source = RpcChainSource(real, BondingCurve.decoders, bloom, layouts=BondingCurve.layouts)
    tip = await source.tip()
    blocks = [await source.block(number) for number in range(1, tip.number + 1)]
    found = [await source.facts(block) for block in blocks]
    assert [fact.source for fact in found[0].facts if isinstance(fact, Swapped | Malformed)]
    assert list(await ReceiptsWitness(real, BondingCurve.decoders).facts(blocks)) == found
    assert list(await LogsWitness(real, BondingCurve.decoders).facts(blocks)) == found
    between = (await source.history(1, tip.number)).facts()
    expected = [facts for facts in found if facts.facts or facts.block in {blocks[0], blocks[-1]}]
    assert list(between) == [facts._replace(digest="") for facts in expected]


async def test_a_real_node_has_a_finalized_block(real: HttpRpc) -> None:
    """Two blocks below the tip, with one slot to an epoch."""
    source = RpcChainSource(real, BondingCurve.decoders, layouts=BondingCurve.layouts)
    final = await source.finalized()
    assert final is not None
    assert final.number == (await source.tip()).number - 2


async def test_what_a_real_node_forked_away_is_not_there(real: HttpRpc) -> None:
    """Neither witness says anything of an orphan."""
    source = RpcChainSource(real, BondingCurve.decoders, layouts=BondingCurve.layouts)
    orphan = await source.tip()
    await real.call("anvil_reorg", (1, []), type(None))
    for witness in (ReceiptsWitness(real, BondingCurve.decoders), LogsWitness(real, BondingCurve.decoders)):
        with pytest.raises((NodeBehind, InconsistentReply)):
            await witness.facts([orphan])
    with pytest.raises(NodeBehind):
        await source.facts(orphan)

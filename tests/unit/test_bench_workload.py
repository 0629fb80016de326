"""The workloads and the replay node of the benchmarks: what is measured must be a chain."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.replay import Behaviour, ReplayChain, listed
from bench.workload import FACTORY, Shape, Workload, address, block_hash

SHAPE = Shape(trades=200, markets=8, trades_per_block=20)


def logs_of(workload: Workload, first: int, last: int) -> list[dict[str, Any]]:
    """Decoded logs."""
    found: list[dict[str, Any]] = orjson.loads(listed(workload.logs(first, last)))
    return found


def ask(chain: ReplayChain, method: str, *params: object) -> Any:
    """The result of a call."""
    reply = chain.reply({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
    return orjson.loads(b"".join(reply))["result"]


@pytest.fixture
def repeated(tmp_path: Path) -> Workload:
    """Ten generated blocks, two and a half times."""
    return Workload.open(SHAPE._replace(trades=500, template=200), tmp_path)


def test_repeated_blocks_are_blocks_of_their_own(repeated: Workload) -> None:
    """Each block of a later round has its number and hash in every log, the trades of its source, no more."""
    for number in range(11, 26):
        logs = logs_of(repeated, number, number)
        assert {(log["blockNumber"], log["blockHash"]) for log in logs} == {(hex(number), block_hash(number))}
        source = logs_of(repeated, (number - 1) % 10 + 1, (number - 1) % 10 + 1)
        assert [log["data"] for log in logs] == [log["data"] for log in source if log["address"] != FACTORY]


@pytest.mark.parametrize(("first", "last"), [(1, 25), (1, 10), (9, 12), (11, 11), (20, 30), (26, 40)])
def test_ranges_are_their_blocks(repeated: Workload, first: int, last: int) -> None:
    """The logs of a range are those of its blocks, and as many as `count` says."""
    one_by_one = [log for number in range(first, last + 1) for log in logs_of(repeated, number, number)]
    assert logs_of(repeated, first, last) == one_by_one
    assert repeated.count(first, last) == len(one_by_one)


def test_of_markets_finds_what_is_served(repeated: Workload) -> None:
    """The logs for the oracle are those that the node serves, of all rounds."""
    wanted = {address("curve", market) for market in (0, 3)}
    tokens = {f"0x{0:024x}{address('token', market)[2:]}" for market in (0, 3)}
    served = [
        log for log in logs_of(repeated, 1, 25) if log["address"] in wanted or log["topics"][1] in tokens
    ]
    found = repeated.of_markets({0, 3})
    assert sorted(found, key=place) == sorted(served, key=place)
    assert len(found) > 100


def place(log: dict[str, Any]) -> tuple[int, int]:
    """Where a log stands."""
    return int(log["blockNumber"], 16), int(log["logIndex"], 16)


def test_idle_markets_trade_once_and_first(tmp_path: Path) -> None:
    """Each idle market has one trade, and all of these come before the others."""
    workload = Workload.open(SHAPE._replace(idle=50), tmp_path)
    emitters = [log["address"] for log in logs_of(workload, 1, 10) if log["address"] != FACTORY]
    idle = [address("curve", market) for market in range(8, 58)]
    assert emitters[:50] == idle
    assert not set(emitters[50:]) & set(idle)
    assert len(workload.announced) == 50 + len(set(emitters[50:]))


@pytest.fixture
def forking(tmp_path: Path) -> ReplayChain:
    """A chain at block 2 that forks at blocks 6 and 9, two blocks deep."""
    behaviour = Behaviour(tail=0, tip=2, interval_ms=1, fork_every=3, fork_depth=2)
    return ReplayChain(Workload.open(SHAPE, tmp_path), behaviour)


def test_every_block_has_its_parent_before_and_after_forks(forking: ReplayChain) -> None:
    """Whatever the tip is, the blocks by number are a chain, and each knows its logs by hash."""
    while forking.release():
        blocks = [ask(forking, "eth_getBlockByNumber", hex(number)) for number in range(forking.tip + 1)]
        assert [block["parentHash"] for block in blocks[1:]] == [block["hash"] for block in blocks[:-1]]
        for block in blocks[1:]:
            logs = ask(forking, "eth_getLogs", {"blockHash": block["hash"]})
            assert {log["blockHash"] for log in logs} == {block["hash"]}
            receipts = ask(forking, "eth_getBlockReceipts", block["hash"])
            assert [log for receipt in receipts for log in receipt["logs"]] == logs


def test_a_fork_replaces_the_blocks_below_it(forking: ReplayChain) -> None:
    """They have other hashes and one log less; the old ones are still known by hash, as they were."""
    hashes: dict[int, str] = {}
    before: dict[int, list[Any]] = {}
    while forking.tip < 6:
        for number in range(1, forking.tip + 1):
            hashes[number] = forking.hash(number)
            before[number] = ask(forking, "eth_getLogs", {"blockHash": hashes[number]})
        forking.release()
    assert {number for number in hashes if forking.hash(number) != hashes[number]} == {4, 5}
    for number in (4, 5):
        after = ask(forking, "eth_getLogs", {"fromBlock": hex(number), "toBlock": hex(number)})
        assert [log["data"] for log in after] == [log["data"] for log in before[number][:-1]]
        orphan = ask(forking, "eth_getBlockByHash", hashes[number])
        assert (orphan["hash"], orphan["parentHash"]) == (hashes[number], hashes[number - 1])
        assert ask(forking, "eth_getLogs", {"blockHash": hashes[number]}) == before[number]


def test_the_oracle_gets_the_chain_as_it_is_at_last(forking: ReplayChain) -> None:
    """`of_markets` follows the forks."""
    while forking.release():
        pass
    served = ask(forking, "eth_getLogs", {"fromBlock": "0x1", "toBlock": hex(forking.last)})
    assert sorted(forking.of_markets(set(range(8))), key=place) == served
    assert Counter(forking.forks.values()) == {6: 2, 9: 2}

"""Listing services walk a real chain block by block and know the oracle's trades from the answers alone."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis

from listener.demo.launchpad import ETHER, Launchpad, Parameters
from tests.e2e.scenario import Scenario
from tests.e2e.system import CHAIN_ID, System
from tests.fakes.listing_client import ListingClient, asking

FINALITY: Final = 4
SETTINGS: Final = {
    "FINALITY_WINDOW": str(FINALITY),
    "POLL_INTERVAL_MS": "50",
    "AUDIT_BLOCKS_PER_S": "1000",
    "LISTING_RETENTION_HOURS": "8760",
    "LISTING_INTERVAL_MS": "50",
    "GATEWAY_RATE_PER_S": "0",
}
COVERAGE: Final = f"coverage:{{{CHAIN_ID}}}"
FLAVOURS: Final = ("dexscreener", "geckoterminal")


@pytest.fixture
def launchpad(system: System) -> Launchpad:
    """Curves that graduate within a test, on a factory with a fee."""
    return system.deploy(Parameters(graduation_threshold=2 * ETHER, virtual_quote=3 * ETHER))


@pytest.fixture
def scenario(launchpad: Launchpad) -> Iterator[Scenario]:
    """A launchpad's life: three markets to begin with."""
    one = Scenario(launchpad, 6)
    for _ in range(3):
        one.create()
    one.set_mining(automatic=False)
    yield one
    one.close()


def follow(system: System, clients: list[ListingClient], upto: int) -> None:
    """Walk on until a block was asked for."""
    for client in clients:
        system.wait(lambda client=client: client.walk() >= upto, f"block {upto}")  # type: ignore[misc]


def kept(trades: list[dict[str, Any]], upto: int) -> list[dict[str, Any]]:
    """What a listing service can know of the oracle's trades, oldest first."""
    names = ("id", "t", "b", "li", "tx", "side", "trader", "xp", "v", "q")
    return [{name: trade[name] for name in names} for trade in reversed(trades) if trade["b"] <= upto]


@pytest.mark.timeout(120)
def test_the_chain_is_known_from_the_answers(
    system: System, database: redis.Redis, launchpad: Launchpad, scenario: Scenario
) -> None:
    """Before the start, over reorgs and a restart; from Redis and from the node, the same bytes."""
    factory = launchpad.factory.address
    scenario.life(25, 5)
    system.start_listener(factory, AUDIT_WINDOW="0", **SETTINGS)
    system.wait_log("Gateway serves")
    ask = asking(system.health(""))
    system.wait(lambda: ask("/dexscreener/latest-block").status == 200, "the first final block")
    began = int(database.hget(COVERAGE, "first") or 0)
    clients = [ListingClient(ask, flavour) for flavour in FLAVOURS]
    assert began > FINALITY, "nothing of before the start would be asked for"
    for depth in (1, FINALITY - 1, 2):
        scenario.life(8, 5)
        follow(system, clients, scenario.tip() - 2 * FINALITY)
        scenario.set_mining(automatic=True)
        launchpad.rpc("anvil_reorg", depth, [])
        scenario.forget_lost()
        scenario.set_mining(automatic=False)
    assert system.listener
    system.listener.process.kill()
    system.ended()
    scenario.life(8, 5)
    system.start_listener(factory, **SETTINGS)
    system.wait_log("Gateway serves")
    ask = asking(system.health(""))
    for client in clients:
        client.ask = ask
    scenario.life(2 * FINALITY, 5)
    upto = scenario.tip() - 2 * FINALITY
    follow(system, clients, upto)

    truth = system.expected(factory)
    for client in clients:
        upto = client.walked
        seen = {market: trades for market, trades in client.trades.items() if trades}
        assert seen == {
            market: found for market, trades in truth.trades.items() if (found := kept(trades, upto))
        }
        assert len([trade for trades in seen.values() for trade in trades]) > 80
        assert {pair["asset0Id"].lower() for pair in client.pairs.values()} == set(seen)
        assert all(pair["feeBps"] == Parameters().fee_bps for pair in client.pairs.values())
        graduated = {s for s, record in truth.records.items() if record["status"] == "graduated"}
        assert client.exits
        assert set(client.exits) <= graduated
    for client in clients:
        check_pairs(client, truth.records)

    covered = [block for block in range(began, upto + 1) if (block, block) in clients[0].bodies]
    assert len(covered) > 20
    database.hset(COVERAGE, "first", upto + 1)
    for client in clients:
        for block in covered:
            again = ask(f"/{client.flavour}/events?fromBlock={block}&toBlock={block}")
            assert again.body == client.bodies[block, block], "the node tells another story than Redis"
        again = ask(f"/{client.flavour}/events?fromBlock=0&toBlock={upto}")
        together = [event for b in range(upto + 1) for event in client.events(b)]
        assert again.json["events"] == together, "ranges differ from their blocks"


def check_pairs(client: ListingClient, records: dict[str, dict[str, Any]]) -> None:
    """Pairs and assets are the markets of the oracle."""
    for pair in client.pairs.values():
        record = records[pair["asset0Id"].lower()]
        assert pair["id"].lower() == record["emitter"]
        assert pair["asset1Id"] == "0x" + "0" * 40
        assert pair["createdAtBlockNumber"] == record["createdBlock"]
        assert pair["createdAtBlockTimestamp"] * 1000 == record["createdAt"]
        asset = client.assets[pair["asset0Id"]]
        assert (asset["name"], asset["symbol"]) == (record["name"], record["symbol"])
        assert asset["totalSupply"] == "1000000000"
        if client.flavour == "geckoterminal":
            assert pair["creator"].lower() == record["creator"]
            assert asset["decimals"] == record["baseDecimals"]
            assert client.assets[pair["asset1Id"]]["decimals"] == 18

"""Reorgs of a real chain: Redis and the backend end as if the orphaned blocks had never been."""

from typing import Any, Final

import pytest

from listener.demo.launchpad import ETHER, Curve, Launchpad, Parameters
from tests.e2e.system import System

SETTINGS: Final = {"FINALITY_WINDOW": "20", "POLL_INTERVAL_MS": "50", "PROCESSING_INTERVAL_MS": "10"}


def buy(launchpad: Launchpad, curve: Curve, trader: int, value: int) -> dict[str, Any]:
    """A buy as the node's reorg takes it."""
    account = launchpad.accounts[trader]
    data = launchpad.at("BondingCurve", curve.address).encode_abi("buy", [0, account])
    return {"from": account, "to": curve.address, "data": data, "value": hex(value), "gas": hex(300_000)}


def trade(launchpad: Launchpad, curves: list[Curve], blocks: int) -> None:
    """So many blocks with a buy each, a bit of a minute apart."""
    for number in range(blocks):
        launchpad.rpc("evm_increaseTime", 17)
        launchpad.buy(curves[number % len(curves)], ETHER // 10 + number, number % 9)


@pytest.mark.timeout(60)
def test_reorgs_within_the_window(system: System) -> None:
    """Reorgs of 1, 3 and 10 blocks, with other trades instead or with none, end in the oracle's Redis."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create(f"Token {number}", f"T{number}") for number in range(3)]
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(factory, **SETTINGS)
    trade(launchpad, curves, 12)
    system.equals_oracle(factory)
    for depth in (1, 3, 10):
        for others in (
            [],
            [[buy(launchpad, curves[1], 4, ETHER), 0], [buy(launchpad, curves[2], 5, 7777), depth - 1]],
        ):
            trade(launchpad, curves, 4)
            system.equals_oracle(factory)
            seen = len(system.records())
            launchpad.rpc("anvil_reorg", depth, others)
            system.equals_oracle(factory)
            told = system.wait_log("Reorg rolled back", after=seen)
            assert told["depth"] == depth
            assert told["ancestor"] == launchpad.web3.eth.block_number - depth
            system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_reorg_over_creation_graduation_and_hours(system: System) -> None:
    """What orphaned blocks created, graduated or carried into another candle is undone, everywhere."""
    launchpad = system.deploy(Parameters(graduation_threshold=2 * ETHER, virtual_quote=3 * ETHER))
    factory = launchpad.factory.address
    first, second = (launchpad.create(name, name) for name in ("FIRST", "SECOND"))
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(factory, **SETTINGS)
    trade(launchpad, [first, second], 4)
    before = system.equals_oracle(factory)
    launchpad.rpc("evm_increaseTime", 3 * 3600)
    late = launchpad.create("LATE", "LATE")
    trade(launchpad, [late, first], 3)
    launchpad.buy(second, 3 * ETHER, 3)
    launchpad.rpc("evm_increaseTime", 25 * 3600)
    launchpad.buy(first, ETHER // 5, 3)
    during = system.equals_oracle(factory)
    assert during.records[second.token]["status"] == "graduated"
    assert during.records[late.token]["status"] == "trading"
    system.backend_equals_redis()

    depth = 6
    launchpad.rpc("anvil_reorg", depth, [[buy(launchpad, second, 6, ETHER // 3), 2]])
    after = system.equals_oracle(factory)
    assert after.markets == before.markets
    assert after.records[second.token]["status"] == "trading"
    assert system.wait_log("Reorg rolled back")["markets"] == 3
    system.backend_equals_redis()
    launchpad.buy(first, ETHER // 7)
    launchpad.create("AGAIN", "AGAIN")
    system.equals_oracle(factory)
    system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_reorg_while_the_listener_is_away(system: System) -> None:
    """A reorg that happened while nobody looked is undone at the next start."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create("One", "ONE")]
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    listener = system.start_listener(factory, **SETTINGS)
    trade(launchpad, curves, 8)
    system.equals_oracle(factory)
    assert listener.stop() == 0
    launchpad.rpc("anvil_reorg", 5, [[buy(launchpad, curves[0], 4, ETHER), 1]])
    trade(launchpad, curves, 2)
    system.start_listener(factory, **SETTINGS)
    system.equals_oracle(factory)
    assert system.wait_log("Reorg rolled back")["depth"] == 5
    system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_deeper_than_the_window_ends_with_nothing_changed(system: System) -> None:
    """A fork below FINALITY_WINDOW ends the service with exit code 5, and Redis stays as it was."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create("One", "ONE")]
    settings = SETTINGS | {"FINALITY_WINDOW": "3", "AUDIT_WINDOW": "0"}
    trade(launchpad, curves, 10)
    system.start_listener(factory, **settings)
    trade(launchpad, curves, 6)
    system.equals_oracle(factory)
    before = system.dump()
    launchpad.rpc("anvil_reorg", 6, [[buy(launchpad, curves[0], 4, ETHER), 0]])
    code, output = system.ended()
    assert code == 5, output
    assert "ReorgTooDeep" in output
    assert "listener verify --repair" in output
    assert "listener resync --from" in output
    after = system.dump()
    before.pop("lease:{31337}", None)
    after.pop("lease:{31337}", None)
    assert after == before

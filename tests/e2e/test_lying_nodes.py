"""Nodes that leave logs out, are limited or gone: Redis ends as the chain says, whatever one of them says."""

from typing import Final

import pytest

from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import start_anvil
from tests.e2e.liar import RECEIPTS, Liar, without_last_log, without_logs
from tests.e2e.system import System, get_json

FAST: Final = {
    "FINALITY_WINDOW": "4",
    "POLL_INTERVAL_MS": "50",
    "PROCESSING_INTERVAL_MS": "10",
    "AUDIT_BLOCKS_PER_S": "1000",
    "BLOCKCHAIN_WS_URL": "",
}


def trade(launchpad: Launchpad, curves: list[Curve], blocks: int) -> None:
    """So many blocks with a buy each."""
    for number in range(blocks):
        launchpad.rpc("evm_increaseTime", 17)
        launchpad.buy(curves[number % len(curves)], ETHER // 10 + number, number % 9)


@pytest.fixture
def launchpad(system: System) -> Launchpad:
    """A factory on the system's chain."""
    return system.deploy()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("policy", "window"), [("lenient", "20"), ("strict", "4")])
def test_logs_that_are_missing_are_found_in_the_receipts(
    system: System, launchpad: Launchpad, policy: str, window: str
) -> None:
    """The header's bloom says more than `eth_getLogs`: near the head, and under `strict` in history too."""
    factory = launchpad.factory.address
    curves = [launchpad.create(name, name) for name in ("ONE", "TWO")]
    with Liar(system.http) as liar:
        settings = {"AUDIT_WINDOW": "0", "FINALITY_WINDOW": window, "BLOOM_POLICY": policy}
        system.start_listener(factory, **FAST | settings, BLOCKCHAIN_HTTP_URL=liar.url)
        system.equals_oracle(factory)
        liar.change = without_logs
        trade(launchpad, curves, 8)
        system.equals_oracle(factory)
        assert RECEIPTS in liar.asked


@pytest.mark.timeout(60)
@pytest.mark.parametrize("second", [False, True])
def test_the_audit_repairs_what_a_bloom_cannot_show(
    system: System,
    launchpad: Launchpad,
    second: bool,
) -> None:
    """Without bloom checks half of a block's trades are missing; the audit finds and repairs them."""
    factory = launchpad.factory.address
    curves = [launchpad.create(name, name) for name in ("ONE", "TWO")]
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    with Liar(system.http) as liar:
        urls = {"BLOCKCHAIN_HTTP_URL": liar.url} | ({"BLOCKCHAIN_AUDIT_URL": system.http} if second else {})
        system.start_listener(factory, **FAST | urls, BLOOM_POLICY="off")
        trade(launchpad, curves, 3)
        system.equals_oracle(factory)
        liar.change = without_last_log
        trade(launchpad, curves, 6)
        system.wait_for_block(launchpad.web3.eth.block_number)
        liar.change = lambda _call, answer: answer
        trade(launchpad, curves, 6)
        system.wait_log("Audit found a difference", repaired=True)
        system.equals_oracle(factory)
        system.backend_equals_redis()
        assert get_json(system.health())[1]["differences"]["repaired"] >= 1


@pytest.mark.timeout(60)
def test_a_witness_that_knows_less_changes_nothing(system: System, launchpad: Launchpad) -> None:
    """The other provider leaves logs out: reported, and what was committed stays."""
    factory = launchpad.factory.address
    curves = [launchpad.create(name, name) for name in ("ONE", "TWO")]
    with Liar(system.http) as liar:
        liar.change = without_logs
        system.start_listener(factory, **FAST, BLOCKCHAIN_AUDIT_URL=liar.url)
        trade(launchpad, curves, 12)
        system.wait_log("Audit found a difference", repaired=False)
        system.equals_oracle(factory)


@pytest.mark.timeout(90)
def test_another_endpoint_stands_in(system: System, launchpad: Launchpad) -> None:
    """The first is rate limited, then gone, then back; one of another chain is never believed."""
    factory = launchpad.factory.address
    curves = [launchpad.create(name, name) for name in ("ONE", "TWO")]
    with Liar(system.http) as first, start_anvil("--chain-id", "999") as other:
        urls = {
            "BLOCKCHAIN_HTTP_URL": first.url,
            "BLOCKCHAIN_FALLBACK_URLS": f"http://127.0.0.1:{other.found},{system.http}",
        }
        system.start_listener(factory, **FAST | urls)
        trade(launchpad, curves, 3)
        system.equals_oracle(factory)
        for status in (429, 500):
            first.refuse = status
            trade(launchpad, curves, 4)
            system.equals_oracle(factory)
            status_code, body = system.ready()
            assert status_code == 200
            assert any(text.startswith("endpoint ") for text in body["degraded"])
            first.refuse = 0
        trade(launchpad, curves, 2)
        system.equals_oracle(factory)


@pytest.mark.timeout(60)
def test_a_chain_that_stands_still_is_reported(system: System, launchpad: Launchpad) -> None:
    """The node answers and mines nothing: degraded, and said once; blocks come again, and it is over."""
    factory = launchpad.factory.address
    curves = [launchpad.create("ONE", "ONE")]
    system.start_listener(factory, **FAST, STALL_AFTER_MS="1500")
    trade(launchpad, curves, 2)
    system.equals_oracle(factory)
    system.wait_log("Chain stalled")
    status, body = system.ready()
    assert status == 200
    assert body["degraded"][0].startswith("chain: no block for")
    trade(launchpad, curves, 1)
    system.wait_log("Blocks come again")
    system.wait(lambda: system.ready()[1]["degraded"] == [], "no longer degraded")

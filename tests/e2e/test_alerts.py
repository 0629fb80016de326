"""Alerts of a real chain, through reorgs and restarts: what is told is what the oracle finds."""

import asyncio
import json
import os
import signal
import time
from typing import Any, Final

import pytest
import redis

from listener.demo.launchpad import ETHER
from listener.domain.alerts import AlertCondition, AlertRule
from listener.infrastructure.redis.alert_codec import rule_item
from listener.infrastructure.redis.alert_rules import RedisAlertRules
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from tests import oracle
from tests.alert_oracle import Alert, alerts_of
from tests.e2e.system import CHAIN_ID, DEFAULT_INTERVALS, System
from tests.e2e.test_reorgs import SETTINGS, buy

SEEN_S: Final = 0.7
"""A rule is known to the listener after so long."""
KEYS: Final = Keys(CHAIN_ID)


def make(system: System, *conditions: dict[str, Any]) -> list[AlertRule]:
    """Make rules, and wait until the listener knows them."""

    async def create() -> list[AlertRule]:
        database = Database.connect(system.redis_url, 5.0)
        book = RedisAlertRules(database, KEYS)
        now = time.time_ns() // 1_000_000
        made = [await book.create(AlertCondition.parse(condition), now) for condition in conditions]
        await database.close()
        return made

    rules = asyncio.run(create())
    time.sleep(SEEN_S)
    return rules


class Told:
    """Rows of alerts, as a consumer of the outbox sees them."""

    def __init__(self, database: redis.Redis) -> None:
        self._database = database

    def rows(self) -> list[Alert]:
        """All of them, in order."""
        entries = self._database.xrange(KEYS.outbox)
        return [json.loads(fields["d"]) for _, fields in entries if fields["e"] == "alert"]

    def standing(self) -> dict[str, Alert]:
        """Those that were not taken back; each was told once, and taken back only after that."""
        standing: dict[tuple[str, str], Alert] = {}
        for row in self.rows():
            key = row["id"], row["bh"]
            assert (key in standing) == row.pop("retracted", False), row
            if standing.pop(key, None) is None:
                standing[key] = row
        return {alert["id"]: alert for alert in standing.values()}


def truth(system: System, factory: str, rules: list[AlertRule]) -> dict[str, Alert]:
    """What the oracle finds on the chain as it is now, once the listener is there."""
    expected = system.equals_oracle(factory)
    assert expected.last_block
    call = oracle.http_rpc(system.http)
    chain = oracle.read_chain(call, 0, expected.last_block.number, [factory.lower()])
    settings = oracle.Settings(factories=[factory.lower()], intervals=DEFAULT_INTERVALS)
    found = alerts_of([rule_item(rule) for rule in rules], chain, oracle.compute(chain, settings))
    return {alert["id"]: alert for alert in found}


@pytest.mark.timeout(90)
def test_fired_retracted_and_fired_again(system: System, database: redis.Redis) -> None:
    """Through a reorg with the same and with other trades, a kill and a downtime, each alert comes once."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curve = launchpad.create("One", "ONE")
    told = Told(database)
    system.start_listener(factory, **SETTINGS)
    system.equals_oracle(factory)
    rules = make(
        system,
        {"kind": "trade_size", "threshold": "0.9", "repeat": True},
        {"kind": "price_above", "threshold": "0.00000003", "market": curve.token},
        {"kind": "change", "threshold": "5", "windowMs": 60_000, "repeat": True, "hysteresis": "20"},
        {"kind": "market_created"},
    )
    for value in (ETHER // 10, ETHER, ETHER // 5, 2 * ETHER):
        launchpad.rpc("evm_increaseTime", 30)
        launchpad.buy(curve, value)
    found = truth(system, factory, rules)
    assert told.standing() == found != {}
    before = told.rows()

    again = [[buy(launchpad, curve, 0, 2 * ETHER), 0], [buy(launchpad, curve, 1, ETHER), 1]]
    launchpad.rpc("anvil_reorg", 2, again)
    found = truth(system, factory, rules)
    assert told.standing() == found
    after = told.rows()[len(before) :]
    assert [row.get("retracted", False) for row in after] == sorted(
        (row.get("retracted", False) for row in after), reverse=True
    )
    assert {row["kind"] for row in after if "retracted" in row} >= {"trade_size", "price_above"}
    assert len({row["bh"] for row in before if row["b"] == after[-1]["b"]} | {after[-1]["bh"]}) == 2

    assert system.listener
    os.kill(system.listener.process.pid, signal.SIGKILL)
    system.listener.process.wait()
    later = launchpad.create("Two", "TWO")
    for value in (ETHER, ETHER // 10, 3 * ETHER):
        launchpad.rpc("evm_increaseTime", 30)
        launchpad.buy(later, value)
    launchpad.rpc("anvil_mine", hex(30), hex(1))
    system.start_listener(factory, **SETTINGS)
    found = truth(system, factory, rules)
    assert told.standing() == found
    assert {alert["kind"] for alert in found.values()} == {
        "trade_size", "price_above", "change", "market_created"
    }  # fmt: skip

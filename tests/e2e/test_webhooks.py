"""Webhooks with real processes: chain, listener, the process that delivers, and receivers."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import requests
from typer.testing import CliRunner

from listener.commands.webhooks import app
from listener.demo.launchpad import ETHER
from listener.demo.processes import Child
from tests.e2e.system import CHAIN_ID, System, get_json
from tests.e2e.test_alerts import make
from tests.e2e.test_reorgs import SETTINGS, buy
from tests.fakes.receiver import Receiver, Stall, answer, receiving

OUTBOX: Final = f"outbox:{{{CHAIN_ID}}}"
QUICK: Final = {"WEBSOCKET_PORT": "0", "WEBHOOKS_ALLOW_PRIVATE": "true", "GATEWAY_ENABLED": "false"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An endpoint."""
    with receiving() as server:
        yield server


def reading(system: System) -> dict[str, str]:
    """Settings of a process that needs Redis only."""
    return {"REDIS_URL": system.redis_url, "CHAIN_ID": str(CHAIN_ID), "WEBHOOKS_ALLOW_PRIVATE": "true"}


def command(system: System, *words: str) -> str:
    """`listener webhooks …`, in this process; what it prints."""
    done = CliRunner().invoke(app, words, env=reading(system))
    assert done.exit_code == 0, done.output
    return done.output


def create(system: System, url: str, *events: str) -> tuple[str, str]:
    """A new endpoint's id and secret."""
    printed = command(system, "create", url, *(word for event in events for word in ("--event", event)))
    found = dict(line.split(maxsplit=1) for line in printed.splitlines() if line)
    return found["id:"], found["secret:"]


def children(pid: int) -> set[int]:
    """Processes that a process has started."""
    texts = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {int(child) for text in texts for child in text.split()}


def trades_told(database: redis.Redis) -> list[str]:
    """Ids of the trades in the outbox, in order."""
    return [json.loads(row["d"])["id"] for _, row in database.xrange(OUTBOX) if row["e"] == "trade_update"]


def ids(trades: list[Any]) -> list[str]:
    """Ids of trades."""
    return [trade["id"] for trade in trades]


@pytest.mark.timeout(120)
def test_trades_arrive(system: System, database: redis.Redis, receiver: Receiver) -> None:
    """Each row once and in order, signed; through a process that is killed; a dead endpoint delays nobody."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    listener = system.start_listener(launchpad.factory.address, **QUICK)
    launchpad.buy(curve, ETHER)
    system.wait_for_block(launchpad.web3.eth.block_number)
    before = trades_told(database)
    assert children(listener.process.pid) == set(), "no process without an endpoint"
    with receiving() as dead:
        dead.behave = stalled = Stall()
        gone, _ = create(system, dead.url)
        endpoint, secret = create(system, receiver.url, "trade_update", "alert")
        for _ in range(5):
            launchpad.buy(curve, ETHER // 10)
        system.wait(lambda: len(receiver.events("trade_update")) == 5, "five trades")
        system.wait(lambda: bool(dead.requests), "a request to the dead endpoint")
        [worker] = children(listener.process.pid)
        receiver.behave = answer(500)
        arrived = len(receiver.requests)
        launchpad.buy(curve, ETHER // 10)
        system.wait(lambda: len(receiver.requests) > arrived, "a refused request")
        os.kill(worker, signal.SIGKILL)
        refused = receiver.requests[-1]
        receiver.behave = answer(204)
        for _ in range(3):
            launchpad.buy(curve, ETHER // 10)
        system.wait(lambda: len(receiver.events("trade_update")) == 9, "nine trades")
        again = [request for request in receiver.requests if request.id == refused.id]
        assert len(again) > 1
        assert again[-1].body == refused.body
        system.equals_oracle(launchpad.factory.address)
        stalled.over.set()
        state = f"webhookstate:{{{CHAIN_ID}}}:{gone}"
        system.wait(lambda: database.hexists(state, "failing"), "word of the dead endpoint")
        assert "disconnected" in json.loads(command(system, "show", gone))["failing"]["error"]
    assert ids(receiver.events("trade_update")) == trades_told(database)[len(before) :]
    assert receiver.verified(secret)
    assert {request.said["event"] for request in receiver.requests} == {"trade_update"}
    [newest] = json.loads(command(system, "log", endpoint, "--limit", "1", "--json"))
    assert newest["status"] == 204
    command(system, "redeliver", endpoint, "--message", newest["message"])
    system.wait(lambda: receiver.requests[-2].id == receiver.requests[-1].id, "it once more")
    assert receiver.requests[-2].body == receiver.requests[-1].body
    for item in json.loads(command(system, "list", "--json")):
        command(system, "delete", item["id"])
    system.wait(lambda: children(listener.process.pid) == set(), "the end of the process")


@pytest.mark.timeout(90)
def test_alerts_and_reorgs_arrive(system: System, receiver: Receiver) -> None:
    """An alert of a real trade; when a reorg takes the trade back, word of that, and the alert retracted."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    system.start_listener(launchpad.factory.address, **QUICK | SETTINGS)
    system.wait_for_block(launchpad.web3.eth.block_number)
    _, secret = create(system, receiver.url, "alert", "reorg")
    [rule] = make(system, {"kind": "trade_size", "threshold": "0.9", "repeat": True})
    launchpad.buy(curve, ETHER)
    system.wait(lambda: len(receiver.events("alert")) == 1, "the alert")
    launchpad.rpc("anvil_reorg", 1, [[buy(launchpad, curve, 4, ETHER // 2), 0]])
    system.wait(lambda: len(receiver.events("alert")) == 2, "the retraction")
    alert, undone = receiver.events("alert")
    assert alert["rule"] == rule.id
    assert undone == alert | {"retracted": True}
    [reorg] = receiver.events("reorg")
    assert reorg["orphaned"] == [alert["bh"]]
    assert receiver.verified(secret)


@pytest.mark.timeout(90)
def test_several_deliver_as_one(system: System, receiver: Receiver) -> None:
    """Two processes without a chain: one delivers, and the other takes over when it is killed."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    listener = system.start_listener(
        launchpad.factory.address, **QUICK | {"GATEWAY_ENABLED": "true", "WEBHOOKS_ENABLED": "false"}
    )
    system.wait_for_block(launchpad.web3.eth.block_number)
    gateway = system.health("/api/v1/webhooks")
    asked = {"url": receiver.url, "events": ["trade_update"]}
    system.wait(lambda: get_json(gateway)[0] == 200, "the gateway")
    with requests.post(gateway, json=asked, timeout=10) as made:
        assert made.status_code == 201, made.text
        secret = made.json()["secret"]
    words = [sys.executable, "-c", "from listener.cli import main; main()", "webhooks", "run"]
    environment = reading(system)
    first = Child("first", words, environment=environment, ready="Delivering webhooks")
    second = Child("second", words, environment=environment, ready="Standing by")
    try:
        launchpad.buy(curve, ETHER // 10)
        system.wait(lambda: len(receiver.events("trade_update")) == 1, "a trade")
        first.kill()
        launchpad.buy(curve, ETHER // 10)
        system.wait(lambda: len(receiver.events("trade_update")) == 2, "the next trade")
        assert len(children(listener.process.pid)) == 1, "the gateway alone"
        assert receiver.verified(secret)
        assert second.stop() == 0
    finally:
        first.stop()
        second.stop()

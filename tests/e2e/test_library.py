"""The service as a library: the program of docs/library.md, run as a process and killed now and then."""

import os
import re
import signal
import sqlite3
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import REPOSITORY, Child
from tests.e2e.system import CHAIN_ID, System

DOCUMENT: Final = REPOSITORY / "docs" / "library.md"
QUICK: Final = {
    "POLL_INTERVAL_MS": "50",
    "PROCESSING_INTERVAL_MS": "0",
    "FINALITY_WINDOW": "200",
    "LEASE_MS": "2000",
    "GATEWAY_ENABLED": "false",
    "WEBHOOKS_ENABLED": "false",
    "WEBSOCKET_PORT": "0",
    "PYTHONUNBUFFERED": "1",
}
BESIDE: Final = "from book import app\n\nraise SystemExit(app.main(follow=False))\n"

BAD: Final = """
import asyncio
from book import app
from listener import CandleUpdated, TradeProcessed

@app.on(TradeProcessed, attempts=2, start="oldest")
async def fails(event):
    raise ValueError(event.key)

@app.on(TradeProcessed, CandleUpdated, attempts=1, timeout_s=0.1, start="oldest")
async def hangs(event):
    await asyncio.Event().wait()

@app.on(TradeProcessed, attempts=1, on_error="stop", start="oldest")
async def stops(event):
    1 / 0

raise SystemExit(app.main())
"""


class Program:
    """The program of the document, in a folder of its own."""

    def __init__(self, system: System, factory: str, folder: Path) -> None:
        example = re.search(r"(?ms)^```python\n(.*?)^```", DOCUMENT.read_text())
        assert example
        (folder / "book.py").write_text(example[1])
        (folder / "beside.py").write_text(BESIDE)
        (folder / "bad.py").write_text(BAD)
        self.folder = folder
        self._environment = {
            "BLOCKCHAIN_HTTP_URL": system.http,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": factory,
            "REDIS_URL": system.redis_url,
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(folder))),
        }

    def start(self, name: str, ready: str, **settings: str) -> Child:
        """Run one of its files."""
        script = (
            f"import os, runpy; os.chdir({str(self.folder)!r}); runpy.run_path({name!r}, run_name='__main__')"
        )
        return Child(
            name,
            [sys.executable, "-c", script],
            environment=self._environment | QUICK | settings,
            ready=ready,
            log=self.folder / f"{name}.log",
        )

    def kept(self) -> list[tuple[str, str]]:
        """Ids and prices of the trades that it has stored, sorted."""
        book = sqlite3.connect(self.folder / "trades.db")
        try:
            return sorted(book.execute("SELECT id, price FROM trades"))
        finally:
            book.close()


def truth(system: System, factory: str) -> list[tuple[str, str]]:
    """Ids and prices of the chain's trades, by the oracle."""
    trades = system.expected(factory).trades.values()
    return sorted((trade["id"], trade["p"]) for series in trades for trade in series)


def trade(launchpad: Launchpad, curves: list[Curve], count: int) -> None:
    """So many buys, each in a block of its own."""
    for number in range(count):
        launchpad.buy(curves[number % len(curves)], ETHER // 50 + number, number % 9)


@pytest.mark.timeout(60)
def test_the_whole_service_in_a_users_program(system: System, tmp_path: Path) -> None:
    """Killed twice under trades and reorgs: the file ends with the chain's trades, Redis as it must be."""
    launchpad = system.deploy()
    factory = str(launchpad.factory.address)
    curves = [launchpad.create(f"Token {number}", f"T{number}") for number in range(2)]
    program = Program(system, factory, tmp_path)
    trade(launchpad, curves, 5)
    for _ in range(2):
        system.listener = program.start("book.py", "Handler gets events")
        trade(launchpad, curves, 12)
        system.listener.kill()
        trade(launchpad, curves, 3)
        launchpad.rpc("anvil_reorg", 2, [])
        trade(launchpad, curves, 2)
    system.listener = program.start("book.py", "Handler gets events")
    system.equals_oracle(factory)
    expected = truth(system, factory)
    assert len(expected) >= 5 + 2 * (12 + 2)
    system.wait(lambda: program.kept() == expected, "the program's trades")
    assert system.listener.stop() == 0


@pytest.mark.timeout(60)
def test_a_program_beside_the_service(system: System, tmp_path: Path) -> None:
    """Killed while the service goes on: it takes up where it was, and nothing is left out."""
    launchpad = system.deploy()
    factory = str(launchpad.factory.address)
    curves = [launchpad.create("Token", "T")]
    program = Program(system, factory, tmp_path)
    system.start_listener(factory, **(QUICK | {"GATEWAY_ENABLED": "true"}))
    for _ in range(2):
        beside = program.start("beside.py", "Handler gets events")
        try:
            trade(launchpad, curves, 10)
        finally:
            beside.kill()
        trade(launchpad, curves, 10)
    with program.start("beside.py", "Handler gets events") as beside:
        expected = truth(system, factory)
        assert len(expected) == 40
        system.wait(lambda: program.kept() == expected, "the program's trades")
        beside.process.send_signal(signal.SIGINT)
        assert beside.process.wait(10) == 0
    system.equals_oracle(factory)


@pytest.mark.timeout(60)
def test_bad_handlers_stop_nothing(system: System, tmp_path: Path) -> None:
    """Handlers that fail, hang and stop: a good one gets every trade, and `/ready` is 200."""
    launchpad = system.deploy()
    factory = str(launchpad.factory.address)
    curves = [launchpad.create("Token", "T")]
    program = Program(system, factory, tmp_path)
    system.listener = program.start("bad.py", "Handler gets events")
    trade(launchpad, curves, 15)
    system.equals_oracle(factory)
    expected = truth(system, factory)
    system.wait(lambda: program.kept() == expected, "the good handler's trades")
    system.wait_log("Handler failed, event skipped", handler="fails")
    system.wait_log("Handler failed, event skipped", handler="hangs")
    system.wait_log("Handler stopped", handler="stops")
    status, body = system.ready()
    assert status == 200
    assert "handler stops" in body["degraded"]
    with urllib.request.urlopen(system.health("/metrics"), timeout=10) as answer:
        figures = answer.read().decode()
    assert 'listener_handler_events_total{handler="stops",outcome="stopped"} 1.0' in figures
    assert f'listener_handler_events_total{{handler="book",outcome="handled"}} {len(expected)}.0' in figures

"""Figures of a running service, held against what happened on the chain."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from listener.demo.launchpad import ETHER
from tests.e2e.system import System, get_json
from tests.fakes.socket_readers import reader

SETTINGS: Final = {"FINALITY_WINDOW": "20", "POLL_INTERVAL_MS": "50", "PROCESSING_INTERVAL_MS": "10"}


def figures(system: System) -> dict[str, float]:
    """Samples without labels by name; labelled ones as `name:value of the labels`."""
    with urllib.request.urlopen(system.health("/metrics"), timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.timeout(60)
def test_figures_of_a_run(system: System) -> None:
    """Trades, blocks, a reorg, deliveries, calls and round trips are counted as they happened."""
    launchpad = system.deploy()
    curve = launchpad.create("Token", "T")
    system.start_backend()
    system.start_listener(launchpad.factory.address, **SETTINGS)
    for number in range(8):
        launchpad.buy(curve, ETHER // 10 + number, number)
    system.equals_oracle(launchpad.factory.address)
    system.wait_delivered()
    before = figures(system)
    number = launchpad.web3.eth.block_number
    assert before["listener_trades_total"] == 8
    assert before["listener_markets_created_total"] == 1
    assert before["listener_head_block"] == before["listener_tip_block"] == number
    assert before["listener_head_lag_blocks"] == 0
    assert (before["listener_leader"], before["listener_synced"], before["listener_ready"]) == (1, 1, 1)
    assert before["listener_messages_total"] > 0
    assert before["listener_outbox_rows"] > 0
    assert (before["listener_outbox_undelivered_rows"], before["listener_outbox_age_seconds"]) == (0, 0)
    assert before["listener_redis_seconds_count:script"] >= 8
    assert before["listener_rpc_calls_total:eth_chainId:ok"] >= 1
    assert before["listener_process_resident_memory_bytes"] > 10_000_000

    launchpad.rpc("anvil_reorg", 3, [])
    system.equals_oracle(launchpad.factory.address)
    after = figures(system)
    assert (after["listener_reorg_depth_blocks_count"], after["listener_reorg_depth_blocks_sum"]) == (1, 3)
    assert after["listener_commits_total:reorg"] == 1
    assert after["listener_head_to_commit_seconds_count"] > 0
    system.wait(lambda: figures(system)["listener_loop_lag_seconds_count"] > 0, "a look at the loop")


def top(system: System, factory: str) -> str:
    """One look of `listener top`."""
    environment = os.environ | {
        "REDIS_URL": system.redis_url,
        "CHAIN_ID": "31337",
        "BONDING_CURVE_FACTORY_ADDRESS": factory,
        "COLUMNS": "120",
    }
    done = subprocess.run(
        [sys.executable, "-m", "listener.cli", "top", "--once", "--metrics", system.health("/metrics")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


@pytest.mark.timeout(60)
def test_top_shows_a_running_service(system: System) -> None:
    """One look from the command line: the head, that it is ready, and the market that trades."""
    launchpad = system.deploy()
    curve = launchpad.create("Token", "BUSY")
    system.start_listener(launchpad.factory.address, **SETTINGS)
    for number in range(3):
        launchpad.buy(curve, ETHER // 10, number)
    system.equals_oracle(launchpad.factory.address)
    shown = top(system, launchpad.factory.address)
    assert f"block {launchpad.web3.eth.block_number}" in shown
    assert "BUSY/ETH" in shown
    assert "  ready" in shown
    assert "does not answer" not in shown


@pytest.mark.timeout(60)
def test_the_gateway_serves_the_datafeed_and_counts(system: System) -> None:
    """A chart finds the market by its name and gets its bars; the request stands in the same `/metrics`."""
    launchpad = system.deploy()
    curve = launchpad.create("Token", "BUSY")
    system.start_listener(launchpad.factory.address, **SETTINGS)
    launchpad.buy(curve, ETHER // 10, 1)
    system.equals_oracle(launchpad.factory.address)
    system.wait_log("Gateway serves")

    def found() -> bool:
        return bool(get_json(system.health("/udf/search?query=busy"))[1])

    system.wait(found, "the market in the search")
    status, symbol = get_json(system.health("/udf/symbols?symbol=BUSY/ETH"))
    assert (status, symbol["ticker"]) == (200, curve.token.lower())
    _, bars = get_json(system.health(f"/udf/history?symbol={symbol['ticker']}&resolution=1&countback=5"))
    assert (bars["s"], len(bars["t"])) == ("ok", 1)
    counted = figures(system)
    assert counted["gateway_requests_total:GET:/udf/history:200"] == 1
    assert counted["listener_trades_total"] == 1


@pytest.mark.timeout(90)
async def test_the_gateway_tells_trades_as_they_happen(system: System) -> None:
    """Three clients on the service's own port hear of a trade; `/metrics` and `listener top` count them."""
    launchpad = await asyncio.to_thread(system.deploy)
    curve = await asyncio.to_thread(launchpad.create, "Token", "BUSY")
    factory = launchpad.factory.address
    await asyncio.to_thread(system.start_listener, factory, **SETTINGS)
    await asyncio.to_thread(launchpad.buy, curve, ETHER // 10, 1)
    await asyncio.to_thread(system.equals_oracle, factory)
    await asyncio.to_thread(system.wait_log, "Gateway serves")
    port, room = int(urlsplit(system.health()).port or 0), f"trades:{curve.token.lower()}"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(reader(port, kind)) for kind in ("plain", "websocket", "polling")
        ]
        for client in clients:
            await client.ask("subscribe", room=room)
            await client.until(lambda client=client: room in client.mirrors)  # type: ignore[misc]
            assert len(client.mirrors[room].items) == 1
        await asyncio.to_thread(launchpad.buy, curve, ETHER // 10, 2)
        for client in clients:
            await client.until(lambda client=client: len(client.mirrors[room].items) == 2)  # type: ignore[misc]
            assert (client.mirrors[room].snapshots, client.mirrors[room].updates) == (1, 1)
        await asyncio.to_thread(
            system.wait, lambda: figures(system).get("gateway_messages_total:socketio", 0) >= 4, "messages"
        )
        counted = await asyncio.to_thread(figures, system)
        assert (counted["gateway_clients:websocket"], counted["gateway_clients:socketio"]) == (1, 2)
        assert (counted["gateway_rooms"], counted["gateway_messages_total:websocket"]) == (1, 2)
        assert counted["gateway_flush_seconds_count"] >= 1
        assert counted["listener_trades_total"] == 2
        assert re.search(r"clients +3\b", await asyncio.to_thread(top, system, factory))
    await asyncio.to_thread(
        system.wait, lambda: sum(clients_of(figures(system)).values()) == 0, "nobody to be counted"
    )


def clients_of(counted: dict[str, float]) -> dict[str, float]:
    """Live clients by transport."""
    return {name: value for name, value in counted.items() if name.startswith("gateway_clients")}


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """What takes traces over HTTP: its address, and the bodies that came."""
    bodies: list[bytes] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.path.encode() + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.timeout(60)
def test_traces_reach_a_collector(system: System, collector: tuple[str, list[bytes]]) -> None:
    """Spans of blocks and commits are sent, the last ones when the service ends."""
    url, bodies = collector
    launchpad = system.deploy()
    curve = launchpad.create("Token", "T")
    telemetry = {"OTEL_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    listener = system.start_listener(launchpad.factory.address, **SETTINGS, **telemetry)
    launchpad.buy(curve, ETHER // 10, 1)
    system.equals_oracle(launchpad.factory.address)
    assert listener.stop() == 0
    sent = b"".join(bodies)
    for word in (b"/v1/traces", b"0xpads-listener", b"block.trades", b"commit.kind"):
        assert word in sent, word

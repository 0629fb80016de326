"""Alerts from a rule that is asked for over HTTP to everybody who is told: real chain, listener, backend."""

import asyncio
import json
import time
import urllib.request
from contextlib import suppress
from typing import Any, Final

import orjson
import pytest
import redis
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import free_port
from listener.infrastructure.redis.keys import Keys
from tests.e2e.system import CHAIN_ID, System, get_json
from tests.e2e.test_alerts import SEEN_S
from tests.e2e.test_reorgs import SETTINGS, buy
from tests.fakes.sockets import Mirrors

KEYS: Final = Keys(CHAIN_ID)
BOUND_S: Final = 30.0
Record = dict[str, Any]


class World:
    """A launchpad with one market, and what everybody was told of its alerts.

    Attributes:
        plain: a client of `/ws` in the room of all markets, which comes back where it was.
        io: a client of `/socket.io` in the market's room, which comes back by itself.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.port = free_port()
        self.launchpad: Launchpad = system.deploy()
        self.curve: Curve = self.launchpad.create("One", "ONE")
        self.market = self.curve.token.lower()
        self.plain, self.io = Mirrors(), Mirrors()

    def start(self) -> None:
        """Start the listener with its gateway; both serve when this returns."""
        self.system.start_listener(self.launchpad.factory.address, WEBSOCKET_PORT=str(self.port), **SETTINGS)
        self.system.wait_log("Gateway serves")

    def ask(self, rule: Record) -> str:
        """Make a rule, and wait until the listener knows it; its id."""
        url, body = f"http://127.0.0.1:{self.port}/api/v1/alerts", json.dumps(rule).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201
            made = json.load(answer)
        time.sleep(SEEN_S)
        return str(made["id"])

    def fired(self) -> list[Record]:
        """Alerts over REST, newest first."""
        found: list[Record] = get_json(f"http://127.0.0.1:{self.port}/api/v1/alerts/fired")[1]["items"]
        return found

    def heard(self) -> list[Record]:
        """Records that the backend got, in order."""
        assert self.system.backend
        lines = [orjson.loads(line) for line in self.system.backend.lines if line.startswith("{")]
        return [line["alert"] for line in lines if line["message"] == "alert"]

    async def follow(self) -> None:
        """Read alerts over plain WebSocket, for ever."""
        while True:
            with suppress(OSError, WebSocketException):
                async with connect(f"ws://127.0.0.1:{self.port}/ws") as link:
                    mirror = self.plain.get("alerts")
                    at = mirror.position if mirror else None
                    where = {"epoch": at[0], "seq": at[1]} if at else {}
                    await link.send(orjson.dumps({"op": "subscribe", "room": "alerts", **where}).decode())
                    async for text in link:
                        self.plain.read(text)
            await asyncio.sleep(0.1)

    async def told(self, *expected: Record) -> None:
        """Wait until everybody has these alerts, as they stand."""
        as_they_stand = {record["id"]: record for record in expected}

        def known() -> list[object]:
            backend = {record["id"]: record for record in self.heard()}
            mirrors = [(self.plain, "alerts"), (self.io, f"alerts:{self.market}")]
            sockets = [mirror[room].items if room in mirror else None for mirror, room in mirrors]
            return [{record["id"]: record for record in self.fired()}, backend, *sockets]

        found: list[object] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(BOUND_S):
                while found != [as_they_stand] * 4:
                    await asyncio.sleep(0.1)
                    with suppress(OSError):
                        found = await asyncio.to_thread(known)
        assert found == [as_they_stand] * 4


def record(rule: str, trade: Record, **fields: str) -> Record:
    """An alert as the contract has it, of a rule for one market."""
    common = {name: trade[name] for name in ("s", "b", "bh", "t")}
    return {"id": f"{rule}-{trade['id']}", "rule": rule, **common, "trade": trade["id"], **fields}


@pytest.mark.timeout(120)
async def test_alerts_reach_everybody_once(system: System, database: redis.Redis) -> None:
    """Rules asked for over HTTP come true once for REST, sockets and backend, through a kill and a reorg."""
    world = World(system)
    await asyncio.to_thread(system.start_backend)
    await asyncio.to_thread(world.start)
    io = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5)
    io.on("*", world.io.hear)

    async def subscribe() -> None:
        await io.emit("subscribe", {"room": f"alerts:{world.market}"})

    io.on("connect", subscribe)
    await io.connect(f"http://127.0.0.1:{world.port}", transports=["websocket"])
    following = asyncio.create_task(world.follow())
    try:
        await asyncio.to_thread(_play, world, asyncio.get_running_loop(), database)
    finally:
        following.cancel()
        await io.disconnect()


def _play(world: World, loop: asyncio.AbstractEventLoop, database: redis.Redis) -> None:
    """Trades, a kill with trades meanwhile, and a reorg; after each everybody knows what came true."""

    def told(*expected: Record) -> None:
        asyncio.run_coroutine_threadsafe(world.told(*expected), loop).result(2 * BOUND_S)

    def newest() -> Record:
        world.system.equals_oracle(world.launchpad.factory.address)
        found: Record = orjson.loads(database.lindex(KEYS.trades(world.market), 0))
        return found

    of_market = {"market": world.market}
    large = world.ask({"kind": "trade_size", "threshold": "0.9", "repeat": True} | of_market)
    above = world.ask({"kind": "price_above", "threshold": "0.0000000001"} | of_market)
    world.launchpad.buy(world.curve, ETHER // 10)
    trade = newest()
    first = record(above, trade, kind="price_above", value=trade["p"], threshold="0.0000000001")
    told(first)

    world.launchpad.buy(world.curve, ETHER)
    trade = newest()
    second = record(large, trade, kind="trade_size", value=trade["q"], threshold="0.9")
    told(second, first)

    assert world.system.listener
    world.system.listener.kill()
    world.launchpad.buy(world.curve, 2 * ETHER)
    world.start()
    trade = newest()
    third = record(large, trade, kind="trade_size", value=trade["q"], threshold="0.9")
    told(third, second, first)

    small = buy(world.launchpad, world.curve, 4, ETHER // 2)
    world.launchpad.rpc("anvil_reorg", 1, [[small, 0]])
    undone = third | {"retracted": True}
    told(undone, second, first)
    assert world.heard() == [first, second, third, undone]

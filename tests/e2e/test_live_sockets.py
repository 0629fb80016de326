"""The whole chain of live data: a node that reorganises, the listener, Redis, the sockets, their clients."""

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
import pytest
import socketio
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from listener.demo.launchpad import ETHER, Launchpad
from listener.infrastructure.gateway.plain_socket import PlainConnection
from listener.infrastructure.redis.keys import Keys
from tests.e2e.system import CHAIN_ID, System
from tests.e2e.test_reorgs import SETTINGS, buy, trade
from tests.fakes.gateway import Running, gateway
from tests.fakes.sockets import Mirrors

KEYS: Final = Keys(CHAIN_ID)
BOUND_S: Final = 30.0
CALM_S: Final = 0.1


async def truth(redis: Redis, market: str) -> dict[str, dict[Any, dict[str, Any]]]:
    """What Redis holds of a market's rooms."""
    trades = map(orjson.loads, await redis.lrange(KEYS.trades(market), 0, -1))
    found = {f"trades:{market}": {trade["id"]: trade for trade in trades}}
    for interval in ("1m", "1h"):
        candles = map(orjson.loads, await redis.zrange(KEYS.candles(market, interval), 0, -1))
        found[f"candles:{market}:{interval}"] = {candle["t"]: candle for candle in candles}
    return found


async def equal(redis: Redis, mirrors: Mirrors, market: str) -> None:
    """Wait until a client knows what Redis holds."""
    async with asyncio.timeout(BOUND_S):
        while True:
            expected = await truth(redis, market)
            known = {room: mirrors[room].items for room in expected if room in mirrors}
            if known == expected:
                return
            await asyncio.sleep(CALM_S)


async def plain(running: Running, mirrors: Mirrors, rooms: list[str]) -> None:
    """A client of `/ws`, which comes back where it was when its link is cut."""
    while True:
        async with connect(running.plain, max_size=None) as link:
            for room in rooms:
                at = mirrors[room].position if room in mirrors else None
                where = {"epoch": at[0], "seq": at[1]} if at else {}
                await link.send(orjson.dumps({"op": "subscribe", "room": room, **where}).decode())
            with suppress(ConnectionClosed):
                async for text in link:
                    mirrors.read(text)


@pytest.mark.timeout(120)
async def test_clients_end_with_what_redis_holds(system: System) -> None:
    """Through trades, reorgs and a restart of the listener both transports end with what Redis holds."""
    launchpad, curves = await asyncio.to_thread(_deploy, system)
    factory, market = launchpad.factory.address, curves[0].token.lower()
    redis = Redis(port=system.redis_port)
    over_plain, over_io = Mirrors(), Mirrors()
    io = socketio.AsyncClient()
    io.on("*", over_io.hear)
    async with gateway(system.redis_url, CHAIN_ID) as running, asyncio.TaskGroup() as tasks:
        rooms = [f"trades:{market}", f"candles:{market}:1m", f"candles:{market}:1h"]
        reading = tasks.create_task(plain(running, over_plain, rooms))
        await io.connect(running.http)
        for room in rooms:
            assert await io.call("subscribe", {"room": room}) == {"ok": True}
        for depth in (1, 4):
            await asyncio.to_thread(trade, launchpad, curves, 6)
            await asyncio.to_thread(system.equals_oracle, factory)
            others = [[buy(launchpad, curves[0], 4, ETHER), 0]]
            await asyncio.to_thread(launchpad.rpc, "anvil_reorg", depth, others)
            await asyncio.to_thread(system.equals_oracle, factory)
            for client in running.hub.clients:
                if isinstance(client._connection, PlainConnection):
                    client.close()  # the link is cut
            for mirrors in (over_plain, over_io):
                await equal(redis, mirrors, market)
        assert over_plain[rooms[0]].reorgs + over_io[rooms[0]].reorgs >= 2
        await asyncio.to_thread(_restart, system, factory)
        await asyncio.to_thread(trade, launchpad, curves, 3)
        await asyncio.to_thread(system.equals_oracle, factory)
        await equal(redis, over_plain, market)
        reading.cancel()
        await io.disconnect()
    await redis.aclose()


def _deploy(system: System) -> tuple[Launchpad, list[Any]]:
    launchpad = system.deploy()
    curves = [launchpad.create(f"Token {number}", f"T{number}") for number in range(2)]
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(launchpad.factory.address, **SETTINGS)
    trade(launchpad, curves, 4)
    system.equals_oracle(launchpad.factory.address)
    return launchpad, curves


def _restart(system: System, factory: str) -> None:
    assert system.listener
    assert system.listener.stop() == 0
    system.start_listener(factory, **SETTINGS)

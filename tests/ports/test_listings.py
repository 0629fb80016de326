"""Listing services on a simulated chain, over real Redis servers and a node's JSON-RPC."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from fastapi import FastAPI

from listener.application.listing import Asset, Coverage
from listener.application.rules import Finality
from listener.application.services.listing_reader import ListingReader
from listener.application.services.listings import Listings
from listener.application.services.recorder import ListingRecorder, RecorderLimits
from listener.application.use_cases.present_listing import Flavour
from listener.domain.value_objects import BlockRef
from listener.infrastructure.blockchain.listing_source import RpcListingChain
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import BondingCurve
from listener.infrastructure.gateway import replies
from listener.infrastructure.gateway.listing_routes import listing_routes
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.listing import RedisListing
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.asgi import get
from tests.fakes.build import CHAIN_ID, FACTORY, rules
from tests.fakes.clock import FakeClock
from tests.fakes.launches import FEE_BPS, Launches
from tests.fakes.listing_client import ListingClient, Said
from tests.fakes.node import serving
from tests.fakes.observer import RecordingObserver
from tests.fakes.writer import Writer

FINALITY: Final = 4
BY: Final = rules("1d", finality=Finality(FINALITY))
READERS: Final = rules("1d", factories=frozenset())
"""A process that only reads is not told whose announcements count."""
KEYS: Final = Keys(CHAIN_ID)
MOST_BYTES: Final = 10_000_000
FOR_EVER_S: Final = 10**9
PUBLIC: Final = ("id", "t", "b", "li", "tx", "side", "trader", "xp", "v", "q")


class World:
    """A chain, a node, a writer, a recorder, and both services' routes."""

    def __init__(self, launches: Launches, url: str, database: Database, keep_s: int) -> None:
        self.launches = launches
        self.database = database
        self.final: BlockRef | None = None
        self.records = RedisListing(database, KEYS, MOST_BYTES)
        self.writer = Writer(launches.chain, RedisStore(database, KEYS, BY, OutboxBounds(500, 10**8)), BY)
        self.rpc = HttpRpc(url, 10)
        source = RpcChainSource(self.rpc, BondingCurve.decoders, "lenient", layouts=BondingCurve.layouts)
        chain = RpcListingChain(self.rpc, source, BondingCurve.decoders)
        clock = FakeClock()
        self.reader = ListingReader(chain, self.records, READERS)
        self.recorder = ListingRecorder(
            ledger=self,
            reader=self.reader,
            records=self.records,
            clock=clock,
            observer=RecordingObserver(),
            limits=RecorderLimits(keep_s, every_s=1, blocks=7),
        )
        listings = Listings(self.records, chain, self.reader, BY, clock)
        self.app = FastAPI()
        for flavour in Flavour:
            self.app.include_router(listing_routes(listings, flavour))
        replies.install(self.app)

    async def follow(self) -> None:
        """Commit what is new, call it final, record it."""
        await self.writer.follow()
        self.final = self.launches.chain.blocks[-1 - FINALITY].block
        while await self.recorder.advance():
            pass

    async def walk(self, client: ListingClient, most: int) -> None:
        """Have a service ask for what is new."""
        loop = asyncio.get_running_loop()

        def ask(path: str) -> Said:
            reply = asyncio.run_coroutine_threadsafe(get(self.app, path), loop).result(20)
            return Said(reply.status, reply.body, reply.headers["cache-control"])

        client.ask = ask
        await asyncio.to_thread(client.walk, most)

    def asked(self, method: str) -> int:
        """How often the node was asked something."""
        return [name for name, _ in self.launches.node.asked].count(method)


@asynccontextmanager
async def a_world(seed: int, port: int, keep_s: int = FOR_EVER_S) -> AsyncIterator[World]:
    """An empty stream, a chain of some blocks."""
    launches = Launches(seed)
    for _ in range(12):
        launches.mine()
    database = Database.connect(f"redis://127.0.0.1:{port}/0", 5)
    await database.run("FLUSHALL")
    async with serving(launches.node) as url:
        world = World(launches, url, database, keep_s)
        await world.writer.start(now=1_000)
        await database.run("HSET", KEYS.settings, "setting:BONDING_CURVE_FACTORY_ADDRESS", FACTORY)
        try:
            yield world
        finally:
            await world.rpc.close()
            await database.close()


def nobody(path: str) -> Said:
    """Asks nobody."""
    raise AssertionError(path)


@pytest.mark.parametrize("seed", range(6))
async def test_both_services_know_every_trade(seed: int, valkey_port: int) -> None:
    """Whatever is launched, traded, faked or forked: the oracle's trades, from Redis and from the node."""
    clients = [ListingClient(nobody, flavour) for flavour in Flavour]
    async with a_world(seed, valkey_port) as world:
        for step in range(10):
            await world.follow()
            await world.walk(clients[0], 1 + step % 3)
            await world.walk(clients[1], 1 + step % 5)
            await world.writer.roll_back(world.launches.fork(step % FINALITY))
            for _ in range(FINALITY + step):
                world.launches.mine()
        truth = world.launches.truth()
        trades = {
            market: [{name: trade[name] for name in PUBLIC} for trade in reversed(found)]
            for market, found in truth.trades.items()
        }
        for client in clients:
            seen = {market: [t for t in ts if t["b"] <= client.walked] for market, ts in trades.items()}
            assert client.trades == {market: ts for market, ts in seen.items() if ts}
            assert all(pair["feeBps"] == FEE_BPS for pair in client.pairs.values())
            assert client.walked > 60
            assert len([trade for ts in client.trades.values() for trade in ts]) > 80
            assert client.exits
            everything = [event for body in client.bodies.values() for event in events(body)]
            assert events(await from_node(world, client)) == everything


async def from_node(world: World, client: ListingClient) -> bytes:
    """All that a client has walked, at once, with nothing recorded."""
    await world.database.run("DEL", KEYS.listing)
    await world.database.run("HSET", KEYS.coverage, "first", client.walked + 1)
    path = f"/{client.flavour}/events?fromBlock=0&toBlock={client.walked}"
    return (await get(world.app, path)).body


def events(body: bytes) -> Any:
    """Of an answer."""
    return Said(200, body, "").json["events"]


async def test_what_is_recorded_asks_no_node(valkey_port: int) -> None:
    """A service that has its pairs and stays within the coverage costs the node nothing."""
    async with a_world(3, valkey_port) as world:
        await world.follow()
        for _ in range(40):
            world.launches.mine()
        await world.follow()
        client = ListingClient(nobody, Flavour.DEX_SCREENER)
        await world.walk(client, 100)
        before = world.launches.node.requests
        first = world.launches.chain.blocks[12 - FINALITY].block.number
        other = await get(world.app, f"/dexscreener/events?fromBlock={first}&toBlock={client.walked}")
        assert len(events(other.body)) > 20
        assert world.launches.node.requests == before
        await get(world.app, f"/dexscreener/events?fromBlock={first - 1}&toBlock={first - 1}")
        assert world.launches.node.requests > before, "the question to the node is not counted"


async def test_a_lagging_registry_is_waited_for(valkey_port: int) -> None:
    """Nothing is recorded before the markets of these blocks are committed."""
    async with a_world(1, valkey_port) as world:
        world.final = world.launches.chain.blocks[-1].block
        assert not await world.recorder.advance()
        assert await world.records.coverage() is None
        await world.writer.follow()
        await world.recorder.advance()
        covered = await world.records.coverage()
        assert covered
        assert covered.last == world.final.number


async def test_answers_for_a_key_are_not_for_shared_caches() -> None:
    """A proxy must not give them to those who have none."""

    class Told:
        """Knows an asset."""

        async def asset(self, name: str) -> Asset:
            """Whatever is asked for."""
            return Asset(name, "N", "N", 18, "")

    app = FastAPI()
    app.include_router(listing_routes(Told(), Flavour.DEX_SCREENER, private=True))  # type: ignore[arg-type]
    reply = await get(app, "/dexscreener/asset?id=0x1")
    assert reply.headers["cache-control"] == "private, max-age=60"


async def test_errors_and_headers(valkey_port: int) -> None:
    """What cannot be asked is refused by name; final data may be kept, the newest block not."""
    async with a_world(2, valkey_port) as world:

        async def status(path: str) -> int:
            reply = await get(world.app, path)
            assert reply.status == 200 or set(Said(0, reply.body, "").json["error"]) == {"code", "message"}
            return reply.status

        assert await status("/dexscreener/latest-block") == 503
        assert await status("/dexscreener/events?fromBlock=0&toBlock=0") == 503
        await world.follow()
        assert (await get(world.app, "/dexscreener/latest-block")).headers["cache-control"] == "no-store"
        last = (await world.records.coverage() or Coverage(0, 0, "", 0)).last
        kept = await get(world.app, f"/dexscreener/events?fromBlock={last}&toBlock={last}")
        assert kept.headers["cache-control"] == "public, max-age=86400, immutable"
        for flavour in Flavour:
            assert await status(f"/{flavour}/events?fromBlock={last}&toBlock={last + 1}") == 503
            assert await status(f"/{flavour}/events?fromBlock=2&toBlock=1") == 422
            assert await status(f"/{flavour}/events?fromBlock=0&toBlock=1000") == 422
            assert await status(f"/{flavour}/events?fromBlock=-1&toBlock=1") == 422
            assert await status(f"/{flavour}/events?fromBlock=1") == 422
            assert await status(f"/{flavour}/asset?id=0x{'12' * 20}") == 404
            assert await status(f"/{flavour}/pair?id=0x{'12' * 20}") == 404
            assert await status(f"/{flavour}/pair?id=nobody") == 404
            assert await status(f"/{flavour}/pair?id=%20") == 422


def test_client_refuses() -> None:
    """The walking client would notice: a wrong reserve, a zero price, both ways in, a wrong checksum."""
    good = swap_record()
    changes: Sequence[dict[str, Any]] = (
        {"reserves": {"asset0": "8", "asset1": "3"}},
        {"priceNative": "0"},
        {"asset0In": "1"},
        {"maker": "0x" + "ab" * 20},
        {"priceNative": 2},
    )
    fresh().index(good)
    for change in changes:
        with pytest.raises(AssertionError):
            fresh().index({**good, **change})


def fresh() -> ListingClient:
    """A client that knows a pair which holds 10 of asset 0."""
    client = ListingClient(nobody, Flavour.GECKO_TERMINAL)
    client.pairs["0x" + "1" * 40] = {"id": "0x" + "1" * 40, "asset0Id": "0x" + "2" * 40}
    client.assets["0x" + "2" * 40] = {"totalSupply": "10"}
    return client


def swap_record() -> dict[str, Any]:
    """Somebody buys 1 for 2."""
    return {
        "block": {"blockNumber": 1, "blockTimestamp": 1},
        "eventType": "swap",
        "txnId": "0x" + "0" * 64,
        "txnIndex": 0,
        "eventIndex": 0,
        "maker": "0x" + "3" * 40,
        "pairId": "0x" + "1" * 40,
        "asset1In": "2",
        "asset0Out": "1",
        "priceNative": "2",
        "reserves": {"asset0": "9", "asset1": "2"},
    }

"""Conformance of TradingView's datafeed: the library's requests over HTTP, on a real Valkey with gaps.

The oracle folds the trades of the scenario in plain decimals; it shares no code with the service.
"""

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from listener.application.errors import StoreUnavailable
from listener.infrastructure.gateway.udf import QUOTES_MOST, udf_routes
from listener.infrastructure.gateway.udf_feed import BARS_MOST
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds
from listener.infrastructure.redis.reader import RedisReader
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, MONDAY_MS, created, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.charting import Bar, Chart, Refused, seconds_of
from tests.fakes.clock import FakeClock
from tests.fakes.writer import Writer

INTERVALS: Final = ("1m", "5m", "1h", "1d", "1w")
BY: Final = rules(*INTERVALS[1:])
KEYS: Final = Keys(CHAIN_ID)
MONDAY_S: Final = MONDAY_MS // 1000
WEEK_S: Final = 604_800


@dataclass
class World:
    """A stream on Valkey, the datafeed before it, and what was traded."""

    redis: Redis
    writer: Writer
    http: httpx.AsyncClient
    clock: FakeClock
    trades: list[tuple[int, Decimal, Decimal]] = field(default_factory=list)
    """Of market 0: second, price, base volume."""

    async def get(self, path: str, asked: Mapping[str, object] | None = None) -> Any:
        """The decoded answer to a request."""
        response = await self.http.get(f"/udf/{path}", params={k: str(v) for k, v in (asked or {}).items()})
        return response.json()

    def now_s(self) -> int:
        """The browser's clock: a little past the newest block."""
        return self.clock.now() // 1000

    async def trade(self, after_s: int, *prices: int) -> None:
        """A block so many seconds after the last, with trades at these prices in wei, of 1, 2, … tokens."""
        swaps = [
            swap(0, number * ETHER, number * price, buy=bool(number % 2))
            for number, price in enumerate(prices, 1)
        ]
        block = self.writer.chain.mine(*swaps, after_ms=after_s * 1000)
        second = block.timestamp // 1000
        self.trades += [
            (second, Decimal(price).scaleb(-18), Decimal(number)) for number, price in enumerate(prices, 1)
        ]
        self.clock.time = block.timestamp + 1_000
        await self.writer.follow()

    def bars(self, resolution: str) -> list[Bar]:
        """What the oracle makes of the trades."""
        length = seconds_of(resolution)
        buckets: dict[int, list[tuple[Decimal, Decimal]]] = {}
        for second, price, volume in self.trades:
            start = MONDAY_S if length == WEEK_S else 0
            buckets.setdefault(second - (second - start) % length, []).append((price, volume))
        return [
            Bar(
                opened,
                float(rows[0][0]),
                float(max(price for price, _ in rows)),
                float(min(price for price, _ in rows)),
                float(rows[-1][0]),
                float(sum(volume for _, volume in rows)),
            )
            for opened, rows in sorted(buckets.items())
        ]


class Names:
    """`SymbolIndex` of the two markets."""

    def search(self, text: str, limit: int) -> Sequence[str]:
        """See `SymbolIndex.search`."""
        names = {token(0): "t0 token 0", token(1): "t1 token 1"}
        return [market for market, name in names.items() if text.lower() in f"{name} {market}"][:limit]


@pytest.fixture
async def world(valkey_port: int) -> AsyncIterator[World]:
    """A market that trades, with gaps of minutes to weeks, and one that never does."""
    redis = Redis(port=valkey_port, protocol=2)
    await redis.flushall()
    database = Database(redis)
    store = RedisStore(database, KEYS, BY, OutboxBounds(500, 100_000_000))
    clock = FakeClock()
    app = FastAPI()
    app.include_router(udf_routes(RedisReader(database, KEYS), Names(), clock))
    writer = Writer(LocalChain(), store, BY)
    await writer.start()
    await redis.hset(KEYS.settings, "setting:OHLCV_INTERVALS", ",".join(INTERVALS))
    writer.chain.mine(created(0), created(1))
    await writer.follow()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://feed") as http:
        yield World(redis, writer, http, clock)
    await database.close()


async def busy(world: World, blocks: int = 150) -> None:
    """A history with gaps, at micro prices."""
    chance = random.Random(4)
    for _ in range(blocks):
        gap = chance.choice((7, 40, 61, 130, 3_700, 90_000)) if chance.random() < 0.97 else 9 * 86_400
        await world.trade(gap, *(chance.randint(1, 10**9) for _ in range(chance.randint(1, 3))))


@pytest.mark.parametrize("countback", [True, False])
@pytest.mark.parametrize("resolution", ["1", "5", "60", "1D", "1W"])
async def test_first_load_and_scrolling_back(world: World, resolution: str, *, countback: bool) -> None:
    """New and old versions of the library see each bar once, to the very first, as the oracle has them."""
    await busy(world)
    chart = Chart(world.get, world.now_s, countback=countback)
    await chart.open(token(0), resolution, 20)
    assert chart.bars[-1] == world.bars(resolution)[-1]
    await chart.scroll_to_the_first_bar(37)
    assert chart.bars == world.bars(resolution)


async def test_switching_the_resolution(world: World) -> None:
    """Each resolution is loaded anew, and says the same of the same trades."""
    await busy(world, 60)
    chart = Chart(world.get, world.now_s)
    await chart.open(token(0), "1", 50)
    for resolution in ("60", "1D", "5", "1W", "1"):
        await chart.switch(resolution, 10)
        await chart.scroll_to_the_first_bar(50)
        assert chart.bars == world.bars(resolution)


async def test_polling_follows_the_last_two_bars(world: World) -> None:
    """Trades in the same bar, in the next one and after a gap reach the chart; what was closed stays."""
    await world.trade(60, 5)
    chart = Chart(world.get, world.now_s)
    await chart.open(token(0), "1", 10)
    for after_s, price in ((3, 7), (3, 2), (70, 9), (1, 11), (600, 4), (60, 4), (2, 3)):
        await world.trade(after_s, price)
        await chart.poll()
        assert chart.bars == world.bars("1")


async def test_bars_agree_with_the_live_ones(world: World) -> None:
    """A bar of history is the stored candle that live updates carry, number for number."""
    await busy(world, 20)
    answer = await world.get(
        "history", {"symbol": token(0), "resolution": "1", "countback": 500, "to": world.now_s()}
    )
    stored = [json.loads(raw) for raw in await world.redis.zrange(KEYS.candles(token(0), "1m"), 0, -1)]
    assert answer["t"] == [candle["t"] // 1000 for candle in stored]
    for name in "ohlcv":
        assert answer[name] == [float(candle[name]) for candle in stored]


async def test_a_deleted_candle_is_gone_after_a_reorg(world: World) -> None:
    """A chart that loads after a reorg has the other branch only."""
    await world.trade(60, 5)
    await world.trade(60, 6)
    world.writer.chain.fork(1)
    await world.writer.roll_back(world.writer.chain.tip.number)
    world.trades.pop()
    await world.trade(200, 8)
    chart = Chart(world.get, world.now_s)
    await chart.open(token(0), "1", 10)
    assert chart.bars == world.bars("1")
    assert len(chart.bars) == 2


async def test_a_market_without_trades_is_an_empty_chart(world: World) -> None:
    """It is known, it has no bars, and nothing leads further back."""
    chart = Chart(world.get, world.now_s, countback=False)
    await chart.open(token(1), "1", 300)
    assert (chart.bars, chart.at_start) == ([], True)


async def test_config_offers_what_is_stored(world: World) -> None:
    """Search and resolve, and the resolutions of the stream's intervals."""
    config = await world.get("config")
    assert config["supported_resolutions"] == ["1", "5", "60", "1D", "1W"]
    assert (config["supports_search"], config["supports_group_request"]) == (True, False)
    assert config["supports_time"] is True


async def test_time_is_plain_seconds(world: World) -> None:
    """A bare number, for the countdown on the price scale."""
    response = await world.http.get("/udf/time")
    assert response.text == str(world.now_s())


async def test_search_and_resolve(world: World) -> None:
    """By symbol, name and address; what search gives as ticker or symbol can be resolved."""
    for text, count in (("T0", 1), ("token", 2), (token(1), 1), ("nobody", 0)):
        found = await world.get("search", {"query": text, "type": "", "exchange": "", "limit": 30})
        assert len(found) == count, text
        for item in found:
            assert ":" not in item["ticker"]
            for symbol in (item["ticker"], item["ticker"].upper(), item["symbol"], item["symbol"].lower()):
                assert (await world.get("symbols", {"symbol": symbol}))["ticker"] == item["ticker"]
    assert len(await world.get("search", {"query": "token", "limit": 1})) == 1
    assert await world.get("search", {"query": "token", "type": "stock"}) == []
    assert await world.get("search", {"query": "token", "exchange": "elsewhere"}) == []


async def test_symbol_by_short_name_and_exchange(world: World) -> None:
    """`T0` and `EXCHANGE:T0` are the market of token 0, for history as well."""
    await world.trade(60, 5)
    for symbol in ("T0", "bonding_curve:T0", "T0/ETH"):
        answer = await world.get(
            "history", {"symbol": symbol, "resolution": "1", "from": 0, "to": world.now_s()}
        )
        assert answer["s"] == "ok", symbol


async def test_price_scale_of_micro_prices(world: World) -> None:
    """A price of 5 wei a token needs 23 decimals; the scale is a number that a browser can hold."""
    await world.trade(60, 5)
    info = await world.get("symbols", {"symbol": token(0)})
    assert info["pricescale"] == 1e23
    assert info["variable_tick_size"].split(" ")[0].count("0") == 24


async def test_quotes(world: World) -> None:
    """Figures of the rolling day; an unknown symbol is an error of its own and spoils nothing."""
    await world.trade(60, 4 * 10**17)
    await world.trade(60, 5 * 10**17)
    asked = f"{token(0)},0x123,{token(1)}"
    answer = await world.get("quotes", {"symbols": asked})
    assert answer["s"] == "ok"
    first, unknown, untraded = answer["d"]
    assert (first["n"], first["v"]["lp"], first["v"]["ch"], first["v"]["chp"]) == (token(0), 0.5, 0.1, 25.0)
    assert (first["v"]["volume"], first["v"]["open_price"]) == (2.0, 0.4)
    assert (unknown["s"], unknown["n"]) == ("error", "0x123")
    assert (untraded["s"], untraded["v"]["short_name"]) == ("ok", "T1/ETH")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("symbols", 400),
        ("symbols?symbol=0x999", 404),
        (f"symbols?symbol={'a' * 129}", 400),
        ("history?symbol=0x999&resolution=1&from=0&to=9", 404),
        (f"history?symbol={token(0)}&resolution=2&from=0&to=9", 400),
        (f"history?symbol={token(0)}&from=0&to=9", 400),
        (f"history?symbol={token(0)}&resolution=1&to=9", 400),
        (f"history?symbol={token(0)}&resolution=1&from=x&to=9", 400),
        (f"history?symbol={token(0)}&resolution=1&from=nan&to=9", 400),
        (f"history?symbol={token(0)}&resolution=1&from=0&to=1767571200000", 400),
        (f"history?symbol={token(0)}&resolution=1&countback=-1&to=9", 400),
        ("search?query=a&limit=0", 400),
        ("quotes", 400),
        (f"quotes?symbols={','.join(['0x1'] * (QUOTES_MOST + 1))}", 400),
    ],
)
async def test_bad_requests_are_errors_of_the_protocol(world: World, path: str, status: int) -> None:
    """`{"s": "error"}` with a text, whatever is wrong; the library shows it."""
    response = await world.http.get(f"/udf/{path}")
    body = response.json()
    assert response.status_code == status
    assert (body["s"], bool(body["errmsg"])) == ("error", True)


@pytest.mark.parametrize("number", ["-1000000", "-1000000.75", "0"])
async def test_requests_before_the_epoch_are_no_data(world: World, number: str) -> None:
    """The library scrolls past 1970 when a resolution is wide and the chart is small."""
    await world.trade(60, 5)
    asked = {"symbol": token(0), "resolution": "1W", "from": number, "to": number, "countback": 300}
    assert await world.get("history", asked) == {"s": "no_data"}


async def test_more_bars_than_one_answer_holds(world: World) -> None:
    """The newest of a range, so that the library goes on before the first of them."""
    raw = {
        json.dumps(
            {"t": n * 60_000, "o": "1", "h": "1", "l": "1", "c": "1", "v": str(n), "q": "1", "n": 1}
        ): n * 60_000
        for n in range(BARS_MOST + 10)
    }
    await world.redis.zadd(KEYS.candles(token(0), "1m"), raw)
    asked: dict[str, object] = {"symbol": token(0), "resolution": "1", "from": 0, "to": 60 * 10**6}
    for more in ({}, {"countback": 10**6}):
        answer = await world.get("history", asked | more)
        assert (len(answer["t"]), answer["v"][-1]) == (BARS_MOST, BARS_MOST + 9)


class Away(RedisReader):
    """A reader whose Redis has gone."""

    async def candles(self, *_arguments: object, **_options: object) -> list[bytes]:
        """See `MarketReader.candles`."""
        raise StoreUnavailable("Redis: secret-host:6379 is away")


async def test_redis_away_is_an_error_that_passes(world: World) -> None:
    """503 without a word about how we work."""
    app = FastAPI()
    app.include_router(udf_routes(Away(Database(world.redis), KEYS), Names(), world.clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://feed") as http:
        world.http = http
        response = await http.get(f"/udf/history?symbol={token(0)}&resolution=1&from=0&to=9")
        assert response.status_code == 503
        assert "secret-host" not in response.text
        with pytest.raises(Refused, match="try again"):
            await Chart(world.get, world.now_s).open(token(0), "1", 5)

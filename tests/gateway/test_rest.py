"""Every endpoint of a running gateway against what Redis holds."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
import redis

from listener.domain.value_objects import DAY_MS, MINUTE_MS
from tests.fakes.build import MONDAY_MS
from tests.gateway.conftest import Data
from tests.gateway.serving import INTERVALS, KEYS, MARKETS, MINUTES, TRADED, Served


@pytest.fixture
def stored(data: Data) -> Iterator[redis.Redis]:
    """What is behind the gateway."""
    with redis.Redis(port=data.port, decode_responses=True) as client:
        yield client


def items(gateway: Served, path: str) -> Any:
    """Of a list that is answered."""
    answer = gateway.ask(path)
    assert answer.status == 200, answer
    return answer.json["items"]


def test_config(gateway: Served, stored: redis.Redis) -> None:
    """What is served: the chain, the stream's intervals, the head."""
    head = stored.hgetall(KEYS.head)
    assert gateway.ask("/api/v1/config").json == {
        "chainId": int(head["chainId"]),
        "intervals": list(INTERVALS),
        "number": int(head["number"]),
        "asOf": int(head["asOf"]),
        "epoch": int(head["epoch"]),
        "seq": int(head["seq"]),
    }


def test_a_market(gateway: Served, stored: redis.Redis, data: Data) -> None:
    """Record and figures as stored, counts as numbers and amounts as text; ids in any case."""
    market = data.markets[0]
    found = gateway.ask(f"/api/v1/markets/{market}").json
    stats = found.pop("stats")
    assert {name: str(value) for name, value in found.items()} == stored.hgetall(KEYS.market(market)) | {
        "s": market
    }
    assert {name: str(value) for name, value in stats.items()} == stored.hgetall(KEYS.stats(market))
    assert isinstance(stats["count"], int)
    assert isinstance(stats["volume"], str)
    assert gateway.ask(f"/api/v1/markets/{market.upper().replace('0X', '0x')}").json["stats"] == stats
    assert gateway.ask(f"/api/v1/markets/{market}/stats").json["stats"] == stats


def test_a_market_that_never_traded(gateway: Served, data: Data) -> None:
    """It has no figures, no trades and no candles, and is there all the same."""
    path = f"/api/v1/markets/{data.markets[-1]}"
    assert gateway.ask(path).json["stats"] is None
    assert gateway.ask(f"{path}/stats").json["stats"] is None
    assert items(gateway, f"{path}/trades") == items(gateway, f"{path}/candles?interval=1m") == []
    assert items(gateway, f"{path}/candles?interval=1m&fill=true") == []


@pytest.mark.parametrize(
    "what", ["", "/stats", "/trades", "/candles?interval=1m", "/candles?interval=1m&fill=1"]
)
def test_no_such_market(gateway: Served, what: str) -> None:
    """404 everywhere, and not an empty list, which would say that nothing was traded."""
    answer = gateway.ask("/api/v1/markets/0x" + "77" * 20 + what)
    assert (answer.status, answer.error) == (404, "not_found")


def test_trades(gateway: Served, stored: redis.Redis, data: Data) -> None:
    """The stored texts themselves, newest first, as many as asked for."""
    path, key = f"/api/v1/markets/{data.markets[1]}/trades", KEYS.trades(data.markets[1])
    answer = gateway.ask(f"{path}?limit=5")
    assert ("[" + ",".join(stored.lrange(key, 0, 4)) + "]").encode() in answer.body
    assert len(answer.json["items"]) == 5
    assert items(gateway, path) == items(gateway, f"{path}?limit=1000")
    assert len(items(gateway, path)) == stored.llen(key)


# --------------------------------------------------------------------------------------------- lists


def ids(gateway: Served, query: str) -> list[str]:
    """Ids of a page."""
    return [item["s"] for item in items(gateway, f"/api/v1/markets?{query}")]


def test_orders(gateway: Served, data: Data) -> None:
    """Each order by its own figure; what has none comes last, in creation order."""
    markets: list[str] = list(data.markets)
    traded, rest = markets[:TRADED], markets[TRADED:]
    by = {market: gateway.ask(f"/api/v1/markets/{market}").json["stats"] for market in traded}

    def ranked(field: str, sign: int) -> list[str]:
        return sorted(traded, key=lambda market: sign * float(by[market][field]))

    assert ids(gateway, "sort=newest") == ids(gateway, "") == markets[::-1]
    assert ids(gateway, "sort=age") == markets
    assert ids(gateway, "sort=volume") == ranked("quoteVolume", -1) + rest[::-1]
    assert ids(gateway, "sort=trades") == ranked("count", -1) + rest[::-1]
    assert ids(gateway, "sort=gainers") == ranked("priceChangePercent", -1) + rest[::-1]
    assert ids(gateway, "sort=losers") == ranked("priceChangePercent", 1) + rest[::-1]


@pytest.mark.parametrize("sort", ["newest", "age", "volume", "trades", "gainers", "losers"])
@pytest.mark.parametrize("limit", [1, 5, MARKETS])
def test_pages(gateway: Served, sort: str, limit: int) -> None:
    """Page after page gives the whole list once, in order; the last one has no cursor."""
    seen: list[str] = []
    query = f"sort={sort}&limit={limit}"
    page = gateway.ask(f"/api/v1/markets?{query}").json
    while True:
        assert (page["total"], page["complete"]) == (MARKETS, True)
        seen += [item["s"] for item in page["items"]]
        if page["cursor"] is None:
            break
        page = gateway.ask(f"/api/v1/markets?{query}&cursor={page['cursor']}").json
    assert seen == ids(gateway, f"sort={sort}&limit=100")
    assert len(seen) == MARKETS


def test_search(gateway: Served, data: Data) -> None:
    """By part of the symbol, name, id or creator, in any case."""
    assert ids(gateway, "q=t11") == ids(gateway, "q=TOKEN%2011") == [data.markets[11]]
    assert ids(gateway, f"q={data.markets[3][2:].upper()}") == [data.markets[3]]
    assert len(ids(gateway, "q=0xcccccccc")) == MARKETS
    assert ids(gateway, "q=nobody") == []
    found = gateway.ask("/api/v1/markets?q=t1&sort=age&limit=2").json
    assert found["total"] == 3
    following = gateway.ask(f"/api/v1/markets?q=t1&sort=age&limit=2&cursor={found['cursor']}").json
    got = [item["s"] for item in found["items"] + following["items"]]
    assert got == [data.markets[1], data.markets[10], data.markets[11]]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "W10", "bnVsbA", "WyJhZ2UiLDEsMiwzXQ", "%00", "é"])
def test_a_cursor_that_is_none(gateway: Served, cursor: str) -> None:
    """Made up, broken, or of another order: refused with a word, as it cannot be gone on from."""
    answer = gateway.ask(f"/api/v1/markets?sort=newest&cursor={quote(cursor)}")
    assert (answer.status, answer.error) == (422, "invalid_parameter")


# --------------------------------------------------------------------------------------------- candles


def test_candles(gateway: Served, stored: redis.Redis, data: Data) -> None:
    """The stored texts themselves, ascending."""
    key = KEYS.candles(data.markets[0], "1m")
    answer = gateway.ask(f"/api/v1/markets/{data.markets[0]}/candles?interval=1m")
    assert ("[" + ",".join(stored.zrange(key, 0, -1)) + "]").encode() in answer.body
    assert (answer.json["s"], answer.json["i"]) == (data.markets[0], "1m")
    assert len(answer.json["items"]) == MINUTES


def test_ranges(gateway: Served, data: Data) -> None:
    """`from` is included, `to` is not; with `from` the first ones, without it the last ones before `to`."""
    path = f"/api/v1/markets/{data.markets[0]}/candles?interval=1m"
    times = [item["t"] for item in items(gateway, path)]

    def asked(query: str) -> list[int]:
        return [item["t"] for item in items(gateway, f"{path}&{query}")]

    assert asked(f"from={times[2]}&to={times[5]}") == times[2:5]
    assert asked(f"from={times[2]}&limit=2") == times[2:4]
    assert asked(f"to={times[5]}&limit=2") == times[3:5]
    assert asked("limit=2") == times[-2:]
    assert asked(f"from={times[-1] + 1}") == []


def test_filled_and_continuous(gateway: Served, data: Data) -> None:
    """Gaps get the previous close and no volume; continuous candles open where the one before closed."""
    path = f"/api/v1/markets/{data.markets[1]}/candles?interval=1m"
    sparse, filled = items(gateway, path), items(gateway, f"{path}&fill=true")
    assert len(sparse) == 3
    assert [item["t"] for item in filled] == [sparse[0]["t"] + MINUTE_MS * n for n in range(MINUTES)]
    assert [item for item in filled if item["n"]] == sparse
    for before, item in pairwise(filled):
        assert item["pc"] == before["c"]
        assert item["n"] or (item["o"], item["h"], item["l"], item["c"], item["v"]) == (
            *[before["c"]] * 4,
            "0",
        )
    joined = items(gateway, f"{path}&fill=true&open=previous")
    assert [item["o"] for item in joined[1:]] == [item["c"] for item in joined[:-1]]
    assert [item["c"] for item in joined] == [item["c"] for item in filled]


def test_formats(gateway: Served, data: Data) -> None:
    """Rows of numbers for ccxt and klines as Binance has them, plain arrays, of the same candles."""
    path = f"/api/v1/markets/{data.markets[2]}/candles?interval=5m"
    plain = items(gateway, path)
    ccxt = gateway.ask(f"{path}&format=ccxt").json
    assert ccxt == [[item["t"], *(float(item[name]) for name in "ohlcv")] for item in plain]
    binance = gateway.ask(f"{path}&format=binance").json
    assert [row[:6] for row in binance] == [[item["t"], *(item[name] for name in "ohlcv")] for item in plain]
    assert all(row[6] == row[0] + 5 * MINUTE_MS - 1 and len(row) == 12 for row in binance)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "interval=7m",
        "interval=1h",
        "interval=1%20m",
        "interval=1m&limit=0",
        "interval=1m&limit=1501",
        "interval=1m&from=-1",
        "interval=1m&from=abc",
        "interval=1m&from=5&to=5",
        "interval=1m&to=99999999999999999999",
        "interval=1m&fill=perhaps",
        "interval=1m&open=last",
        "interval=1m&format=xml",
    ],
)
def test_what_candles_cannot_be(gateway: Served, data: Data, query: str) -> None:
    """Each is refused with a sentence; `1h` is an interval, but none that this stream has."""
    answer = gateway.ask(f"/api/v1/markets/{data.markets[0]}/candles?{query}")
    assert (answer.status, answer.error) == (422, "invalid_parameter")


def test_caches(gateway: Served, data: Data) -> None:
    """What ended long ago may be kept; what is live must be asked for again, which is short."""
    path = f"/api/v1/markets/{data.markets[0]}/candles?interval=1m"
    live = gateway.ask(path)
    assert live.headers["cache-control"] == "public, no-cache"
    again = gateway.ask(path, If_None_Match=f'"other", {live.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == live.headers["etag"]
    other = gateway.ask(f"{path}&limit=1", If_None_Match=live.headers["etag"])
    assert other.status == 200
    assert other.headers["etag"] != live.headers["etag"]
    closed = gateway.ask(f"{path}&to={MONDAY_MS - DAY_MS}")
    assert closed.headers["cache-control"].startswith("public, max-age=3600")
    assert gateway.ask("/api/v1/markets").headers["cache-control"] == "public, max-age=1"


# --------------------------------------------------------------------------------------------- the rest


def test_the_description_is_served_from_here(gateway: Served) -> None:
    """`/docs` needs no other host: every address in it is our own, and is answered."""
    page = gateway.ask("/docs")
    assert page.status == 200
    text = page.body.decode()
    assert "https://" not in text
    assert "http://" not in text
    for path in ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"):
        assert path in text
        assert gateway.ask(path).status == 200
    described = gateway.ask("/openapi.json").json
    candles = described["paths"]["/api/v1/markets/{market}/candles"]["get"]
    names = {parameter["name"] for parameter in candles["parameters"]}
    assert names == {"market", "interval", "from", "to", "limit", "fill", "open", "format"}
    assert "CandleList" in str(candles["responses"]["200"])
    assert gateway.ask("/docs/other").status == 404


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_monitors_may_ask_for_heads(gateway: Served, path: str) -> None:
    """Some ask by HEAD: the same status, no body."""
    answer = gateway.ask(path, "HEAD")
    assert (answer.status, answer.body) == (gateway.ask(path).status, b"")


def test_only_known_pages_may_ask(gateway: Served) -> None:
    """A browser lets a page read answers only if its origin is on the list."""
    known, other = "https://app.example.org", "https://evil.example.org"
    assert gateway.ask("/api/v1/config", Origin=known).headers["access-control-allow-origin"] == known
    assert "access-control-allow-origin" not in gateway.ask("/api/v1/config", Origin=other).headers
    asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "x-api-key"}
    assert gateway.ask("/api/v1/config", "OPTIONS", Origin=known, **asked).status == 200
    assert gateway.ask("/api/v1/config", "OPTIONS", Origin=other, **asked).status == 400


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v2/markets", "/.env", "/api/v1/markets/a/b/c"])
def test_what_is_not_there(gateway: Served, path: str) -> None:
    """404 in the shape of every error."""
    answer = gateway.ask(path)
    assert (answer.status, answer.error) == (404, "not_found")


def test_nothing_can_be_written(gateway: Served, data: Data) -> None:
    """There are only reading routes."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = gateway.ask(f"/api/v1/markets/{data.markets[0]}", method)
        assert (answer.status, answer.error) == (405, "method_not_allowed")

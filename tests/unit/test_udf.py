"""TradingView's datafeed: symbols, price formats, and any gaps in any series."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.reading import NEWEST, HeadRecord, MarketView, Stretch
from listener.domain.value_objects import Interval
from listener.infrastructure.gateway.udf_feed import BadRequest, Datafeed
from listener.infrastructure.gateway.udf_symbols import (
    DECIMALS_MOST,
    DIGITS,
    VARIABLE_TICKS,
    decimals_of,
    display_name,
    listed,
    quote,
    resolutions,
    symbol_info,
    ticker_of,
)
from tests.fakes.build import MONDAY_MS, token
from tests.fakes.charting import Bar, Chart, seconds_of
from tests.fakes.clock import FakeClock

RECORD = {
    "symbol": "PEPE",
    "name": "Pepe",
    "quoteSymbol": "ETH",
    "venue": "bonding_curve",
    "status": "trading",
}
MARKET = token(0)


def candle(time_s: int, volume: int = 1) -> bytes:
    """A candle as it is stored."""
    fields = {"o": "0.5", "h": "2", "l": "0.25", "c": "1.5", "v": str(volume), "q": "1", "n": 1}
    return json.dumps({"t": time_s * 1000, **fields}).encode()


class Shelf:
    """`MarketReader` and `SymbolIndex` of given series, by interval."""

    def __init__(self, series: Mapping[str, Sequence[bytes]]) -> None:
        self.series = dict(series)
        self.reads = 0

    async def intervals(self) -> list[str]:
        """See `MarketReader.intervals`."""
        return list(self.series)

    async def candles(self, market: str, interval: str, stretch: Stretch = NEWEST) -> list[bytes]:
        """See `MarketReader.candles`."""
        start, end, limit, newest = stretch
        assert limit > 0
        self.reads += 1
        rows = self.series[interval] if market == MARKET else ()
        within = [
            row
            for row in rows
            if (start is None or json.loads(row)["t"] >= start)
            and (end is None or json.loads(row)["t"] < end)
        ]
        return within[-limit:] if newest else within[:limit]

    async def market(self, market: str) -> MarketView | None:
        """See `MarketReader.market`."""
        return MarketView(market, RECORD, None) if market == MARKET else None

    async def views(self, markets: Sequence[str]) -> list[MarketView | None]:
        """See `MarketReader.views`."""
        return [await self.market(market) for market in markets]

    def search(self, text: str, limit: int) -> Sequence[str]:
        """See `SymbolIndex.search`."""
        return [MARKET][:limit] if text.lower() in "pepe" else []

    async def head(self) -> HeadRecord | None:
        """Not asked for."""
        raise NotImplementedError

    async def market_ids(self, after: int, limit: int) -> list[tuple[str, int]]:
        """Not asked for."""
        raise NotImplementedError

    async def trades(self, market: str, limit: int) -> list[bytes]:
        """Not asked for."""
        raise NotImplementedError

    async def stats(self, market: str) -> dict[str, object] | None:
        """Not asked for."""
        raise NotImplementedError


def feed_of(shelf: Shelf, now_ms: int = MONDAY_MS) -> Datafeed:
    """The datafeed on these series."""
    return Datafeed(shelf, shelf, FakeClock(now_ms))


def asking(feed: Datafeed) -> Any:
    """The datafeed as a chart asks for it, without HTTP."""

    async def get(path: str, asked: Mapping[str, Any]) -> Any:
        if path == "symbols":
            return json.loads(await feed.symbol(asked["symbol"]))
        return json.loads(
            await feed.history(
                asked["symbol"],
                asked["resolution"],
                asked.get("from"),
                asked.get("to"),
                asked.get("countback"),
            )
        )

    return get


def ticks(price: Decimal) -> Decimal:
    """The tick of a price, as the library reads `variable_tick_size`."""
    words = [Decimal(word) for word in VARIABLE_TICKS.split(" ")]
    assert len(words) % 2 == 1
    for tick, limit in zip(words[::2], words[1::2], strict=False):
        if price <= limit:
            return tick
    return words[-1]


@pytest.mark.parametrize(
    ("price", "decimals"),
    [
        ("1", 5),
        ("0.99", 6),
        ("123.456", 3),
        ("1234567", 2),
        ("0.0000000015", 14),
        ("0.000000000000000001", 23),
        ("0.00000000000000000000000000001", DECIMALS_MOST),
        ("0", 9),
        (None, 9),
        ("what", 9),
    ],
)
def test_price_scale_fits_the_price(price: str | None, decimals: int) -> None:
    """Six significant digits from 1e-18 on; nothing that the library refuses."""
    assert decimals_of(price) == decimals


@given(st.integers(-18, 6), st.integers(100_000, 999_999))
def test_every_price_has_a_tick_of_its_size(exponent: int, digits: int) -> None:
    """From 1e-18 to 1e6 a tick is at most a hundred-thousandth of the price, and at least 1e-24."""
    price = Decimal(digits).scaleb(exponent - DIGITS + 1)
    tick = ticks(price)
    assert Decimal("1e-24") <= tick <= Decimal("0.01")
    assert tick <= price.scaleb(1 - DIGITS)
    assert tick == Decimal("0.01") or tick * 10 > price.scaleb(1 - DIGITS - 1) or tick == Decimal("1e-24")


def test_ticks_and_their_limits_ascend() -> None:
    """The library takes the first limit that a price does not exceed."""
    words = [Decimal(word) for word in VARIABLE_TICKS.split(" ")]
    for row in (words[::2], words[1::2]):
        assert row == sorted(set(row))
    assert "e" not in VARIABLE_TICKS.lower()


def test_resolutions_have_the_names_of_the_library() -> None:
    """Minutes as numbers, days and weeks with their letter; the short old names count as well."""
    known = resolutions(["1w", "5m", "1m", "1h", "12h", "1d", "4h"])
    assert listed(known) == ["1", "5", "60", "240", "720", "1D", "1W"]
    assert {name: known[name].name for name in ("1", "240", "D", "1D", "W", "1W")} == {
        "1": "1m",
        "240": "4h",
        "D": "1d",
        "1D": "1d",
        "W": "1w",
        "1W": "1w",
    }


@pytest.mark.parametrize(
    ("symbol", "ticker"),
    [
        ("0xabc", "0xabc"),
        ("0XABC", "0xabc"),
        ("BONDING:0xAbC", "0xabc"),
        ("PEPE", None),
        ("0x", None),
        ("0xabc:1m", None),
        ("0xzz", None),
        ("", None),
    ],
)
def test_tickers_are_market_ids(symbol: str, ticker: str | None) -> None:
    """In whatever case, with or without an exchange; nothing else may become part of a key."""
    assert ticker_of(symbol) == ticker


def test_names_have_no_colon() -> None:
    """Whoever names a token may write one, and the library would read an exchange in it."""
    assert display_name({"symbol": "A:B", "quoteSymbol": "ETH"}) == "A-B/ETH"
    assert display_name({}) == "?"


def test_symbol_info_says_what_there_is() -> None:
    """Multipliers and flags follow from the intervals; a micro price has its scale."""
    known = resolutions(["1m", "1h", "1d"])
    info = symbol_info(MARKET, RECORD, {"lastPrice": "0.000000000000000001"}, known)
    assert info["ticker"] == MARKET
    assert info["pricescale"] == 1e23
    assert (info["minmov"], info["session"], info["timezone"]) == (1, "24x7", "Etc/UTC")
    assert info["supported_resolutions"] == ["1", "60", "1D"]
    assert info["intraday_multipliers"] == ["1", "60"]
    assert (info["has_intraday"], info["has_daily"], info["has_weekly_and_monthly"]) == (True, True, False)
    assert info["weekly_multipliers"] == []
    assert info["has_empty_bars"] is False


def test_daily_only_has_no_intraday() -> None:
    """Without minutes the library must not offer them."""
    info = symbol_info(MARKET, RECORD, None, resolutions(["1d", "1w"]))
    assert (info["has_intraday"], info["intraday_multipliers"]) == (False, [])
    assert (info["has_weekly_and_monthly"], info["weekly_multipliers"]) == (True, ["1"])


def test_quotes_of_a_market_without_trades_have_no_price() -> None:
    """A zero would be drawn as a price."""
    values: Any = quote("X:PEPE", RECORD, None)
    assert (values["n"], values["s"]) == ("X:PEPE", "ok")
    assert "lp" not in values["v"]
    assert "bid" not in values["v"]


async def test_amounts_keep_all_their_digits() -> None:
    """24 significant digits arrive as they are stored: nothing passes through a float on our side."""
    raw = candle(60).replace(b'"1.5"', b'"0.000000000000123456789012345678901234"')
    body = await feed_of(Shelf({"1m": [raw]})).history(MARKET, "1", 0, None, None)
    assert b'"c":[0.000000000000123456789012345678901234]' in body
    assert json.loads(body)["t"] == [60]


async def test_countback_comes_before_from() -> None:
    """Bars before `from` fill up the number, and bars above it are left out."""
    feed = feed_of(Shelf({"1m": [candle(60 * n) for n in (1, 2, 50, 51, 52)]}))
    body = json.loads(await feed.history(MARKET, "1", 60 * 50, 60 * 52, 3))
    assert body["t"] == [120, 3000, 3060]
    body = json.loads(await feed.history(MARKET, "1", 0, 60 * 52, 2))
    assert body["t"] == [3000, 3060]


async def test_a_gap_leads_back_by_next_time() -> None:
    """Without `countback`: the last bar before the range, in seconds; before the first there is nothing."""
    feed = feed_of(Shelf({"1m": [candle(60 * n) for n in (1, 2, 50)]}))
    assert json.loads(await feed.history(MARKET, "1", 180, 3000, None)) == {"s": "no_data", "nextTime": 120}
    assert json.loads(await feed.history(MARKET, "1", -500, 60, None)) == {"s": "no_data"}
    assert json.loads(await feed.history(MARKET, "1", 180, 60, 5)) == {"s": "no_data"}
    assert json.loads(await feed.history(MARKET, "1", 3001, 100, None)) == {"s": "no_data", "nextTime": 60}


async def test_what_is_not_known_is_an_error() -> None:
    """A market or a resolution that there is none of; an empty chart would look like a quiet market."""
    feed = feed_of(Shelf({"1m": [candle(60)]}))
    with pytest.raises(BadRequest, match="unknown_symbol"):
        await feed.history(token(5), "1", 0, 100, 5)
    with pytest.raises(BadRequest, match="unknown_symbol"):
        await feed.history("NOBODY", "1", 0, 100, 5)
    with pytest.raises(BadRequest, match="unknown resolution '7', there are 1"):
        await feed.history(MARKET, "7", 0, 100, 5)


async def test_intervals_are_remembered_only_when_there_are_some() -> None:
    """A gateway that starts before the first block offers the resolutions once the stream exists."""
    shelf = Shelf({})
    feed = feed_of(shelf)
    assert await feed.resolutions() == {}
    shelf.series["1h"] = []
    assert await feed.resolutions() == {"60": Interval.parse("1h")}


def bars_of(shelf: Shelf, interval: str) -> list[Bar]:
    """A whole series as a chart shows it."""
    rows = [json.loads(raw) for raw in shelf.series[interval]]
    return [Bar(row["t"] // 1000, *(float(row[name]) for name in "ohlcv")) for row in rows]


@given(
    opens=st.sets(st.integers(0, 3_000), max_size=60),
    page=st.integers(1, 40),
    resolution=st.sampled_from(["1", "60", "1D"]),
    countback=st.booleans(),
    ahead=st.integers(0, 5_000),
)
async def test_a_chart_loads_every_bar_once_whatever_the_gaps(
    opens: set[int], page: int, resolution: str, countback: bool, ahead: int
) -> None:
    """New and old versions of the library scroll back to the very first bar, through any gaps."""
    length = seconds_of(resolution)
    name = {"1": "1m", "60": "1h", "1D": "1d"}[resolution]
    shelf = Shelf({name: [candle(length * each, each + 1) for each in sorted(opens)]})
    now = length * (max(opens, default=0) + 1 + ahead)
    chart = Chart(asking(feed_of(shelf, now * 1000)), lambda: now, countback=countback)
    await chart.open(MARKET, resolution, page)
    await chart.scroll_to_the_first_bar(page)
    assert chart.bars == bars_of(shelf, name)
    if countback:
        assert chart.requests <= len(opens) // page + 2

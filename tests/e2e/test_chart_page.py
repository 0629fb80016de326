"""From a trade on a real chain to what a person sees in the browser."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import redis
from hexbytes import HexBytes
from playwright.sync_api import Browser

from listener.demo.launchpad import ETHER, Curve, Launchpad, Parameters
from tests.e2e.browser import DESKTOP, PHONE, ChartPage, differences_of, open_browser
from tests.e2e.system import CHAIN_ID, System

INTERVALS: Final = ("1m", "5m", "15m", "1h")
MICRO: Final = Parameters(virtual_quote=1_610 * ETHER // 1000, graduation_threshold=19 * ETHER)
TINY: Final = Parameters(virtual_quote=1_610_000_000, graduation_threshold=19 * 10**9)
PLAIN: Final = Parameters(
    virtual_base=1_073 * ETHER,
    virtual_quote=3_200 * ETHER,
    supply=1_000 * ETHER,
    graduation_threshold=2_500 * ETHER,
)
"""Curves whose prices start at 0.0000000015, at 0.0000000000000000015 and at 3."""
SHOWN_TRADES: Final = 60
SUBSCRIPT: Final = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@dataclass(frozen=True)
class Place:
    """A market and where it trades."""

    launchpad: Launchpad
    curve: Curve
    unit: int

    @property
    def id(self) -> str:
        """The market's id."""
        return self.curve.token


class Market:
    """A whole launchpad with a history, followed by a listener that feeds a backend."""

    def __init__(self, system: System, database: redis.Redis) -> None:
        self.system = system
        self.database = database
        self.random = random.Random(7)
        self.places: list[Place] = []
        launchpads = [system.deploy(parameters) for parameters in (MICRO, TINY, PLAIN)]
        for launchpad, parameters, count in zip(launchpads, (MICRO, TINY, PLAIN), (3, 1, 1), strict=True):
            for _ in range(count):
                self.create(launchpad, parameters)
        self.micro, self.tiny, self.plain = self.places[0], self.places[3], self.places[4]
        for _ in range(70):
            self.pass_time(self.random.randrange(15, 75))
            self.trade(self.micro)
            self.trade(self.random.choice(self.places))
        for place in self.places:
            self.trade(place)
        self.factories = ",".join(launchpad.factory.address for launchpad in launchpads)
        self.start_backend()
        system.start_listener(
            self.factories,
            OHLCV_INTERVALS=",".join(INTERVALS),
            PROCESSING_INTERVAL_MS="10",
            POLL_INTERVAL_MS="100",
        )
        self.settle()

    def start_backend(self) -> str:
        """Start the backend, at the address that it had before; that address."""
        return self.system.start_backend(OHLCV_INTERVALS=",".join(INTERVALS)).found

    def create(self, launchpad: Launchpad, parameters: Parameters = MICRO) -> Place:
        """Create a token."""
        number = len(self.places)
        curve = launchpad.create(f"Token {number}", f"T{number}")
        place = Place(launchpad, curve, parameters.virtual_quote)
        self.places.append(place)
        return place

    def trade(self, place: Place, *, sell: bool | None = None) -> None:
        """Buy or sell a little, in a block of its own, which is mined when this returns."""
        trader = self.random.randrange(4)
        held = place.launchpad.balance(place.curve, trader)
        sell = self.random.random() < 0.5 if sell is None else sell
        if sell and held:
            sent = place.launchpad.sell(place.curve, held * self.random.randrange(10, 60) // 100, trader)
        else:
            value = place.unit * self.random.randrange(1, 40) // 1000
            sent = place.launchpad.buy(place.curve, value, trader)
        place.launchpad.web3.eth.wait_for_transaction_receipt(HexBytes(sent), timeout=30, poll_latency=0.01)

    def pass_time(self, seconds: int) -> None:
        """Let chain time pass before the next block."""
        self.places[0].launchpad.rpc("evm_increaseTime", seconds)

    @property
    def tip(self) -> dict[str, Any]:
        """The newest block."""
        return dict(self.places[0].launchpad.rpc("eth_getBlockByNumber", "latest", False))  # noqa: FBT003

    @property
    def minute(self) -> int:
        """In which minute the newest block is."""
        return int(self.tip["timestamp"], 16) // 60

    def settle(self) -> None:
        """Wait until Redis has the newest block."""
        tip = self.tip["hash"]
        self.system.wait(
            lambda: self.database.hget(f"head:{{{CHAIN_ID}}}", "hash") == tip, "the newest block"
        )

    def candles(self, place: Place, interval: str) -> list[dict[str, Any]]:
        """Candles in Redis, oldest first."""
        rows = self.database.zrange(f"candles:{{{CHAIN_ID}}}:{place.id}:{interval}", 0, -1)
        return [json.loads(row) for row in rows]

    def trades(self, place: Place) -> list[dict[str, Any]]:
        """Trades in Redis, newest first."""
        rows = self.database.lrange(f"trades:{{{CHAIN_ID}}}:{place.id}", 0, SHOWN_TRADES - 1)
        return [json.loads(row) for row in rows]

    def stats(self, place: Place) -> dict[str, str]:
        """24 h figures in Redis."""
        return self.database.hgetall(f"stats:{{{CHAIN_ID}}}:{place.id}")

    def differences(self, tab: ChartPage, place: Place, interval: str = "1m") -> list[str]:
        """What the page of a market shows differently from what Redis holds."""
        candles, stats = self.candles(place, interval), self.stats(place)
        newest = {name: tab.last_candle.get(name) for name in candles[-1]}
        trades = [
            [trade["side"], trade["p"], f"{trade['v']} for {trade['q']}"] for trade in self.trades(place)
        ]
        return [
            *differences_of("candles", len(candles), tab.candle_count),
            *differences_of("last candle", candles[-1], newest),
            *differences_of("trades", trades, tab.trades),
            *differences_of("last price", stats["lastPrice"], tab.title("#head-price")),
            *differences_of("24 h high", stats["highPrice"], tab.title("#fig-high")),
            *differences_of("24 h low", stats["lowPrice"], tab.title("#fig-low")),
            *differences_of("24 h volume", stats["quoteVolume"], tab.title("#fig-volume")),
            *differences_of("24 h trades", stats["count"], tab.text("#fig-trades")),
            *differences_of("24 h change", percent(stats["priceChangePercent"]), tab.text("#head-change")),
            *self.row_differences(tab, place),
        ]

    def row_differences(self, tab: ChartPage, place: Place) -> list[str]:
        """What the market list shows differently from what Redis holds."""
        stats, row = self.stats(place), tab.row(place.id)
        if row.count() != 1:
            return [f"{place.id} is {row.count()} times in the list"]
        about = row.locator(".about").text_content() or ""
        if " · " not in about:
            return [f"{place.id} has {about!r} in the list"]
        volume, trades = about.removeprefix("Vol ").split(" · ")
        found = [
            *differences_of(
                "price in list", stats["lastPrice"], row.locator(".price").get_attribute("title")
            ),
            *differences_of(
                "change in list", percent(stats["priceChangePercent"]), row.locator(".change").text_content()
            ),
            *differences_of("trades in list", counted(stats["count"]), trades),
        ]
        if shown(volume) != pytest.approx(float(stats["quoteVolume"]), rel=0.01):
            found.append(f"volume in list: expected {stats['quoteVolume']}, the page has {volume}")
        return found


@pytest.fixture
def market(system: System, database: redis.Redis) -> Market:
    """Five markets with a little more than an hour of trades."""
    return Market(system, database)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium of this test's own."""
    with open_browser() as running:
        yield running


def address(market: Market) -> str:
    """Where the page is."""
    assert market.system.backend is not None
    return market.system.backend.found


def counted(trades: str) -> str:
    """A number of trades as the page writes it."""
    return f"{trades} trade" if trades == "1" else f"{trades} trades"


def percent(text: str) -> str:
    """A change as the page writes it."""
    change = float(text)
    return f"{'+' if change > 0 else ''}{change:.2f}%"


def shown(text: str) -> float:
    """The number behind a readable form such as `1.2K` or `0.0₈15`."""
    zeros = re.fullmatch(r"0\.0([₀-₉]+)(\d+)", text)
    if zeros:
        return float(f"0.{'0' * int(zeros[1].translate(SUBSCRIPT))}{zeros[2]}")
    units = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    return float(text.rstrip("KMBT").replace(",", "")) * units.get(text[-1], 1)


@pytest.mark.timeout(90)
def test_page_shows_what_redis_holds(market: Market, browser: Browser) -> None:
    """Candles of every interval, trades, 24 h figures and prices of every size are those of Redis."""
    tab = ChartPage(browser, address(market), DESKTOP)
    tab.open()
    tab.wait_state("Live")
    for place in market.places:
        tab.wait(lambda place=place: market.row_differences(tab, place))
    for place in (market.micro, market.tiny, market.plain):
        tab.row(place.id).click()
        tab.wait(lambda place=place: market.differences(tab, place))
        assert shown(tab.text("#head-price")) == pytest.approx(float(tab.title("#head-price")), rel=1e-3)
        assert tab.candle_pixels > 100
    tab.row(market.micro.id).click()
    tab.wait(lambda: market.differences(tab, market.micro))
    assert tab.candle_count >= 45
    counts = []
    for interval in (*INTERVALS[1:], INTERVALS[0]):
        tab.page.get_by_role("button", name=interval, exact=True).click()
        tab.wait(lambda interval=interval: market.differences(tab, market.micro, interval))
        assert tab.page.url.endswith(f"#/market/{market.micro.id}/{interval}")
        counts.append(tab.candle_count)
    assert counts == [*sorted(counts[:3], reverse=True), max(counts)]

    exact = tab.title("#head-price")
    assert re.fullmatch(r"0\.0{7,8}[1-9]\d*", exact)
    assert re.fullmatch(r"0\.0[₇₈][1-9]\d{0,3}", tab.text("#head-price"))
    assert tab.page.locator("#head-price").get_attribute("aria-label") == exact
    tab.row(market.tiny.id).click()
    tab.wait(lambda: market.differences(tab, market.tiny))
    assert re.fullmatch(r"0\.0₁[₆₇][1-9]\d{0,3}", tab.text("#head-price"))
    assert tab.problems == []


@pytest.mark.timeout(90)
def test_new_trades_and_markets_appear_at_once(market: Market, browser: Browser) -> None:
    """A trade moves price, candle, row and list within seconds; so does a new minute and a new market."""
    tab = ChartPage(browser, address(market), DESKTOP)
    tab.open(market.micro.id)
    tab.wait_state("Live")
    tab.wait(lambda: market.differences(tab, market.micro))
    before, count, price = tab.trades[0], tab.candle_count, tab.title("#head-price")
    market.trade(market.micro, sell=False)
    tab.wait(lambda: ["the page did not move"] if tab.trades[0] == before else [], timeout_s=5)
    tab.wait(lambda: ["the price did not move"] if tab.title("#head-price") == price else [], timeout_s=5)
    tab.wait(lambda: market.differences(tab, market.micro), timeout_s=5)

    market.pass_time(60)
    market.trade(market.micro, sell=True)
    tab.wait(lambda: [] if tab.candle_count > count else ["no candle for the new minute"], timeout_s=5)
    tab.wait(lambda: market.differences(tab, market.micro), timeout_s=5)

    fresh = market.create(market.micro.launchpad)
    tab.row(fresh.id).wait_for(timeout=5_000)
    tab.row(fresh.id).click()
    tab.wait(lambda: differences_of("note", "No candles yet", tab.text("#chart-note strong")), timeout_s=5)
    market.trade(fresh, sell=False)
    market.settle()
    tab.wait(lambda: market.differences(tab, fresh), timeout_s=5)
    assert tab.problems == []


@pytest.mark.timeout(90)
def test_page_fits_a_phone(market: Market, browser: Browser) -> None:
    """List, chart and trades each fit 390 pixels, and the chart can be used with a finger."""
    tab = ChartPage(browser, address(market), PHONE)
    tab.open()
    tab.wait_state("Live")
    tab.wait(lambda: market.row_differences(tab, market.micro))
    assert tab.overflow == []
    assert not tab.page.locator("#chart").is_visible()
    tab.row(market.micro.id).tap()
    tab.wait(lambda: market.differences(tab, market.micro))
    box = tab.page.locator("#chart").bounding_box()
    assert box is not None
    assert box["width"] >= 380
    assert box["height"] >= 300
    assert tab.candle_pixels > 100
    assert tab.overflow == []
    for interval in (*INTERVALS[1:], INTERVALS[0]):
        tab.page.get_by_role("button", name=interval, exact=True).tap()
        tab.wait(lambda interval=interval: market.differences(tab, market.micro, interval))
    tab.page.locator("#chart").tap(position={"x": box["width"] / 2, "y": box["height"] / 2})
    tab.page.get_by_role("button", name="Trades", exact=True).last.tap()
    tab.page.locator("#trade-list tr").first.wait_for()
    assert tab.overflow == []
    tab.page.get_by_role("button", name="Markets", exact=True).tap()
    tab.row(market.plain.id).tap()
    tab.wait(lambda: market.differences(tab, market.plain))
    assert tab.problems == []


@pytest.mark.timeout(90)
def test_page_survives_a_killed_backend(market: Market, browser: Browser) -> None:
    """The page says that it reconnects, then is live again with the trades in between."""
    tab = ChartPage(browser, address(market), DESKTOP)
    tab.open(market.micro.id)
    tab.wait_state("Live")
    tab.wait(lambda: market.differences(tab, market.micro))
    tab.page.evaluate("window.loadedOnce = true")
    assert market.system.backend is not None
    market.system.backend.kill()
    tab.wait_state("Reconnecting")
    before = tab.trades
    for _ in range(3):
        market.pass_time(40)
        market.trade(market.micro)
    market.settle()
    assert tab.trades == before
    assert market.start_backend() == tab.address
    tab.wait_state("Live")
    tab.wait(lambda: market.differences(tab, market.micro))
    assert len(market.trades(market.micro)) == len(tab.trades)
    assert tab.trades != before
    market.trade(market.micro)
    market.settle()
    tab.wait(lambda: market.differences(tab, market.micro))
    assert tab.page.evaluate("window.loadedOnce")
    refused = re.compile(r"ERR_CONNECTION_REFUSED|WebSocket connection to .* failed")
    assert [problem for problem in tab.problems if not refused.search(problem)] == []


@pytest.mark.timeout(90)
def test_page_follows_a_reorg(market: Market, browser: Browser) -> None:
    """Two blocks vanish: without a reload the page has Redis' corrected candles and trades."""
    tab = ChartPage(browser, address(market), DESKTOP)
    tab.open(market.micro.id)
    tab.wait_state("Live")
    market.trade(market.micro, sell=False)
    market.settle()
    tab.wait(lambda: market.differences(tab, market.micro))
    stays, count, minutes = tab.trades[0], tab.candle_count, {market.minute}
    tab.page.evaluate("window.loadedOnce = true")
    for seconds in (0, 120):
        market.pass_time(seconds)
        market.trade(market.micro, sell=False)
        minutes.add(market.minute)
    market.settle()
    tab.wait(lambda: market.differences(tab, market.micro))
    assert tab.trades[2] == stays
    assert tab.candle_count == count + len(minutes) - 1 > count
    old = market.tip["hash"]

    market.micro.launchpad.rpc("anvil_reorg", 2, [])
    assert market.tip["hash"] != old
    market.settle()
    tab.wait(lambda: market.differences(tab, market.micro))
    assert tab.trades[0] == stays
    assert tab.candle_count == count
    market.pass_time(60)
    market.trade(market.micro, sell=False)
    market.settle()
    tab.wait(lambda: market.differences(tab, market.micro))
    assert tab.trades[1] == stays
    assert tab.page.evaluate("window.loadedOnce")
    assert tab.problems == []

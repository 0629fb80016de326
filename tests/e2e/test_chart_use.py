"""The chart page in use: by hand, by keyboard, through history, through failures, dark and light."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests.e2e.accessibility import faint, tiny, violations
from tests.e2e.browser import DESKTOP, PHONE, ChartPage, differences_of, open_browser
from tests.e2e.chart_stage import (
    INTERVALS,
    MINUTE_MS,
    START_MS,
    Stage,
    candles_with_gaps,
    market_id,
    open_stage,
    power_of,
    stats_of,
)

PAGE: Final = 500
HISTORY: Final = 3 * PAGE + 230
SCROLLS_MAX: Final = 200
NAMES: Final = (("OTTER", "Moon Otter"), ("TOAST", "Burnt Toast"), ("MANGO", "Mango"), ("YAK", "Wet Yak"))
OTTER, TOAST, MANGO, YAK = (market_id(number) for number in range(len(NAMES)))
"""Markets from the one with most volume to the one that has never traded."""
SEARCH: Final = "#search"
LINKS: Final = "#market-list a"
LEFT: Final = "window.__chart.visibleRange().from"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Four markets and a listener; the first market has a long history."""
    with open_stage(tmp_path) as empty:
        for number, (symbol, name) in enumerate(NAMES):
            empty.add_market(number, symbol, name, traded=market_id(number) != YAK)
        for market in (OTTER, TOAST, MANGO):
            empty.put_trades(market, 30)
            empty.put_candles(market, candles_with_gaps(40))
            empty.put_candles(market, candles_with_gaps(7), "5m")
            empty.put_candles(market, candles_with_gaps(3), "1h")
        empty.connect()
        yield empty


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium of this test's own."""
    with open_browser() as running:
        yield running


def open_live(browser: Browser, stage: Stage, market: str = OTTER, **device: Any) -> ChartPage:
    """The page of a market, once it is live and has its candles."""
    tab = ChartPage(browser, stage.address, DESKTOP | device)
    tab.open(market)
    tab.wait_state("Live")
    tab.wait(lambda: [] if tab.candle_count and tab.page.locator(LINKS).count() else ["nothing to see"])
    return tab


def symbols(tab: ChartPage) -> list[str]:
    """What the list shows, from the top."""
    return tab.page.locator("#market-list .symbol").all_text_contents()


def wait_symbols(tab: ChartPage, *expected: str) -> None:
    """Wait until the list shows just these."""
    tab.wait(lambda: differences_of("list", list(expected), symbols(tab)))


def wait_note(tab: ChartPage, note: str, *, title: str) -> None:
    """Wait until a note says something."""
    tab.wait(lambda: differences_of(note, title, tab.text(f"{note} strong")))


def drawn(tab: ChartPage) -> list[dict[str, float]]:
    """The bars of the chart."""
    return list(tab.page.evaluate("window.__chart.drawnBars()"))


def test_scrolling_back_reaches_the_first_candle(stage: Stage, browser: Browser) -> None:
    """Dragging back reads page after page, through gaps, until the first candle, each candle once."""
    history = candles_with_gaps(HISTORY)
    stage.put_candles(OTTER, history)
    asked: list[int] = []

    def hear(request: Request) -> None:
        if found := re.search(r"/candles\?.*before=(\d+)", request.url):
            asked.append(int(found[1]))

    tab = open_live(browser, stage)
    tab.page.on("request", hear)
    tab.wait(lambda: differences_of("candles", PAGE, tab.candle_count))
    assert tab.text("#edge") == ""
    box = tab.page.locator("#chart").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    tab.page.mouse.move(box["x"] + 60, middle)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] - 120, middle, steps=12)
    tab.page.mouse.up()
    tab.wait(lambda: [] if tab.page.evaluate(LEFT) < PAGE - 120 else ["dragging does not move the chart"])
    for _ in range(SCROLLS_MAX):
        if tab.text("#edge").startswith("First candle"):
            break
        tab.page.mouse.wheel(-600, 0)
        tab.page.wait_for_timeout(30)
    assert tab.text("#edge") == "First candle2026-01-01 00:00 UTC"
    assert tab.page.evaluate("window.__chart.firstCandle()") == history[0]
    assert [bar["time"] * 1000 for bar in drawn(tab)] == [candle["t"] for candle in history]
    assert asked == [history[-PAGE * page]["t"] for page in (1, 2, 3)]
    assert tab.problems == []


def test_older_candles_stay_where_they_are_and_are_asked_for_again(stage: Stage, browser: Browser) -> None:
    """What is seen does not jump when older candles come; a failure is said and tried again."""
    stage.put_candles(OTTER, candles_with_gaps(2 * PAGE))
    failures: list[str] = []

    def fail_once(route: Route) -> None:
        if failures:
            route.continue_()
        else:
            failures.append(route.request.url)
            route.fulfill(status=503, json={"error": "data is not available, try again"})

    tab = open_live(browser, stage)
    tab.page.route(re.compile(r"before="), fail_once)
    tab.page.locator("#chart").focus()
    tab.page.keyboard.press("Home")
    seen = tab.page.evaluate("window.__chart.drawnBars()[0].time")
    wait_note(tab, "#edge", title="Older candles cannot be read")
    tab.wait(lambda: differences_of("candles", 2 * PAGE, tab.candle_count))
    assert failures
    shown = "(({ from, to }) => [from, to])(window.__chart.visibleRange())"
    left, right = tab.page.evaluate(shown)
    assert left <= [bar["time"] for bar in drawn(tab)].index(seen) <= right
    assert [p for p in tab.problems if "503" not in p] == []


def test_continuous_candles_open_at_the_close_before(stage: Stage, browser: Browser) -> None:
    """The switch opens candles at `pc` and widens them; address and browser remember it."""
    history = candles_with_gaps(120)
    stage.put_candles(OTTER, history)
    tab = open_live(browser, stage)
    power = power_of(history[-1]["c"])

    def expected(*, continuous: bool) -> list[list[float]]:
        bars = []
        for candle in history:
            opened = candle.get("pc", candle["o"]) if continuous else candle["o"]
            high, low = (edge(candle[name], opened, key=float) for edge, name in ((max, "h"), (min, "l")))
            bars.append([float(f"{value}e{power}") for value in (opened, high, low, candle["c"])])
        return bars

    def found() -> list[list[float]]:
        return [[bar[name] for name in ("open", "high", "low", "close")] for bar in drawn(tab)]

    assert expected(continuous=True) != expected(continuous=False)
    assert found() == expected(continuous=False)
    assert "open=" not in tab.page.url
    tab.page.get_by_role("button", name="Continuous").click()
    assert found() == expected(continuous=True)
    assert tab.page.url.endswith(f"#/market/{OTTER}/1m?open=previous")

    candle = history[-1] | {"c": "0.0000000019", "h": "0.0000000019"}
    history[-1] = candle
    stage.put_candles(OTTER, [candle])
    stage.send("chart_data", candle | {"s": OTTER, "i": "1m", "T": candle["t"] + MINUTE_MS - 1})
    tab.wait(lambda: differences_of("bars", expected(continuous=True), found()))

    tab.page.reload()
    tab.wait(lambda: differences_of("bars", expected(continuous=True), found()))
    shared = ChartPage(browser, stage.address, DESKTOP)
    shared.page.goto(tab.page.url)
    expect(shared.page.get_by_role("button", name="Continuous")).to_have_attribute("aria-pressed", "true")
    again = tab.page.context.new_page()
    again.goto(f"{stage.address}/#/market/{TOAST}/1m")
    expect(again).to_have_url(re.compile(r"\?open=previous$"))
    tab.row(TOAST).click()
    tab.wait(lambda: differences_of("market", TOAST, tab.market))
    assert tab.page.url.endswith("?open=previous")
    tab.page.get_by_role("button", name="Exchange").click()
    assert "open=" not in tab.page.url
    assert tab.problems + shared.problems == []


def test_search_finds_by_symbol_name_and_address(stage: Stage, browser: Browser) -> None:
    """The list follows what is typed, markets created meanwhile included; nothing found is said."""
    tab = open_live(browser, stage)
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "YAK")
    for typed, *expected in (
        ("otter", "OTTER"),
        ("burnt", "TOAST"),
        (MANGO[-8:], "MANGO"),
        ("o", "OTTER", "TOAST", "MANGO"),
    ):
        tab.page.fill(SEARCH, typed)
        wait_symbols(tab, *expected)
    tab.page.fill(SEARCH, "zebra")
    wait_note(tab, "#market-note", title="Nothing found")
    for number, symbol in ((8, "ZEBRA"), (9, "LLAMA")):
        stage.send("market_created", stage.record(stage.add_market(number, symbol, symbol, traded=False)))
    wait_symbols(tab, "ZEBRA")
    assert tab.text("#market-note") == ""
    tab.page.fill(SEARCH, "")
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "LLAMA", "ZEBRA", "YAK")
    tab.page.get_by_role("button", name="Losers").click()
    tab.wait(lambda: differences_of("first loser", "MANGO", symbols(tab)[0]))
    tab.page.get_by_role("button", name="New", exact=True).click()
    wait_symbols(tab, "LLAMA", "ZEBRA", "YAK", "MANGO", "TOAST", "OTTER")
    tab.page.get_by_role("button", name="Volume").click()  # the backend keeps this list for two seconds
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "LLAMA", "ZEBRA", "YAK")
    stage.send("market_created", stage.record(stage.add_market(10, "SHARK", "Shark", traded=False)))
    tab.page.get_by_role("button", name="Gainers").click()
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "SHARK", "LLAMA", "ZEBRA", "YAK")
    assert tab.problems == []


def test_launches_appear_at_once_and_go_when_undone(stage: Stage, browser: Browser) -> None:
    """A creation is first of the feed at once whatever the list's order; an undone one leaves it."""
    tab = open_live(browser, stage)
    feed = tab.page.locator("#launch-list b")
    expect(feed).to_have_text(["YAK", "MANGO", "TOAST", "OTTER"])
    fresh = stage.add_market(20, "FROG", "Frog", traded=False)
    stage.send("market_created", stage.record(fresh))
    expect(feed).to_have_text(["FROG", "YAK", "MANGO", "TOAST", "OTTER"], timeout=2_000)
    assert symbols(tab)[0] == "OTTER"
    tab.page.locator("#launch-list a").first.click()
    tab.wait(lambda: differences_of("market", fresh, tab.market))
    wait_note(tab, "#chart-note", title="No candles yet")
    wait_note(tab, "#trade-note", title="No trades yet")

    stage.remove_market(fresh)
    stage.send("market_created", {"s": fresh, "deleted": True})
    expect(feed).to_have_text(["YAK", "MANGO", "TOAST", "OTTER"], timeout=2_000)
    wait_note(tab, "#chart-note", title="No such market")
    for number in range(21, 33):
        fresh = stage.add_market(number, f"N{number}", "New", traded=False)
        stage.send("market_created", stage.record(fresh))
    expect(feed).to_have_text([f"N{number}" for number in range(32, 24, -1)], timeout=2_000)
    stage.remove_market(fresh)
    stage.send("market_created", {"s": fresh, "deleted": True})
    expect(feed).to_have_text([f"N{number}" for number in range(31, 23, -1)], timeout=2_000)
    assert tab.problems == []


def test_reorg_is_corrected_and_said(stage: Stage, browser: Browser) -> None:
    """A reorg's candles are corrected, those scrolled back to stay, and a notice says what happened."""
    history = candles_with_gaps(PAGE + 80)
    stage.put_candles(OTTER, history)
    tab = open_live(browser, stage)
    tab.page.evaluate("window.loadedOnce = true")
    tab.page.locator("#chart").focus()
    tab.page.keyboard.press("Home")
    tab.wait(lambda: differences_of("candles", len(history), tab.candle_count))

    common = 27
    ancestor = {"number": common, "hash": f"0x{common:064x}"}
    last, changed = history.pop(), history[-1] | {"c": "0.0000000017", "h": "0.0000000018"}
    history[-1] = changed
    stage.database.zremrangebyscore(f"candles:{{31337}}:{OTTER}:1m", last["t"], last["t"])
    stage.put_candles(OTTER, [changed])
    stage.put_trades(OTTER, common + 1)
    reorg = {"ancestor": ancestor, "depth": 2, "orphaned": [], "markets": [OTTER], "from": changed["t"]}
    stage.send("reorg", reorg)
    expect(tab.page.locator("#toast")).to_contain_text("2 blocks were replaced")
    place = {"s": OTTER, "i": "1m"}
    stage.send("chart_data", changed | place, {**place, "t": last["t"], "deleted": True})
    tab.wait(lambda: differences_of("last candle", changed, {k: tab.last_candle.get(k) for k in changed}))
    tab.wait(lambda: differences_of("candles", len(history), tab.candle_count))
    tab.wait(lambda: differences_of("trades", 28, len(tab.trades)))
    assert [bar["time"] * 1000 for bar in drawn(tab)] == [candle["t"] for candle in history]
    assert tab.page.evaluate("window.loadedOnce")
    assert tab.problems == []


def test_theme_follows_the_system_until_chosen(stage: Stage, browser: Browser) -> None:
    """System, then the other one, then as chosen: page and chart change together, a reload keeps it."""
    tab = open_live(browser, stage)
    button = tab.page.locator("#theme")

    def looks() -> str:
        tab.wait(lambda: [] if tab.candle_pixels > 100 else ["no candles in the theme's colours"])
        return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = looks()
    tab.page.emulate_media(color_scheme="light")
    light = looks()
    assert light != dark
    tab.page.emulate_media(color_scheme="dark")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((looks(), button.get_attribute("data-choice")))
    assert seen == [(light, "light"), (dark, "dark"), (dark, "system")]
    button.click()
    tab.page.reload()
    assert looks() == light
    assert button.get_attribute("aria-label") == "Theme: light. Switch to dark"
    assert tab.problems == []


def test_everything_by_keyboard(stage: Stage, browser: Browser) -> None:
    """Search, list, interval, opens, scale, theme and help work without a pointer."""
    tab = open_live(browser, stage)
    page = tab.page
    focus = "document.activeElement.id || document.activeElement.getAttribute('href')"

    def pressed(selector: str) -> str | None:
        return page.locator(selector).get_attribute("aria-pressed")

    page.keyboard.press("/")
    assert page.evaluate(focus) == "search"
    page.keyboard.type("toast")
    wait_symbols(tab, "TOAST")
    page.keyboard.press("Enter")
    tab.wait(lambda: differences_of("market", TOAST, tab.market))
    page.keyboard.press("Escape")
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "YAK")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focus) == f"#/market/{MANGO}"
    page.keyboard.press("Enter")
    tab.wait(lambda: differences_of("market", MANGO, tab.market))
    stage.send("market_data", {"s": MANGO, **stats_of(2), "quoteVolume": "5000"})
    wait_symbols(tab, "MANGO", "OTTER", "TOAST", "YAK")
    assert page.evaluate(focus) == f"#/market/{MANGO}", "the focus stays on a row that moves"
    page.keyboard.press("k")
    assert tab.market == MANGO, "there is none above the first"
    page.keyboard.press("j")
    tab.wait(lambda: differences_of("market", OTTER, tab.market))

    for key, place in (("]", 1), ("]", 2), ("]", 2), ("[", 1), ("1", 0), ("3", 2), ("9", 2), ("1", 0)):
        page.keyboard.press(key)
        tab.wait(lambda place=place: differences_of("url", INTERVALS[place], page.url.rpartition("/")[2]))
    page.keyboard.press("c")
    assert pressed("[data-mode=continuous]") == "true"
    page.keyboard.press("l")
    assert pressed("#log") == "true"
    page.keyboard.press("t")
    assert page.locator("#theme").get_attribute("data-choice") == "light"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("c")
    assert pressed("[data-mode=continuous]") == "true", "keys behind the help do nothing"
    page.get_by_label("Single-key shortcuts").press(" ")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("l")
    assert pressed("#log") == "true", "they are turned off"
    assert tab.problems == []


def test_chart_by_keyboard_reads_candles(stage: Stage, browser: Browser) -> None:
    """Arrows go from candle to candle and say its figures; Home, End, zoom and Escape work."""
    history = candles_with_gaps(200)
    stage.put_candles(OTTER, history)
    tab = open_live(browser, stage)
    page = tab.page

    def at() -> int:
        times = [f"{candle['t']}" for candle in history]
        return times.index(str(page.evaluate("Date.parse(document.querySelector('#legend').dataset.time)")))

    def seen() -> float:
        return float(page.evaluate("(({ from, to }) => to - from)(window.__chart.visibleRange())"))

    def out_of_view(place: int) -> list[str]:
        left, right = page.evaluate("(({ from, to }) => [from, to])(window.__chart.visibleRange())")
        return [] if left <= place <= right else [f"{place} is not within {left} and {right}"]

    page.locator("#chart").focus()
    for key, place in (
        ("ArrowLeft", 199),
        ("ArrowLeft", 198),
        ("Shift+ArrowLeft", 188),
        ("ArrowRight", 189),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", 199),
    ):
        page.keyboard.press(key)
        assert at() == place
        tab.wait(lambda place=place: out_of_view(place))
    page.keyboard.press("Shift+ArrowLeft")
    before = drawn(tab)[150]
    stage.send(
        "chart_data", history[150] | {"s": OTTER, "i": "1m", "h": "1", "T": history[150]["t"] + MINUTE_MS - 1}
    )
    tab.wait(lambda: ["no correction"] if drawn(tab)[150] == before else [])
    assert at() == 189, "what comes meanwhile leaves the cursor where it is"
    said = tab.text("#spoken")
    assert said.startswith("2026-")
    assert [word for word in ("open", "high", "low", "close", "volume") if word not in said] == []
    wide = seen()
    page.keyboard.press("+")
    tab.wait(lambda: [] if seen() < 0.9 * wide else ["it does not zoom in"])
    page.keyboard.press("-")
    tab.wait(lambda: [] if seen() == pytest.approx(wide, rel=0.01) else ["it does not zoom out"])
    page.keyboard.press("Escape")
    assert tab.text("#spoken") == ""
    assert tab.problems == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_names_contrast_and_sizes(
    stage: Stage, browser: Browser, scheme: str, device: dict[str, Any]
) -> None:
    """No rule of axe-core is broken, text has 4.5:1, candles 3:1, targets 24 pixels, in each state."""
    tab = ChartPage(browser, stage.address, device)
    tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]

    def sound(where: str) -> None:
        tab.page.wait_for_timeout(50)
        found = [*violations(tab.page), *faint(tab.page), *tiny(tab.page)]
        assert found == [], where + "\n" + "\n".join(found)

    def show(view: str) -> None:
        if device is PHONE:
            tab.page.locator(f".tabs [data-view={view}]").tap()

    tab.open(OTTER)
    tab.wait_state("Live")
    tab.wait(lambda: [] if tab.candle_count and tab.trades else ["nothing to see"])
    expect(tab.page.locator("#launch-list a")).to_have_count(len(NAMES))
    for view in ("markets", "trades", "chart"):
        show(view)
        sound(view)
        assert tab.overflow == []
    stage.send("market_graduated", stage.record(OTTER) | {"status": "graduated"})
    expect(tab.page.locator("#toast")).to_contain_text("OTTER has graduated")
    sound("a notice and a graduate")
    tab.page.evaluate("location.hash = '#/market/0xdead/5m'")
    wait_note(tab, "#chart-note", title="No such market")
    sound("no such market")
    show("markets")
    tab.page.fill(SEARCH, "zebra")
    wait_note(tab, "#market-note", title="Nothing found")
    sound("nothing found")
    tab.page.fill(SEARCH, "")
    wait_symbols(tab, "OTTER", "TOAST", "MANGO", "YAK")
    stage.disconnect()
    expect(tab.page.locator("#banner")).to_contain_text("No listener is connected")
    sound("waiting")
    if device is DESKTOP:
        tab.page.locator("#help-open").click()
        expect(tab.page.get_by_role("dialog")).to_be_visible()
        sound("help")
    assert tab.problems == []


def test_states_of_an_empty_and_a_broken_system(tmp_path: Path, browser: Browser) -> None:
    """No markets, no listener, no Redis, no backend: each is said, and each ends without a reload."""
    with open_stage(tmp_path) as stage:
        tab = ChartPage(browser, stage.address, DESKTOP)
        unreachable = re.compile(r"/api/config")
        tab.page.route(unreachable, lambda route: route.abort())
        tab.open()
        wait_note(tab, "#chart-note", title="The backend cannot be reached")
        tab.page.unroute(unreachable)
        wait_note(tab, "#market-note", title="No markets yet")
        wait_note(tab, "#chart-note", title="No market selected")
        tab.page.evaluate("window.loadedOnce = true")
        tab.wait_state("Waiting for data")
        stage.connect()
        tab.wait_state("Live")
        expect(tab.page.locator("#banner")).to_be_hidden()

        fresh = stage.add_market(0, "FROG", "Frog", traded=False)
        stage.send("market_created", stage.record(fresh))
        wait_symbols(tab, "FROG")
        assert tab.row(fresh).locator(".about").text_content() == "No trades yet"
        tab.row(fresh).click()
        wait_note(tab, "#chart-note", title="No candles yet")
        candle = candles_with_gaps(1)[0]
        stage.put_candles(fresh, [candle])
        stage.send("chart_data", candle | {"s": fresh, "i": "1m", "T": START_MS + MINUTE_MS - 1})
        tab.wait(lambda: differences_of("candles", 1, tab.candle_count))
        assert tab.text("#chart-note") == ""

        stage.backend.kill()
        tab.wait_state("Reconnecting")
        expect(tab.page.locator("#banner")).to_contain_text(
            re.compile(r"Connection lost.*from \d\d:\d\d:\d\d UTC")
        )
        assert tab.candle_count == 1, "what was there stays on show"
        stage.restart_backend()
        stage.connect()
        tab.wait_state("Live")
        expect(tab.page.locator("#banner")).to_be_hidden()
        assert tab.page.evaluate("window.loadedOnce")


def test_history_that_cannot_be_read_is_said_and_comes(stage: Stage, browser: Browser) -> None:
    """While Redis hangs the chart says that candles cannot be read; afterwards it shows them by itself."""
    tab = open_live(browser, stage)
    key = f"candles:{{31337}}:{TOAST}:1m"
    stage.database.rename(key, "aside")
    stage.database.set(key, "not a sorted set")
    tab.row(TOAST).click()
    wait_note(tab, "#chart-note", title="Candles cannot be read")
    stage.database.rename("aside", key)
    tab.wait(lambda: differences_of("candles", 40, tab.candle_count))
    assert tab.text("#chart-note") == ""
    assert tab.problems == []

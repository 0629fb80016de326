"""The chart page in a real Chromium, as a person sees it."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-first-run",
)
WAIT_S: Final = 15.0
POLL_MS: Final = 50
DESKTOP: Final[dict[str, Any]] = {"viewport": {"width": 1440, "height": 900}}
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
CANDLE_PIXELS: Final = """() => {
  const style = getComputedStyle(document.documentElement)
  const wanted = ['--up', '--down'].map((name) => style.getPropertyValue(name).trim())
    .map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)))
  let found = 0
  for (const canvas of document.querySelectorAll('#chart canvas')) {
    const { width, height } = canvas
    if (!width || !height) continue
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })
    copy.drawImage(canvas, 0, 0)
    const { data } = copy.getImageData(0, 0, width, height)
    for (let at = 0; at < data.length; at += 4) {
      if (wanted.some((rgb) => rgb.every((part, place) => Math.abs(part - data[at + place]) < 3))) found += 1
    }
  }
  return found
}"""


def browser_binary() -> str:
    """The path of an installed Chromium.

    Raises:
        AssertionError: there is none; says how to get one.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"none of {', '.join(BROWSERS)} is installed: on Debian, `apt-get install chromium`"
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A Chromium that ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_binary(), args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class ChartPage:
    """One tab with the chart page.

    Args:
        browser: a running one.
        address: of the backend.
        device: options of the browser context.
    """

    def __init__(self, browser: Browser, address: str, device: dict[str, Any]) -> None:
        self.problems: list[str] = []
        self.page: Page = browser.new_context(color_scheme="dark", **device).new_page()
        self.page.set_default_timeout(WAIT_S * 1000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        self.address = address

    def open(self, market: str = "", interval: str = "1m") -> None:
        """Load the page, of a market or without a choice."""
        self.page.goto(f"{self.address}/" + (f"#/market/{market}/{interval}" if market else ""))

    def wait(self, differences: Callable[[], Sequence[str]], timeout_s: float = WAIT_S) -> None:
        """Compare until nothing differs.

        Raises:
            AssertionError: something still differs when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while (found := differences()) and time.monotonic() < deadline:
            self.page.wait_for_timeout(POLL_MS)
        assert not found, "\n".join(found)

    def wait_state(self, text: str) -> None:
        """Wait until the badge in the corner says so."""
        self.wait(lambda: differences_of("connection", text, self.text("#connection")))

    @property
    def market(self) -> str:
        """The market on show."""
        return str(self.page.evaluate("window.__chart?.market ?? ''"))

    @property
    def candle_count(self) -> int:
        """How many candles the chart holds."""
        return int(self.page.evaluate("window.__chart?.candleCount() ?? 0"))

    @property
    def last_candle(self) -> dict[str, Any]:
        """The newest candle of the chart; empty: there is none."""
        return dict(self.page.evaluate("window.__chart?.lastCandle() ?? {}"))

    @property
    def candle_pixels(self) -> int:
        """How many pixels of the chart have the colour of a candle."""
        return int(self.page.evaluate(CANDLE_PIXELS))

    @property
    def trades(self) -> list[list[str]]:
        """Side, exact price and exact amounts of each row of the trade list."""
        script = """() => [...document.querySelectorAll('#trade-list tr')].map((row) => [
          row.querySelector('.arrow').getAttribute('aria-label'),
          row.querySelector('.price').title, row.querySelector('.amount').title])"""
        return list(self.page.evaluate(script))

    def row(self, market: str) -> Locator:
        """A market's row of the list."""
        return self.page.locator(f'#market-list a[href*="{market}"]')

    def text(self, selector: str) -> str:
        """What an element says."""
        return (self.page.locator(selector).text_content() or "").strip()

    def title(self, selector: str) -> str:
        """What an element says when pointed at: figures in full."""
        return self.page.locator(selector).get_attribute("title") or ""

    @property
    def overflow(self) -> list[str]:
        """What makes the page wider than the screen."""
        script = """() => {
          const width = document.documentElement.clientWidth
          const wide = document.scrollingElement.scrollWidth > width ? ['the document'] : []
          for (const element of document.querySelectorAll('body *')) {
            const { right, left, width: own } = element.getBoundingClientRect()
            const scrolls = element.closest('.chips, #launch-list, #chart')
            if (own > 0 && !scrolls && (right > width + 1 || left < -1)) {
              wide.push(`${element.tagName}#${element.id}.${element.className} ends at ${right}`)
            }
          }
          return wide
        }"""
        return list(self.page.evaluate(script))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text}")


def differences_of(what: str, expected: object, found: object) -> list[str]:
    """Empty when equal."""
    return [] if expected == found else [f"{what}: expected {expected!r}, the page has {found!r}"]

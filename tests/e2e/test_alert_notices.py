"""Alerts on the chart page, in a real browser."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.accessibility import faint, violations
from tests.e2e.browser import DESKTOP, ChartPage, open_browser
from tests.e2e.chart_stage import START_MS, candles_with_gaps, market_id, open_stage


def alert(number: int, market: str, **fields: Any) -> dict[str, Any]:
    """A record as the listener sends it."""
    common = {"id": f"r{number}-{number}-0", "rule": f"r{number}", "s": market, "b": number, "bh": "0xb"}
    return common | {"t": START_MS, "kind": "trade_size", "value": "12.5", "threshold": "10"} | fields


@pytest.mark.timeout(60)
def test_an_alert_is_shown_and_struck_through_when_undone(tmp_path: Path) -> None:
    """Alerts of the market on show stand in its chart, undone ones struck through, until dismissed."""
    here, there = market_id(0), market_id(1)
    with open_stage(tmp_path) as stage, open_browser() as browser:
        for number, market in enumerate((here, there)):
            stage.add_market(number, f"M{number}", "Market")
            stage.put_candles(market, candles_with_gaps(10))
        stage.connect()
        tab = ChartPage(browser, stage.address, DESKTOP)
        tab.open(here)
        tab.wait_state("Live")
        notices = tab.page.locator("#alerts li")
        spike = {"kind": "volume_spike", "value": "7", "windowMs": 300_000}
        stage.send("alert", alert(1, here), alert(2, there), alert(3, here, **spike))
        expect(notices.locator("span")).to_have_text(["Trade of 12.5", "Volume 7 times the usual within 5m"])
        assert violations(tab.page) == []
        assert faint(tab.page) == []

        stage.send("alert", alert(9, here, retracted=True), alert(1, here, retracted=True))
        expect(notices.locator("s")).to_have_text(["Trade of 12.5"])
        expect(notices).to_have_count(2)
        stage.send("alert", alert(1, here))  # it came true on the new branch, too
        expect(notices.locator("s")).to_have_count(0)
        notices.last.get_by_role("button", name="Dismiss").click()
        expect(notices).to_have_count(1)

        stage.send("alert", *(alert(number, here) for number in range(20, 30)))
        expect(notices).to_have_count(4)
        tab.open(there)
        expect(notices).to_have_count(0)
        assert tab.problems == []

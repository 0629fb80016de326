"""TradingView's charting library as its server sees it: its requests, and what it does with answers.

Source: the library's documentation (UDF, required methods of the datafeed, its common issues) and the traffic
of its UDF adapter. It checks what the library asserts: ascending and unique times, nothing at or after `to`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

Get = Callable[[str, Mapping[str, object]], Awaitable[Any]]
"""Asks the datafeed for a path with these parameters; the decoded answer."""

SECONDS: Final = {"1D": 86_400, "D": 86_400, "1W": 604_800, "W": 604_800}
ROUNDS_MOST: Final = 10_000
"""Requests after which scrolling counts as endless."""


class Bar(NamedTuple):
    """One bar; time in seconds."""

    t: int
    o: float
    h: float
    l: float
    c: float
    v: float


def seconds_of(resolution: str) -> int:
    """Length of a resolution."""
    return SECONDS[resolution] if resolution in SECONDS else int(resolution) * 60


class Refused(Exception):
    """The datafeed answered with an error."""


class Chart:
    """One chart: its symbol, its resolution and the bars that it has loaded.

    Args:
        get: asks the datafeed.
        now: the browser's clock, seconds.
        countback: whether it is a version (18 and later) that says how many bars it needs.
    """

    def __init__(self, get: Get, now: Callable[[], int], *, countback: bool = True) -> None:
        self._get = get
        self._now = now
        self._countback = countback
        self.info: dict[str, Any] = {}
        self.resolution = ""
        self.bars: list[Bar] = []
        self.at_start = False
        self.requests = 0
        self._edge = 0

    async def open(self, symbol: str, resolution: str, bars: int) -> None:
        """Resolve the symbol and load what is seen first."""
        self.info = await self._get("symbols", {"symbol": symbol})
        if "s" in self.info:
            raise Refused(self.info["errmsg"])
        assert resolution in self.info["supported_resolutions"]
        await self.switch(resolution, bars)

    async def switch(self, resolution: str, bars: int) -> None:
        """Show another resolution, from the newest bars on."""
        self.resolution, self.bars, self.at_start = resolution, [], False
        self._edge = self._now()
        await self.scroll_back(bars)

    async def scroll_back(self, bars: int) -> None:
        """Load so many bars before those that are there, however many requests it takes."""
        wanted, start = bars, self._edge - bars * seconds_of(self.resolution)
        while wanted > 0 and not self.at_start:
            found, next_time = await self._history(start, self._edge, wanted)
            self._prepend(found)
            wanted -= len(found)
            if found:
                self._edge = found[0].t
            elif next_time is None:
                self.at_start = True
            else:
                assert next_time < start, "nextTime does not lead back"
            last = self._edge if next_time is None else next_time
            start = last - max(wanted, 1) * seconds_of(self.resolution)

    async def scroll_to_the_first_bar(self, bars: int) -> None:
        """Scroll until the datafeed has no more."""
        while not self.at_start:
            await self.scroll_back(bars)

    async def poll(self) -> None:
        """What the adapter does every 10 s: take over the last bar, with the one before if it is new."""
        now = self._now()
        found, _ = await self._history(now - 10 * seconds_of(self.resolution), now, 2)
        if not found:
            return
        known = self.bars[-1].t if self.bars else None
        if known is None or found[-1].t > known:
            assert known is None or len(found) == 2, "a pulse needs the bar before a new one"
            for bar in found:
                self._update(bar)
        elif found[-1].t == known:
            self._update(found[-1])

    def _update(self, bar: Bar) -> None:
        if self.bars and bar.t < self.bars[-1].t:
            return
        if self.bars and bar.t == self.bars[-1].t:
            self.bars.pop()
        self.bars.append(bar)

    def _prepend(self, found: list[Bar]) -> None:
        if found and self.bars:
            assert found[-1].t < self.bars[0].t, "bars that were loaded before"
        self.bars[:0] = found

    async def _history(self, start: int, end: int, bars: int) -> tuple[list[Bar], int | None]:
        self.requests += 1
        assert self.requests < ROUNDS_MOST, "scrolls for ever"
        asked: dict[str, object] = {
            "symbol": self.info["ticker"],
            "resolution": self.resolution,
            "from": start,
            "to": end,
        }
        if self._countback:
            asked["countback"] = bars
        answer = await self._get("history", asked)
        if answer["s"] == "no_data":
            assert set(answer) <= {"s", "nextTime"}
            return [], answer.get("nextTime")
        if answer["s"] != "ok":
            raise Refused(answer["errmsg"])
        found = [Bar(*row) for row in zip(*(answer[name] for name in "tohlcv"), strict=True)]
        times = [bar.t for bar in found]
        assert times == sorted(set(times)), "times must ascend and be unique"
        assert found, "ok without bars"
        assert times[-1] < end, "a bar at or after `to`"
        assert all(type(value) in {int, float} for bar in found for value in bar), "not a number"
        return found, None

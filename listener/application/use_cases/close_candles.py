"""Which candles a consumer has heard of and not been told closed yet.

The stream says that *all* candles of an interval up to an instant are closed. To tell each of them, a
consumer remembers what it has heard of, and saves it with its cursor, so that both always agree.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from listener.domain.value_objects import Interval, MarketId, Timestamp

Reference = tuple[MarketId, Interval, Timestamp]
"""A candle: market, interval, open time."""


class OpenChanges(NamedTuple):
    """What differs from what is saved.

    Attributes:
        opened: candles heard of since, all of them open.
        closed: watermarks that have moved, by interval name; what closed up to them is forgotten.
    """

    opened: tuple[Reference, ...]
    closed: Mapping[str, Timestamp]


class OpenCandles:
    """Candles that are open, and how far each interval is closed. Grows with the markets that trade."""

    def __init__(self) -> None:
        self._open: dict[str, dict[Reference, None]] = {}
        self._closed: dict[str, Timestamp] = {}
        self._opened: dict[Reference, None] = {}
        self._moved: set[str] = set()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def load(self, candles: Iterable[Reference], closed: Mapping[str, Timestamp]) -> None:
        """Forget everything and begin with what was saved."""
        self._open = {}
        for reference in candles:
            self._open.setdefault(reference[1].name, {})[reference] = None
        self._closed = dict(closed)
        self._opened, self._moved = {}, set()

    def touch(self, reference: Reference) -> bool:
        """Remember a candle that has changed; whether it was told closed already."""
        _, interval, open_time = reference
        if open_time + interval.ms - 1 <= self._closed.get(interval.name, -1):
            return True
        series = self._open.setdefault(interval.name, {})
        if reference not in series:
            series[reference] = self._opened[reference] = None
        return False

    def close(self, interval: str, up_to: Timestamp) -> list[Reference]:
        """The candles that close with this, oldest first, those of one bucket by market."""
        series = self._open.get(interval, {})
        closing = [reference for reference in series if reference[2] + reference[1].ms - 1 <= up_to]
        for reference in closing:
            del series[reference]
            self._opened.pop(reference, None)
        if up_to > self._closed.get(interval, -1):
            self._closed[interval] = up_to
            self._moved.add(interval)
        return sorted(closing, key=lambda reference: (reference[2], reference[0]))

    def take_changes(self) -> OpenChanges:
        """What has changed since the last call or `load`: to be saved."""
        changes = OpenChanges(tuple(self._opened), {name: self._closed[name] for name in sorted(self._moved)})
        self._opened, self._moved = {}, set()
        return changes

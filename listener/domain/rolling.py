"""The rolling day: a sliding fold over one-minute candles.

Two stacks give every push, eviction and total in constant amortised time without subtracting anything,
so highs and lows roll off as exactly as volumes do. A window is immutable: pushing returns a new one that
shares the old one's parts.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

from listener.domain.entities import Candle
from listener.domain.value_objects import DAY_MS, MINUTE_MS, Timestamp


class RollingDay(NamedTuple):
    """One-minute candles of one market, oldest first, and their fold.

    Attributes:
        front: `front[k]` is the fold of minutes `k…` of the older part; its open time is minute `k`'s.
        start: where the older part begins; what lies before has rolled off.
        back: the younger minutes but the last, oldest first.
        back_total: fold of `back`.
        last: the newest minute.
        changed: the minute in which the figures last changed.
    """

    front: tuple[Candle, ...]
    start: int
    back: tuple[Candle, ...]
    back_total: Candle | None
    last: Candle | None
    changed: Timestamp

    @classmethod
    def of(cls, minutes: Sequence[Candle], changed: Timestamp = 0) -> "RollingDay":
        """A window over `minutes`, which are in ascending order."""
        if not minutes:
            return cls((), 0, (), None, None, changed)
        return cls(_suffixes(minutes[:-1]), 0, (), None, minutes[-1], max(changed, minutes[-1].open_time))

    def put(self, minute: Candle) -> "RollingDay":
        """Replace the newest minute with its newer version, or append a later one."""
        last = self.last
        changed = max(self.changed, minute.open_time)
        if last is None or last.open_time == minute.open_time:
            return self._replace(last=minute, changed=changed)
        total = self.back_total.merge(last) if self.back_total else last
        return RollingDay(self.front, self.start, (*self.back, last), total, minute, changed)

    def advance(self, as_of: Timestamp) -> "RollingDay":
        """Drop what lies before the 1,440 minutes that end with the minute of `as_of`."""
        oldest = as_of - as_of % MINUTE_MS - DAY_MS + MINUTE_MS
        first = self.oldest
        if first is None or first.open_time >= oldest:
            return self
        window, changed = self, self.changed
        if window.last is not None and window.last.open_time < oldest:
            return RollingDay.of((), max(changed, window.last.open_time + DAY_MS))
        if window.start < len(window.front) and window.front[-1].open_time < oldest:
            changed = max(changed, window.front[-1].open_time + DAY_MS)
            window = window._replace(front=(), start=0)
        if not window.front and window.back and window.back[0].open_time < oldest:
            kept = next((i for i, m in enumerate(window.back) if m.open_time >= oldest), len(window.back))
            changed = max(changed, window.back[kept - 1].open_time + DAY_MS)
            window = window._replace(front=_suffixes(window.back[kept:]), start=0, back=(), back_total=None)
        start = window.start
        while start < len(window.front) and window.front[start].open_time < oldest:
            changed = max(changed, window.front[start].open_time + DAY_MS)
            start += 1
        return window._replace(start=start, changed=changed)

    @property
    def oldest(self) -> Candle | None:
        """A candle that opens with the oldest minute of the window."""
        if self.start < len(self.front):
            return self.front[self.start]
        return self.back[0] if self.back else self.last

    def total(self) -> Candle | None:
        """Fold of the whole window, labelled with its oldest minute."""
        front = self.front[self.start] if self.start < len(self.front) else None
        return _fold(part for part in (front, self.back_total, self.last) if part is not None)


def _suffixes(minutes: Sequence[Candle]) -> tuple[Candle, ...]:
    """Folds of `minutes[k:]` for every k."""
    folded = accumulate(reversed(minutes), lambda later, earlier: earlier.merge(later))
    return tuple(folded)[::-1]


def _fold(parts: Iterable[Candle]) -> Candle | None:
    merged = list(parts)
    return reduce(Candle.merge, merged) if merged else None

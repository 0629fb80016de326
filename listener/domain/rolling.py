"""The rolling day: a sliding fold over one-minute candles, in bounded memory.

Only the newest minute is kept as it is. The others are folded into stretches of at most an hour, and two
stacks of stretches give every push, eviction and total in constant amortised time without subtracting
anything, so highs and lows roll off as exactly as volumes do. A stretch that begins to roll off is split
into its minutes again; whoever keeps the candles supplies them (`wanted`, `with_minutes`). A day is
immutable: changing it returns a new one that shares the old one's parts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from listener.domain.entities import Candle
from listener.domain.errors import MinutesMissing
from listener.domain.part import Part, key, times
from listener.domain.value_objects import DAY_MS, MINUTE_MS, Timestamp

STRETCH_MS: Final = 60 * MINUTE_MS
"""Longest time from the first minute of a stretch to the end of its last."""
STRETCH_LENGTHS: Final = 16
"""So many different ones, a minute apart: else markets loaded together would want minutes together."""


class Past(NamedTuple):
    """The stretches before the newest one, packed.

    Attributes:
        front: the older ones: `front[k]` is the fold of the stretches `k…` of the front.
        back: the younger ones, each by itself, oldest first.
        back_total: fold of `back`.
        total: fold of all.
    """

    front: tuple[bytes, ...]
    back: tuple[bytes, ...]
    back_total: Part | None
    total: Part

    @classmethod
    def of(cls, stretch: Part) -> "Past":
        """One stretch."""
        return cls((stretch.pack(),), (), None, stretch)

    def push(self, stretch: Part) -> "Past":
        """Append a later stretch."""
        back_total = self.back_total
        return Past(
            self.front,
            (*self.back, stretch.pack()),
            back_total.merge(stretch, back_total.until) if back_total else stretch,
            self.total.merge(stretch, self.total.until),
        )

    def breaking(self, start: Timestamp) -> int | None:
        """Place of the stretch of which `start` leaves only the younger minutes."""
        first_left = key(start)
        place = bisect_left(self.front, first_left)
        if place == len(self.front):
            place += bisect_left(self.back, first_left)
        if place == len(self.front) + len(self.back):
            return None
        return place if times(self.at(place))[0] < start else None

    def at(self, place: int) -> bytes:
        """The stretch in that place, and in the front what follows there."""
        return self.front[place] if place < len(self.front) else self.back[place - len(self.front)]

    def split(self, place: int, minutes: Sequence[Candle]) -> "Past":
        """The same with one stretch in minutes.

        Raises:
            MinutesMissing: these are not all of them.
        """
        front, back, parts = self.front, self.back, [Part.of(minute) for minute in minutes]
        later = front[place + 1 :]
        rest = Part.unpack(later[0]) if later else None
        _expect(parts, Part.unpack(self.at(place)), rest)
        if place < len(front):
            return self._replace(front=(*front[:place], *_suffixes(parts, rest), *later))
        at = place - len(front)
        return self._replace(back=(*back[:at], *map(Part.pack, parts), *back[at + 1 :]))

    def since(self, start: Timestamp) -> "tuple[Past | None, Timestamp]":
        """What is left from `start` on, and the open time of the newest minute that is not.

        Raises:
            MinutesMissing: a stretch that begins to roll off was not split.
        """
        first_left, newest_gone = key(start), 0
        front, back, back_total = self.front, self.back, self.back_total
        if gone := bisect_left(front, first_left):
            newest_gone = times(front[gone - 1])[1]
            front = front[gone:]
        if not front:
            if gone := bisect_left(back, first_left):
                newest_gone = times(back[gone - 1])[1]
            front, back, back_total = _suffixes(map(Part.unpack, back[gone:])), (), None
        if not front:
            return None, newest_gone
        oldest = Part.unpack(front[0])
        if oldest.open_time < start:
            raise MinutesMissing(f"minutes from {oldest.open_time} to {oldest.until} have to be told apart")
        total = oldest.merge(back_total, oldest.until) if back_total else oldest
        return Past(front, back, back_total, total), newest_gone


class MinuteRun(NamedTuple):
    """Minutes that follow each other, folded ahead.

    Attributes:
        each: the minutes, ascending.
        before: fold of all but the newest; None if there is one only.
        last: the newest.
    """

    each: Sequence[Candle]
    before: Part | None
    last: Candle


class RollingDay(NamedTuple):
    """The last 1,440 minutes of one market.

    Attributes:
        past: the older stretches.
        stretch: the newest stretch without the newest minute.
        last: the newest minute.
        changed: the minute in which the figures last changed.
    """

    past: Past | None
    stretch: Part | None
    last: Candle | None
    changed: Timestamp

    @classmethod
    def of(cls, minutes: Iterable[Candle], changed: Timestamp = 0) -> "RollingDay":
        """A day of `minutes`, which are in ascending order."""
        day = cls(None, None, None, changed)
        for minute in minutes:
            day = day.put(minute)
        return day

    def put(self, minute: Candle) -> "RollingDay":
        """Replace the newest minute with its newer version, or append a later one."""
        past, stretch, last, changed = self
        changed = max(changed, minute.open_time)
        if last is None or last.open_time == minute.open_time:
            return RollingDay(past, stretch, minute, changed)
        if stretch is None:
            stretch = Part.of(last)
        elif last.open_time < _end(stretch):
            stretch = stretch.merge(last, last.open_time)
        else:
            past, stretch = _pushed(past, stretch), Part.of(last)
        return RollingDay(past, stretch, minute, changed)

    def add(self, minutes: Iterable[Candle], as_of: Timestamp) -> "RollingDay":
        """Let time pass to `as_of` and put minutes, some of which may have rolled off by then.

        Raises:
            MinutesMissing: see `advance`.
        """
        day, start = self.advance(as_of), _start(as_of)
        for minute in minutes:
            if minute.open_time >= start:
                day = day.put(minute)
            else:
                day = day._replace(changed=max(day.changed, minute.open_time + DAY_MS))
        return day

    def extend(self, run: MinuteRun, as_of: Timestamp) -> "RollingDay":
        """The same as `add` of each of the minutes.

        Raises:
            MinutesMissing: see `advance`.
        """
        day, before, start = self.advance(as_of), run.before, _start(as_of)
        if before is None and run.last.open_time >= start:
            return day.put(run.last)
        if before is None or before.open_time < start:
            return day.add(run.each, as_of)
        past, stretch, last, changed = day
        if last is not None and last.open_time != before.open_time:
            past, stretch, _, _ = day.put(run.last)
        if stretch is None:
            stretch, end = before, _end(before)
        else:
            end = _end(stretch)
            stretch = stretch.merge(before, before.until)
        if before.until >= end:
            return day.add(run.each, as_of)
        return RollingDay(past, stretch, run.last, max(changed, run.last.open_time))

    def wanted(self, as_of: Timestamp) -> tuple[Timestamp, Timestamp] | None:
        """Open times of the first and the last minute that `advance(as_of)` must be able to tell apart."""
        start, oldest = _start(as_of), self.oldest
        if oldest is None or oldest >= start:
            return None
        past, _ = self._stretches(start)
        place = past.breaking(start) if past else None
        return times(past.at(place)) if past and place is not None else None

    def with_minutes(self, as_of: Timestamp, minutes: Iterable[Candle]) -> "RollingDay":
        """The same day, able to `advance` to `as_of`.

        Args:
            as_of: as for `wanted`.
            minutes: one-minute candles, ascending, all the wanted ones among them.

        Raises:
            MinutesMissing: these are not the minutes that were put.
        """
        past, stretch = self._stretches(_start(as_of))
        place = past.breaking(_start(as_of)) if past else None
        if past is None or place is None:
            return self
        first, last = times(past.at(place))
        supplied = [minute for minute in minutes if first <= minute.open_time <= last]
        return RollingDay(past.split(place, supplied), stretch, self.last, self.changed)

    def advance(self, as_of: Timestamp) -> "RollingDay":
        """Drop what lies before the 1,440 minutes that end with the minute of `as_of`.

        Raises:
            MinutesMissing: the wanted minutes were not supplied.
        """
        start, last, oldest = _start(as_of), self.last, self.oldest
        if last is None or oldest is None or oldest >= start:
            return self
        past, stretch = self._stretches(start)
        if past is None or last.open_time < start:
            return RollingDay(None, None, None, max(self.changed, last.open_time + DAY_MS))
        past, newest_gone = past.since(start)
        return RollingDay(past, stretch, last, max(self.changed, newest_gone + DAY_MS))

    @property
    def oldest(self) -> Timestamp | None:
        """Open time of the oldest minute."""
        oldest = self.past.total if self.past else self.stretch or self.last
        return oldest.open_time if oldest else None

    def total(self) -> Candle | None:
        """Fold of the whole day, labelled with its oldest minute; without a previous close."""
        past, stretch, last, _ = self
        if last is None:
            return None
        if past is None:
            return stretch.end(last) if stretch else Candle(*last[:-1])
        part = past.total
        return (part.merge(stretch, part.until) if stretch else part).end(last)

    def _stretches(self, start: Timestamp) -> tuple[Past | None, Part | None]:
        """The older stretches, the newest among them if `start` is after its beginning."""
        past, stretch = self.past, self.stretch
        if stretch is None or stretch.open_time >= start:
            return past, stretch
        return _pushed(past, stretch), None


def _start(as_of: Timestamp) -> Timestamp:
    """Open time of the first of the 1,440 minutes that end with the minute of `as_of`."""
    return as_of - as_of % MINUTE_MS - DAY_MS + MINUTE_MS


def _end(stretch: Part) -> Timestamp:
    return stretch.open_time + STRETCH_MS - stretch.first.log_index % STRETCH_LENGTHS * MINUTE_MS


def _pushed(past: Past | None, stretch: Part) -> Past:
    return past.push(stretch) if past else Past.of(stretch)


def _expect(minutes: Iterable[Part], part: Part, rest: Part | None) -> None:
    """Refuse minutes that do not make up what a part has more than the rest."""
    trades = part.trades - (rest.trades if rest else 0)
    found = sum(minute.trades for minute in minutes)
    if found != trades:
        raise MinutesMissing(
            f"minutes from {part.open_time} to {part.until} have {found} trades instead of {trades}"
        )


def _suffixes(parts: Iterable[Part], rest: Part | None = None) -> tuple[bytes, ...]:
    """Folds of `parts[k:]` and the rest, for every k."""
    return tuple(_growing(reversed(tuple(parts)), rest))[::-1]


def _growing(parts: Iterable[Part], rest: Part | None) -> Iterator[bytes]:
    for part in parts:
        rest = part.merge(rest, part.until) if rest else part
        yield rest.pack()

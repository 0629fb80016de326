"""When each room is told next: at once if it was quiet, and not more often than every so many seconds."""

import heapq
from collections.abc import Callable
from itertools import count

from listener.infrastructure.gateway.rooms import RoomName


class Schedule:
    """Rooms that have something to tell, by when they may.

    Args:
        clock: seconds.
        pause_s: least time between two messages of a room.
    """

    def __init__(self, clock: Callable[[], float], pause_s: float) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._queued: set[RoomName] = set()
        self._due: list[tuple[float, int, RoomName]] = []
        self._order = count()
        self._told_at: dict[RoomName, float] = {}

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, name: RoomName) -> bool:
        """A room has something to tell; whether that is news."""
        if name in self._queued:
            return False
        self._queued.add(name)
        due = max(self._clock(), self._told_at.get(name, 0.0) + self._pause_s)
        heapq.heappush(self._due, (due, next(self._order), name))
        return True

    def take(self, most: int) -> list[RoomName]:
        """Rooms that may tell now, longest due first. They count as told now."""
        now = self._clock()
        names: list[RoomName] = []
        while self._due and self._due[0][0] <= now and len(names) < most:
            name = heapq.heappop(self._due)[2]
            self._queued.discard(name)
            self._told_at[name] = now
            names.append(name)
        return names

    def wait_s(self) -> float | None:
        """Seconds until the next room may tell, 0 if one may now; None if none has anything to."""
        return max(self._due[0][0] - self._clock(), 0.0) if self._due else None

    def forget(self, name: RoomName) -> None:
        """There is no such room any more."""
        self._told_at.pop(name, None)

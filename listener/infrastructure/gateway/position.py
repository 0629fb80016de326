"""How new an answer is, and what there is to ask for, without asking Redis each time."""

from typing import Final

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Clock
from listener.application.reading import HeadRecord, MarketReader

HEAD_AGE_S: Final = 0.25
"""A head that was read before an answer's data is a true lower bound, however old; this much is enough."""
INTERVALS_AGE_S: Final = 10.0


class Position:
    """The committed head and the stream's intervals, read at most so often.

    Args:
        reader: where they come from.
        clock: to tell ages.
    """

    def __init__(self, reader: MarketReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._head: HeadRecord | None = None
        self._head_until = self._intervals_until = float("-inf")
        self._intervals: list[str] = []

    async def head(self) -> HeadRecord:
        """The committed head as it was a moment ago.

        Raises:
            StoreUnavailable: there is none yet, or Redis is away.
        """
        now = self._clock.monotonic()
        if self._head is None or now >= self._head_until:
            self._head_until = now + HEAD_AGE_S  # who comes meanwhile goes on with the one we have
            try:
                self._head = await self._reader.head()
            except BaseException:
                self._head_until = now
                raise
        if self._head is None:
            raise StoreUnavailable("nothing is stored yet")
        return self._head

    async def intervals(self) -> list[str]:
        """Names of the intervals that are kept, shortest first.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if not self._intervals or self._clock.monotonic() >= self._intervals_until:
            self._intervals = await self._reader.intervals()
            self._intervals_until = self._clock.monotonic() + INTERVALS_AGE_S
        return self._intervals

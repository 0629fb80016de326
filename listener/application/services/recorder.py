"""The recorder: keeps the events of the newest final blocks, so that listing services need no node."""

from dataclasses import dataclass
from typing import Final, Protocol

from listener.application.errors import Fatal, InconsistentReply, NotRecorded
from listener.application.interfaces import Clock, Observer
from listener.application.listing import Coverage, Listed, ListingRecords
from listener.application.services.listing_reader import ListingReader
from listener.domain.value_objects import BlockRef

EVENTS_TOGETHER: Final = 5_000
"""Events that one write is meant to hold."""
SERVICE: Final = "listings"
"""What troubles are reported as."""


class FinalLedger(Protocol):
    """What the recorder sees of the follower."""

    @property
    def final(self) -> BlockRef | None:
        """The newest committed block that will not change any more; None while that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Bounds of recording.

    Attributes:
        keep_s: how long events are kept, in chain time.
        every_s: between two looks for new final blocks.
        blocks: most blocks read at once.
        behind_s: between two ranges while more of them wait, so that the node is not crowded.
    """

    keep_s: int
    every_s: float
    blocks: int = 50
    behind_s: float = 0.2


class ListingRecorder:
    """Records final blocks one range after the other, without a gap.

    Args:
        ledger: the follower.
        reader: gives the events of a range.
        records: where they are kept.
    """

    def __init__(
        self,
        *,
        ledger: FinalLedger,
        reader: ListingReader,
        records: ListingRecords,
        clock: Clock,
        observer: Observer,
        limits: RecorderLimits,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._records = records
        self._clock = clock
        self._observer = observer
        self._limits = limits
        self._blocks = limits.blocks
        self._coverage: Coverage | None = None

    async def run(self) -> None:
        """Record for ever. Raises `Retryable` errors only, and may be called again after one.

        Raises:
            NotRecorded: somebody has to act; no reason to stop following the chain.
        """
        try:
            self._coverage = await self._records.coverage()
            while True:
                behind = await self.advance()
                self._observer.healthy(SERVICE)
                pause_s = self._limits.behind_s if behind else self._limits.every_s
                await self._clock.sleep(min(pause_s, self._limits.every_s))
        except Fatal as error:
            raise NotRecorded(f"no listings: {error}") from error

    async def advance(self) -> bool:
        """Record the next range, if there is one; whether there may be more.

        Raises:
            InconsistentReply: the node's blocks are not those that were committed.
        """
        final, coverage = self._ledger.final, self._coverage
        if final is None or (coverage is not None and coverage.last >= final.number):
            return False
        if await self._records.committed() < final.number:
            return False  # markets of these blocks may not be stored yet
        if coverage is None or final.timestamp // 1000 - coverage.time_s > self._limits.keep_s:
            await self._begin(final)
            return False
        first = coverage.last + 1
        last = min(final.number, first + self._blocks - 1)
        listed = await self._reader.read(first, last)
        if listed.first.parent_hash != coverage.hash:
            await self._begin(final)
            return False
        self._check(listed, final)
        await self._record(listed, anew=False)
        self._adapt(last - first + 1, listed.size)
        return self._coverage is not None and self._coverage.last < final.number

    async def _begin(self, final: BlockRef) -> None:
        """Begin with the newest final block: older ones are the node's to tell, or another chain's."""
        listed = await self._reader.read(final.number, final.number)
        self._check(listed, final)
        await self._record(listed, anew=True)

    async def _record(self, listed: Listed, *, anew: bool) -> None:
        oldest_s = listed.last.timestamp // 1000 - self._limits.keep_s
        self._coverage = await self._records.record(listed, self._coverage, oldest_s=oldest_s, anew=anew)

    def _check(self, listed: Listed, final: BlockRef) -> None:
        if listed.last.number == final.number and listed.last.hash != final.hash:
            raise InconsistentReply(f"block {final.number} is {listed.last.hash}, committed was {final.hash}")

    def _adapt(self, blocks: int, events: int) -> None:
        """Make the next range as large as fits what was found in this one."""
        fitting = EVENTS_TOGETHER * blocks // max(events, 1)
        self._blocks = max(1, min(fitting, self._limits.blocks))

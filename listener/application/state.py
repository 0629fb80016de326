"""The writer's view of its stream."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import NamedTuple

from listener.application.changes import (
    BlockUndo,
    ChangeSet,
    Head,
)
from listener.application.rules import Rules
from listener.domain.value_objects import (
    BlockRef,
    MarketId,
    Timestamp,
)


class Written(NamedTuple):
    """A block that can be undone, the trades it added, by market, and the digest of its logs."""

    block: BlockRef
    trades: Mapping[MarketId, int]
    digest: str = ""

    @classmethod
    def of(cls, undo: BlockUndo) -> "Written":
        """What is remembered of a block's before-image."""
        return cls(
            undo.block,
            {market.market: market.trades for market in undo.markets if market.trades},
            undo.digest,
        )


@dataclass(slots=True)
class StreamState:
    """The writer's view of its stream. Read-only to use cases; only `apply` changes it.

    Attributes:
        base: number of the block on which the stored data begins.
        window: committed blocks that can still be undone, oldest first; the last is the head. Its
            first entry is the fork point below which nothing can be undone.
        sources: which market an emitter's events count for.
        closed: close time of the last closed candle, by interval name.
        resync_owed: whether something was committed that the backend was not told one by one.
        audited: number of the newest block that a second look has confirmed.
        finalized: number of the newest block that the node calls final; None where it names none.
    """

    base: int
    head: Head
    window: deque[Written]
    sources: dict[str, MarketId]
    closed: dict[str, Timestamp]
    resync_owed: bool
    audited: int = -1
    finalized: int | None = None
    markets: set[MarketId] = field(init=False)
    pending: Counter[MarketId] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what is looked up by market."""
        self.markets = set(self.sources.values())
        self.pending = Counter()
        for written in self.window:
            self.pending.update(written.trades)

    @property
    def final_timestamp(self) -> Timestamp:
        """Time of the newest block that cannot be undone."""
        return self.window[0].block.timestamp

    def recent(self) -> list[BlockRef]:
        """Committed blocks that can still be compared with the node's, the head last."""
        return [written.block for written in self.window]

    def no_longer_undoable(self, newest: BlockRef, rules: Rules) -> list[int]:
        """Numbers of the blocks whose before-images go when `newest` is committed.

        One final block stays: the fork point on which all that can be undone stands.
        """
        final: list[int] = []
        confirmed = 0
        for written, following in pairwise((*self.window, Written(newest, {}))):
            if not rules.finality.reached(following.block, newest, self.finalized):
                break
            final.append(written.block.number)
            confirmed += following.block.number <= self.audited
        return final[: max(confirmed, len(final) - rules.audit_blocks)]

    def unaudited(self, rules: Rules, limit: int, tip: BlockRef | None = None) -> list[Written]:
        """Final blocks whose logs nobody has looked at a second time, oldest first; contiguous.

        Args:
            rules: say what is final.
            limit: most blocks.
            tip: the node's newest block, where it is known to be above the head.
        """
        newest = max(self.window[-1].block, tip or self.window[-1].block, key=lambda block: block.number)
        found = (
            written
            for written in islice(self.window, 1, None)
            if written.digest
            and written.block.number > self.audited
            and rules.finality.reached(written.block, newest, self.finalized)
        )
        return list(islice(found, limit))

    def newest_final(self, rules: Rules) -> BlockRef:
        """The newest final block that needs no second look any more."""
        newest, final = self.window[-1].block, self.window[0].block
        for written in islice(self.window, 1, None):
            waits = rules.audit_blocks and written.digest and written.block.number > self.audited
            if waits or not rules.finality.reached(written.block, newest, self.finalized):
                break
            final = written.block
        return final

    def missed_by_audit(self, changes: ChangeSet) -> list[int]:
        """Blocks that can no longer be undone after `changes`, and were not looked at a second time."""
        return [
            written.block.number
            for written in islice(self.window, 1, len(changes.undo_dropped) + 1)
            if written.digest and written.block.number > self.audited
        ]

    def apply(self, changes: ChangeSet) -> None:
        """Follow a change set that was committed."""
        self.head = changes.head
        self.closed.update(changes.closed)
        self.resync_owed = not changes.live or (self.resync_owed and not changes.reason)
        for market in changes.created.values():
            self.sources[market.source] = market.id
            self.markets.add(market.id)
        for market in changes.removed.values():
            del self.sources[market.source]
            self.markets.discard(market.id)
        if changes.reorg:
            while self.window[-1].block.number > changes.reorg.ancestor.number:
                self.pending.subtract(self.window.pop().trades)
            self.audited = min(self.audited, changes.reorg.ancestor.number)
        elif changes.undo:
            written = Written.of(changes.undo)
            self.window.append(written)
            self.pending.update(written.trades)
            for _ in changes.undo_dropped:
                self.pending.subtract(self.window.popleft().trades)
        self.pending += Counter()

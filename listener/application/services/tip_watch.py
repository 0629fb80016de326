"""The watchdog of the chain: what the node's newest block is, and whether it still moves."""

from listener.application.interfaces import Clock, Observer
from listener.domain.value_objects import BlockRef


class TipWatch:
    """Remembers the node's tip and reports a chain that stands still.

    Args:
        stall_s: a tip that stays the same for so long is reported; 0: never.

    Attributes:
        block: the tip, as the node gave it last.
        highest: number of the highest tip that any answer has shown.
    """

    def __init__(self, clock: Clock, observer: Observer, stall_s: float) -> None:
        self._clock = clock
        self._observer = observer
        self._stall_s = stall_s
        self._since = 0.0
        self._stalled = False
        self.block: BlockRef | None = None
        self.highest = 0

    def seen(self, tip: BlockRef) -> None:
        """The node has given this as its tip."""
        self.highest = max(self.highest, tip.number)
        if tip != self.block:
            self.block, self._since = tip, self._clock.monotonic()

    def watch(self) -> None:
        """Report a chain that stands still, once, and once that it goes on."""
        stalled = 0 < self._stall_s < self._clock.monotonic() - self._since
        if self.block is not None and stalled is not self._stalled:
            age_ms = max(self._clock.now() - self.block.timestamp, 0)
            self._observer.stalled(self.block, age_ms if stalled else None)
        self._stalled = stalled

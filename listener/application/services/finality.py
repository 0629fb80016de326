"""Which blocks cannot be undone any more: by our own bounds, and by the node's word."""

from typing import Final

from listener.application.interfaces import ChainSource, Clock
from listener.application.rules import MOST_UNDOABLE, Finality
from listener.application.state import StreamState
from listener.domain.value_objects import BlockRef

FINALIZED_EVERY_S: Final = 15.0
"""How often the node is asked which block it calls final."""


class FinalBlocks:
    """Knows the newest final block.

    Args:
        chain: asked for what it calls final.
        clock: when it was asked.
        finality: our own bounds.
    """

    def __init__(self, chain: ChainSource, clock: Clock, finality: Finality) -> None:
        self._chain = chain
        self._clock = clock
        self._finality = finality
        self._asked_at: float | None = None

    def forget(self) -> None:
        """Ask the node again at the next occasion."""
        self._asked_at = None

    async def ask(self, state: StreamState) -> None:
        """Learn which block the node calls final, now and then."""
        now = self._clock.monotonic()
        if self._asked_at is None or now - self._asked_at >= FINALIZED_EVERY_S:
            block = await self._chain.finalized()
            state.finalized = block.number if block else None
            self._asked_at = now

    async def newest(self, state: StreamState, tip: BlockRef) -> int:
        """The newest block that cannot be undone any more; not above the tip, perhaps below our head."""
        await self.ask(state)
        finality, finalized = self._finality, state.finalized
        floor = tip.number - MOST_UNDOABLE
        high = tip.number - finality.blocks
        if finalized is not None:
            high = min(high, finalized)
        low = max(state.head.number, floor)
        while finality.ms and low < high:
            middle = (low + high + 1) // 2
            if tip.timestamp - (await self._chain.block(middle)).timestamp >= finality.ms:
                low = middle
            else:
                high = middle - 1
        return max(high, floor)

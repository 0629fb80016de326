"""Before-images of the newest blocks, kept so that a short reorg need not read them back."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from listener.application.changes import BlockUndo, ChangeSet
from listener.domain.value_objects import BlockRef

MOST: Final = 8
"""Blocks; deeper reorgs are rare."""


class RecentUndos:
    """Of the newest committed blocks that can be undone, the last one is the head's."""

    def __init__(self) -> None:
        self._undos: deque[BlockUndo] = deque(maxlen=MOST)

    def clear(self) -> None:
        """Forget all of them: the store has them."""
        self._undos.clear()

    def follow(self, changes: ChangeSet) -> None:
        """Take over what a change set makes of them."""
        if changes.reorg:
            while self._undos and self._undos[-1].block.number > changes.reorg.ancestor.number:
                self._undos.pop()
        elif changes.undo and len(changes.blocks) == 1:
            self._undos.append(changes.undo)
        elif changes.blocks:
            self.clear()

    def of(self, blocks: Sequence[BlockRef]) -> list[BlockUndo] | None:
        """The before-images of these blocks, newest first; None if some are not kept."""
        found = list(self._undos)[::-1][: len(blocks)]
        return found if [undo.block for undo in found] == list(blocks) else None

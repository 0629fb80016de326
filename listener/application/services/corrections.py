"""Blocks that the audit has corrected, from its word until the block has been folded anew and confirmed."""

from listener.domain.facts import BlockFacts
from listener.domain.value_objects import BlockRef


class Corrections:
    """What is right about blocks that were committed with wrong facts."""

    def __init__(self) -> None:
        self._right: dict[str, BlockFacts] = {}
        self._to_undo: set[BlockRef] = set()

    @property
    def to_undo(self) -> bool:
        """Whether some are still committed as they were."""
        return bool(self._to_undo)

    def add(self, facts: BlockFacts) -> None:
        """These are right; their block has to be undone."""
        self._right[facts.block.hash] = facts
        self._to_undo.add(facts.block)

    def of(self, block: BlockRef) -> BlockFacts | None:
        """The right facts of a block, if it was corrected."""
        return self._right.get(block.hash)

    def take_to_undo(self) -> set[BlockRef]:
        """Blocks to be undone; each is given once."""
        taken, self._to_undo = self._to_undo, set()
        return taken

    def next_above(self, number: int) -> int | None:
        """The next block above `number` that was corrected, if there is one."""
        numbers = [facts.block.number for facts in self._right.values()]
        return min((found for found in numbers if found > number), default=None)

    def confirm(self, number: int) -> None:
        """Blocks up to `number` have had their second look."""
        self._right = {hash_: facts for hash_, facts in self._right.items() if facts.block.number > number}

    def clear(self) -> None:
        """Forget all of them."""
        self._right.clear()
        self._to_undo.clear()

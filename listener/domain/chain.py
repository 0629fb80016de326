"""How a block that a node reports relates to the chain that was committed.

Parent hashes decide, nothing else: nodes differ in what they say of removed logs, and no local chain
says it at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from listener.domain.value_objects import BlockRef


@dataclass(frozen=True, slots=True)
class Extend:
    """The block is the next one on our head."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The block lies further ahead: the blocks before it come first."""

    missing_from: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The block is one of ours, or older than what we can tell: nothing to do."""


@dataclass(frozen=True, slots=True)
class Reorg:
    """The block stands where one of ours stood, or on a parent that is not ours."""

    suspect: int
    """The highest number at which our chain may still be the canonical one."""


Relation = Extend | Gap | Stale | Reorg


def relate(recent: Sequence[BlockRef], block: BlockRef) -> Relation:
    """Hold `block` against the committed chain.

    Args:
        recent: the last committed blocks, oldest first, contiguous, the head last; not empty.
        block: what the node reports.
    """
    head = recent[-1]
    if block.number > head.number + 1:
        return Gap(head.number + 1)
    if block.number == head.number + 1:
        return Extend() if block.parent_hash == head.hash else Reorg(head.number - 1)
    place = block.number - recent[0].number
    if place < 0 or recent[place].hash == block.hash:
        return Stale()
    return Reorg(block.number - 1)

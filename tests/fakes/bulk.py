"""Facts as a node's large replies give them: trades in columns."""

from collections.abc import Sequence

from listener.application.history import History
from listener.domain.facts import BlockFacts, Swapped
from listener.domain.value_objects import BlockRef
from listener.infrastructure.bundling import bundle, columns_of
from listener.infrastructure.columns import Columns


def in_bulk(blocks: Sequence[BlockFacts]) -> History:
    """The same blocks, their trades apart, but for those with amounts that columns do not hold."""
    return History.of([bundle(block, least=1) for block in blocks])


def columns(swaps: Sequence[tuple[BlockRef, Swapped]], blocks: Sequence[BlockRef]) -> Columns:
    """Trades in columns."""
    return columns_of([swap for _, swap in swaps], [ref for ref, _ in swaps]).at(blocks)

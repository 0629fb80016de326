"""The newest before-images are at hand, and never those of other blocks."""

from listener.application.changes import BlockUndo, ChangeSet
from listener.application.services.undos import MOST, RecentUndos
from listener.domain.events import ReorgDetected
from listener.domain.value_objects import BlockRef
from tests.fakes.build import block, head


def committed(*blocks: BlockRef, reorg: ReorgDetected | None = None) -> ChangeSet:
    """A commit of these blocks."""
    undo = BlockUndo(blocks[-1], 1, ()) if blocks else None
    ref = blocks[-1] if blocks else block(1)
    return ChangeSet(head(ref), head(ref), live=True, blocks=blocks, undo=undo, reorg=reorg)


def test_the_newest_blocks_are_at_hand() -> None:
    """Newest first; not more than are kept, and not those of another branch."""
    undos = RecentUndos()
    chain = [block(number) for number in range(1, MOST + 3)]
    for ref in chain:
        undos.follow(committed(ref))
    assert [undo.block for undo in undos.of(chain[:-4:-1]) or ()] == chain[:-4:-1]
    assert undos.of(chain[::-1]) is None
    assert undos.of([block(MOST + 2, "another")]) is None
    undos.follow(committed())
    assert undos.of(chain[-1:]) is not None
    undos.clear()
    assert undos.of(chain[-1:]) is None


def test_what_is_undone_is_gone() -> None:
    """After a reorg the ancestor's is the newest; after history there is none."""
    undos = RecentUndos()
    chain = [block(number) for number in range(1, 5)]
    for ref in chain:
        undos.follow(committed(ref))
    undos.follow(committed(reorg=ReorgDetected(chain[1], (chain[3].hash, chain[2].hash), (), 0)))
    assert [undo.block for undo in undos.of([chain[1]]) or ()] == [chain[1]]
    assert undos.of(chain[2:][::-1]) is None
    undos.follow(committed(block(5), block(6)))
    assert undos.of([chain[1]]) is None

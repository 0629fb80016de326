"""How a reported block relates to the committed chain: by parent hashes and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.domain.chain import Extend, Gap, Reorg, Stale, relate
from listener.domain.value_objects import BlockRef
from tests.fakes.build import block, digest

OURS = [block(number) for number in range(10, 15)]


def test_the_next_block_on_our_head_extends() -> None:
    """Its parent is our head."""
    assert relate(OURS, block(15)) == Extend()


def test_the_next_block_on_another_parent_is_a_reorg() -> None:
    """Our head is not its parent: our head is wrong, the block below it may be right."""
    assert relate(OURS, block(15, parent=digest("other"))) == Reorg(13)


@pytest.mark.parametrize("number", [16, 17, 1_000_000])
def test_a_block_further_ahead_is_a_gap(number: int) -> None:
    """What lies between must come first, whatever its parent."""
    assert relate(OURS, block(number, "other")) == Gap(15)


@pytest.mark.parametrize("number", [10, 11, 12, 13, 14])
def test_a_block_of_ours_is_stale(number: int) -> None:
    """A node that is behind, or a hint that comes twice, is no reorg."""
    assert relate(OURS, block(number)) == Stale()


@pytest.mark.parametrize("number", [10, 11, 12, 13, 14])
def test_another_block_in_the_place_of_ours_is_a_reorg(number: int) -> None:
    """Everything from there on is suspect; the block below may be common."""
    assert relate(OURS, block(number, "other")) == Reorg(number - 1)


@pytest.mark.parametrize("number", [0, 9])
def test_a_block_below_our_window_is_stale(number: int) -> None:
    """We cannot tell any more whether it is ours, and the chain has moved on."""
    assert relate(OURS, block(number, "other")) == Stale()


def test_a_window_of_one_block_is_enough() -> None:
    """Right after a start only the base is known."""
    assert relate(OURS[:1], block(11)) == Extend()
    assert relate(OURS[:1], block(11, parent=digest("other"))) == Reorg(9)
    assert relate(OURS[:1], block(10)) == Stale()


def test_time_does_not_decide() -> None:
    """A block's time has no say, even where it goes back."""
    assert relate(OURS, BlockRef(15, digest("x"), OURS[-1].hash, 0)) == Extend()


@given(st.integers(0, 30), st.booleans(), st.booleans())
def test_every_block_has_one_relation(number: int, own_hash: bool, own_parent: bool) -> None:
    """Any block is told apart, and a reorg never suspects a block above the one that was reported."""
    reported = block(number, "" if own_hash else "other", parent=None if own_parent else digest("other"))
    relation = relate(OURS, reported)
    if number > 15:
        assert relation == Gap(15)
    if isinstance(relation, Reorg):
        assert relation.suspect < min(number, 14)

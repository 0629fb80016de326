"""When a block is final, and which before-images go with that: laws over any window."""

from collections import deque
from itertools import islice, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import ChangeSet
from listener.application.rules import MOST_UNDOABLE, Finality, Rules
from listener.application.state import StreamState, Written
from listener.domain.value_objects import BlockRef
from tests.fakes.build import MONDAY_MS, block, head, rules, stream


@pytest.mark.parametrize(
    ("depth", "age_ms", "finalized", "final"),
    [
        (8, 60_000, None, True),
        (7, 60_000, None, False),
        (8, 59_999, None, False),
        (8, 60_000, 1_000, True),
        (8, 60_000, 999, False),
        (500, 3_600_000, 999, False),
        (0, 0, 1_000, False),
        (MOST_UNDOABLE, 0, None, False),
        (MOST_UNDOABLE + 1, 0, None, True),
        (MOST_UNDOABLE + 1, 0, 0, True),
    ],
    ids=[
        "all bounds met",
        "not deep enough",
        "not old enough",
        "and the node says so",
        "the node does not say so",
        "however old",
        "what the node says is not enough",
        "the most that can be undone",
        "one more, though too young",
        "one more, though finality stalls",
    ],
)
def test_a_block_is_final_when_every_bound_is_met(
    depth: int, age_ms: int, finalized: int | None, *, final: bool
) -> None:
    """Depth, age and the node's own word must agree; only the bound of memory overrules them."""
    finality = Finality(8, 60_000)
    one = block(1_000, time=MONDAY_MS)
    newest = block(1_000 + depth, time=MONDAY_MS + age_ms)
    assert finality.reached(one, newest, finalized) is final


class Case(NamedTuple):
    """A window, what comes next, and the rules."""

    state: StreamState
    newest: BlockRef
    rules: Rules


@st.composite
def cases(draw: st.DrawFn, *, audited: bool = True) -> Case:
    """Windows as commits make them: contiguous, times never falling, the first entry perhaps history."""
    first = draw(st.integers(0, 50))
    steps = draw(st.lists(st.sampled_from([0, 1_000, 12_000]), min_size=1, max_size=30))
    time, blocks = MONDAY_MS, []
    for number, step in enumerate(steps, start=first):
        time += step
        blocks.append(block(number, time=time))
    newest = block(first + len(blocks), time=time + draw(st.sampled_from([0, 1_000, 12_000])))
    without_digest = draw(st.integers(0, len(blocks)))
    window = deque(
        Written(ref, {}, "" if at < without_digest else f"digest {ref.number}")
        for at, ref in enumerate(blocks)
    )
    by = rules(
        finality=Finality(draw(st.integers(0, 10)), draw(st.sampled_from([0, 5_000, 60_000]))),
        audit_blocks=draw(st.integers(0, 8)) if audited else 0,
    )
    state = stream(
        blocks[0],
        head=head(blocks[-1]),
        window=window,
        audited=draw(st.integers(-1, newest.number)) if audited else -1,
        finalized=draw(st.none() | st.integers(0, newest.number)),
    )
    return Case(state, newest, by)


def is_final(case: Case, ref: BlockRef) -> bool:
    """Whether a block is final once the newest is committed."""
    return case.rules.finality.reached(ref, case.newest, case.state.finalized)


@given(cases())
def test_finality_reaches_down(case: Case) -> None:
    """Below a final block all are final: what can be undone is the end of the chain."""
    flags = [is_final(case, ref) for ref in (*case.state.recent(), case.newest)]
    assert all(lower or not upper for lower, upper in pairwise(flags))


@given(cases())
def test_the_oldest_go_first(case: Case) -> None:
    """What goes is the beginning of the window, and never the newest."""
    dropped = case.state.no_longer_undoable(case.newest, case.rules)
    assert dropped == [ref.number for ref in case.state.recent()][: len(dropped)]


@given(cases())
def test_what_can_be_undone_has_its_fork_point(case: Case) -> None:
    """The successor of a block that goes is final: every block that is not final keeps its parent."""
    dropped = set(case.state.no_longer_undoable(case.newest, case.rules))
    blocks = [*case.state.recent(), case.newest]
    for parent, child in pairwise(blocks):
        if not is_final(case, child):
            assert parent.number not in dropped
        if parent.number in dropped:
            assert is_final(case, child)


@given(cases(audited=False))
def test_without_an_audit_one_final_block_stays(case: Case) -> None:
    """All that is final goes, but for the fork point on which the rest stands."""
    dropped = set(case.state.no_longer_undoable(case.newest, case.rules))
    kept = [ref for ref in (*case.state.recent(), case.newest) if ref.number not in dropped]
    assert [is_final(case, ref) for ref in kept[1:]] == [False] * len(kept[1:])


@given(cases())
def test_final_blocks_wait_for_the_audit(case: Case) -> None:
    """Beside the fork point so many final blocks stay as the rules say, and none that was looked at."""
    state, by = case.state, case.rules
    dropped = set(state.no_longer_undoable(case.newest, by))
    blocks = [*state.recent(), case.newest]
    kept = [ref for ref in blocks if ref.number not in dropped]
    waiting = [ref for ref in kept[1:] if is_final(case, ref)]
    assert len(waiting) <= by.audit_blocks
    assert [ref for ref in waiting if ref.number <= state.audited] == []
    unseen = [ref for ref in blocks[1:] if is_final(case, ref) and ref.number > state.audited]
    assert waiting == unseen[max(len(unseen) - by.audit_blocks, 0) :]


@given(cases(), st.integers(1, 10))
def test_what_is_unaudited_is_contiguous_and_final(case: Case, limit: int) -> None:
    """The oldest first, each above the last that was looked at, with a digest to compare, and final.

    The fork point is not among them: it could not be undone.
    """
    state = case.state
    newest = state.recent()[-1]
    found = state.unaudited(case.rules, limit)
    expected = [
        written
        for written in list(state.window)[1:]
        if written.digest
        and written.block.number > state.audited
        and case.rules.finality.reached(written.block, newest, state.finalized)
    ]
    assert found == expected[:limit]
    numbers = [written.block.number for written in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


@given(cases())
def test_what_is_told_to_others_is_final_and_needs_no_second_look(case: Case) -> None:
    """The newest such block, with none below it that still waits; the fork point cannot change at all."""
    state, by = case.state, case.rules
    blocks, newest = list(state.window), state.recent()[-1]
    told = state.newest_final(by)
    place = [written.block for written in blocks].index(told)

    def settled(written: Written) -> bool:
        seen = not by.audit_blocks or not written.digest or written.block.number <= state.audited
        return seen and by.finality.reached(written.block, newest, state.finalized)

    assert all(settled(written) for written in blocks[1 : place + 1])
    assert place + 1 == len(blocks) or not settled(blocks[place + 1])


@given(cases())
def test_more_is_looked_at_where_the_tip_is_known(case: Case) -> None:
    """A tip above the head makes blocks final before the head comes there; one below it changes nothing."""
    state, by = case.state, case.rules
    without = state.unaudited(by, 100)
    assert state.unaudited(by, 100, state.recent()[0]) == without
    found = state.unaudited(by, 100, case.newest)
    assert found[: len(without)] == without
    assert all(is_final(case, written.block) for written in found)


@given(cases())
def test_what_goes_without_a_second_look_is_known(case: Case) -> None:
    """Blocks that no later look can undo: neither the fork point, nor what was looked at."""
    state = case.state
    changes = ChangeSet(base=state.head, head=state.head, live=True)
    changes.undo_dropped = state.no_longer_undoable(case.newest, case.rules)
    missed = state.missed_by_audit(changes)
    left = deque(state.window)
    for _ in changes.undo_dropped:
        left.popleft()
    undoable = {written.block.number for written in islice(left, 1, None)}
    expected = [
        written.block.number
        for written in islice(state.window, 1, None)
        if written.digest and written.block.number > state.audited and written.block.number not in undoable
    ]
    assert missed == expected

"""The outbox by bytes: what is kept stays below the bound, and no more goes than must."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from listener.application.interfaces import RowId
from listener.infrastructure.redis.outbox import ROW_OVERHEAD, OutboxBounds, OutboxSize

Rows = list[tuple[str, bytes]]

EPOCH = 5
FEW = st.lists(st.builds(lambda size: ("x", bytes(size)), st.integers(0, 200)), max_size=4)


def size_of(rows: Rows) -> int:
    """Bytes of rows, as they are counted."""
    return sum(len(event) + len(data) + ROW_OVERHEAD for event, data in rows)


class Kept:
    """The outbox as it would be in Redis: sizes by id, trimmed as told."""

    def __init__(self, most: int, stored: int) -> None:
        self.size = OutboxSize(OutboxBounds(1_000_000, most))
        self.size.begin(stored)
        self.rows: deque[tuple[RowId, int]] = deque()
        self.seq = 0
        if stored:
            self.rows.append((RowId(EPOCH - 1, 7), stored))

    @property
    def total(self) -> int:
        """Bytes kept."""
        return sum(size for _, size in self.rows)

    def commit(self, rows: Rows) -> RowId | None:
        """Trim as told, then append, as one commit does."""
        ids = [RowId(EPOCH, self.seq + at) for at in range(1, len(rows) + 1)]
        self.seq += len(rows)
        oldest = self.size.after(RowId(EPOCH, self.seq), rows)
        while oldest and self.rows and self.rows[0][0] < oldest:
            self.rows.popleft()
        self.rows.extend(zip(ids, (size_of([row]) for row in rows), strict=True))
        return oldest


@given(st.integers(0, 2_000), st.integers(0, 3_000), st.lists(FEW, max_size=40))
def test_the_bound_holds_after_every_commit(most: int, stored: int, commits: list[Rows]) -> None:
    """What is kept is below the bound, or it is the newest commit alone."""
    kept = Kept(most, stored)
    newest = stored
    for rows in commits:
        kept.commit(rows)
        newest = size_of(rows) or newest
        assert kept.total <= max(most, newest)


@given(st.integers(0, 2_000), st.integers(0, 3_000), st.lists(FEW, max_size=40))
def test_no_more_goes_than_must(most: int, stored: int, commits: list[Rows]) -> None:
    """While all fits nothing is trimmed; what goes, goes by whole commits, and would not have fitted."""
    kept = Kept(most, stored)
    pieces = [stored]
    for rows in commits:
        before = kept.total
        oldest = kept.commit(rows)
        if before + size_of(rows) <= most:
            assert oldest is None
        if rows:
            pieces.append(size_of(rows))
        if oldest is not None:
            whole = [sum(pieces[at:]) for at in range(len(pieces))]
            assert kept.total in whole
            assert whole[whole.index(kept.total) - 1] > most


@given(st.integers(0, 500), st.lists(FEW.filter(bool), min_size=1, max_size=40))
def test_the_newest_commit_always_stays(most: int, commits: list[Rows]) -> None:
    """However large it is: rows are never trimmed by the commit that brings them."""
    kept = Kept(most, 0)
    for rows in commits:
        kept.commit(rows)
        assert [row.seq for row, _ in list(kept.rows)[-len(rows) :]] == list(
            range(kept.seq - len(rows) + 1, kept.seq + 1)
        )


def test_what_was_found_goes_as_a_whole() -> None:
    """Rows of earlier terms are not known one by one: together they are the oldest piece."""
    kept = Kept(1_000, 950)
    assert kept.commit([("x", bytes(100))]) == RowId(EPOCH, 0)
    assert [row for row, _ in kept.rows] == [RowId(EPOCH, 1)]


def test_a_commit_without_rows_changes_nothing() -> None:
    """Most commits of a quiet chain tell nothing."""
    kept = Kept(1_000, 900)
    assert [kept.commit([]) for _ in range(3)] == [None] * 3
    assert kept.total == 900


def test_a_new_term_counts_anew() -> None:
    """What is stored was measured: what an earlier term believed does not matter any more."""
    kept = Kept(1_000, 0)
    for _ in range(5):
        kept.commit([("x", bytes(100))])
    kept.size.begin(100)
    assert kept.size.after(RowId(EPOCH + 1, 1), [("x", bytes(700))]) is None
    assert kept.size.after(RowId(EPOCH + 1, 2), [("x", bytes(700))]) == RowId(EPOCH + 1, 2)


def test_no_more_is_remembered_than_rows_are_kept() -> None:
    """What Redis has trimmed by count need not be counted any more."""
    size = OutboxSize(OutboxBounds(100, 1_000_000_000))
    size.begin(500)
    for seq in range(1, 5_001):
        assert size.after(RowId(EPOCH, seq), [("trade_update", b"{}")]) is None
    assert len(size._pieces) <= 202
    assert size._bytes <= 202 * size_of([("trade_update", b"{}")])


def test_bounds_may_change() -> None:
    """With a first webhook endpoint more is kept, without the last one less, from the next commit on."""
    kept = Kept(1_000, 0)
    kept.size.bounds = OutboxBounds(1_000_000, 10_000)
    rows = [("x", bytes(500))]
    assert [kept.commit(rows) for _ in range(4)] == [None] * 4
    kept.size.bounds = OutboxBounds(1_000_000, 1_000)
    assert kept.commit(rows) == RowId(EPOCH, 5)
    assert [row.seq for row, _ in kept.rows] == [5]

"""A change set as outbox rows: what a commit tells is bounded, however much it changed."""

from typing import Any

import orjson
import pytest

from listener.application.changes import ChangeSet
from listener.application.rules import Finality
from listener.domain.events import ReorgDetected
from listener.infrastructure.redis.commands import LISTED, rows
from tests.fakes.build import block, created, digest, head, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer

BY = rules("5m", finality=Finality(20))
MESSAGE_BYTES = 900_000
"""What a backend accepts at once, about."""


def reorg(orphaned: int, markets: int, *, live: bool = True) -> ChangeSet:
    """A rollback of so many blocks that touched so many markets."""
    ancestor = block(7)
    found = ReorgDetected(
        ancestor,
        tuple(digest("orphan", number) for number in range(orphaned)),
        tuple(token(number) for number in range(markets)),
        ancestor.timestamp,
    )
    return ChangeSet(base=head(block(7 + orphaned)), head=head(ancestor), live=live, reorg=found)


def told(changes: ChangeSet) -> list[tuple[str, dict[str, Any]]]:
    """Rows, decoded."""
    return [(event, orjson.loads(data)) for event, data in rows(changes, BY)]


@pytest.mark.parametrize(("orphaned", "markets"), [(1, 0), (LISTED, 3), (3, LISTED), (LISTED, LISTED)])
def test_a_reorg_lists_what_it_touched(orphaned: int, markets: int) -> None:
    """Up to the bound all orphaned blocks and all markets are named, and nobody needs to read all again."""
    changes = reorg(orphaned, markets)
    assert changes.reorg is not None
    ((event, item),) = told(changes)
    assert (event, item["depth"]) == ("reorg", orphaned)
    assert item["orphaned"] == list(changes.reorg.orphaned)
    assert item["markets"] == list(changes.reorg.markets)


@pytest.mark.parametrize(
    ("orphaned", "markets"), [(LISTED + 1, 0), (3, LISTED + 1), (LISTED + 1, LISTED + 1), (10_000, 60_000)]
)
def test_a_reorg_too_large_to_be_listed_is_followed_by_a_resync(orphaned: int, markets: int) -> None:
    """The first so many of each are named, the depth is told, and a `resync` makes good the rest."""
    changes = reorg(orphaned, markets)
    assert changes.reorg is not None
    (first, item), (second, reason) = told(changes)
    assert (first, second) == ("reorg", "resync")
    assert item["depth"] == orphaned
    assert item["orphaned"] == list(changes.reorg.orphaned[:LISTED])
    assert item["markets"] == list(changes.reorg.markets[:LISTED])
    assert reason == {"reason": "a reorg too large to be listed"}


def test_the_largest_reorg_row_fits_a_message() -> None:
    """A row cannot be split: whatever a reorg touched, it can be delivered."""
    assert max(len(data) for _, data in rows(reorg(10_000, 60_000), BY)) < MESSAGE_BYTES


def test_without_a_backend_a_reorg_is_told_to_nobody() -> None:
    """A commit that is not told has no rows, however large it is; a `resync` is owed for it."""
    assert rows(reorg(LISTED + 1, LISTED + 1, live=False), BY) == []


async def test_a_resync_comes_before_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real rollback beyond the bound: after reorg and resync all that changed is told as always."""
    monkeypatch.setattr("listener.infrastructure.redis.commands.LISTED", 2)
    chain = LocalChain()
    store = FakeStore(BY)
    writer = Writer(chain, store, BY)
    await writer.start()
    chain.mine(created(0))
    for number in range(3):
        chain.mine(swap(0, 1, number + 1))
    await writer.follow()
    before = len(store.rows)
    await writer.roll_back(1)
    events = [row.event for row in store.rows[before:]]
    assert events[:2] == ["reorg", "resync"]
    assert set(events[2:]) == {"chart_data", "market_data"}
    item = orjson.loads(store.rows[before].data)
    assert (item["depth"], len(item["orphaned"])) == (3, 2)
    assert [row.id.seq for row in store.rows] == list(range(1, len(store.rows) + 1))

"""Rolling back is the inverse of committing, whatever happened in between."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from listener.application.rules import Finality, Rules
from listener.domain.events import CandleUpdated, MarketRemoved, ReorgDetected, StatsUpdated
from listener.domain.value_objects import DAY_MS, MINUTE_MS, MarketId
from tests.fakes.brute import changed_minute, day_of, figures_in, figures_of, series_of
from tests.fakes.build import RETENTION, Maker, created, graduate, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer, finish

FINALITY = 5
RULES = rules(trades_kept=10_000, finality=Finality(FINALITY))
KEEPING = rules(trades_kept=10_000, finality=Finality(FINALITY), retention_ms=RETENTION)


class Block(NamedTuple):
    """A block is mined and committed."""

    after_ms: int
    makers: tuple[Maker, ...]


class Pause(NamedTuple):
    """Figures are brought this far beyond the tip."""

    after_ms: int


class Restart(NamedTuple):
    """The writer forgets what it keeps in memory."""


Operation = Block | Pause | Restart

gaps = st.sampled_from([0, 1_000, 12_000, MINUTE_MS, 7 * 3_600_000, DAY_MS - MINUTE_MS, DAY_MS, 4 * DAY_MS])
markets = st.integers(0, 2)
makers = st.one_of(
    st.builds(created, markets),
    st.builds(swap, markets, st.integers(0, 9), st.integers(1, 9), buy=st.booleans()),
    st.builds(swap, markets, st.integers(1, 9), st.integers(1, 9), buy=st.booleans()),
    st.builds(swap, markets, st.integers(1, 9), st.integers(1, 9), buy=st.booleans()),
    st.builds(graduate, markets),
)
blocks = st.builds(Block, gaps, st.lists(makers, max_size=4).map(tuple))
operations = st.one_of(blocks, blocks, blocks, st.builds(Pause, gaps), st.builds(Restart))
beginnings = st.lists(operations, max_size=8).map(
    lambda some: [Block(12_000, (created(0), swap(0), created(1))), *some]
)


@st.composite
def branches(draw: st.DrawFn) -> list[Operation]:
    """Operations with at least one block, and no more blocks than can be undone."""
    some = draw(st.lists(operations, max_size=6))
    kept: list[Operation] = [draw(blocks)]
    for operation in some:
        if not isinstance(operation, Block) or sum(isinstance(o, Block) for o in kept) < FINALITY:
            kept.append(operation)
    return kept


def play(made: Writer, some: Sequence[Operation]) -> None:
    """Carry out operations."""
    for operation in some:
        match operation:
            case Block(after_ms, facts):
                made.chain.mine(*facts, after_ms=after_ms)
                finish(made.follow())
            case Pause(after_ms):
                finish(made.pass_time(made.chain.tip.timestamp + after_ms))
            case Restart():
                finish(made.start())


def new_writer(by: Rules, chain: LocalChain | None = None) -> Writer:
    """A writer on an empty store."""
    made = Writer(chain or LocalChain(), FakeStore(by), by)
    finish(made.start())
    return made


def store_of(made: Writer) -> FakeStore:
    """The writer's store."""
    assert isinstance(made.store, FakeStore)
    return made.store


def contents(made: Writer, final: int) -> dict[str, object]:
    """What readers may rely on: candles beyond their retention may be gone at any time."""
    store = store_of(made)
    found = store.contents()
    candles = {}
    for (market, name), series in store.series.items():
        kept = made.rules.retention_ms.get(name)
        alive = {t: c for t, c in sorted(series.items()) if kept is None or t >= final - kept}
        if alive:
            candles[market, name] = alive
    return found | {"candles": candles}


def check_figures(made: Writer) -> None:
    """Statistics of every market are those of its trades."""
    store, as_of = store_of(made), made.state.head.as_of
    assert set(store.figures) == {market for market, trades in store.trades.items() if trades}
    for market, stats in store.figures.items():
        trades = store.trades[market][::-1]
        assert stats.last_price == trades[-1].price
        assert figures_in(stats.window) == figures_of(day_of(trades, as_of)), market
        assert stats.changed_minute == changed_minute(trades, as_of), market


@given(beginnings, branches(), st.sampled_from([RULES, KEEPING]))
def test_undoing_what_was_applied_changes_nothing(
    beginning: list[Operation], branch: list[Operation], by: Rules
) -> None:
    """After a rollback candles, trades, records and registry are what they were, figures those of now."""
    made = new_writer(by)
    play(made, beginning)
    fork, before = made.state.head, contents(made, 0)
    sources, window = dict(made.state.sources), made.state.recent()
    play(made, branch)
    finish(made.roll_back(fork.number))
    if by is RULES:
        assert contents(made, 0) == before
    assert (made.state.head.number, made.state.head.hash) == (fork.number, fork.hash)
    assert made.state.head.gen > fork.gen
    assert made.state.sources == sources
    assert made.state.recent() == window[-len(made.state.recent()) :]
    finish(made.pass_time(made.state.head.as_of))
    check_figures(made)


EXPIRED = [Block(12_000, (created(0), swap(0), created(1))), Block(4 * DAY_MS, ())]
"""A minute that rolls off, and is trimmed, while blocks that can be undone do not trade."""


@settings(max_examples=100)
@given(beginnings, branches(), branches(), st.sampled_from([RULES, KEEPING]))
@example(
    EXPIRED, [*[Block(0, ())] * (FINALITY - 1), Block(0, (graduate(0),)), Pause(0)], [Block(0, ())], KEEPING
)
def test_a_reorg_ends_where_a_fresh_run_ends(
    beginning: list[Operation], orphaned: list[Operation], canonical: list[Operation], by: Rules
) -> None:
    """After a reorg everything equals what a new writer makes of the canonical chain alone."""
    made = new_writer(by)
    play(made, beginning)
    fork = made.state.head.number
    play(made, orphaned)
    made.chain.fork(made.chain.tip.number - fork)
    finish(made.roll_back(fork))
    play(made, canonical)
    finish(made.pass_time(made.chain.tip.timestamp))
    fresh = new_writer(by, made.chain)
    finish(fresh.follow())
    finish(fresh.pass_time(made.state.head.as_of))
    final = max(made.state.final_timestamp, fresh.state.final_timestamp)
    assert contents(made, final) == contents(fresh, final)
    assert made.state.sources == fresh.state.sources
    check_figures(made)
    assert store_of(made).figures == store_of(fresh).figures


@given(beginnings, branches())
def test_committing_alone_keeps_figures_exact(beginning: list[Operation], branch: list[Operation]) -> None:
    """With blocks, pauses and restarts in any order, every due figure is brought to now."""
    made = new_writer(RULES)
    play(made, [*beginning, *branch])
    finish(made.pass_time(made.state.head.as_of))
    check_figures(made)
    for market, trades in store_of(made).trades.items():
        for interval in RULES.intervals:
            series = store_of(made).series[market, interval.name]
            assert {t: figures_in(c) for t, c in series.items()} == series_of(trades[::-1], interval)


def forked(*makers: tuple[Maker, ...]) -> Writer:
    """A market that has traded once at block 1, and then these blocks."""
    made = new_writer(RULES)
    made.chain.mine(created(0), swap(0, 1, 5))
    for facts in makers:
        made.chain.mine(*facts)
    finish(made.follow())
    return made


def test_a_market_of_an_orphaned_block_vanishes() -> None:
    """Record, registry, candles, trades and figures of a market that the new chain never had are gone."""
    made = forked((created(1), swap(1)), (swap(1), graduate(1)))
    changes = finish(made.roll_back(1))
    assert list(changes.removed) == [token(1)]
    assert token(1) not in store_of(made).markets
    assert token(1) not in store_of(made).figures
    assert token(1) not in store_of(made).dues
    assert token(1) not in made.state.sources.values()
    assert not any(market == token(1) and series for (market, _), series in store_of(made).series.items())
    assert MarketRemoved(token(1)) in list(changes.events(RULES))


def test_a_removed_market_can_be_created_again() -> None:
    """The new chain may create it in another block, with its own history."""
    made = forked((created(1), swap(1, 1, 9)))
    made.chain.fork(1)
    finish(made.roll_back(1))
    made.chain.mine(created(1))
    made.chain.mine(swap(1, 1, 2))
    finish(made.follow())
    assert store_of(made).markets[token(1)].created_block == 2
    assert len(store_of(made).trades[token(1)]) == 1


def test_a_graduation_is_undone() -> None:
    """The market trades again, under the same record as before."""
    made = forked((swap(0),), (graduate(0),))
    assert store_of(made).markets[token(0)].status == "graduated"
    finish(made.roll_back(2))
    assert store_of(made).markets[token(0)].status == "trading"
    assert store_of(made).markets[token(0)].successor == ""


def test_the_first_trade_is_undone() -> None:
    """A market that keeps its creation but loses its only trade has no candles and no figures."""
    made = forked((created(1),), (swap(1),))
    changes = finish(made.roll_back(2))
    assert token(1) in store_of(made).markets
    assert token(1) not in store_of(made).figures
    assert StatsUpdated(token(1), None) in list(changes.events(RULES))


def test_figures_are_folded_anew() -> None:
    """Time has passed since the orphaned block: what fell out meanwhile does not come back."""
    made = forked()
    made.chain.mine(swap(0, 1, 7), after_ms=DAY_MS + MINUTE_MS)
    finish(made.follow())
    finish(made.roll_back(1))
    stats = store_of(made).figures[token(0)]
    assert stats.window is None
    assert stats.last_price.scaleb(0) == store_of(made).trades[token(0)][0].price


def test_a_reorg_is_told_first() -> None:
    """Readers hear of the reorg, then what to drop, then corrected candles; nothing of it is a trade."""
    made = forked((swap(0),), (created(1), swap(1)))
    changes = finish(made.roll_back(1))
    events = list(changes.events(RULES))
    orphaned = tuple(facts.block.hash for facts in made.chain.blocks[2:])
    reorg = events[0]
    assert isinstance(reorg, ReorgDetected)
    assert reorg.ancestor == made.chain.blocks[1].block
    assert reorg.orphaned == orphaned
    assert reorg.markets == tuple(sorted([token(0), token(1)]))
    touched = {
        (e.market, e.interval.name, e.open_time): e.candle for e in events if isinstance(e, CandleUpdated)
    }
    assert {market for market, _, _ in touched} == {token(0), token(1)}
    assert all(candle is None for (market, _, _), candle in touched.items() if market == token(1))
    assert reorg.earliest_bucket == min(open_time for _, _, open_time in touched)


def test_a_reorg_of_empty_blocks_touches_no_market() -> None:
    """Only the head and the window go back."""
    made = forked((), ())
    changes = finish(made.roll_back(1))
    assert changes.reorg is not None
    assert changes.reorg.markets == ()
    assert len(changes.reorg.orphaned) == 2
    assert not changes.candles
    assert changes.reorg.earliest_bucket == changes.reorg.ancestor.timestamp


def test_watermarks_do_not_go_back() -> None:
    """A candle that was closed stays closed; a reorg sends it again."""
    made = forked()
    made.chain.mine(swap(0), after_ms=10 * MINUTE_MS)
    finish(made.follow())
    closed = dict(made.state.closed)
    finish(made.roll_back(1))
    assert made.state.closed == closed
    made.chain.fork(1)
    made.chain.mine(swap(0), after_ms=5 * MINUTE_MS)
    changes = finish(made.changes(made.chain.blocks[2:]))
    assert not changes.closed


def test_trades_of_orphaned_blocks_are_counted_out() -> None:
    """Exactly the orphaned trades leave the list, market by market."""
    made = forked((swap(0), swap(0), created(1), swap(1)), (swap(0),))
    changes = finish(made.roll_back(1))
    assert changes.dropped_trades == {token(0): 3, token(1): 1}
    assert [trade.id.block for trade in store_of(made).trades[MarketId(token(0))]] == [1]

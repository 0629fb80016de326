"""ProcessTrade over blocks: what a block changes, in memory, before anything is written."""

import copy
from collections import deque
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import CandleChange, ChangeSet, MarketState
from listener.application.rules import Finality, Rules
from listener.application.state import Written
from listener.application.use_cases.process_block import (
    HISTORY_REASON,
    fold_minutes,
    minutes_of,
    next_due,
    process_blocks,
)
from listener.application.use_cases.resolve_block import Resolved, resolve_blocks
from listener.domain.entities import Trade
from listener.domain.events import CandlesClosed, HistoryLoaded, StatsUpdated, TradeProcessed
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import DAY_MS, MINUTE_MS, Address, Interval, TradeId, ratio
from tests.fakes.brute import figures_in, series_of
from tests.fakes.build import (
    ETHER,
    MONDAY_MS,
    RETENTION,
    block,
    created,
    graduate,
    market,
    rules,
    stream,
    swap,
    token,
    token_info,
    trade,
)
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer, finish

RULES = rules()
TOKENS = {Address(token(number)): token_info(number) for number in range(4)}


def writer(by: Rules = RULES, *, live: bool = True) -> Writer:
    """A writer on a new chain and an empty store."""
    made = Writer(LocalChain(), FakeStore(by), by, live=live)
    finish(made.start())
    return made


def store_of(made: Writer) -> FakeStore:
    """The writer's store."""
    assert isinstance(made.store, FakeStore)
    return made.store


@st.composite
def trades_over_time(draw: st.DrawFn) -> list[Trade]:
    """Trades whose blocks are seconds, hours or weeks apart."""
    gaps = st.sampled_from([0, 1_000, 59_999, 60_000, 3_600_000, DAY_MS, 8 * DAY_MS])
    time, made = MONDAY_MS, []
    for number in range(draw(st.integers(1, 12))):
        time += draw(gaps)
        for log_index in range(draw(st.integers(1, 3))):
            price = draw(st.integers(1, 9))
            made.append(
                trade(
                    number,
                    log_index,
                    str(price),
                    base=draw(st.integers(1, 9)),
                    buy=draw(st.booleans()),
                    time=time,
                )
            )
    return made


def fold_trades(
    state: MarketState, trades: Sequence[Trade], by: Rules
) -> tuple[MarketState, list[CandleChange]]:
    """Trades folded into a market's candles."""
    return fold_minutes(state, minutes_of(trades), by)


@given(trades_over_time())
def test_every_interval_holds_its_trades(trades: list[Trade]) -> None:
    """Candles of every interval, folded from minutes, are what one would count trade by trade."""
    _, changes = fold_trades(MarketState.new(market(), 5), trades, RULES)
    for interval in RULES.intervals:
        made = {c.open_time: figures_in(c.after) for c in changes if c.interval == interval}
        assert made == series_of(trades, interval)


@given(trades_over_time())
def test_a_wide_candle_is_the_merge_of_its_narrow_ones(trades: list[Trade]) -> None:
    """Each candle of a wide interval is the fold of the minutes inside it."""
    _, changes = fold_trades(MarketState.new(market(), 5), trades, RULES)
    minutes = [c.after for c in changes if c.interval.name == "1m" and c.after]
    for change in changes:
        inside = [m for m in minutes if change.interval.open_time(m.open_time) == change.open_time]
        merged = inside[0]
        for minute in inside[1:]:
            merged = merged.merge(minute)
        assert figures_in(change.after) == figures_in(merged)
        assert change.after is not None
        assert (change.after.first, change.after.last) == (merged.first, merged.last)


@given(trades_over_time(), st.data())
def test_folding_in_parts_is_folding_at_once(trades: list[Trade], data: st.DataObject) -> None:
    """Wherever a run of trades is cut, the newest candles and the last price are the same."""
    cut = data.draw(st.integers(1, len(trades)))
    start = MarketState.new(market(), 5)
    whole, _ = fold_trades(start, trades, RULES)
    half, _ = fold_trades(start, trades[:cut], RULES)
    parts = fold_trades(half, trades[cut:], RULES)[0] if trades[cut:] else half
    assert parts.live == whole.live
    assert parts.last_price == whole.last_price


@given(trades_over_time())
def test_previous_closes_form_a_chain(trades: list[Trade]) -> None:
    """`pc` is the close of the candle before it in the same series; the first has none."""
    state = MarketState.new(market(), 5)
    series: dict[str, dict[int, tuple[Decimal | None, Decimal]]] = {}
    for one in trades:
        state, changes = fold_trades(state, [one], RULES)
        for change in changes:
            assert change.after is not None
            series.setdefault(change.interval.name, {})[change.open_time] = (
                change.after.previous_close,
                change.after.close,
            )
    for candles in series.values():
        expected = None
        for _, (previous, close) in sorted(candles.items()):
            assert previous == expected
            expected = close


def test_before_images_are_what_was_there() -> None:
    """A change of a candle carries the candle as it was committed; None where there was none."""
    state, first = fold_trades(MarketState.new(market(), 5), [trade(1, 0, "1")], RULES)
    assert all(change.before is None for change in first)
    _, second = fold_trades(state, [trade(2, 0, "2"), trade(3, 0, "3", time=MONDAY_MS + MINUTE_MS)], RULES)
    minutes = [change for change in second if change.interval.name == "1m"]
    assert [change.before for change in minutes] == [state.live[0], None]
    weeks = [change for change in second if change.interval.name == "1w"]
    assert [change.before for change in weeks] == [state.live[-1]]


def test_processing_is_pure() -> None:
    """The same input gives the same change set twice, and the writer's state is as it was."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine(swap(0), swap(0, 3, 7, buy=False), graduate(0))
    finish(made.apply(made.chain.blocks[1:2]))
    before, kept = copy.deepcopy(made.state), dict(made.kept)
    first = finish(made.changes(made.chain.blocks[2:3]))
    second = finish(made.changes(made.chain.blocks[2:3]))
    assert first == second
    assert made.state == before
    assert made.kept == kept


def test_blocks_at_once_are_blocks_one_by_one() -> None:
    """A run of final blocks leaves what its blocks would have left one after the other."""
    chain = LocalChain()
    chain.mine(created(0), swap(0))
    chain.mine(swap(0, 5, 7), created(1), after_ms=MINUTE_MS)
    chain.mine_empty(2, after_ms=3_600_000)
    chain.mine(swap(1, 5, 7), swap(0, buy=False), graduate(0), after_ms=DAY_MS)
    together = Writer(chain, FakeStore(RULES), RULES)
    finish(together.start())
    finish(together.load_history(chain.blocks[1:]))
    single = Writer(chain, FakeStore(RULES), RULES)
    finish(single.start())
    finish(single.apply(chain.blocks[1:]))
    assert store_of(together).contents() == store_of(single).contents()
    assert store_of(together).figures == store_of(single).figures
    assert store_of(together).dues == store_of(single).dues
    assert store_of(together).closed == store_of(single).closed
    assert together.state.sources == single.state.sources


def one_swap(by: Rules, reserves: tuple[int, int] | None) -> Trade:
    """The trade that a swap of 2 base for 1 quote becomes."""
    made = writer(by)
    made.chain.mine(created(0), swap(0, 2 * ETHER, ETHER, reserves=reserves, fee=9))
    return finish(made.changes(made.chain.blocks[1:])).trades[0]


@pytest.mark.parametrize(
    ("mode", "reserves", "price", "spot"),
    [
        ("execution", (4, 1), Decimal("0.5"), Decimal("0.25")),
        ("spot", (4, 1), Decimal("0.25"), Decimal("0.25")),
        ("spot", None, Decimal("0.5"), None),
        ("spot", (0, 1), Decimal("0.5"), None),
        ("spot", (1, 0), Decimal("0.5"), None),
        ("execution", None, Decimal("0.5"), None),
    ],
)
def test_the_price_mode_chooses_the_price(
    mode: str, reserves: tuple[int, int] | None, price: Decimal, spot: Decimal | None
) -> None:
    """Execution is quote by base; spot is the price after it, where there are reserves. Both are kept."""
    made = one_swap(rules(price_mode=mode), reserves)
    assert (made.price, made.execution_price, made.spot_price) == (price, Decimal("0.5"), spot)
    assert made.fee == 9


def test_decimals_are_applied() -> None:
    """Prices are in whole tokens, whatever the decimals of the base token."""
    made = writer()
    made.chain.mine(created(1), swap(1, 2 * 10**6, ETHER))
    assert finish(made.changes(made.chain.blocks[1:])).trades[0].price == ratio(1, 2, 0)


def test_minutes_are_kept_though_not_listed() -> None:
    """One-minute candles are folded and stored always, and told of only where they are published."""
    by = rules("5m", published=frozenset({"5m"}))
    made = writer(by)
    made.chain.mine(created(0), swap(0))
    changes = finish(made.changes(made.chain.blocks[1:]))
    assert {change.interval.name for change in changes.candles} == {"1m", "5m"}
    told = [event for event in changes.events(by) if hasattr(event, "interval")]
    assert {event.interval.name for event in told} == {"5m"}


def test_the_first_interval_must_be_the_minute() -> None:
    """Everything is folded from minutes: rules without them first are refused."""
    with pytest.raises(ValueError, match="1m"):
        Rules(
            intervals=(Interval.parse("5m"),),
            published=frozenset(),
            price_mode="execution",
            retention_ms={},
            trades_kept=1,
            finality=Finality(1),
            factories=frozenset(),
        )


def test_candles_close_by_the_time_of_a_block() -> None:
    """A block closes what ended before it: up to the last millisecond, each interval once, moving on only."""
    made = writer()
    made.chain.mine(after_ms=MINUTE_MS - 1)
    first = finish(made.changes(made.chain.blocks[1:]))
    assert first.closed["1m"] == MONDAY_MS - 1
    finish(made.commit(first))
    made.chain.mine(after_ms=1)
    second = finish(made.changes(made.chain.blocks[2:]))
    assert second.closed == {"1m": MONDAY_MS + MINUTE_MS - 1}
    finish(made.commit(second))
    made.chain.mine(after_ms=1_000)
    assert not finish(made.changes(made.chain.blocks[3:])).closed


def test_closing_is_told_after_the_candles() -> None:
    """What a block says comes in this order: trades, candles, statistics, then what is closed."""
    made = writer()
    made.chain.mine(created(0), swap(0), after_ms=MINUTE_MS)
    kinds = [type(event) for event in finish(made.changes(made.chain.blocks[1:])).events(RULES)]
    assert kinds.index(TradeProcessed) < kinds.index(StatsUpdated) < kinds.index(CandlesClosed)
    assert kinds[-1] is CandlesClosed


def test_a_resync_that_is_owed_is_told_once() -> None:
    """After history was loaded the first live commit says so, and no later one; until then it stays owed."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine_empty(2)
    history = finish(made.load_history(made.chain.blocks[1:2]))
    assert list(history.events(RULES)) == []
    assert made.state.resync_owed
    first = finish(made.changes(made.chain.blocks[2:3]))
    assert next(iter(first.events(RULES))) == HistoryLoaded(HISTORY_REASON)
    finish(made.commit(first))
    assert not made.state.resync_owed
    assert not finish(made.changes(made.chain.blocks[3:4])).reason


def test_without_a_backend_a_resync_stays_owed() -> None:
    """Nobody was told anything, so whoever comes later must read everything."""
    made = writer(live=False)
    made.chain.mine(created(0), swap(0))
    finish(made.follow())
    assert made.state.resync_owed
    assert store_of(made).rows == []


def test_an_undo_holds_what_the_block_replaced() -> None:
    """Candles, last price, record and time of change as they were, and how many trades."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine(swap(0), swap(0), graduate(0), created(1))
    finish(made.apply(made.chain.blocks[1:2]))
    before = made.kept[token(0)]
    undo = finish(made.changes(made.chain.blocks[2:])).undo
    assert undo is not None
    assert undo.block == made.chain.tip
    assert undo.as_of == made.state.head.as_of
    old, new = undo.markets
    assert (old.market, old.created, old.trades) == (token(0), False, 2)
    assert (old.record, old.last_price, old.changed) == (
        before.market,
        before.last_price,
        before.day.changed,
    )
    assert [c for _, _, c in old.candles] == list(before.live)
    assert (new.market, new.created, new.record, new.trades, new.last_price) == (
        token(1),
        True,
        None,
        0,
        None,
    )


def test_an_empty_block_is_remembered() -> None:
    """A block without logs commits its header: a reorg must find it."""
    made = writer()
    made.chain.mine()
    changes = finish(made.changes(made.chain.blocks[1:]))
    assert changes.undo is not None
    assert (changes.undo.block, changes.undo.markets) == (made.chain.tip, ())


def test_the_window_of_undos_is_bounded() -> None:
    """Before-images are kept for the finality window and dropped beyond it; the fork point stays."""
    by = rules(finality=Finality(3))
    made = writer(by)
    made.chain.mine_empty(10)
    finish(made.follow())
    assert [ref.number for ref in made.state.recent()] == [7, 8, 9, 10]
    assert sorted(store_of(made).undos) == [7, 8, 9, 10]


def test_history_forgets_the_window() -> None:
    """A run of final blocks cannot be undone: only its last block is remembered, with nothing to restore."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine_empty(5)
    finish(made.apply(made.chain.blocks[1:3]))
    changes = finish(made.load_history(made.chain.blocks[3:]))
    assert [ref.number for ref in made.state.recent()] == [6]
    assert changes.undo is not None
    assert changes.undo.markets == ()
    assert not made.state.pending


def test_trades_that_can_be_undone_are_kept_on_top() -> None:
    """The newest `trades_kept` stay even after a reorg takes back all that it can."""
    by = rules(trades_kept=2, finality=Finality(3))
    made = writer(by)
    made.chain.mine(created(0))
    for _ in range(12):
        made.chain.mine(swap(0), swap(0))
    finish(made.follow())
    kept = store_of(made).trades[token(0)]
    assert [trade.id for trade in kept[:2]] == [TradeId(13, 1), TradeId(13, 0)]
    assert len(kept) <= 2 + 2 * (3 + 2)
    finish(made.roll_back(10))
    assert [trade.id for trade in store_of(made).trades[token(0)][:2]] == [TradeId(10, 1), TradeId(10, 0)]


def test_only_final_candles_are_trimmed() -> None:
    """Retention counts back from the newest block that cannot be undone, never from the head."""
    by = rules(retention_ms=RETENTION)
    state = stream(block(100))
    state.window = deque([Written(block(100), {}), Written(block(101, time=MONDAY_MS + 30 * DAY_MS), {})])
    state.head = state.head.__class__(
        101, block(101).hash, MONDAY_MS + 30 * DAY_MS, MONDAY_MS + 30 * DAY_MS, 1, 1, 0
    )
    state.sources[market().source] = market().id
    state.markets.add(market().id)
    old, _ = fold_trades(MarketState.new(market(), 5), [trade(1)], by)
    ref = block(102, time=MONDAY_MS + 31 * DAY_MS)
    swapped = swap(0)(0, "")
    resolved = Resolved((ref,), swaps={market().id: [(ref, swapped)]})  # type: ignore[list-item]
    near = process_blocks(state, {market().id: old}, resolved, by, live=True, undoable=True)
    assert {(interval.name, oldest) for _, interval, oldest in near.trims} == {
        (name, MONDAY_MS - kept) for name, kept in RETENTION.items()
    }
    final = process_blocks(state, {market().id: old}, resolved, by, live=False, undoable=False)
    assert {(interval.name, oldest) for _, interval, oldest in final.trims} == {
        (name, ref.timestamp - kept) for name, kept in RETENTION.items()
    }


def test_retention_leaves_what_it_must() -> None:
    """Over a month of trading, candles within their retention are all there; older ones are gone."""
    by = rules(retention_ms=RETENTION, finality=Finality(2))
    made = writer(by)
    made.chain.mine(created(0))
    for _ in range(80):
        made.chain.mine(swap(0), after_ms=DAY_MS // 2)
    finish(made.follow())
    final, series = made.state.final_timestamp, store_of(made).series
    trades = store_of(made).trades[token(0)]
    for interval in by.intervals:
        expected = set(series_of(trades, interval))
        kept = by.retention_ms.get(interval.name)
        if kept is not None:
            expected = {time for time in expected if time >= final - kept}
        assert set(series[token(0), interval.name]) >= expected
    assert len(series[token(0), "1m"]) < 12
    assert len(series[token(0), "1h"]) == 80


def test_the_head_moves_and_time_does_not_go_back() -> None:
    """A block becomes the head; `as_of` is the later of its time and what figures are brought to already."""
    made = writer()
    made.chain.mine(after_ms=1_000)
    made.state.head = made.state.head.__class__(
        **{
            name: getattr(made.state.head, name)
            for name in ("number", "hash", "timestamp", "gen", "epoch", "seq")
        },
        as_of=MONDAY_MS + 5_000,
    )
    changes: ChangeSet = finish(made.changes(made.chain.blocks[1:]))
    assert (changes.head.number, changes.head.hash) == (1, made.chain.tip.hash)
    assert (changes.head.timestamp, changes.head.as_of) == (MONDAY_MS + 1_000, MONDAY_MS + 5_000)
    assert changes.head.gen == made.state.head.gen


def test_figures_are_due_when_their_oldest_minute_falls_out() -> None:
    """A market that traded is due one day after its oldest minute; one that never did is never due."""
    state, _ = fold_trades(MarketState.new(market(), 5), [trade(1, time=MONDAY_MS + 61_000)], RULES)
    assert state.live[0] is not None
    state = state._replace(day=RollingDay.of([state.live[0]]))
    assert next_due(state, MONDAY_MS + 61_000, RULES) == MONDAY_MS + MINUTE_MS + DAY_MS
    assert next_due(MarketState.new(market(), 5), MONDAY_MS, RULES) is None


def test_an_empty_day_is_due_when_a_candle_expires() -> None:
    """An idle market is looked at again when the first of its candles expires, and not in a hurry."""
    by = rules(retention_ms=RETENTION)
    state, _ = fold_trades(MarketState.new(market(), 5), [trade(1)], by)
    as_of = MONDAY_MS + DAY_MS
    assert state.live[0] is not None
    idle = state._replace(day=RollingDay.of([state.live[0]]).advance(as_of))
    assert next_due(idle, as_of, by) == MONDAY_MS + RETENTION["1m"] + MINUTE_MS
    late = MONDAY_MS + 300 * DAY_MS
    assert next_due(idle, late, by) == late + MINUTE_MS
    assert next_due(idle, as_of, rules()) is None


def test_a_graduation_changes_the_record_and_nothing_else() -> None:
    """Status and successor are new; the market keeps its id, its candles and its figures."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine(graduate(0))
    finish(made.apply(made.chain.blocks[1:2]))
    changes = finish(made.changes(made.chain.blocks[2:]))
    assert changes.records[token(0)].status == "graduated"
    assert not changes.candles
    assert not changes.trades
    finish(made.commit(changes))
    assert store_of(made).markets[token(0)].status == "graduated"


def test_a_graduation_does_not_hide_a_minute_that_falls_out() -> None:
    """A block without a trade of the market may come when a minute is due: the refresh still writes it."""
    made = writer()
    made.chain.mine(created(0), swap(0))
    made.chain.mine(graduate(0), after_ms=DAY_MS + MINUTE_MS)
    finish(made.follow())
    finish(made.pass_time(made.chain.tip.timestamp))
    figures = store_of(made).figures[token(0)]
    assert figures.window is None


def test_rejections_are_told() -> None:
    """What did not count is counted in the change set."""
    made = writer()
    made.chain.mine(created(0), swap(0, 0, 1), swap(1))
    changes = finish(made.changes(made.chain.blocks[1:]))
    assert changes.rejected == {"zero_amount": 1, "stranger": 1}


def test_resolving_needs_only_what_it_asked_for() -> None:
    """The tokens that `tokens_to_read` names are all that the resolution looks at."""
    chain = LocalChain()
    chain.mine(created(0), swap(0))
    resolved = resolve_blocks(stream(chain.blocks[0].block), chain.blocks[1:], TOKENS, RULES)
    assert resolved.touched() == {token(0)}

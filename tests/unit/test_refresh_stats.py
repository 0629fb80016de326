"""Time passes without a trade: figures roll off, candles close, idle markets shrink."""

from listener.application.rules import Finality, Rules
from listener.application.use_cases.process_block import HISTORY_REASON, next_due
from listener.application.use_cases.refresh_stats import refresh
from listener.domain.events import CandlesClosed, StatsUpdated
from listener.domain.value_objects import DAY_MS, MINUTE_MS
from tests.fakes.build import ETHER, MONDAY_MS, RETENTION, created, rules, swap, token
from tests.fakes.chain import LocalChain
from tests.fakes.store import FakeStore
from tests.fakes.writer import Writer, finish

KEEPING = rules(retention_ms=RETENTION, finality=Finality(2))


def traded(by: Rules) -> Writer:
    """A market that traded at Monday 00:00:12 and again one minute later."""
    made = Writer(LocalChain(), FakeStore(by), by)
    finish(made.start())
    made.chain.mine(created(0), swap(0, ETHER, 2 * ETHER))
    made.chain.mine(swap(0, ETHER, 3 * ETHER), after_ms=MINUTE_MS)
    finish(made.follow())
    return made


def store_of(made: Writer) -> FakeStore:
    """The writer's store."""
    assert isinstance(made.store, FakeStore)
    return made.store


def test_minutes_roll_off_without_trades() -> None:
    """One day after each minute it is out of the figures; the last price stays for ever."""
    made = traded(rules())
    finish(made.pass_time(MONDAY_MS + DAY_MS - 1))
    stats = store_of(made).figures[token(0)]
    assert stats.window is not None
    assert stats.window.trades == 2
    changes = finish(made.pass_time(MONDAY_MS + DAY_MS))
    assert changes is not None
    stats = store_of(made).figures[token(0)]
    assert stats.window is not None
    assert (stats.window.trades, stats.open_price) == (1, 3)
    assert stats.close_time == MONDAY_MS + DAY_MS + MINUTE_MS - 1
    finish(made.pass_time(MONDAY_MS + DAY_MS + MINUTE_MS))
    stats = store_of(made).figures[token(0)]
    assert stats.window is None
    assert (stats.last_price, stats.open_price, stats.price_change) == (3, 3, 0)
    assert stats.close_time == MONDAY_MS + DAY_MS + 2 * MINUTE_MS - 1


def test_only_what_changed_is_told() -> None:
    """A refresh that changes a market's figures tells of them, and of nothing else."""
    made = traded(rules())
    changes = finish(made.pass_time(MONDAY_MS + DAY_MS))
    assert changes is not None
    events = list(changes.events(made.rules))
    assert [event.market for event in events if isinstance(event, StatsUpdated)] == [token(0)]
    assert all(isinstance(event, StatsUpdated | CandlesClosed) for event in events)
    quiet = finish(made.pass_time(MONDAY_MS + DAY_MS + 1))
    assert quiet is not None
    assert not quiet.stats


def test_figures_are_not_due_again_at_once() -> None:
    """What was refreshed is due at its next change, which lies ahead."""
    made = traded(rules())
    for as_of in range(MONDAY_MS, MONDAY_MS + 2 * DAY_MS, 97 * MINUTE_MS):
        finish(made.pass_time(as_of))
        assert finish(made.store.due(made.state.head.as_of, 10)) == []


def test_candles_close_as_time_passes() -> None:
    """Without a block, candles that ended are closed, each once."""
    made = traded(rules())
    closing = MONDAY_MS + 5 * MINUTE_MS
    changes = refresh(made.state, {}, made.state.head.as_of, closing, made.rules, live=True)
    assert changes is not None
    assert changes.closed == {"1m": closing - 1, "5m": closing - 1}
    finish(made.commit(changes))
    again = refresh(made.state, {}, made.state.head.as_of, closing, made.rules, live=True)
    assert again is None


def test_nothing_to_do_is_no_commit() -> None:
    """If neither time nor anything else moved, there is nothing to write."""
    made = traded(rules())
    state = made.state
    assert refresh(state, {}, state.head.as_of, state.head.timestamp, made.rules, live=True) is None
    later = refresh(state, {}, state.head.as_of + 1, state.head.timestamp, made.rules, live=True)
    assert later is not None
    assert later.head.as_of == state.head.as_of + 1
    assert later.head.number == state.head.number


def test_a_resync_that_is_owed_does_not_wait_for_a_block() -> None:
    """After history was loaded on a quiet chain, the passing of time announces it."""
    made = traded(rules())
    made.state.resync_owed = True
    changes = refresh(made.state, {}, made.state.head.as_of, made.state.head.timestamp, made.rules, live=True)
    assert changes is not None
    assert changes.reason == HISTORY_REASON
    silent = refresh(made.state, {}, made.state.head.as_of, made.state.head.timestamp, made.rules, live=False)
    assert silent is None


def test_idle_markets_lose_their_fine_candles() -> None:
    """Once final time has passed their retention, fine candles go; those kept for ever stay."""
    made = traded(KEEPING)
    made.chain.mine(after_ms=4 * DAY_MS)
    made.chain.mine_empty(3)
    finish(made.follow())
    finish(made.pass_time(made.chain.tip.timestamp))
    finish(made.pass_time(made.chain.tip.timestamp + 2 * MINUTE_MS))
    series = store_of(made).series
    assert not series[token(0), "1m"]
    assert len(series[token(0), "5m"]) == 1
    made.chain.mine(after_ms=11 * DAY_MS)
    made.chain.mine_empty(3)
    finish(made.follow())
    finish(made.pass_time(made.chain.tip.timestamp))
    assert not series[token(0), "5m"]
    assert all(len(series[token(0), name]) == 1 for name in ("1h", "1d", "1w"))
    assert finish(made.store.due(made.state.head.as_of + 99 * DAY_MS, 10)) == []


def test_what_can_be_undone_is_not_trimmed() -> None:
    """The wall clock alone trims nothing: while the chain stands still, a reorg may bring trades back."""
    made = traded(KEEPING)
    finish(made.pass_time(MONDAY_MS + 40 * DAY_MS))
    assert len(store_of(made).series[token(0), "1m"]) == 2
    assert finish(made.store.due(made.state.head.as_of, 10)) == []
    assert finish(made.store.due(made.state.head.as_of + MINUTE_MS, 10)) == [token(0)]


def test_a_market_trades_again_after_its_candles_expired() -> None:
    """The next candle follows the last close ever, and figures start anew."""
    made = traded(KEEPING)
    made.chain.mine(after_ms=20 * DAY_MS)
    made.chain.mine_empty(3)
    finish(made.follow())
    finish(made.pass_time(made.chain.tip.timestamp))
    made.chain.mine(swap(0, ETHER, 5 * ETHER))
    finish(made.follow())
    (minute,) = store_of(made).series[token(0), "1m"].values()
    assert (minute.previous_close, minute.open) == (3, 5)
    stats = store_of(made).figures[token(0)]
    assert stats.window is not None
    assert stats.window.trades == 1


def test_refreshing_is_pure() -> None:
    """Nothing but the answer: the stream and the markets are as they were."""
    made = traded(KEEPING)
    before, markets = made.state.closed.copy(), dict(made.kept)
    first, second = (
        refresh(made.state, markets, MONDAY_MS + DAY_MS, MONDAY_MS + DAY_MS, KEEPING, live=True)
        for _ in range(2)
    )
    assert first == second
    assert made.state.closed == before
    assert markets == made.kept
    assert next_due(made.kept[token(0)], MONDAY_MS, KEEPING) == MONDAY_MS + DAY_MS

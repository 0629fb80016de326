"""Trades in bulk count exactly as they would one by one."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import ChangeSet, MarketState
from listener.application.history import Emitter, History
from listener.application.state import StreamState
from listener.application.use_cases.process_block import process_blocks
from listener.application.use_cases.resolve_block import (
    MALFORMED,
    STRANGER,
    TOKEN_UNREADABLE,
    Resolved,
    resolve_blocks,
    resolve_history,
)
from listener.domain.entities import Candle, Trade
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import Address, MarketId
from tests.fakes.build import (
    ETHER,
    FACTORY,
    MONDAY_MS,
    Maker,
    block,
    created,
    curve,
    graduate,
    malformed,
    market,
    rules,
    stream,
    swap,
    token,
    token_info,
)
from tests.fakes.build import STRANGER as STRANGER_ADDRESS
from tests.fakes.bulk import in_bulk

RULES = rules("5m", "1h", trades_kept=3)
TOKENS = {Address(token(number)): token_info(number) for number in range(6)}
POOL = "0x" + "77" * 20
"""Another emitter whose events count for market 1."""
KNOWN = {curve(0): token(0), curve(1): token(1), POOL: token(1)}
LARGE = 1 << 126
"""Some of these have a sum that columns cannot hold."""
NOBODY = 1 << 256
"""More than columns hold: such a trade comes among the facts."""


def state_of() -> StreamState:
    """A stream with two markets, one of which has two emitters."""
    return stream(block(0), sources=dict(KNOWN))


def blocks_of(*blocks: Sequence[Maker]) -> list[BlockFacts]:
    """Blocks half a minute apart."""
    return [
        BlockFacts(
            block(number, time=MONDAY_MS + 30_000 * number),
            tuple(make(index, f"block {number}") for index, make in enumerate(makers)),
        )
        for number, makers in enumerate(blocks, start=1)
    ]


def processed(resolved: Resolved, before: ChangeSet | None = None) -> ChangeSet:
    """What comes of it, on top of other blocks if there are some."""
    state, markets = state_of(), before.states if before else {}
    if before:
        state.apply(before)
    markets = {
        market_id: MarketState.new(market(number), len(RULES.intervals))
        for number, market_id in enumerate((token(0), token(1)))
    } | markets
    return process_blocks(state, markets, resolved, RULES, live=False, undoable=False)


def candles_of(changes: ChangeSet) -> dict[tuple[str, str, int], Candle | None]:
    """All candles that change."""
    more = changes.more_candles.changes() if changes.more_candles else ()
    return {(one.market, one.interval.name, one.open_time): one.after for one in (*changes.candles, *more)}


def states_of(changes: ChangeSet) -> dict[MarketId, MarketState]:
    """Markets, whatever their candles are kept in."""
    return {name: state._replace(live=tuple(state.live)) for name, state in changes.states.items()}


def newest_of(changes: ChangeSet) -> dict[str, list[Trade]]:
    """The trades that are kept."""
    return {market_id: list(trades)[-RULES.trades_kept :] for market_id, trades in changes.newest.items()}


makers = st.one_of(
    st.builds(
        swap,
        st.integers(0, 4),
        st.sampled_from([0, 1, ETHER, LARGE, NOBODY]),
        st.sampled_from([0, 1, 3 * ETHER]),
        tx=st.sampled_from([None, "shared"]),
    ),
    st.builds(lambda base: swap(1, base, source=POOL), st.integers(1, 3)),
    st.sampled_from(
        [
            swap(0, market_of=token(1)),
            swap(0, source=STRANGER_ADDRESS),
            created(2),
            created(2, tx="shared"),
            created(3, by=STRANGER_ADDRESS),
            created(0),
            graduate(0),
            malformed(curve(1)),
            malformed(FACTORY),
        ]
    ),
)


def blocks_after(
    blocks: Sequence[BlockFacts], chain: Sequence[Sequence[Maker]], pause: int
) -> list[BlockFacts]:
    """More blocks, some minutes later."""
    first = len(blocks) + 1
    return [
        BlockFacts(
            block(number, time=MONDAY_MS + 30_000 * number + 60_000 * pause),
            tuple(make(index, f"block {number}") for index, make in enumerate(makers)),
        )
        for number, makers in enumerate(chain, start=first)
    ]


chains = st.lists(st.lists(makers, max_size=6), min_size=1, max_size=6)


@given(chains, chains, st.integers(0, 100))
def test_bulk_is_what_single_trades_are(
    early: list[list[Maker]], late: list[list[Maker]], pause: int
) -> None:
    """Candles, figures, the newest trades, records, what was refused and why: all the same, also on top."""
    parts = [blocks_of(*early)]
    parts.append(blocks_after(parts[0], late, pause))
    single: ChangeSet | None = None
    bulk: ChangeSet | None = None
    for blocks in parts:
        state = state_of()
        if single:
            state.apply(single)
        single = processed(resolve_blocks(state, blocks, TOKENS, RULES), single)
        bulk = processed(resolve_history(state, in_bulk(blocks), TOKENS, RULES), bulk)
        assert candles_of(bulk) == candles_of(single)
        assert len(candles_of(bulk)) == len(bulk.candles) + len(bulk.more_candles or ())
        assert (bulk.stats, bulk.due, states_of(bulk)) == (single.stats, single.due, states_of(single))
        assert (bulk.created, bulk.graduated) == (single.created, single.graduated)
        assert bulk.records == single.records
        assert (bulk.rejected, bulk.counted) == (single.rejected, single.counted)
        assert (bulk.trades_kept, sorted(bulk.trims)) == (single.trades_kept, sorted(single.trims))
        assert newest_of(bulk) == newest_of(single)


def resolved_of(*blocks: Sequence[Maker]) -> Resolved:
    """What counts, as it comes in bulk."""
    return resolve_history(state_of(), in_bulk(blocks_of(*blocks)), TOKENS, RULES)


def test_trades_of_known_emitters_stay_in_bulk() -> None:
    """Nobody looks at them one by one."""
    resolved = resolved_of([swap(0), swap(0), graduate(0)], [swap(0)])
    assert resolved.bulk == {token(0): Emitter(curve(0), token(0))}
    assert resolved.swaps == {}
    assert resolved.touched() == {token(0)}


def test_strangers_are_counted_in_bulk() -> None:
    """All of their trades, and those that name a market that is not theirs."""
    resolved = resolved_of([swap(4), swap(4), swap(0, market_of=token(1))])
    assert resolved.rejected == {STRANGER: 2, MALFORMED: 1}
    assert not resolved.touched()


def test_trades_that_follow_their_announcement_stay_in_bulk() -> None:
    """All of them came in time."""
    resolved = resolved_of([created(2), swap(2)], [swap(2)])
    assert resolved.bulk == {token(2): Emitter(curve(2), token(2))}
    assert resolved.swaps == {}
    assert resolved.touched() == {token(2)}


def test_trades_of_a_market_that_is_refused_are_strangers() -> None:
    """Its token cannot be read."""
    resolved = resolve_history(state_of(), in_bulk(blocks_of([created(2), swap(2)], [swap(2)])), {}, RULES)
    assert resolved.rejected == {TOKEN_UNREADABLE: 1, STRANGER: 2}
    assert not resolved.touched()


def test_a_market_that_is_announced_twice_is_looked_at_one_by_one() -> None:
    """Which announcement counts decides about the trades in between."""
    resolved = resolved_of([created(2), swap(2), created(2)], [swap(2)])
    assert resolved.bulk == {}
    assert len(resolved.swaps[token(2)]) == 2


def test_announced_markets_are_looked_at_one_by_one() -> None:
    """Which of their trades came in time is decided by their places."""
    resolved = resolved_of([swap(2)], [created(2), swap(2)], [swap(2)])
    assert [(ref.number, one.log_index) for ref, one in resolved.swaps[token(2)]] == [(2, 1), (3, 0)]
    assert resolved.rejected == {STRANGER: 1}
    assert resolved.bulk == {}


def test_a_strangers_announcement_changes_nothing() -> None:
    """It could make history slow, else."""
    resolved = resolved_of([created(0, by=STRANGER_ADDRESS), created(0), swap(0)])
    assert resolved.bulk.keys() == {token(0)}


def test_two_emitters_of_a_market_are_in_order() -> None:
    """Their trades are told one by one, as they come."""
    resolved = resolved_of([swap(1), swap(1, source=POOL), swap(1)])
    assert [one.source for _, one in resolved.swaps[token(1)]] == [curve(1), POOL, curve(1)]
    assert resolved.bulk == {}


def test_facts_alone_are_history_too() -> None:
    """A source that gives no bulk is as good."""
    blocks = blocks_of([swap(0)])
    resolved = resolve_history(state_of(), History(blocks), TOKENS, RULES)
    assert resolved.swaps == resolve_blocks(state_of(), blocks, TOKENS, RULES).swaps

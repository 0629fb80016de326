"""ProcessTrade over blocks: fold what counts into a change set. Pure.

Comes after `resolve_block`, which decides whose events count; in between, the markets that the blocks touch
are loaded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from listener.application.state import (
    BlockUndo,
    CandleChange,
    ChangeSet,
    Head,
    MarketState,
    MarketUndo,
    Rules,
    StreamState,
)
from listener.application.use_cases.resolve_block import Resolved
from listener.domain.entities import Candle, Market, Trade
from listener.domain.facts import Swapped
from listener.domain.value_objects import (
    DAY_MS,
    MINUTE_MS,
    ONE_MINUTE,
    BlockRef,
    Interval,
    MarketId,
    Timestamp,
    TradeId,
    ratio,
)

HISTORY_REASON = "history was loaded"
SWEEP_RETRY_MS = 60_000


def process_blocks(
    state: StreamState,
    markets: Mapping[MarketId, MarketState],
    resolved: Resolved,
    rules: Rules,
    *,
    live: bool,
    undoable: bool,
) -> ChangeSet:
    """Fold resolved blocks into a change set.

    Args:
        state: what is committed; not modified.
        markets: states of the touched markets that exist already.
        resolved: contiguous blocks after the head.
        rules: the settings that matter.
        live: write rows for the backend one by one.
        undoable: keep a before-image; then there is exactly one block. Otherwise all blocks are final.
    """
    block = resolved.blocks[-1]
    changes = ChangeSet(base=state.head, head=_next_head(state, block), live=live, blocks=resolved.blocks)
    if live and state.resync_owed:
        changes.reason = HISTORY_REASON
    changes.rejected = resolved.rejected
    changes.created = resolved.created
    changes.closed = closed_by(state, block.timestamp, rules)
    final = state.final_timestamp if undoable else block.timestamp
    undo: list[MarketUndo] = []
    for market_id in sorted(resolved.touched()):
        created = resolved.created.get(market_id)
        before = MarketState.new(created, len(rules.intervals)) if created else markets[market_id]
        after = before
        trades = [_trade(before.market, ref, swap, rules) for ref, swap in resolved.swaps.get(market_id, ())]
        candles: list[CandleChange] = []
        if trades:
            after, candles = fold_trades(before, trades, rules)
            changes.trims += trims(before, candles, final, rules)
        record: Market | None = None
        if market_id in resolved.graduated:
            record = before.market
            graduated = replace(record, status="graduated", successor=resolved.graduated[market_id])
            after = after._replace(market=graduated)
            changes.graduated[market_id] = graduated
        if created or record:
            changes.records[market_id] = after.market
        if trades:
            after = after._replace(day=after.day.advance(changes.head.as_of))
        changes.trades += trades
        changes.candles += candles
        changes.states[market_id] = after
        if trades:
            changes.trades_kept[market_id] = rules.trades_kept + _pending(state, market_id, trades, undoable)
            changes.stats[market_id] = after.stats()
            changes.due[market_id] = next_due(after, changes.head.as_of, rules)
        undo.append(
            MarketUndo(
                market_id,
                created is not None,
                record,
                len(trades),
                before.last_price,
                before.day.changed,
                tuple((c.interval.name, c.open_time, c.before) for c in candles),
            )
        )
    changes.trades.sort(key=lambda trade: trade.id)
    if undoable:
        changes.undo = BlockUndo(block, state.head.as_of, tuple(undo), resolved.digest)
        changes.undo_dropped = state.no_longer_undoable(block, rules)
    else:
        changes.undo = BlockUndo(block, 0, ())
        changes.undo_dropped = [written.block.number for written in state.window]
    return changes


def fold_trades(
    state: MarketState, trades: Sequence[Trade], rules: Rules
) -> tuple[MarketState, list[CandleChange]]:
    """Fold trades, in order, into a market's candles of every interval.

    Trades are folded into minutes once; every wider interval folds the minutes.
    """
    minutes = [
        Candle.of(list(bucket), open_time)
        for open_time, bucket in groupby(trades, lambda trade: ONE_MINUTE.open_time(trade.timestamp))
    ]
    changes: list[CandleChange] = []
    live = list(state.live)
    day = state.day
    for index, interval in enumerate(rules.intervals):
        current = stored = live[index]
        previous_close = current.close if current else state.last_price
        touched: list[Candle] = []
        for minute in minutes:
            open_time = interval.open_time(minute.open_time)
            if current is not None and current.open_time == open_time:
                current = current.merge(minute)
                if touched:
                    touched[-1] = current
                else:
                    touched.append(current)
            else:
                current = minute._replace(open_time=open_time, previous_close=previous_close)
                touched.append(current)
            previous_close = current.close
        live[index] = current
        for candle in touched:
            before = stored if stored and stored.open_time == candle.open_time else None
            changes.append(CandleChange(state.market.id, interval, candle.open_time, candle, before))
            if index == 0:
                day = day.put(candle)
    return MarketState(state.market, tuple(live), day, trades[-1].price), changes


def closed_by(state: StreamState, timestamp: Timestamp, rules: Rules) -> dict[str, Timestamp]:
    """Watermarks that move when time reaches `timestamp`: close times of the last closed candles."""
    moved = {}
    for interval in rules.intervals:
        up_to = interval.open_time(timestamp) - 1
        if up_to > state.closed.get(interval.name, -1):
            moved[interval.name] = up_to
    return moved


def next_due(state: MarketState, as_of: Timestamp, rules: Rules) -> Timestamp | None:
    """When the market next changes by the passing of time alone; None: never.

    First its oldest minute falls out of the day; when the day is empty, its fine candles expire.
    """
    oldest = state.day.oldest
    if oldest is not None:
        return oldest.open_time + DAY_MS
    expiries = [
        candle.open_time + rules.retention_ms[interval.name] + MINUTE_MS
        for interval, candle in zip(rules.intervals, state.live, strict=True)
        if candle is not None and interval.name in rules.retention_ms
    ]
    return max(min(expiries), as_of + SWEEP_RETRY_MS) if expiries else None


def trims(
    state: MarketState, candles: Iterable[CandleChange], final: Timestamp, rules: Rules
) -> list[tuple[MarketId, Interval, Timestamp]]:
    """Candles that may go because a newer one came: final ones, older than their interval's retention."""
    return [
        (change.market, change.interval, final - rules.retention_ms[change.interval.name])
        for change in candles
        if change.before is None
        and change.interval.name in rules.retention_ms
        and any(live is not None for live in state.live)
    ]


def _next_head(state: StreamState, block: BlockRef) -> Head:
    return replace(
        state.head,
        number=block.number,
        hash=block.hash,
        timestamp=block.timestamp,
        as_of=max(state.head.as_of, block.timestamp),
    )


def _pending(
    state: StreamState,
    market: MarketId,
    trades: Sequence[Trade],
    undoable: bool,  # noqa: FBT001
) -> int:
    """Trades of a market that a reorg could still take back."""
    return state.pending[market] + len(trades) if undoable else 0


def _trade(market: Market, ref: BlockRef, swap: Swapped, rules: Rules) -> Trade:
    exponent = market.price_exponent
    execution = ratio(swap.quote, swap.base, exponent)
    spot = None
    if swap.reserves is not None and swap.reserves[0] and swap.reserves[1]:
        spot = ratio(swap.reserves[1], swap.reserves[0], exponent)
    price = spot if rules.price_mode == "spot" and spot is not None else execution
    return Trade(
        market.id,
        TradeId(ref.number, swap.log_index),
        ref.hash,
        swap.tx_hash,
        ref.timestamp,
        swap.is_buy,
        swap.trader,
        swap.base,
        swap.quote,
        swap.fee,
        price,
        execution,
        spot,
    )

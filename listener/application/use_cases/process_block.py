"""ProcessTrade over blocks: fold what counts into a change set. Pure.

Comes after `resolve_block`, which decides whose events count; in between, the markets that the blocks touch
are loaded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import NamedTuple

from listener.application.changes import (
    BlockUndo,
    CandleChange,
    ChangeSet,
    Head,
    MarketState,
    MarketUndo,
    outgrown,
)
from listener.application.history import BulkFold, Emitter
from listener.application.rules import Rules
from listener.application.state import StreamState
from listener.application.use_cases.raise_alerts import (
    NOTHING_WATCHED,
    Minutes,
    Watch,
    number_alerts,
    raise_alerts,
    raise_announced,
    undo_of,
)
from listener.application.use_cases.resolve_block import ZERO_AMOUNT, Resolved
from listener.domain.alerts import AlertKind
from listener.domain.entities import Candle, Market, Trade
from listener.domain.facts import Swapped
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import (
    DAY_MS,
    MINUTE_MS,
    ONE_MINUTE,
    BlockRef,
    Interval,
    MarketId,
    Timestamp,
)

HISTORY_REASON = "history was loaded"
SWEEP_RETRY_MS = 60_000
GRADUATED = "graduated"


def process_blocks(
    state: StreamState,
    markets: Mapping[MarketId, MarketState],
    resolved: Resolved,
    rules: Rules,
    *,
    live: bool,
    undoable: bool,
    watch: Watch = NOTHING_WATCHED,
) -> ChangeSet:
    """Fold resolved blocks into a change set.

    Args:
        state: what is committed; not modified.
        markets: states of the touched markets that exist already, able to advance to the new head.
        resolved: contiguous blocks after the head.
        rules: the settings that matter.
        live: write rows for the backend one by one.
        undoable: keep a before-image; then there is exactly one block. Otherwise all blocks are final.
        watch: alert rules; trades of the markets that have some are not in bulk.
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
    folds = _fold_bulk(resolved, markets, rules, changes)
    for market_id in sorted(resolved.touched()):
        created = resolved.created.get(market_id)
        before = MarketState.new(created, len(rules.intervals)) if created else markets[market_id]
        elapsed = before.day.advance(changes.head.as_of)
        told = _told(before, elapsed, resolved.swaps.get(market_id, ()), folds.get(market_id), rules, changes)
        if not told.number and created is None and market_id not in resolved.graduated:
            continue
        after = told.after
        if watch.index:
            _watch(watch, before, told, resolved, changes)
        record: Market | None = None
        if market_id in resolved.graduated:
            record = before.market
            graduated = replace(record, status=GRADUATED, successor=resolved.graduated[market_id])
            after = after._replace(market=graduated)
            changes.graduated[market_id] = graduated
        if created or record:
            changes.records[market_id] = after.market
        if told.number:
            changes.counted += told.number
            changes.newest[market_id] = told.newest
            changes.candles += told.candles
            changes.trims += trims(market_id, told.outgrown, final, rules)
            changes.trades_kept[market_id] = rules.trades_kept + _pending(
                state, market_id, told.number, undoable
            )
            changes.stats[market_id] = after.stats()
            changes.due[market_id] = next_due(after, changes.head.as_of, rules)
        changes.states[market_id] = after
        if undoable:
            undo.append(
                MarketUndo(
                    market_id,
                    created is not None,
                    record,
                    told.number,
                    before.last_price,
                    elapsed.changed,
                    tuple((c.interval.name, c.open_time, c.before) for c in told.candles),
                )
            )
    number_alerts(changes)
    if undoable:
        changes.trades = sorted(chain.from_iterable(changes.newest.values()), key=lambda trade: trade.id)
        taken_back = undo_of(watch, changes)
        changes.undo = BlockUndo(block, state.head.as_of, tuple(undo), resolved.digest, taken_back)
        changes.undo_dropped = state.no_longer_undoable(block, rules)
    else:
        changes.undo = BlockUndo(block, 0, ())
        changes.undo_dropped = [written.block.number for written in state.window]
    return changes


def _watch(watch: Watch, before: MarketState, told: "_Told", resolved: Resolved, changes: ChangeSet) -> None:
    """What the blocks make come true for one market."""
    market = before.market.id
    if market in resolved.created:
        number = before.market.created_block
        created = next(block for block in resolved.blocks if block.number == number)
        raise_announced(watch, AlertKind.MARKET_CREATED, market, created, changes)
    if told.candles:
        changes.minutes[market] = told.minutes.merged
        raise_alerts(watch, before, told.newest, told.minutes, changes)
    if market in resolved.graduated_in and before.market.status != GRADUATED:
        raise_announced(watch, AlertKind.GRADUATED, market, resolved.graduated_in[market], changes)


class _Told(NamedTuple):
    """A market after its trades, and what these change.

    Attributes:
        number: of trades.
        newest: those that may be kept.
        candles: those that are not folded in bulk.
        outgrown: see `outgrown`.
        minutes: of the trades that are not in bulk.
    """

    number: int
    after: MarketState
    newest: Sequence[Trade] = ()
    candles: Sequence[CandleChange] = ()
    outgrown: Sequence[Interval] = ()
    minutes: Minutes = Minutes()


def _fold_bulk(
    resolved: Resolved, markets: Mapping[MarketId, MarketState], rules: Rules, changes: ChangeSet
) -> dict[MarketId, BulkFold]:
    """What the trades in bulk come to. Counts those without a price; what is left joins the others."""
    if resolved.trades is None or not resolved.bulk:
        return {}
    whose = {emitter: market_id for market_id, emitter in resolved.bulk.items()}
    count = len(rules.intervals)
    new = {market.id: MarketState.new(market, count) for market in resolved.created.values()}
    states = {emitter: new.get(market_id) or markets[market_id] for emitter, market_id in whose.items()}
    folds = resolved.trades.fold(states, rules)
    changes.more_candles = folds.candles
    if zeros := sum(fold.zero_amounts for fold in folds.markets.values()):
        resolved.rejected[ZERO_AMOUNT] += zeros
    for ref, swap in resolved.trades.swaps(folds.left) if folds.left else ():
        if swap.base and swap.quote:
            market_id = whose[Emitter(swap.source, swap.market)]
            resolved.swaps.setdefault(market_id, []).append((ref, swap))
        else:
            resolved.rejected[ZERO_AMOUNT] += 1
    return {whose[emitter]: fold for emitter, fold in folds.markets.items()}


def _told(
    before: MarketState,
    elapsed: RollingDay,
    swaps: Iterable[tuple[BlockRef, Swapped]],
    fold: BulkFold | None,
    rules: Rules,
    changes: ChangeSet,
) -> _Told:
    """Fold a market's trades: single ones, or what they come to in bulk."""
    market, as_of = before.market, changes.head.as_of
    if fold is not None:
        if fold.minutes is None:
            return _Told(0, before)
        day = elapsed.extend(fold.minutes, as_of)
        after = MarketState(market, fold.live, day, fold.last_price)
        return _Told(fold.trades, after, fold.newest, (), fold.outgrown)
    trades = [_trade(market.id, market.price_exponent, ref, swap, rules) for ref, swap in swaps]
    if not trades:
        return _Told(0, before)
    before = before._replace(live=tuple(before.live))
    minutes = minutes_of(trades)
    after, candles = fold_minutes(before, minutes, rules)
    merged = [c.after for c in candles if c.interval is rules.intervals[0] and c.after]
    after = after._replace(day=elapsed.add(merged, as_of))
    outgrown_ = _outgrown(before, after, rules)
    return _Told(len(trades), after, trades, candles, outgrown_, Minutes(minutes, merged))


def minutes_of(trades: Sequence[Trade]) -> list[Candle]:
    """Trades, in order, folded by the minute."""
    return [
        Candle.of(list(bucket), open_time)
        for open_time, bucket in groupby(trades, lambda trade: ONE_MINUTE.open_time(trade.timestamp))
    ]


def fold_minutes(
    state: MarketState, minutes: Sequence[Candle], rules: Rules
) -> tuple[MarketState, list[CandleChange]]:
    """Fold minutes, in order, into a market's candles of every interval.

    The candles of an interval are folded from those of the widest one that fits into it. The day stays as it
    is.
    """
    if len(minutes) == 1:
        return _fold_minute(state, minutes[0], rules)
    parts: list[Sequence[Candle]] = [minutes]
    for interval, base in zip(rules.intervals[1:], rules.bases, strict=True):
        parts.append(_wider(parts[base], interval))
    changes: list[CandleChange] = []
    live: list[Candle | None] = []
    for interval, stored, folded in zip(rules.intervals, state.live, parts, strict=True):
        previous_close = stored.close if stored else state.last_price
        before, candle = stored, stored
        for part in folded:
            if before is not None and before.open_time == part.open_time:
                candle = before.merge(part)
            else:
                before = None
                candle = Candle(*part[:-1], previous_close)
            changes.append(CandleChange(state.market.id, interval, part.open_time, candle, before))
            previous_close, before = candle.close, None
        live.append(candle)
    return MarketState(state.market, tuple(live), state.day, minutes[-1].close), changes


def _fold_minute(state: MarketState, minute: Candle, rules: Rules) -> tuple[MarketState, list[CandleChange]]:
    """The same for one minute, as it is near the head."""
    changes: list[CandleChange] = []
    live: list[Candle] = []
    market_id, content = state.market.id, minute[1:-1]
    for interval, stored in zip(rules.intervals, state.live, strict=True):
        open_time = interval.open_time(minute.open_time)
        if stored is not None and stored.open_time == open_time:
            candle, before = stored.merge(minute), stored
        else:
            candle = Candle(open_time, *content, stored.close if stored else state.last_price)
            before = None
        changes.append(CandleChange(market_id, interval, open_time, candle, before))
        live.append(candle)
    return MarketState(state.market, tuple(live), state.day, minute.close), changes


def _wider(candles: Sequence[Candle], interval: Interval) -> list[Candle]:
    """Candles of a wider interval, made of those of one that fits into it."""
    wider: list[Candle] = []
    start, open_time = 0, interval.open_time(candles[0].open_time)
    for place in range(1, len(candles)):
        following = candles[place].open_time
        if following >= open_time + interval.ms:
            wider.append(Candle.joined(candles[start:place], open_time))
            start, open_time = place, interval.open_time(following)
    wider.append(Candle.joined(candles[start:], open_time))
    return wider


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
        return oldest + DAY_MS
    expiries = [
        candle.open_time + rules.retention_ms[interval.name] + MINUTE_MS
        for interval, candle in zip(rules.intervals, state.live, strict=True)
        if candle is not None and interval.name in rules.retention_ms
    ]
    return max(min(expiries), as_of + SWEEP_RETRY_MS) if expiries else None


def trims(
    market: MarketId, outgrown: Iterable[Interval], final: Timestamp, rules: Rules
) -> list[tuple[MarketId, Interval, Timestamp]]:
    """Candles that may go because newer ones came: final ones, older than their interval's retention."""
    return [
        (market, interval, final - rules.retention_ms[interval.name])
        for interval in outgrown
        if interval.name in rules.retention_ms
    ]


def _outgrown(before: MarketState, after: MarketState, rules: Rules) -> list[Interval]:
    """Intervals whose newest candle has outgrown the one before."""
    return [
        interval
        for interval, old, new in zip(rules.intervals, before.live, after.live, strict=True)
        if old is not None and new is not None and outgrown(interval, old.open_time, new.open_time)
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
    trades: int,
    undoable: bool,  # noqa: FBT001
) -> int:
    """Trades of a market that a reorg could still take back."""
    return state.pending[market] + trades if undoable else 0


def _trade(market: MarketId, exponent: int, ref: BlockRef, swap: Swapped, rules: Rules) -> Trade:
    return Trade(
        market,
        ref.number,
        swap.log_index,
        ref.hash,
        swap.tx_hash,
        ref.timestamp,
        swap.is_buy,
        swap.trader,
        swap.base,
        swap.quote,
        swap.fee,
        swap.reserves,
        exponent,
        rules.price_mode == "spot",
    )

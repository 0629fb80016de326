"""Undo orphaned blocks: restore before-images, newest first. Pure.

Candles, records and the registry are restored; 24 h figures never are, they are folded anew from the
restored minutes, because time may have passed since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from listener.application.changes import BlockUndo, CandleChange, ChangeSet, MarketState
from listener.application.rules import Rules
from listener.application.state import StreamState
from listener.application.use_cases.process_block import next_due
from listener.application.use_cases.raise_alerts import take_back
from listener.domain.alerts import AlertRule
from listener.domain.entities import Candle, Market
from listener.domain.events import ReorgDetected
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import DAY_MS, BlockRef, Interval, MarketId, Timestamp

NO_ALERT_RULES: Final[Mapping[str, AlertRule]] = {}


def roll_back(
    state: StreamState,
    ancestor: BlockRef,
    undos: Sequence[BlockUndo],
    markets: Mapping[MarketId, Market],
    minutes: Mapping[MarketId, Sequence[Candle]],
    rules: Rules,
    *,
    live: bool,
    alert_rules: Mapping[str, AlertRule] = NO_ALERT_RULES,
) -> ChangeSet:
    """The change set that makes `ancestor` the head again.

    Args:
        state: what is committed.
        ancestor: the newest block of ours that the node's chain has too.
        undos: before-images of every block above it, newest first.
        markets: records of the affected markets as committed.
        minutes: their committed one-minute candles from `minutes_since(undos)`.
        rules: the settings that matter.
        live: tell the backend.
        alert_rules: those that there are, by id.
    """
    head = replace(
        state.head,
        number=ancestor.number,
        hash=ancestor.hash,
        timestamp=ancestor.timestamp,
        gen=state.head.gen + 1,
    )
    changes = ChangeSet(base=state.head, head=head, live=live)
    restored: dict[tuple[MarketId, str, Timestamp], Candle | None] = {}
    day_starts: dict[MarketId, RollingDay] = {}
    last_prices = {}
    records = dict(markets)
    for undo in undos:
        take_back(undo.alerts, alert_rules, changes)
        for market in undo.markets:
            changes.dropped_trades[market.market] = (
                changes.dropped_trades.get(market.market, 0) + market.trades
            )
            for interval, open_time, before in market.candles:
                restored[market.market, interval, open_time] = before
            last_prices[market.market] = market.last_price
            day_starts[market.market] = RollingDay.of((), market.changed)
            if market.created:
                changes.removed[market.market] = records[market.market]
            elif market.record is not None:
                records[market.market] = changes.records[market.market] = market.record
    intervals = {interval.name: interval for interval in rules.intervals}
    changes.candles = [
        CandleChange(market_id, intervals[name], open_time, before, None)
        for (market_id, name, open_time), before in restored.items()
    ]
    for market_id, start in day_starts.items():
        if market_id in changes.removed:
            changes.records.pop(market_id, None)
            changes.stats[market_id] = None
            changes.due[market_id] = None
            continue
        kept = _restored_minutes(market_id, minutes.get(market_id, ()), restored, rules.intervals[0])
        day = RollingDay.of(kept, start.changed).with_minutes(head.as_of, kept).advance(head.as_of)
        after = MarketState(records[market_id], (None,) * len(rules.intervals), day, last_prices[market_id])
        changes.states[market_id] = after
        changes.stats[market_id] = after.stats()
        changes.due[market_id] = next_due(after, head.as_of, rules) or head.as_of
    changes.undo_dropped = [undo.block.number for undo in undos]
    buckets = [open_time for _, _, open_time in restored]
    changes.reorg = ReorgDetected(
        ancestor,
        tuple(undo.block.hash for undo in reversed(undos)),
        tuple(sorted(day_starts)),
        min(buckets, default=ancestor.timestamp),
    )
    return changes


def minutes_since(undos: Sequence[BlockUndo]) -> Timestamp:
    """From when on one-minute candles matter: the day as it stood when any market's figures last changed."""
    changes = [market.changed for undo in undos for market in undo.markets if market.last_price is not None]
    return min(changes, default=undos[-1].as_of) - DAY_MS


def _restored_minutes(
    market: MarketId,
    stored: Sequence[Candle],
    restored: Mapping[tuple[MarketId, str, Timestamp], Candle | None],
    minute: Interval,
) -> list[Candle]:
    """The stored one-minute candles, those of orphaned blocks replaced by their before-images."""
    candles: list[Candle] = []
    for candle in stored:
        key = (market, minute.name, candle.open_time)
        before = restored.get(key, candle)
        if before is not None:
            candles.append(before)
    return candles

"""Let time pass: statistics roll off, candles close and idle markets shrink without a trade. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from listener.application.changes import ChangeSet, MarketState
from listener.application.rules import Rules
from listener.application.state import StreamState
from listener.application.use_cases.process_block import HISTORY_REASON, closed_by, next_due
from listener.domain.entities import Candle
from listener.domain.value_objects import MarketId, Timestamp


def refresh(
    state: StreamState,
    markets: Mapping[MarketId, MarketState],
    as_of: Timestamp,
    closing: Timestamp,
    rules: Rules,
    *,
    live: bool,
) -> ChangeSet | None:
    """Bring `markets` to `as_of`; None if nothing changes.

    Args:
        state: what is committed.
        markets: the markets that are due, able to advance.
        as_of: not before the committed one.
        closing: candles that end by this instant are closed.
        rules: the settings that matter.
        live: tell the backend.
    """
    changes = ChangeSet(base=state.head, head=replace(state.head, as_of=as_of), live=live)
    changes.closed = closed_by(state, closing, rules)
    if live and state.resync_owed:
        changes.reason = HISTORY_REASON
    for market_id, before in markets.items():
        after = before._replace(
            day=before.day.advance(as_of), live=_without_expired(before, state.final_timestamp, rules)
        )
        for index, interval in enumerate(rules.intervals):
            if before.live[index] is not None and interval.name in rules.retention_ms:
                oldest = state.final_timestamp - rules.retention_ms[interval.name]
                changes.trims.append((market_id, interval, oldest))
        changes.states[market_id] = after
        changes.due[market_id] = next_due(after, as_of, rules)
        if after.day is not before.day:
            changes.stats[market_id] = after.stats()
    if changes.states or changes.closed or changes.reason or as_of > state.head.as_of:
        return changes
    return None


def _without_expired(state: MarketState, final: Timestamp, rules: Rules) -> tuple[Candle | None, ...]:
    return tuple(
        None
        if candle is not None
        and interval.name in rules.retention_ms
        and candle.open_time < final - rules.retention_ms[interval.name]
        else candle
        for interval, candle in zip(rules.intervals, state.live, strict=True)
    )

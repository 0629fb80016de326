"""RaiseAlerts: which rules come true with what blocks change. Pure, and a part of the same change set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, NamedTuple

from listener.application.changes import AlertUndo, ChangeSet, MarketState
from listener.domain.alert_calm import Before, calm_of
from listener.domain.alert_gauges import Reading, Trail, read_gauges
from listener.domain.alert_index import RuleIndex
from listener.domain.alert_ladder import Calm, Ladders
from listener.domain.alerts import Alert, AlertKind, AlertRule, StateKey
from listener.domain.entities import Candle, Trade
from listener.domain.value_objects import BlockRef, MarketId


@dataclass(frozen=True, slots=True)
class Watch:
    """The rules as they stand at the head. Not modified.

    Attributes:
        trails: of the touched markets that exist and have rules that look back.
    """

    index: RuleIndex
    trails: Mapping[MarketId, Trail]


class Minutes(NamedTuple):
    """One-minute candles of a market.

    Attributes:
        traded: of some trades alone.
        merged: as they are stored with these.
    """

    traded: Sequence[Candle] = ()
    merged: Sequence[Candle] = ()


CALM_REMEMBERED: Final = 20_000
"""Markets for which is known how far nothing happens, some 200 bytes each."""
NOTHING_WATCHED: Final = Watch(RuleIndex(), {})


class _Walk(NamedTuple):
    """One rule through readings.

    Attributes:
        hits: trades with which it came true, and what was measured.
        fired: in which block it last did; None: it is armed.
    """

    hits: Sequence[tuple[Trade, Decimal]]
    fired: int | None


def raise_alerts(
    watch: Watch, before: MarketState, trades: Sequence[Trade], minutes: Minutes, changes: ChangeSet
) -> None:
    """Add to `changes` what a market's trades make come true.

    Args:
        watch: the rules.
        before: the market before these trades.
        trades: one by one, in order; at least one.
        minutes: the same, folded by the minute, and the minutes that come of it.
        changes: gets alerts and states.
    """
    index, market = watch.index, before.market.id
    calm = index.calm.get(market)
    if calm is not None and calm.holds(minutes.traded, minutes.merged, trades):
        return
    both = index.ladders(market)
    if not any(both):
        return
    trail = watch.trails.get(market)
    if trail is None:
        trail = Trail(0)
    if calm is None or calm.minute != minutes.traded[0].open_time:
        calm = _calm(index, before, minutes, trail)
        if calm.holds(minutes.traded, minutes.merged, trades):
            return
    _look_closer(both, before, trades, trail, index, changes)


def _calm(index: RuleIndex, before: MarketState, minutes: Minutes, trail: Trail) -> Calm:
    """How far nothing happens in the minute of a market's trades; remembered."""
    if len(index.calm) >= CALM_REMEMBERED:
        index.calm.clear()
    traded, merged = minutes.traded[0], minutes.merged[0]
    earlier = merged.quote - traded.quote
    state = Before(before.market, before.last_price, traded.open_time, earlier, trail)
    calm = index.calm[before.market.id] = calm_of(state, index.ladders(before.market.id))
    return calm


def _look_closer(
    both: tuple[Ladders, Ladders],
    before: MarketState,
    trades: Sequence[Trade],
    trail: Trail,
    index: RuleIndex,
    changes: ChangeSet,
) -> None:
    """Read every gauge with every trade, and hold what it shows against the rules that it may move."""
    gauges = {*both[0], *both[1]}
    if any(gauge.window_ms for gauge in gauges):
        trail = trail.copy()
    for gauge, shown in read_gauges(gauges, before.market, before.last_price, trades, trail).items():
        values = [reading.value for reading in shown]
        for ladders in both if values else ():
            if gauge in ladders:
                for rule in ladders[gauge].moved_by(min(values), max(values)):
                    _hold(rule, before.market.id, shown, index, changes)


def _hold(
    rule: AlertRule, market: MarketId, shown: Sequence[Reading], index: RuleIndex, changes: ChangeSet
) -> None:
    """Hold what a gauge shows of a market against a rule."""
    key = StateKey(rule.id, market)
    state = index.states.get(key)
    walk = _walk(rule, shown, state)
    if walk.fired != state:
        changes.alert_states[key] = walk.fired
    changes.alerts += [Alert.by_trade(rule, trade, value) for trade, value in walk.hits]


def _walk(rule: AlertRule, readings: Iterable[Reading], fired: int | None) -> _Walk:
    """Hold readings against a rule, in order."""
    condition = rule.condition
    rises, threshold, back_at = condition.rises, condition.threshold or Decimal(0), condition.back_at
    hits: list[tuple[Trade, Decimal]] = []
    for value, trade, block in readings:
        if block <= rule.since:
            continue
        if fired is not None:
            if not condition.repeat:
                break
            if value < back_at if rises else value > back_at:
                fired = None
        elif trade and (value >= threshold if rises else value <= threshold):
            hits.append((trade, value))
            if condition.has_state:
                fired = block
    return _Walk(hits, fired)


def raise_announced(
    watch: Watch, kind: AlertKind, market: MarketId, block: BlockRef, changes: ChangeSet
) -> None:
    """Add to `changes` the alerts of rules that wait for a creation or a graduation."""
    changes.alerts += [
        Alert.of(rule, market, block.number, block.hash, block.timestamp)
        for rule in watch.index.announced(kind, market)
        if rule.since < block.number
    ]


def number_alerts(changes: ChangeSet) -> None:
    """Put alerts into the order in which they are told: by place on the chain, then by rule.

    Of what is not live, theirs are the only rows, and the head counts them: the next run of history is folded
    on top before this one is committed.
    """
    changes.alerts.sort(key=_place)
    if not changes.live:
        changes.head = replace(changes.head, seq=changes.base.seq + len(changes.alerts))


def _place(alert: Alert) -> tuple[int, int, int, MarketId, str]:
    if alert.trade is not None:
        return alert.block, 1, alert.trade.log_index, alert.market, alert.rule
    created = alert.kind is AlertKind.MARKET_CREATED
    return alert.block, 0 if created else 2, 0, alert.market, alert.rule


def undo_of(watch: Watch, changes: ChangeSet) -> AlertUndo:
    """How to take back what one block made come true."""
    states = watch.index.states
    return AlertUndo(tuple(changes.alerts), tuple((key, states.get(key)) for key in changes.alert_states))


def take_back(undo: AlertUndo, rules: Mapping[str, AlertRule], changes: ChangeSet) -> None:
    """Add to `changes` the retractions of an orphaned block; called for the newest one first.

    An alert is retracted even if its rule is gone since; a state comes back only to a rule.
    """
    changes.alerts += [alert._replace(retracted=True) for alert in reversed(undo.fired)]
    changes.alert_states.update({key: block for key, block in undo.states if key.rule in rules})

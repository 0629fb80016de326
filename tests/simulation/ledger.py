"""What must be stored after any block of any fork: trades in a list, and every figure folded from it anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from listener.application.rules import Rules
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.facts import BlockFacts, Graduated, Malformed, MarketAnnounced, Swapped
from listener.domain.value_objects import BlockRef, Interval, MarketId, Timestamp
from tests import alert_oracle
from tests.fakes.brute import changed_minute, day_of, figures_of, series_of
from tests.fakes.build import FACTORY
from tests.simulation.timeline import Timeline

DIGITS: Final = Context(prec=24, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)

Series = dict[Timestamp, Candle]


@dataclass
class Truth:
    """What one block makes of the chain below it.

    Attributes:
        trades: in the order of the chain.
    """

    block: BlockRef
    records: dict[MarketId, Market] = field(default_factory=dict)
    sources: dict[str, MarketId] = field(default_factory=dict)
    trades: dict[MarketId, tuple[Trade, ...]] = field(default_factory=dict)
    series: dict[tuple[MarketId, str], Series] = field(default_factory=dict)
    days: dict[Timestamp, dict[MarketId, MarketStats]] = field(default_factory=dict)

    def stats(self, as_of: Timestamp) -> dict[MarketId, MarketStats]:
        """The 24 h figures of every market that has traded."""
        minute = as_of // 60_000
        known = self.days.get(minute)
        if known is None:
            known = self.days[minute] = {
                market: self._day(trades, minute * 60_000) for market, trades in self.trades.items()
            }
        return known

    def _day(self, trades: tuple[Trade, ...], as_of: Timestamp) -> MarketStats:
        return MarketStats(
            changed_minute(trades, as_of), trades[-1].price, _candle(day_of(trades, as_of), None)
        )


class Alerts(NamedTuple):
    """Alerts of all blocks up to one, by id and block hash, and how the rules stand."""

    told: Mapping[tuple[str, str], alert_oracle.Alert]
    states: alert_oracle.States


class Ledger:
    """Truths by block hash, worked out once each.

    Args:
        base: number of the block below the first that matters.
    """

    def __init__(self, timeline: Timeline, rules: Rules, base: int) -> None:
        self._timeline = timeline
        self._rules = rules
        self._base = base
        self._truths: dict[str, Truth] = {}
        self._alerts: dict[str, Alerts] = {}

    def alerts_at(self, block_hash: str, rules: Sequence[alert_oracle.Rule]) -> Alerts:
        """What the same rules, always, have come to after a block."""
        known = self._alerts.get(block_hash)
        if known is None:
            facts = self._timeline.born[block_hash][1]
            if facts.block.number <= self._base:
                known = Alerts({}, {})
            else:
                known = self._alerts_after(facts.block, rules)
            self._alerts[block_hash] = known
        return known

    def _alerts_after(self, block: BlockRef, rules: Sequence[alert_oracle.Rule]) -> Alerts:
        before, after = self.at(block.parent_hash), self.at(block.hash)
        told, states = self.alerts_at(block.parent_hash, rules)
        past = {market: [_tick(trade) for trade in trades] for market, trades in before.trades.items()}
        ticks = sorted(
            (_tick(t) for trades in after.trades.values() for t in trades if t.block == block.number),
            key=lambda tick: tick.log_index,
        )
        created = {market: record.created_at for market, record in after.records.items()}
        announced = _announced(before, after)
        alerts, states = alert_oracle.after_block(rules, past, ticks, announced, created, states)
        return Alerts(told | {(alert["id"], alert["bh"]): alert for alert in alerts}, states)

    def at(self, block_hash: str) -> Truth:
        """The truth after a block."""
        truth = self._truths.get(block_hash)
        if truth is None:
            facts = self._timeline.born[block_hash][1]
            if facts.block.number <= self._base:
                truth = Truth(facts.block)
            else:
                truth = self._after(self.at(facts.block.parent_hash), facts)
            self._truths[block_hash] = truth
        return truth

    def _after(self, before: Truth, facts: BlockFacts) -> Truth:
        truth = Truth(
            facts.block, dict(before.records), dict(before.sources), dict(before.trades), dict(before.series)
        )
        self._admit(truth, facts)
        traded: set[MarketId] = set()
        for fact in facts.facts:
            if isinstance(fact, MarketAnnounced | Malformed):
                continue
            market = truth.sources.get(fact.source)
            if market is None or fact.market not in {None, market}:
                continue
            if fact.source not in before.sources and not _in_time(fact, facts):
                continue
            if isinstance(fact, Graduated):
                record = truth.records[market]
                truth.records[market] = replace(record, status="graduated", successor=fact.successor)
            elif fact.base and fact.quote:
                trade = self._trade(truth.records[market], facts.block, fact)
                truth.trades[market] = (*truth.trades.get(market, ()), trade)
                traded.add(market)
        for market in traded:
            for interval in self._rules.intervals:
                truth.series[market, interval.name] = _series(truth.trades[market], interval)
        return truth

    def _admit(self, truth: Truth, facts: BlockFacts) -> None:
        for fact in facts.facts:
            if not isinstance(fact, MarketAnnounced) or fact.announcer != FACTORY:
                continue
            if fact.market in truth.records or fact.source in truth.sources:
                continue
            info = self._timeline.local.tokens.get(fact.token)
            if info is None:
                continue
            truth.sources[fact.source] = fact.market
            truth.records[fact.market] = Market(
                fact.market, "bonding_curve", fact.source, fact.token, fact.quote,
                self._rules.native_symbol, info.decimals, 18, info.name, info.symbol, fact.creator,
                facts.block.number, facts.block.timestamp,
            )  # fmt: skip

    def _trade(self, market: Market, block: BlockRef, swap: Swapped) -> Trade:
        execution = _price(swap.quote, swap.base, market)
        spot = None
        if swap.reserves and swap.reserves[0] and swap.reserves[1]:
            spot = _price(swap.reserves[1], swap.reserves[0], market)
        trade = Trade(
            market.id, block.number, swap.log_index, block.hash, swap.tx_hash, block.timestamp,
            swap.is_buy, swap.trader, swap.base, swap.quote, swap.fee, swap.reserves,
            market.price_exponent, self._rules.price_mode == "spot",
        )  # fmt: skip
        price = spot if spot is not None and self._rules.price_mode == "spot" else execution
        assert (trade.price, trade.execution_price, trade.spot_price) == (price, execution, spot)
        return trade


def _tick(trade: Trade) -> alert_oracle.Tick:
    return alert_oracle.Tick(
        trade.market,
        trade.block,
        trade.log_index,
        trade.block_hash,
        trade.timestamp,
        Fraction(trade.price),
        Fraction(trade.quote, 10**18),
    )


def _announced(before: Truth, after: Truth) -> list[alert_oracle.Announcement]:
    """Creations and first graduations of a block."""
    block, found = after.block, []
    for market, record in after.records.items():
        was = before.records.get(market)
        kinds = ["market_created"] if was is None else []
        if record.status == "graduated" and (was is None or was.status != "graduated"):
            kinds.append("graduated")
        found += [
            alert_oracle.Announcement(kind, market, block.number, block.hash, block.timestamp)
            for kind in kinds
        ]
    return found


def _price(quote: int, base: int, market: Market) -> Decimal:
    shift = market.base_decimals - market.quote_decimals
    return DIGITS.divide(Decimal(quote * 10 ** max(shift, 0)), Decimal(base * 10 ** max(-shift, 0)))


def _in_time(fact: Swapped | Graduated, facts: BlockFacts) -> bool:
    """Whether the first announcement of its emitter in this block came before it, or in its transaction."""
    first = next(
        other
        for other in facts.facts
        if isinstance(other, MarketAnnounced) and other.source == fact.source and other.announcer == FACTORY
    )
    return first.log_index < fact.log_index or first.tx_hash == fact.tx_hash


def _series(trades: tuple[Trade, ...], interval: Interval) -> Series:
    inside: dict[Timestamp, list[Trade]] = {time: [] for time in series_of(trades, interval)}
    for trade in trades:
        inside[interval.open_time(trade.timestamp)].append(trade)
    series: Series = {}
    previous = None
    for time in sorted(inside):
        candle = _candle(inside[time], previous)
        assert candle is not None
        series[time] = candle._replace(open_time=time)
        previous = candle.close
    return series


def _candle(trades: list[Trade], previous: Decimal | None) -> Candle | None:
    figures = figures_of(trades)
    if figures is None:
        return None
    minute = trades[0].timestamp // 60_000 * 60_000
    return Candle(minute, *figures, trades[0].id, trades[-1].id, previous)


def kept_from(rules: Rules, head: BlockRef) -> Mapping[str, Timestamp]:
    """By interval, the open time from which on candles must be stored."""
    return {
        interval.name: head.timestamp - rules.retention_ms[interval.name]
        for interval in rules.intervals
        if interval.name in rules.retention_ms
    }

"""Which alerts must come of a chain, worked out the slow way. Shares no code with the listener.

Rules have the form of the public contract. Every rule is held against every trade of its market, one after
the other, and everything measured is counted from the list of all trades.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.oracle import DAY_MS, MINUTE_MS, decimal_string, round_significant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.oracle import Chain, Expected

Rule = dict[str, Any]
Alert = dict[str, Any]
States = dict[tuple[str, str], int]


class Tick(NamedTuple):
    """A trade: `t` in milliseconds, price and quote amount in whole tokens."""

    market: str
    block: int
    log_index: int
    block_hash: str
    t: int
    price: Fraction
    quote: Fraction


class Announcement(NamedTuple):
    """A market was created, or graduated for the first time (`kind` as in a rule)."""

    kind: str
    market: str
    block: int
    block_hash: str
    t: int


def minute(t: int) -> int:
    """Start of the minute."""
    return t // MINUTE_MS * MINUTE_MS


def measure(rule: Rule, ticks: Sequence[Tick], now: int, created: int) -> Fraction | None:
    """What a rule measures at the minute `now`, given all trades of the market so far."""
    kind = rule["kind"]
    if kind in {"price_above", "price_below"}:
        return ticks[-1].price if ticks else None
    first = now - rule["windowMs"] + MINUTE_MS
    if kind == "change":
        if not ticks:
            return None
        earlier = [tick for tick in ticks if minute(tick.t) < first]
        reference = earlier[-1].price if earlier else ticks[0].price
        return round_significant(100 * (ticks[-1].price - reference) / reference)
    day = max(now - DAY_MS + MINUTE_MS, minute(created))
    if first - day < rule["windowMs"]:
        return None
    inside = sum((tick.quote for tick in ticks if first <= minute(tick.t)), Fraction(0))
    usual = sum((tick.quote for tick in ticks if day <= minute(tick.t) < first), Fraction(0))
    if usual == 0:
        return None
    return round_significant((inside / rule["windowMs"]) / (usual / (first - day)))


def rises(rule: Rule) -> bool:
    """Whether the rule waits for a value at its threshold and above."""
    return rule["kind"] != "price_below" and not rule["threshold"].startswith("-")


def reached(rule: Rule, value: Fraction) -> bool:
    """Whether the rule comes true."""
    threshold = Fraction(rule["threshold"])
    return value >= threshold if rises(rule) else value <= threshold


def back(rule: Rule, value: Fraction) -> bool:
    """Whether a rule that came true is armed again."""
    threshold, share = Fraction(rule["threshold"]), Fraction(rule.get("hysteresis", "0")) / 100
    if rises(rule):
        return value < threshold - abs(threshold) * share
    return value > threshold + abs(threshold) * share


def record(rule: Rule, place: Tick | Announcement, value: Fraction | None) -> Alert:
    """The alert of a rule that came true."""
    log_index = place.log_index if isinstance(place, Tick) else 0
    whose = "" if rule.get("market") else f"-{place.market}"
    alert = {
        "id": f"{rule['id']}-{place.block}-{log_index}{whose}",
        "rule": rule["id"],
        "kind": rule["kind"],
        "s": place.market,
        "b": place.block,
        "bh": place.block_hash,
        "t": place.t,
    }
    if isinstance(place, Tick):
        alert["trade"] = f"{place.block}-{place.log_index}"
    if value is not None:
        alert["value"] = decimal_string(value)
    for name in ("threshold", "windowMs"):
        if name in rule:
            alert[name] = rule[name]
    return alert


def concerns(rule: Rule, place: Tick | Announcement) -> bool:
    """Whether a rule looks at a market, in that block."""
    return rule.get("market") in {None, place.market} and place.block > rule["since"]


def after_trade(
    rule: Rule, before: Sequence[Tick], tick: Tick, states: States, created: int
) -> Iterable[Alert]:
    """What one trade does to one rule; changes `states`."""
    key = (rule["id"], tick.market)
    every = rule["kind"] == "trade_size"
    now = minute(tick.t)
    if not every and rule.get("repeat"):
        was = measure(rule, before, now, created)
        if key in states and was is not None and back(rule, was):
            del states[key]
    value = tick.quote if every else measure(rule, [*before, tick], now, created)
    if value is None:
        return
    if key in states:
        if rule.get("repeat") and back(rule, value):
            del states[key]
    elif reached(rule, value):
        if not (every and rule.get("repeat")):
            states[key] = tick.block
        yield record(rule, tick, value)


def after_block(
    rules: Iterable[Rule],
    before: Mapping[str, Sequence[Tick]],
    ticks: Sequence[Tick],
    announced: Iterable[Announcement],
    created: Mapping[str, int],
    states: States,
) -> tuple[list[Alert], States]:
    """Alerts of one block, in no order, and how the rules stand after it.

    Args:
        rules: all of them.
        before: all trades of each market before the block.
        ticks: the block's trades, in order.
        announced: creations and graduations in the block.
        created: when each market was created.
        states: in which block a rule came true, for the rules that are not armed, by rule and market.
    """
    states, alerts = dict(states), []
    past = {market: list(trades) for market, trades in before.items()}
    announcements = list(announced)
    for tick in ticks:
        trades = past.setdefault(tick.market, [])
        for rule in rules:
            if "threshold" in rule and concerns(rule, tick):
                alerts += after_trade(rule, trades, tick, states, created[tick.market])
        trades.append(tick)
    for place in announcements:
        waiting = [rule for rule in rules if rule["kind"] == place.kind and concerns(rule, place)]
        alerts += [record(rule, place, None) for rule in waiting]
    return alerts, states


def alerts_of(rules: Sequence[Rule], chain: Chain, expected: Expected) -> list[Alert]:
    """All alerts of a chain, by block; graduations are left out."""
    hashes = {block.number: block.hash for block in chain.blocks}
    by_block: dict[int, list[Tick]] = {}
    for market, ticks in expected.ticks.items():
        for tick in ticks:
            number, log_index = map(int, tick.id.split("-"))
            one = Tick(market, number, log_index, hashes[number], tick.t, tick.price, tick.quote)
            by_block.setdefault(number, []).append(one)
    creations: dict[int, list[Announcement]] = {}
    for market, record_ in expected.records.items():
        number, t = int(record_["createdBlock"]), int(record_["createdAt"])
        creation = Announcement("market_created", market, number, hashes[number], t)
        creations.setdefault(number, []).append(creation)
    alerts: list[Alert] = []
    states: States = {}
    past: dict[str, list[Tick]] = {}
    for number in sorted(hashes):
        ticks = sorted(by_block.get(number, []), key=lambda tick: tick.log_index)
        found, states = after_block(rules, past, ticks, creations.get(number, ()), expected.markets, states)
        alerts += sorted(found, key=lambda alert: alert["id"])
        for tick in ticks:
            past.setdefault(tick.market, []).append(tick)
    return alerts

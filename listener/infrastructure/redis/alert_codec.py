"""Alert rules and records between the domain and JSON, as in the public contract."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from listener.application.changes import AlertUndo
from listener.domain.alerts import Alert, AlertCondition, AlertKind, AlertRule, StateKey
from listener.domain.value_objects import MarketId, TradeId, format_decimal

Item = dict[str, Any]


def rule_item(rule: AlertRule) -> Item:
    """A rule; what does not apply is left out."""
    condition = rule.condition
    item: Item = {"id": rule.id, "kind": condition.kind.value}
    if condition.market is not None:
        item["market"] = condition.market
    if condition.threshold is not None:
        item["threshold"] = format_decimal(condition.threshold)
    if condition.window_ms is not None:
        item["windowMs"] = condition.window_ms
    item["repeat"] = condition.repeat
    item["hysteresis"] = format_decimal(condition.hysteresis)
    item["since"] = rule.since
    item["createdAt"] = rule.created_at
    if condition.note:
        item["note"] = condition.note
    return item


def encode_rule(rule: AlertRule) -> bytes:
    """A rule as it is stored."""
    return orjson.dumps(rule_item(rule))


def decode_rule(data: bytes) -> AlertRule:
    """Inverse of `encode_rule`."""
    item: Item = orjson.loads(data)
    own = {"id", "since", "createdAt"}
    condition = AlertCondition.parse({name: value for name, value in item.items() if name not in own})
    return AlertRule(item["id"], condition, item["since"], item["createdAt"])


def alert_item(alert: Alert) -> Item:
    """An alert record; what does not apply is left out."""
    item: Item = {
        "id": alert.id,
        "rule": alert.rule,
        "kind": alert.kind.value,
        "s": alert.market,
        "b": alert.block,
        "bh": alert.block_hash,
        "t": alert.timestamp,
    }
    if alert.trade is not None:
        item["trade"] = str(alert.trade)
    if alert.value is not None:
        item["value"] = format_decimal(alert.value)
    if alert.threshold is not None:
        item["threshold"] = format_decimal(alert.threshold)
    if alert.window_ms is not None:
        item["windowMs"] = alert.window_ms
    if alert.retracted:
        item["retracted"] = True
    return item


def decode_alert(item: Mapping[str, Any]) -> Alert:
    """Inverse of `alert_item`."""
    trade, value, threshold = item.get("trade"), item.get("value"), item.get("threshold")
    return Alert(
        item["id"],
        item["rule"],
        AlertKind(item["kind"]),
        MarketId(item["s"]),
        item["b"],
        item["bh"],
        item["t"],
        None if trade is None else TradeId.parse(trade),
        None if value is None else Decimal(value),
        None if threshold is None else Decimal(threshold),
        item.get("windowMs"),
        item.get("retracted", False),
    )


def encode_state_key(key: StateKey) -> str:
    """A field of the HASH of states."""
    return f"{key.rule}:{key.market}"


def decode_state_key(field: bytes) -> StateKey:
    """Inverse of `encode_state_key`."""
    rule, _, market = field.decode().partition(":")
    return StateKey(rule, MarketId(market))


def alert_undo_item(undo: AlertUndo) -> Item:
    """The part of a before-image that is about alerts."""
    return {
        "fired": [alert_item(alert) for alert in undo.fired],
        "states": [(*key, block) for key, block in undo.states],
    }


def decode_alert_undo(item: Mapping[str, Any]) -> AlertUndo:
    """Inverse of `alert_undo_item`."""
    return AlertUndo(
        tuple(decode_alert(alert) for alert in item["fired"]),
        tuple((StateKey(rule, MarketId(market)), block) for rule, market, block in item["states"]),
    )


def carry_alerts(from_undo: bytes, to_undo: bytes) -> bytes | None:
    """The second before-image with the alerts of the first; None if it has none, or is of another block."""
    first: Item = orjson.loads(from_undo)
    if "alerts" not in first:
        return None
    second: Item = orjson.loads(to_undo)
    if first["block"] != second["block"]:
        return None
    return orjson.dumps(second | {"alerts": first["alerts"]})

"""Alerts: what somebody waits for, and the record of its coming true.

Prices are quote per base in whole tokens, percentages are in per cent, times in milliseconds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple, Self

from listener.domain.entities import Trade
from listener.domain.errors import InvalidRule
from listener.domain.value_objects import (
    DAY_MS,
    EXACT,
    MINUTE_MS,
    MarketId,
    Timestamp,
    TradeId,
)


class AlertKind(StrEnum):
    """What is waited for."""

    PRICE_ABOVE = "price_above"
    PRICE_BELOW = "price_below"
    CHANGE = "change"
    VOLUME_SPIKE = "volume_spike"
    TRADE_SIZE = "trade_size"
    MARKET_CREATED = "market_created"
    GRADUATED = "graduated"


ANNOUNCED: Final = frozenset({AlertKind.MARKET_CREATED, AlertKind.GRADUATED})
"""Kinds that measure nothing: they have neither threshold nor state."""
WINDOWS_MS: Final = {AlertKind.CHANGE: DAY_MS, AlertKind.VOLUME_SPIKE: DAY_MS // 2}
"""Kinds that look back, and their longest window; the shortest is a minute."""
STATELESS: Final = "trade_size, market_created and graduated"
"""Kinds for which it does not matter what came before, where they repeat."""
NOTE_CHARACTERS_MAX: Final = 200
MARKET_CHARACTERS_MAX: Final = 200
RULE_ID: Final = re.compile(r"[A-Za-z0-9_]{1,32}")
HUNDRED: Final = Decimal(100)
_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")
_FIELDS: Final = frozenset({"kind", "market", "threshold", "windowMs", "repeat", "hysteresis", "note"})


@dataclass(frozen=True, slots=True)
class AlertCondition:
    """What a rule waits for, as its owner states it.

    Attributes:
        market: None: each market by itself.
        threshold: a price; for `change` per cent, with its sign; for `volume_spike` a multiple of the usual
            volume; for `trade_size` a quote amount in whole tokens; None where nothing is measured.
        window_ms: whole minutes, for the kinds in `WINDOWS_MS`.
        repeat: it may come true again; otherwise once, and once for each market.
        hysteresis: per cent of the threshold that what is measured must go back before it may come true
            again.
        note: for people.
    """

    kind: AlertKind
    market: MarketId | None = None
    threshold: Decimal | None = None
    window_ms: int | None = None
    repeat: bool = False
    hysteresis: Decimal = Decimal(0)
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what can never come true, or would always.

        Raises:
            InvalidRule: see its message.
        """
        if self.market is not None and not 0 < len(self.market) <= MARKET_CHARACTERS_MAX:
            raise InvalidRule(f"market: 1 to {MARKET_CHARACTERS_MAX} characters")
        if len(self.note) > NOTE_CHARACTERS_MAX:
            raise InvalidRule(f"note: at most {NOTE_CHARACTERS_MAX} characters")
        self._check_threshold()
        self._check_window()
        if not 0 <= self.hysteresis < HUNDRED:
            raise InvalidRule("hysteresis: 0 or more, and less than 100 per cent")
        if self.hysteresis and not (self.repeat and self.has_state):
            raise InvalidRule(f"hysteresis: only for rules that repeat, and not for {STATELESS}")

    def _check_threshold(self) -> None:
        if self.kind in ANNOUNCED:
            if self.threshold is not None:
                raise InvalidRule(f"threshold: {self.kind} has none")
        elif self.threshold is None or not self.threshold.is_finite():
            raise InvalidRule(f"threshold: {self.kind} needs one")
        elif self.kind is AlertKind.CHANGE:
            if not self.threshold or self.threshold <= -HUNDRED:
                raise InvalidRule("threshold: a change in per cent, not 0 and above -100")
        elif self.threshold <= 0:
            raise InvalidRule("threshold: above 0")

    def _check_window(self) -> None:
        longest = WINDOWS_MS.get(self.kind)
        if longest is None:
            if self.window_ms is not None:
                raise InvalidRule(f"windowMs: {self.kind} has none")
        elif self.window_ms is None or self.window_ms % MINUTE_MS or not 0 < self.window_ms <= longest:
            raise InvalidRule(f"windowMs: {self.kind} needs whole minutes, {MINUTE_MS} to {longest}")

    @property
    def has_state(self) -> bool:
        """Whether it matters if it has come true before."""
        if self.kind is AlertKind.TRADE_SIZE:
            return not self.repeat
        return self.kind not in ANNOUNCED

    @property
    def rises(self) -> bool:
        """Whether it comes true at the threshold and above, and not at it and below."""
        if self.kind is AlertKind.CHANGE:
            return self.threshold is not None and self.threshold > 0
        return self.kind is not AlertKind.PRICE_BELOW

    @property
    def back_at(self) -> Decimal:
        """What is measured must be on the other side of this before the rule may come true again."""
        threshold = self.threshold or Decimal(0)
        towards = -1 if self.rises or self.kind is AlertKind.CHANGE else 1
        share = EXACT.add(HUNDRED, towards * self.hysteresis)
        return EXACT.multiply(threshold, share).scaleb(-2, EXACT)

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Self:
        """Read the form of the public contract: decimals are strings, absent and null are the same.

        Raises:
            InvalidRule: a field is unknown, or has another type or an impossible value.
        """
        if unknown := sorted(set(fields) - _FIELDS):
            raise InvalidRule(f"unknown field: {unknown[0][:40]}")
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            kind = AlertKind(str(given.get("kind", "")))
        except ValueError:
            raise InvalidRule(f"kind: one of {', '.join(AlertKind)}") from None
        market = _text(given, "market")
        return cls(
            kind,
            MarketId(market.lower()) if market is not None else None,
            _decimal(given, "threshold"),
            _whole(given, "windowMs"),
            _flag(given, "repeat"),
            _decimal(given, "hysteresis") or Decimal(0),
            _text(given, "note") or "",
        )


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A condition that is watched.

    Attributes:
        id: `RULE_ID`; never used again.
        since: only blocks above this one count, the head when the rule was made.
        created_at: by the wall clock of whoever made it.
    """

    id: str
    condition: AlertCondition
    since: int
    created_at: Timestamp

    def __post_init__(self) -> None:
        """Refuse an id that would make alert ids ambiguous."""
        if not RULE_ID.fullmatch(self.id):
            raise InvalidRule("id: 1 to 32 letters, digits or underscores")


class Alert(NamedTuple):
    """A rule came true, or (`retracted`) did so in a block that a reorg has undone.

    Attributes:
        id: `<rule>-<block>-<log index, or 0>`, and the market where the rule is for all. As a trade's id it
            may come again with another block hash after it was retracted.
        trade: the trade with which it came true; None for kinds in `ANNOUNCED`.
        value: what was measured; None where nothing is.
    """

    id: str
    rule: str
    kind: AlertKind
    market: MarketId
    block: int
    block_hash: str
    timestamp: Timestamp
    trade: TradeId | None
    value: Decimal | None
    threshold: Decimal | None
    window_ms: int | None
    retracted: bool = False

    @classmethod
    def of(
        cls,
        rule: AlertRule,
        market: MarketId,
        block: int,
        block_hash: str,
        timestamp: Timestamp,
        trade: TradeId | None = None,
        value: Decimal | None = None,
    ) -> "Alert":
        """The record of `rule` coming true in a block."""
        condition = rule.condition
        whose = f"-{market}" if condition.market is None else ""
        return cls(
            f"{rule.id}-{block}-{trade.log_index if trade else 0}{whose}",
            rule.id,
            condition.kind,
            market,
            block,
            block_hash,
            timestamp,
            trade,
            value,
            condition.threshold,
            condition.window_ms,
        )

    @classmethod
    def by_trade(cls, rule: AlertRule, trade: Trade, value: Decimal) -> "Alert":
        """The record of `rule` coming true with a trade."""
        return cls.of(rule, trade.market, trade.block, trade.block_hash, trade.timestamp, trade.id, value)


class StateKey(NamedTuple):
    """Whose state: a rule's, for one market."""

    rule: str
    market: MarketId


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRule(f"{name}: a string")
    return value


def _decimal(fields: Mapping[str, object], name: str) -> Decimal | None:
    text = _text(fields, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InvalidRule(f"{name}: a decimal string of at most 40 digits before and after the point")
    return Decimal(text)


def _whole(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidRule(f"{name}: a whole number")
    return value


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRule(f"{name}: true or false")
    return value

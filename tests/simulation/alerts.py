"""The alert rules of every run: of each kind, for one market and for all, once and again and again."""

from collections.abc import Sequence
from typing import Final

from listener.domain.alerts import AlertCondition, AlertRule
from listener.domain.value_objects import MINUTE_MS
from tests.alert_oracle import Rule
from tests.fakes.build import token

_FIRST: Final = token(0)
RULES: Final[Sequence[Rule]] = (
    {"id": "high", "kind": "price_above", "threshold": "1000", "market": _FIRST, "since": 0},
    {"id": "low", "kind": "price_below", "threshold": "0.01", "since": 0, "repeat": True, "hysteresis": "50"},
    {"id": "late", "kind": "price_above", "threshold": "0.5", "since": 7, "repeat": True, "market": _FIRST},
    {"id": "up", "kind": "change", "threshold": "900", "windowMs": MINUTE_MS, "since": 0, "repeat": True},
    {"id": "down", "kind": "change", "threshold": "-90", "windowMs": 5 * MINUTE_MS, "since": 5},
    {
        "id": "busy",
        "kind": "volume_spike",
        "threshold": "2",
        "windowMs": MINUTE_MS,
        "since": 0,
        "repeat": True,
    },
    {"id": "whale", "kind": "trade_size", "threshold": "0.5", "since": 0, "repeat": True},
    {"id": "one", "kind": "trade_size", "threshold": "0.001", "since": 4, "market": _FIRST},
    {"id": "new", "kind": "market_created", "since": 0},
    {"id": "done", "kind": "graduated", "since": 0},
)


def rule_of(public: Rule) -> AlertRule:
    """A rule from its public form."""
    own = {"id", "since", "createdAt"}
    condition = AlertCondition.parse({name: value for name, value in public.items() if name not in own})
    return AlertRule(public["id"], condition, public["since"], public.get("createdAt", 1))

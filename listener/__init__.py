"""0xPads Blockchain Listener: launchpad and DEX trades as candles in Redis and events for a backend.

As a library: `from listener import Listener, TradeProcessed`; see `listener.library`. What it exports is
imported when it is first asked for, so that commands start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from listener.application.typed_events import (
        Alert,
        AlertRetracted,
        AlertTriggered,
        Candle,
        CandleClosed,
        CandleRemoved,
        CandlesClosed,
        CandleUpdated,
        DayStats,
        Event,
        Market,
        MarketCreated,
        MarketGraduated,
        MarketRemoved,
        MarketRestored,
        ReorgDetected,
        Resync,
        StatsUpdated,
        Trade,
        TradeProcessed,
    )
    from listener.config.settings import Settings
    from listener.library import HandlerStatus, Listener

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "AlertRetracted",
    "AlertTriggered",
    "Candle",
    "CandleClosed",
    "CandleRemoved",
    "CandleUpdated",
    "CandlesClosed",
    "DayStats",
    "Event",
    "HandlerStatus",
    "Listener",
    "Market",
    "MarketCreated",
    "MarketGraduated",
    "MarketRemoved",
    "MarketRestored",
    "ReorgDetected",
    "Resync",
    "Settings",
    "StatsUpdated",
    "Trade",
    "TradeProcessed",
    "__version__",
]

_ELSEWHERE = {
    "Listener": "listener.library",
    "HandlerStatus": "listener.library",
    "Settings": "listener.config.settings",
}


def __getattr__(name: str) -> object:
    """What is exported, from where it is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "listener.application.typed_events")), name)

"""ReadEvents: messages of the outbox as typed events, those that need nothing but the message."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from listener.application.errors import ForeignData
from listener.application.interfaces import Message
from listener.application.typed_events import (
    Alert,
    AlertRetracted,
    AlertTriggered,
    CandlesClosed,
    Event,
    Market,
    MarketCreated,
    MarketGraduated,
    MarketRemoved,
    MarketRestored,
    ReorgDetected,
    Resync,
    Trade,
    TradeProcessed,
)

T = TypeVar("T")

Item = Mapping[str, Any]


def place(message: Message, detail: object) -> dict[str, Any]:
    """What every event carries (see `Event`), for the one that `detail` tells from others of the message.

    A message that is sent again covers the same rows, so that the key is the same.
    """
    return {
        "key": f"{message.epoch}-{message.seq}-{detail}",
        "epoch": message.epoch,
        "seq": message.seq,
    }


def typed(item: object, kind: type[T]) -> T:
    """An item as a typed value.

    Raises:
        ForeignData: it is none.
    """
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        name = getattr(kind, "__name__", str(kind))
        raise ForeignData(f"Redis holds something else in the place of a {name}: {error}") from error


def read_events(message: Message) -> Iterator[Event]:
    """Events of a message, in order; none for one that refers to candles or figures, or is not known.

    Raises:
        ForeignData: an item has another form.
    """
    read = READERS.get(message.event)
    if read is None:
        return
    for index, item in enumerate(message.items):
        yield read(typed(item, dict[str, Any]), place(message, index))


def _trade(item: Item, at: Item) -> Event:
    return TradeProcessed(**at, trade=typed(item, Trade))


def _created(item: Item, at: Item) -> Event:
    if item.get("deleted"):
        return MarketRemoved(**at, market=item["s"])
    return MarketCreated(**at, market=typed(item, Market))


def _graduated(item: Item, at: Item) -> Event:
    market = typed(item, Market)
    return (MarketRestored if market.status == "trading" else MarketGraduated)(**at, market=market)


def _closed(item: Item, at: Item) -> Event:
    return typed({**at, "interval": item.get("i"), "up_to": item.get("T")}, CandlesClosed)


def _reorg(item: Item, at: Item) -> Event:
    ancestor = typed(item.get("ancestor"), dict[str, Any])
    return typed(
        {
            **at,
            **item,
            "ancestor": ancestor.get("number"),
            "ancestor_hash": ancestor.get("hash"),
            "since": item.get("from"),
        },
        ReorgDetected,
    )


def _alert(item: Item, at: Item) -> Event:
    return (AlertRetracted if item.get("retracted") else AlertTriggered)(**at, alert=typed(item, Alert))


def _resync(item: Item, at: Item) -> Event:
    return typed({**at, "reason": item.get("reason")}, Resync)


READERS: Final[Mapping[str, Callable[[Item, Item], Event]]] = {
    "trade_update": _trade,
    "market_created": _created,
    "market_graduated": _graduated,
    "candles_closed": _closed,
    "reorg": _reorg,
    "alert": _alert,
    "resync": _resync,
}

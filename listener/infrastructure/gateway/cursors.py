"""Cursors of pages: opaque to callers, the same for all instances behind one address."""

import base64
import binascii
import math
from typing import Final

import orjson

from listener.infrastructure.gateway.market_index import MarketSort, Place
from listener.infrastructure.gateway.replies import Problem, invalid

PATTERN: Final = r"^[A-Za-z0-9_-]{1,200}$"
_TIE_END: Final = 2**64
_TIME_END: Final = 2**63


def encode(sort: MarketSort, place: Place) -> str:
    """Where the next page of an order begins."""
    value = None if math.isinf(place.value) else place.value
    data = orjson.dumps([sort, value, place.created, place.tie])
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str, sort: MarketSort) -> Place:
    """Inverse of `encode`.

    Raises:
        Problem: it is no cursor, or one of another order.
    """
    try:
        data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
        order, value, created, tie = orjson.loads(data)
    except (binascii.Error, UnicodeEncodeError, orjson.JSONDecodeError, TypeError, ValueError):
        raise _wrong() from None
    if order != sort or not isinstance(value, float | int | None):
        raise _wrong()
    if not (_is_whole(created, _TIME_END) and _is_whole(tie, _TIE_END)):
        raise _wrong()
    return Place(-math.inf if value is None else float(value), created, tie)


def _is_whole(value: object, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _wrong() -> Problem:
    return invalid("cursor: not one of this list and order; begin without one")

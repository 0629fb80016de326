"""Candles of history as they are stored, many at once: what `encode_candle` gives for one after the other."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from listener.domain.entities import Market
from listener.infrastructure.candle_columns import COUNTS, FIRST, LAST, PRICES, TIME, Rows, amounts_of
from listener.infrastructure.candle_fold import FoldedCandles
from listener.infrastructure.decimal_texts import repeated, texts_of, units
from listener.infrastructure.exact import Bytes, Flags, Halves, Integers
from listener.infrastructure.prices import price_texts

ROWS_AT_ONCE: Final = 4_096
"""Candles whose bytes fit into a processor's cache."""


def encode_folded(candles: FoldedCandles) -> list[list[bytes]]:
    """The candles of each interval, in their order, as members of their ZSETs."""
    rows = np.concatenate([series.rows for series in candles.series])
    market = np.concatenate([series.market for series in candles.series])
    lines: list[bytes] = [b""] * len(rows)
    for decimals, places in _alike(candles.markets, market):
        for at in range(0, len(places), ROWS_AT_ONCE):
            some = places[at : at + ROWS_AT_ONCE]
            for place, line in zip(some.tolist(), _lines(rows[some], *decimals), strict=True):
                lines[place] = line
    encoded: list[list[bytes]] = []
    for series in candles.series:
        encoded.append(lines[: len(series.rows)])
        del lines[: len(series.rows)]
    return encoded


def _alike(markets: Sequence[Market], market: Integers) -> list[tuple[tuple[int, int], Integers]]:
    """Rows of markets with the same decimals."""
    kinds: dict[tuple[int, int], int] = {}
    kind = [kinds.setdefault((one.base_decimals, one.quote_decimals), len(kinds)) for one in markets]
    if len(kinds) == 1:
        return [(next(iter(kinds)), np.arange(len(market)))]
    which = np.array(kind)[market]
    return [(decimals, np.flatnonzero(which == place)) for decimals, place in kinds.items()]


def _lines(rows: Rows, base_decimals: int, quote_decimals: int) -> list[bytes]:
    """Candles of markets with the same decimals."""
    count = len(rows)
    prices = price_texts(rows[:, PRICES].reshape(-1, 2)).reshape(count, 5, -1)
    opened, high, low, close, previous = (prices[:, kind] for kind in range(5))
    amounts = amounts_of(rows)
    base = units(amounts[:, ::2].reshape(-1, 2), base_decimals).reshape(count, 2, -1)
    quote = units(amounts[:, 1::2].reshape(-1, 2), quote_decimals).reshape(count, 2, -1)
    has_previous: Flags = np.logical_or.reduce(previous > 0, axis=1)
    pieces = [
        '{"t":', _numbers(rows[:, TIME]),
        ',"o":"', opened, '","h":"', high, '","l":"', low, '","c":"', close,
        repeated('","pc":"', count) * has_previous[:, None], previous,
        '","v":"', base[:, 0], '","q":"', quote[:, 0], '","V":"', base[:, 1], '","Q":"', quote[:, 1],
        '","n":', _numbers(rows[:, COUNTS.start]), ',"N":', _numbers(rows[:, COUNTS.start + 1]),
        ',"f":"', *_place(rows[:, FIRST]), '","L":"', *_place(rows[:, LAST]), '"}\n',
    ]  # fmt: skip
    lines = np.concatenate(
        [repeated(piece, count) if isinstance(piece, str) else piece for piece in pieces], axis=1
    )
    return lines.tobytes().translate(None, b"\0").split(b"\n")[:-1]


def _numbers(values: Halves) -> Bytes:
    """Whole numbers, of which there are few different ones."""
    told, which = np.unique(values, return_inverse=True)
    return texts_of([str(value) for value in told.tolist()])[which]


def _place(words: Halves) -> tuple[Bytes, Bytes, Bytes]:
    """The form `<block>-<logIndex>`."""
    return _numbers(words[:, 0]), repeated("-", len(words)), _numbers(words[:, 1])

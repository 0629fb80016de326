"""Trades of history as they are stored, encoded many at once.

Every trade is a row of a matrix of bytes, every field some columns of it; bytes that are zero are left out at
the end. What comes out is what `encode_trade` gives for one trade after the other.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson

from listener.infrastructure.columns import (
    BASE,
    BASE_RESERVE,
    FEE,
    QUOTE,
    QUOTE_RESERVE,
    Columns,
    Newest,
)
from listener.infrastructure.decimal_texts import quotients, repeated, texts_of, units
from listener.infrastructure.exact import Bytes, Flags, Halves, Integers

ROWS_AT_ONCE: Final = 4_096
"""Trades whose bytes fit into a processor's cache."""


def encode_newest(parts: Sequence[Newest]) -> list[list[bytes]]:
    """Trades of several markets, each as an element of its LIST."""
    alike: defaultdict[tuple[int, int, int, bool], list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        market = part.market
        alike[id(part.columns), market.base_decimals, market.quote_decimals, part.by_reserves].append(place)
    encoded: list[list[bytes]] = [[] for _ in parts]
    for places in alike.values():
        some = [parts[place] for place in places]
        rows = np.concatenate([part.rows for part in some])
        whose = np.repeat(np.arange(len(some)), [len(part) for part in some])
        lines: list[bytes] = []
        for at in range(0, len(rows), ROWS_AT_ONCE):
            lines += _lines(some, rows[at : at + ROWS_AT_ONCE], whose[at : at + ROWS_AT_ONCE])
        end = 0
        for place in places:
            start, end = end, end + len(parts[place])
            encoded[place] = lines[start:end]
    return encoded


def _lines(parts: Sequence[Newest], rows: Integers, whose: Integers) -> list[bytes]:
    """Trades of markets with the same decimals."""
    columns, market, by_reserves = parts[0].columns, parts[0].market, parts[0].by_reserves
    blocks, block = np.unique(columns.block[rows], return_inverse=True)
    refs = [columns.refs[number] for number in blocks.tolist()]
    numbers = texts_of([str(ref.number) for ref in refs])[block]
    told = [f',"t":{ref.timestamp},"b":{ref.number},"bh":"{ref.hash}","li":' for ref in refs]
    places = texts_of(told)[block]
    indices, index = np.unique(columns.log_index[rows], return_inverse=True)
    log_index = texts_of([str(number) for number in indices.tolist()])[index]
    first, last = int(whose[0]), int(whose[-1])
    ids = texts_of([orjson.dumps(part.market.id).decode() for part in parts[first : last + 1]])[whose - first]
    sides = texts_of(["sell", "buy"])[columns.is_buy[rows].astype(np.int64)]
    amounts = columns.amounts[rows]
    xp, sp, has_sp = _prices(columns, rows, amounts, market.price_exponent)
    p = np.where(has_sp[:, None], *_same_width(sp, xp)) if by_reserves else xp
    base_decimals, quote_decimals = market.base_decimals, market.quote_decimals
    has_fee = columns.has_fee[rows]
    pieces = [
        '{"id":"', numbers, "-", log_index, '","s":', ids, places, log_index,
        ',"tx":"0x', columns.tx_hash[rows], '","side":"', sides, '","trader":"0x', columns.trader[rows],
        '","p":"', p, '","xp":"', xp, _where(has_sp, '","sp":"'), sp,
        '","v":"', units(amounts[:, BASE], base_decimals),
        '","q":"', units(amounts[:, QUOTE], quote_decimals),
        _where(has_fee, '","fee":"'), units(amounts[:, FEE], quote_decimals) * has_fee[:, None], '"}\n',
    ]  # fmt: skip
    lines = np.concatenate(
        [repeated(piece, len(rows)) if isinstance(piece, str) else piece for piece in pieces], axis=1
    )
    return lines.tobytes().translate(None, b"\0").split(b"\n")[:-1]


def _prices(columns: Columns, rows: Integers, amounts: Halves, exponent: int) -> tuple[Bytes, Bytes, Flags]:
    """Execution prices, spot prices, and which rows have one."""
    known = columns.has_reserves[rows]
    known = known & amounts[:, BASE_RESERVE].any(axis=1) & amounts[:, QUOTE_RESERVE].any(axis=1)
    after = np.zeros((len(rows), 0), np.uint8)
    if known.any():
        after = _spread(
            quotients(amounts[known, QUOTE_RESERVE], amounts[known, BASE_RESERVE], exponent), known
        )
    return quotients(amounts[:, QUOTE], amounts[:, BASE], exponent), after, known


def _spread(rows: Bytes, flags: Flags) -> Bytes:
    """The rows where the flags are, zero bytes elsewhere."""
    if len(rows) == len(flags):
        return rows
    spread = np.zeros((len(flags), rows.shape[1]), np.uint8)
    spread[flags] = rows
    return spread


def _same_width(one: Bytes, other: Bytes) -> tuple[Bytes, Bytes]:
    width = max(one.shape[1], other.shape[1])
    wide, broad = (np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (one, other))
    return wide, broad


def _where(flags: Flags, text: str) -> Bytes:
    """The text in some rows."""
    return repeated(text, len(flags)) * flags[:, None]

"""A block's trades, decoded one by one near the head, put into columns where there are many."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from listener.application.history import History
from listener.domain.facts import BlockFacts, Swapped
from listener.domain.value_objects import BlockRef
from listener.infrastructure.columns import ADDRESS, Columns
from listener.infrastructure.exact import Bytes, Halves, halves_of

LEAST: Final = 16
"""Trades of a block that are worth it: columns cost about a millisecond, whatever is in them."""
_MOST: Final = 1 << 128
_HASH: Final = 64
_NOBODY: Final = "\0" * ADDRESS


def bundle(facts: BlockFacts, least: int = LEAST) -> History:
    """The block, its trades in columns if there are at least so many; but for amounts that do not fit."""
    trades = [fact for fact in facts.facts if isinstance(fact, Swapped) and _fits(fact)]
    if len(trades) < max(least, 1):
        return History([facts])
    rest = tuple(fact for fact in facts.facts if not isinstance(fact, Swapped) or not _fits(fact))
    return History([facts._replace(facts=rest)], columns_of(trades, [facts.block] * len(trades)))


def columns_of(trades: Sequence[Swapped], blocks: Sequence[BlockRef]) -> Columns:
    """Trades in their order, each with its block.

    Raises:
        OverflowError: an amount is 2**128 or more.
    """
    return Columns(
        refs={block.number: block for block in blocks},
        block=np.array([block.number for block in blocks], np.int64),
        log_index=np.array([trade.log_index for trade in trades], np.int64),
        emitter=_digits(
            (trade.source[2:] + (trade.market or _NOBODY)[-ADDRESS:] for trade in trades), 2 * ADDRESS
        ),
        tx_hash=_digits((trade.tx_hash[2:] for trade in trades), _HASH),
        trader=_digits((trade.trader[2:] for trade in trades), ADDRESS),
        is_buy=np.array([trade.is_buy for trade in trades], np.bool_),
        amounts=_amounts(trades),
        has_fee=np.array([trade.fee is not None for trade in trades], np.bool_),
        has_reserves=np.array([trade.reserves is not None for trade in trades], np.bool_),
    )


def _fits(trade: Swapped) -> bool:
    """Whether columns can hold it."""
    if max(trade.base, trade.quote, trade.fee or 0, *(trade.reserves or (0,))) >= _MOST:
        return False
    whose = len(trade.source) == ADDRESS + 2 and len(trade.trader) == ADDRESS + 2
    named = trade.market is None or len(trade.market) == ADDRESS + 2
    return whose and named and len(trade.tx_hash) == _HASH + 2


def _digits(texts: Iterable[str], width: int) -> Bytes:
    return np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(-1, width)


def _amounts(trades: Sequence[Swapped]) -> Halves:
    """Base, quote, fee and the two reserves."""
    told = [
        amount
        for trade in trades
        for amount in (trade.base, trade.quote, trade.fee or 0, *(trade.reserves or (0, 0)))
    ]
    return halves_of(told).reshape(-1, 5, 2)

"""Facts as a node's large replies give them: trades in columns."""

from collections.abc import Sequence

import numpy as np

from listener.application.history import History
from listener.domain.facts import BlockFacts, Swapped
from listener.domain.value_objects import BlockRef
from listener.infrastructure.columns import Columns
from listener.infrastructure.exact import Bytes


def in_bulk(blocks: Sequence[BlockFacts]) -> History:
    """The same blocks, their trades apart, but for those with amounts that columns do not hold."""
    swaps = [
        (block.block, fact)
        for block in blocks
        for fact in block.facts
        if isinstance(fact, Swapped) and fits(fact)
    ]
    rest = [
        block._replace(
            facts=tuple(fact for fact in block.facts if not isinstance(fact, Swapped) or not fits(fact))
        )
        for block in blocks
    ]
    return History(rest, columns(swaps, [block.block for block in blocks]) if swaps else None)


def fits(swap: Swapped) -> bool:
    """Whether columns can hold a trade."""
    return max(swap.base, swap.quote, swap.fee or 0, *(swap.reserves or (0,))) < 1 << 128


def columns(swaps: Sequence[tuple[BlockRef, Swapped]], blocks: Sequence[BlockRef]) -> Columns:
    """Trades in columns."""
    return Columns(
        refs={block.number: block for block in blocks},
        block=np.array([block.number for block, _ in swaps], np.int64),
        log_index=np.array([swap.log_index for _, swap in swaps], np.int64),
        emitter=digits([swap.source + (swap.market or "\0" * 40)[-40:] for _, swap in swaps], 80),
        tx_hash=digits([swap.tx_hash for _, swap in swaps], 64),
        trader=digits([swap.trader for _, swap in swaps], 40),
        is_buy=np.array([swap.is_buy for _, swap in swaps], np.bool_),
        amounts=np.array(
            [
                [
                    [amount >> 64, amount & (1 << 64) - 1]
                    for amount in (swap.base, swap.quote, swap.fee or 0, *(swap.reserves or (0, 0)))
                ]
                for _, swap in swaps
            ],
            np.uint64,
        ),
        has_fee=np.array([swap.fee is not None for _, swap in swaps], np.bool_),
        has_reserves=np.array([swap.reserves is not None for _, swap in swaps], np.bool_),
    )


def digits(texts: Sequence[str], width: int) -> Bytes:
    """Hex numbers by their digits."""
    joined = "".join(text.removeprefix("0x") for text in texts)
    return np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), width)

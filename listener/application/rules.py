"""The settings that give candles their meaning, and when a block is final."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from listener.domain.value_objects import (
    ONE_MINUTE,
    ZERO_ADDRESS,
    Address,
    BlockRef,
    Interval,
)

PriceMode = Literal["execution", "spot"]


MOST_UNDOABLE: Final = 10_000
"""Before-images kept, whatever the other bounds say: finality may stall for ever."""


@dataclass(frozen=True, slots=True)
class Finality:
    """When a block cannot be undone any more: all bounds must be met.

    Attributes:
        blocks: it lies so far below the newest block.
        ms: it is so much older than the newest block.
    """

    blocks: int
    ms: int = 0

    def reached(self, block: BlockRef, newest: BlockRef, finalized: int | None) -> bool:
        """Whether `block` is final, given the newest block and what the node calls finalized."""
        depth = newest.number - block.number
        if depth > MOST_UNDOABLE:
            return True
        return (
            depth >= self.blocks
            and newest.timestamp - block.timestamp >= self.ms
            and (finalized is None or block.number <= finalized)
        )


@dataclass(frozen=True)
class Rules:
    """The settings that give candles their meaning.

    Attributes:
        intervals: one minute first, always; then the others, ascending.
        published: names of the intervals whose changes are told to the backend.
        retention_ms: how long a candle is kept after its open time, by interval name; absent: for ever.
        trades_kept: newest trades kept for a market.
        finality: when a block cannot be undone any more.
        audit_blocks: so many final blocks more keep their before-images, until the audit has seen them.
        factories: addresses whose announcements count.
    """

    intervals: tuple[Interval, ...]
    published: frozenset[str]
    price_mode: PriceMode
    retention_ms: Mapping[str, int]
    trades_kept: int
    finality: Finality
    factories: frozenset[Address]
    audit_blocks: int = 0
    native_symbol: str = "ETH"
    native_decimals: int = 18

    def __post_init__(self) -> None:
        """One-minute candles are the base of everything else."""
        if self.intervals[0] != ONE_MINUTE:
            raise ValueError("the first interval must be 1m")

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """For each interval but the first, the widest one before it whose candles fit into its own."""
        return tuple(
            max(place for place in range(index) if wide.ms % self.intervals[place].ms == 0)
            for index, wide in enumerate(self.intervals)
            if index
        )

    def is_native(self, token: Address) -> bool:
        """Whether `token` stands for the chain's own coin."""
        return token == ZERO_ADDRESS

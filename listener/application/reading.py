"""What readers ask for: committed markets, candles, trades and figures. Nothing here writes."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from listener.domain.errors import InvalidValue
from listener.domain.value_objects import Timestamp

CANDLES_MAX: Final = 5_000
"""Candles in one answer."""
TRADES_MAX: Final = 5_000
"""Trades in one answer; no market keeps many more (`TRADES_RETENTION`)."""
MARKETS_MAX: Final = 10_000
"""Markets in one answer, beside those that were created at the same instant as its last one."""


class HeadRecord(NamedTuple):
    """The committed head as readers need it; times in milliseconds.

    Attributes:
        as_of: instant up to which rolling figures are exact, and up to which time has been seen to pass.
        epoch: first part of outbox rows' numbers.
        seq: number of the newest row; what is read after the head holds every change up to it, maybe more.
    """

    number: int
    hash: str
    timestamp: Timestamp
    as_of: Timestamp
    epoch: int
    seq: int
    chain_id: int


class MarketView(NamedTuple):
    """A market's record and its 24 h figures, fields as in the public contract.

    Counts, decimals, block numbers and times are integers, everything else is text.

    Attributes:
        stats: None before the first trade.
    """

    market: str
    record: dict[str, object]
    stats: dict[str, object] | None


class Stretch(NamedTuple):
    """Which candles of a series: those with `start <= t < end`, times in milliseconds.

    Attributes:
        start: earliest open time; None: any.
        end: first open time that is not wanted; None: none.
        limit: how many at most.
        newest: which of more than `limit`: the last ones, or the first.
    """

    start: Timestamp | None = None
    end: Timestamp | None = None
    limit: int = 500
    newest: bool = True


NEWEST: Final = Stretch()


class MarketReader(Protocol):
    """Committed data, read only. Candles and trades come as the JSON that is stored.

    Each method may raise `StoreUnavailable`, which passes, `StoreMisused`, which does not, and `InvalidValue`
    for more than its bound. Unknown markets and intervals are nothing: None, or an empty list.
    """

    async def head(self) -> HeadRecord | None:
        """The committed head; None while there is none.

        Raises:
            ForeignData, NewerSchema: it is not ours to read.
        """
        ...

    async def market(self, market: str) -> MarketView | None:
        """One market."""
        ...

    async def market_ids(self, after: Timestamp, limit: int) -> list[tuple[str, Timestamp]]:
        """Ids and creation times of the markets created after an instant, oldest first.

        Those of one instant stay together, so an answer may be longer than `limit`, and one that is not full
        is the end. Blocks can share a time: who comes again for new ones asks from a little earlier.
        """
        ...

    async def views(self, markets: Sequence[str]) -> list[MarketView | None]:
        """Several markets, in their order."""
        ...

    async def candles(self, market: str, interval: str, stretch: Stretch = NEWEST) -> list[bytes]:
        """Candles of the interval of that name, ascending."""
        ...

    async def trades(self, market: str, limit: int) -> list[bytes]:
        """The newest trades, newest first."""
        ...

    async def stats(self, market: str) -> dict[str, object] | None:
        """24 h figures; None before the first trade."""
        ...

    async def intervals(self) -> list[str]:
        """Intervals that the stream was made with, shortest first; none while there is no stream."""
        ...


def bounded(limit: int, most: int, what: str) -> int:
    """A limit that may be asked for.

    Raises:
        InvalidValue: it is below 1 or above `most`.
    """
    if not 1 <= limit <= most:
        raise InvalidValue(f"limit of {what}: {limit} is not between 1 and {most}")
    return limit

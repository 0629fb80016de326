"""Final blocks on their way into the store: many at once, their trades in bulk.

Near the head every trade is an object. History has millions of them, of which candles and the newest few are
all that is kept: there an adapter holds them as it likes and folds them by the minute.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from listener.application.changes import CandleBatch, MarketState
from listener.application.rules import Rules
from listener.domain.entities import Candle, Trade
from listener.domain.facts import BlockFacts, Swapped
from listener.domain.rolling import MinuteRun
from listener.domain.value_objects import BlockRef, Interval, MarketId, Price, TradeId


class Emitter(NamedTuple):
    """Whose events trades are, and the market that these name, where they name one."""

    source: str
    market: MarketId | None


class BulkFold(NamedTuple):
    """Trades of one emitter, folded into its market.

    Attributes:
        trades: how many there are.
        zero_amounts: how many there are beside them that make no price.
        newest: the newest ones, oldest first.
        minutes: those that they change, folded ahead; None without trades.
        live: the market's newest candles after them.
        last_price: of the newest one.
        outgrown: see `outgrown`.
    """

    trades: int
    zero_amounts: int
    newest: Sequence[Trade]
    minutes: MinuteRun | None
    live: Sequence[Candle | None]
    last_price: Price | None
    outgrown: Sequence[Interval]

    @classmethod
    def nothing(cls, zero_amounts: int) -> "BulkFold":
        """No trades that make a price."""
        return cls(0, zero_amounts, (), None, (), None, ())


class BulkFolds(NamedTuple):
    """Trades of many emitters, folded into their markets.

    Attributes:
        markets: those that have some.
        candles: all that change; None: none does.
        left: emitters whose trades have to be folded one by one.
    """

    markets: Mapping[Emitter, BulkFold]
    candles: CandleBatch | None
    left: Collection[Emitter]


class TradeBatch(Protocol):
    """Well-formed trades of contiguous final blocks, in order. Immutable."""

    def __len__(self) -> int: ...

    def emitters(self) -> Mapping[Emitter, int]:
        """Who has emitted how many trades."""
        ...

    def first(self) -> Mapping[Emitter, TradeId]:
        """The place of each emitter's first trade."""
        ...

    def per_block(self) -> Mapping[int, int]:
        """How many trades there are by block number."""
        ...

    def swaps(self, emitters: Collection[Emitter]) -> Sequence[tuple[BlockRef, Swapped]]:
        """These emitters' trades one by one, in order, with their blocks."""
        ...

    def fold(self, states: Mapping[Emitter, MarketState], rules: Rules) -> BulkFolds:
        """These emitters' trades folded into the markets for which they count."""
        ...

    def joined(self, later: Sequence[Self]) -> Self:
        """One batch of this one and those that follow."""
        ...

    def split(self, number: int) -> tuple[Self, Self]:
        """The trades up to block `number`, and the later ones."""
        ...


class History(NamedTuple):
    """Contiguous final blocks.

    Attributes:
        blocks: those with logs of ours, ascending, and in any case the first and the last; their facts are
            those that are not in `trades`.
        trades: most trades of these blocks; None: all are among the facts.
    """

    blocks: Sequence[BlockFacts]
    trades: TradeBatch | None = None

    @property
    def size(self) -> int:
        """How many facts and trades there are."""
        return sum(len(block.facts) for block in self.blocks) + len(self.trades or ())

    @classmethod
    def of(cls, parts: Sequence["History"]) -> "History":
        """Parts that follow each other as one."""
        batches = [part.trades for part in parts if part.trades is not None]
        return cls(
            [block for part in parts for block in part.blocks],
            batches[0].joined(batches[1:]) if batches else None,
        )

    def cut(self, most: int, most_ms: int) -> tuple["History", "History | None"]:
        """The first blocks, with at most so many trades and facts and within so much time; and the rest.

        One block at least is in the first part.
        """
        per_block = Counter({block.block.number: len(block.facts) for block in self.blocks})
        if self.trades is not None:
            per_block.update(self.trades.per_block())
        begin = self.blocks[0].block.timestamp
        size = 0
        for index, block in enumerate(self.blocks):
            size += per_block[block.block.number]
            if index and (size > most or block.block.timestamp - begin > most_ms):
                return self._split(index)
        return self, None

    def _split(self, index: int) -> tuple["History", "History"]:
        batches: tuple[TradeBatch | None, TradeBatch | None] = (None, None)
        if self.trades is not None:
            batches = self.trades.split(self.blocks[index - 1].block.number)
        return History(self.blocks[:index], batches[0]), History(self.blocks[index:], batches[1])

    def facts(self) -> Sequence[BlockFacts]:
        """The blocks with all of their trades among the facts."""
        return self.with_swaps(self.trades.emitters().keys() if self.trades else ())

    def with_swaps(self, emitters: Collection[Emitter]) -> Sequence[BlockFacts]:
        """The blocks, these emitters' trades among their facts."""
        if self.trades is None or not emitters:
            return self.blocks
        swaps: dict[int, list[Swapped]] = {}
        for ref, swap in self.trades.swaps(emitters):
            swaps.setdefault(ref.number, []).append(swap)
        return [
            block._replace(facts=tuple(sorted((*block.facts, *more), key=lambda fact: fact.log_index)))
            if (more := swaps.get(block.block.number))
            else block
            for block in self.blocks
        ]

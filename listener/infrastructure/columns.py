"""Trades in bulk: numpy columns instead of an object for each, folded at once. All amounts are exact."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, overload

import numpy as np

from listener.application.changes import MarketState
from listener.application.history import BulkFold, BulkFolds, Emitter
from listener.application.rules import PriceMode, Rules
from listener.domain.entities import Market, Trade
from listener.domain.facts import Swapped
from listener.domain.value_objects import MINUTE_MS, Address, BlockRef, MarketId, TradeId
from listener.infrastructure.candle_columns import (
    AMOUNTS,
    CLOSE,
    COUNTS,
    FIRST,
    HIGH,
    LAST,
    LOW,
    OPEN,
    TIME,
    WORDS,
    Rows,
    largest,
)
from listener.infrastructure.candle_fold import fold_series
from listener.infrastructure.exact import (
    Bytes,
    Flags,
    Halves,
    Integers,
    doubles,
    extremes,
    integers,
    totals,
)
from listener.infrastructure.prices import ratios

BASE, QUOTE, FEE, BASE_RESERVE, QUOTE_RESERVE = range(5)
LARGE: Final = 2.0**127
"""Sums of amounts that may come near to this are left to Python's integers."""


ADDRESS: Final = 40
"""Hex digits of an address."""
_MIXED: Final = np.array([(0x9E3779B97F4A7C15 ** (2 * place + 1)) % 2**64 for place in range(10)], np.uint64)
"""Odd factors: whether two emitters with one sum are the same is looked at."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Trades of final blocks, in order. Implements `TradeBatch`.

    Attributes:
        refs: blocks by number, those of the rows among them.
        block: number of each row's block, ascending.
        log_index: of each row.
        emitter: 40 hex digits of the emitter and 40 of the market that the event names, or zero bytes.
        tx_hash: 64 hex digits for each row.
        trader: 40 hex digits for each row.
        is_buy: of each row.
        amounts: base, quote, fee and the two reserves of each row.
        has_fee: of each row.
        has_reserves: of each row.
    """

    refs: Mapping[int, BlockRef]
    block: Integers
    log_index: Integers
    emitter: Bytes
    tx_hash: Bytes
    trader: Bytes
    is_buy: Flags
    amounts: Halves
    has_fee: Flags
    has_reserves: Flags

    def __len__(self) -> int:
        return len(self.block)

    def at(self, blocks: Iterable[BlockRef]) -> "Columns":
        """The same, their blocks known."""
        return replace(self, refs={block.number: block for block in blocks})

    @cached_property
    def grouped(self) -> tuple[list[Emitter], Integers, Integers]:
        """All emitters, which of them each row's is, and the first row of each."""
        keys = (self.emitter.view(np.uint64) * _MIXED).sum(axis=1, dtype=np.uint64)
        _, first, source = np.unique(keys, return_index=True, return_inverse=True)
        if (self.emitter != self.emitter[first][source]).any():
            whole = self.emitter.view(np.dtype((np.void, 2 * ADDRESS)))[:, 0]
            _, first, source = np.unique(whole, return_index=True, return_inverse=True)
        told = self.emitter[first]
        named = told[:, ADDRESS].astype(np.bool_).tolist()
        addresses, markets = texts(told[:, :ADDRESS]), texts(told[:, ADDRESS:])
        return (
            [
                Emitter(address, MarketId(market) if is_named else None)
                for address, market, is_named in zip(addresses, markets, named, strict=True)
            ],
            source,
            first,
        )

    def emitters(self) -> dict[Emitter, int]:
        """See `TradeBatch.emitters`."""
        sources, source, _ = self.grouped
        counts = np.bincount(source, minlength=len(sources)).tolist()
        return dict(zip(sources, counts, strict=True))

    def first(self) -> dict[Emitter, TradeId]:
        """See `TradeBatch.first`."""
        sources, _, rows = self.grouped
        places = map(TradeId, self.block[rows].tolist(), self.log_index[rows].tolist())
        return dict(zip(sources, places, strict=True))

    def per_block(self) -> dict[int, int]:
        """See `TradeBatch.per_block`."""
        numbers, counts = np.unique(self.block, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def joined(self, later: Sequence["Columns"]) -> "Columns":
        """See `TradeBatch.joined`."""
        parts = [self, *later]
        return Columns(
            {number: ref for part in parts for number, ref in part.refs.items()},
            np.concatenate([part.block for part in parts]),
            np.concatenate([part.log_index for part in parts]),
            np.concatenate([part.emitter for part in parts]),
            np.concatenate([part.tx_hash for part in parts]),
            np.concatenate([part.trader for part in parts]),
            np.concatenate([part.is_buy for part in parts]),
            np.concatenate([part.amounts for part in parts]),
            np.concatenate([part.has_fee for part in parts]),
            np.concatenate([part.has_reserves for part in parts]),
        )

    def split(self, number: int) -> tuple["Columns", "Columns"]:
        """See `TradeBatch.split`."""
        end = int(np.searchsorted(self.block, number, side="right"))
        return self.rows(slice(0, end)), self.rows(slice(end, len(self)))

    def rows(self, chosen: slice | Integers) -> "Columns":
        """Some rows, in order."""
        return replace(
            self,
            block=self.block[chosen],
            log_index=self.log_index[chosen],
            emitter=self.emitter[chosen],
            tx_hash=self.tx_hash[chosen],
            trader=self.trader[chosen],
            is_buy=self.is_buy[chosen],
            amounts=self.amounts[chosen],
            has_fee=self.has_fee[chosen],
            has_reserves=self.has_reserves[chosen],
        )

    def swaps(self, emitters: Collection[Emitter]) -> list[tuple[BlockRef, Swapped]]:
        """See `TradeBatch.swaps`."""
        rows = np.flatnonzero(self._of(emitters))
        refs, (sources, source_of, _) = self.refs, self.grouped
        return [
            (refs[block], Swapped(sources[source].source, log_index, tx_hash, sources[source].market, *told))
            for block, log_index, source, tx_hash, *told in zip(
                self.block[rows].tolist(),
                self.log_index[rows].tolist(),
                source_of[rows].tolist(),
                texts(self.tx_hash[rows]),
                *self.values(rows),
                strict=True,
            )
        ]

    def _of(self, emitters: Collection[Emitter]) -> Flags:
        """Which rows are of these emitters."""
        sources, source, _ = self.grouped
        chosen: Flags = np.array([emitter in emitters for emitter in sources], np.bool_)[source]
        return chosen

    def values(self, rows: Integers) -> tuple[list[Any], ...]:
        """What the events say, as Python's objects: side, trader, base, quote, fee and reserves."""
        base, quote, fee, base_reserve, quote_reserve = (
            integers(self.amounts[rows, kind]) for kind in range(5)
        )
        return (
            self.is_buy[rows].tolist(),
            texts(self.trader[rows]),
            base,
            quote,
            _or_none(fee, self.has_fee[rows]),
            _or_none(list(zip(base_reserve, quote_reserve, strict=True)), self.has_reserves[rows]),
        )

    def fold(self, states: Mapping[Emitter, MarketState], rules: Rules) -> BulkFolds:
        """See `TradeBatch.fold`."""
        sources, source, _ = self.grouped
        priced = _all_positive(self.amounts, BASE, QUOTE)
        zeros = np.bincount(source[~priced], minlength=len(sources)).tolist()
        left = self._too_large(states)
        ours = states.keys() - left
        rows = np.flatnonzero(self._of(ours) & priced)
        rows = rows[np.argsort(source[rows], kind="stable")]
        folds = {
            emitter: BulkFold.nothing(zeros[place])
            for place, emitter in enumerate(sources)
            if zeros[place] and emitter in ours
        }
        if not len(rows):
            return BulkFolds(folds, None, left)
        starts = np.flatnonzero(np.r_[True, source[rows[1:]] != source[rows[:-1]]])
        places = source[rows[starts]].tolist()
        some = [states[sources[place]] for place in places]
        market = np.repeat(np.arange(len(some)), np.diff(starts, append=len(rows)))
        exponents = np.array([state.market.price_exponent for state in some], np.int64)
        minutes, whose = self._minutes(rows, market, exponents, rules.price_mode)
        candles = fold_series(minutes, whose, some, rules.intervals, rules.bases)
        by_reserves = rules.price_mode == "spot"
        for place, state, start, end, run, live, last_price, outgrown in zip(
            places, some, starts.tolist(), [*starts[1:].tolist(), len(rows)], *candles.told(), strict=True
        ):
            newest = rows[max(start, end - rules.trades_kept) : end]
            folds[sources[place]] = BulkFold(
                end - start,
                zeros[place],
                Newest(self, newest, state.market, by_reserves),
                run,
                live,
                last_price,
                outgrown,
            )
        return BulkFolds(folds, candles, left)

    def _too_large(self, states: Mapping[Emitter, MarketState]) -> set[Emitter]:
        """Emitters with candles whose amounts may not stay below 2**128."""
        sources, source, _ = self.grouped
        most = np.max(
            [np.bincount(source, doubles(self.amounts[:, kind]), len(sources)) for kind in (BASE, QUOTE)],
            axis=0,
        )
        suspects = [
            (emitter, state.live, more)
            for emitter, more in zip(sources, most.tolist(), strict=True)
            if (state := states.get(emitter)) is not None
        ]
        return {emitter for emitter, live, more in suspects if largest(live) + more >= LARGE}

    def _minutes(
        self, rows: Integers, market: Integers, exponents: Integers, price_mode: PriceMode
    ) -> tuple[Rows, Integers]:
        """One-minute candles of rows that are sorted by market, and whose they are."""
        times = self._minute(rows)
        starts = np.flatnonzero(np.r_[True, (market[1:] != market[:-1]) | (times[1:] != times[:-1])])
        ends = np.append(starts[1:], len(rows))
        numerator, denominator = self._price(rows, price_mode)
        high, low = extremes(numerator, denominator, starts, ends)
        told, place = np.unique(np.concatenate([starts, high, low, ends - 1]), return_inverse=True)
        prices = ratios(numerator[told], denominator[told], exponents[market[told]])
        is_buy = self.is_buy[rows]
        amounts = self.amounts[rows, :2]
        amounts = np.concatenate([amounts, amounts * is_buy[:, None, None]], axis=1)
        minutes = np.zeros((len(starts), WORDS), np.uint64)
        minutes[:, TIME] = times[starts]
        for part, at in zip((OPEN, HIGH, LOW, CLOSE), np.split(place, 4), strict=True):
            minutes[:, part] = prices[at]
        minutes[:, AMOUNTS] = totals(amounts, starts).reshape(len(starts), -1)
        minutes[:, COUNTS.start] = ends - starts
        minutes[:, COUNTS.start + 1] = np.add.reduceat(is_buy.astype(np.int64), starts)
        for part, at in ((FIRST, starts), (LAST, ends - 1)):
            minutes[:, part] = np.stack([self.block[rows[at]], self.log_index[rows[at]]], axis=1)
        return minutes, market[starts]

    def _minute(self, rows: Integers) -> Integers:
        """Open time of the minute of each row."""
        numbers, places = np.unique(self.block[rows], return_inverse=True)
        times = [self.refs[number].timestamp for number in numbers.tolist()]
        minutes: Integers = np.array([time - time % MINUTE_MS for time in times], np.int64)[places]
        return minutes

    def _price(self, rows: Integers, price_mode: PriceMode) -> tuple[Halves, Halves]:
        """Numerator and denominator of the price that candles are made of."""
        amounts = self.amounts[rows]
        quote, base = amounts[:, QUOTE], amounts[:, BASE]
        if price_mode == "execution":
            return quote, base
        spot = self.has_reserves[rows] & _all_positive(amounts, BASE_RESERVE, QUOTE_RESERVE)
        return (
            np.where(spot[:, None], amounts[:, QUOTE_RESERVE], quote),
            np.where(spot[:, None], amounts[:, BASE_RESERVE], base),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Newest(Sequence[Trade]):
    """Some trades of one market; they are made where they are looked at.

    Attributes:
        columns: where they are.
        rows: which they are.
        market: for which they count.
        by_reserves: see `Trade`.
    """

    columns: Columns
    rows: Integers
    market: Market
    by_reserves: bool

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Trade: ...

    @overload
    def __getitem__(self, index: slice) -> "Newest": ...

    def __getitem__(self, index: int | slice) -> "Trade | Newest":
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self.trades(self.rows[[index]])[0]

    def __iter__(self) -> Iterator[Trade]:
        return iter(self.trades(self.rows))

    def trades(self, rows: Integers) -> list[Trade]:
        """Trades of this market, one by one."""
        told = self.columns
        refs = [told.refs[block] for block in told.block[rows].tolist()]
        return [
            Trade(
                self.market.id,
                ref.number,
                log_index,
                ref.hash,
                tx_hash,
                ref.timestamp,
                is_buy,
                Address(trader),
                base,
                quote,
                fee,
                reserves,
                self.market.price_exponent,
                self.by_reserves,
            )
            for ref, log_index, tx_hash, is_buy, trader, base, quote, fee, reserves in zip(
                refs,
                told.log_index[rows].tolist(),
                texts(told.tx_hash[rows]),
                *told.values(rows),
                strict=True,
            )
        ]


def _all_positive(amounts: Halves, *kinds: int) -> Flags:
    positive = np.ones(len(amounts), np.bool_)
    for kind in kinds:
        positive &= amounts[:, kind].any(axis=1)
    return positive


def _or_none(values: list[Any], flags: Flags) -> list[Any]:
    if flags.all():
        return values
    return [value if flag else None for value, flag in zip(values, flags.tolist(), strict=True)]


def texts(digits: Bytes) -> list[str]:
    """Rows of hex digits, each behind `0x`."""
    width = digits.shape[1] + 2
    told = np.empty((len(digits), width), np.uint8)
    told[:, :2] = np.frombuffer(b"0x", np.uint8)
    told[:, 2:] = digits
    text = told.tobytes().decode("ascii")
    return [text[at : at + width] for at in range(0, len(text), width)]

"""Trades in bulk: numpy columns instead of an object for each, folded at once. All amounts are exact."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, overload

import numpy as np

from listener.application.history import BulkFold, Emitter
from listener.application.state import PriceMode
from listener.domain.entities import Market, MinuteFold, Trade
from listener.domain.facts import Swapped
from listener.domain.value_objects import MINUTE_MS, Address, BlockRef, MarketId, TradeId
from listener.infrastructure.exact import (
    Bytes,
    Flags,
    Halves,
    Integers,
    extremes,
    integers,
    sums_of,
)

BASE, QUOTE, FEE, BASE_RESERVE, QUOTE_RESERVE = range(5)


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
    def grouped(self) -> tuple[list[Emitter], Integers]:
        """All emitters, and which of them each row's is."""
        keys = (self.emitter.view(np.uint64) * _MIXED).sum(axis=1, dtype=np.uint64)
        _, first, source = np.unique(keys, return_index=True, return_inverse=True)
        if (self.emitter != self.emitter[first][source]).any():
            whole = self.emitter.view(np.dtype((np.void, 2 * ADDRESS)))[:, 0]
            _, first, source = np.unique(whole, return_index=True, return_inverse=True)
        told = self.emitter[first]
        named = told[:, ADDRESS].astype(np.bool_).tolist()
        addresses, markets = texts(told[:, :ADDRESS]), texts(told[:, ADDRESS:])
        return [
            Emitter(address, MarketId(market) if is_named else None)
            for address, market, is_named in zip(addresses, markets, named, strict=True)
        ], source

    def emitters(self) -> dict[Emitter, int]:
        """See `TradeBatch.emitters`."""
        sources, source = self.grouped
        counts = np.bincount(source, minlength=len(sources)).tolist()
        return dict(zip(sources, counts, strict=True))

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
        refs, (sources, source_of) = self.refs, self.grouped
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
        sources, source = self.grouped
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

    def fold(
        self, markets: Mapping[Emitter, Market], newest: int, price_mode: PriceMode
    ) -> dict[Emitter, BulkFold]:
        """See `TradeBatch.fold`."""
        sources, source = self.grouped
        ours = self._of(markets)
        priced = _all_positive(self.amounts, BASE, QUOTE)
        zeros = np.bincount(source[ours & ~priced], minlength=len(sources)).tolist()
        rows = np.flatnonzero(ours & priced)
        rows = rows[np.argsort(source[rows], kind="stable")]
        edges = np.searchsorted(source[rows], np.arange(len(sources) + 1)).tolist()
        minutes = self._minutes(rows, price_mode)
        by_reserves = price_mode == "spot"
        return {
            emitter: BulkFold(
                end - start,
                zeros[place],
                minutes.get(place, ()),
                Newest(self, rows[max(start, end - newest) : end], markets[emitter], by_reserves),
            )
            for place, (emitter, (start, end)) in enumerate(zip(sources, pairwise(edges), strict=True))
            if end > start or zeros[place]
        }

    def _minutes(self, rows: Integers, price_mode: PriceMode) -> dict[int, list[MinuteFold]]:
        """Folds of rows that are sorted by emitter, by the emitter's index."""
        if not len(rows):
            return {}
        source, times = self.grouped[1][rows], self._minute(rows)
        starts = np.flatnonzero(np.r_[True, (source[1:] != source[:-1]) | (times[1:] != times[:-1])])
        ends = np.r_[starts[1:], len(rows)]
        numerator, denominator = self._price(rows, price_mode)
        high, low = extremes(numerator, denominator, starts, ends)
        told, place = np.unique(np.concatenate([starts, high, low, ends - 1]), return_inverse=True)
        pairs = list(zip(integers(numerator[told]), integers(denominator[told]), strict=True))
        prices = [[pairs[at] for at in part.tolist()] for part in np.split(place, 4)]
        is_buy = self.is_buy[rows]
        sums = [
            sums_of(self.amounts[rows, kind] * (is_buy[:, None] if bought else np.uint64(1)), starts)
            for bought in (False, True)
            for kind in (BASE, QUOTE)
        ]
        positions = [
            list(map(TradeId, self.block[rows[at]].tolist(), self.log_index[rows[at]].tolist()))
            for at in (starts, ends - 1)
        ]
        found: dict[int, list[MinuteFold]] = {}
        for place, *fold in zip(
            source[starts].tolist(),
            times[starts].tolist(),
            *prices,
            *sums,
            (ends - starts).tolist(),
            np.add.reduceat(is_buy.astype(np.int64), starts).tolist(),
            *positions,
            strict=True,
        ):
            found.setdefault(place, []).append(MinuteFold(*fold))
        return found

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

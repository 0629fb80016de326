"""Trades in bulk: numpy columns instead of an object for each, folded at once.

Amounts are two 64-bit halves, and sums are made of 32-bit limbs: all is exact.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from listener.application.history import BulkFold, Emitter
from listener.application.state import PriceMode
from listener.domain.entities import Market, MinuteFold, Trade
from listener.domain.facts import Swapped
from listener.domain.value_objects import MINUTE_MS, Address, BlockRef, MarketId, TradeId

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Halves = npt.NDArray[np.uint64]
"""Unsigned integers below 2**128: the last axis holds their upper and their lower 64 bits."""

BASE, QUOTE, FEE, BASE_RESERVE, QUOTE_RESERVE = range(5)


ADDRESS: Final = 40
"""Hex digits of an address."""
_MIXED: Final = np.array([(0x9E3779B97F4A7C15 ** (2 * place + 1)) % 2**64 for place in range(10)], np.uint64)
"""Odd factors: whether two emitters with one sum are the same is looked at."""
_LOW: Final = np.uint64(0xFFFF_FFFF)
_LIMB: Final = np.uint64(32)
_NEARLY: Final = 1e-12
"""Quotients of doubles that are closer than this may be in the wrong order: exact ones decide."""


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
        high, low = _extremes(numerator, denominator, starts, ends)
        told, place = np.unique(np.concatenate([starts, high, low, ends - 1]), return_inverse=True)
        pairs = list(zip(integers(numerator[told]), integers(denominator[told]), strict=True))
        prices = [[pairs[at] for at in part.tolist()] for part in np.split(place, 4)]
        is_buy = self.is_buy[rows]
        sums = [
            _sums(self.amounts[rows, kind] * (is_buy[:, None] if bought else np.uint64(1)), starts)
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


def integers(halves: Halves) -> list[int]:
    """Python's integers."""
    whole: list[int] = halves[:, 1].tolist()
    large = np.flatnonzero(halves[:, 0])
    for place, upper in zip(large.tolist(), halves[large, 0].tolist(), strict=True):
        whole[place] |= upper << 64
    return whole


def limbs_of(halves: Halves) -> list[npt.NDArray[np.uint64]]:
    """Limbs of 32 bits, the lowest first, without upper ones that are zero in all rows."""
    limbs = [halves[:, 1] & _LOW, halves[:, 1] >> _LIMB, halves[:, 0] & _LOW, halves[:, 0] >> _LIMB]
    while limbs and not limbs[-1].any():
        limbs.pop()
    return limbs


def texts(digits: Bytes) -> list[str]:
    """Rows of hex digits, each behind `0x`."""
    width = digits.shape[1] + 2
    told = np.empty((len(digits), width), np.uint8)
    told[:, :2] = np.frombuffer(b"0x", np.uint8)
    told[:, 2:] = digits
    text = told.tobytes().decode("ascii")
    return [text[at : at + width] for at in range(0, len(text), width)]


def _sums(halves: Halves, starts: Integers) -> list[int]:
    """Exact sums of runs of rows."""
    sums = [np.add.reduceat(limb, starts) for limb in limbs_of(halves)]
    sums += [np.zeros(len(starts), np.uint64)] * (4 - len(sums))
    for place in range(3):
        sums[place + 1] = sums[place + 1] + (sums[place] >> _LIMB)
        sums[place] = sums[place] & _LOW
    upper, lower = sums[2] | sums[3] << _LIMB, sums[0] | sums[1] << _LIMB
    whole = integers(np.stack([upper, lower], axis=1))
    for place in np.flatnonzero(sums[3] >> _LIMB).tolist():
        whole[place] += int(sums[3][place] >> _LIMB) << 128
    return whole


def _extremes(
    numerator: Halves, denominator: Halves, starts: Integers, ends: Integers
) -> tuple[Integers, Integers]:
    """The rows of the highest and of the lowest quotient of each run; of equals, any."""
    quotient = _double(numerator) / _double(denominator)
    lengths = ends - starts
    found: list[Integers] = []
    for best_of, sign in ((np.maximum, 1.0), (np.minimum, -1.0)):
        best = best_of.reduceat(quotient, starts)
        near = quotient * sign >= np.repeat(best * sign * (1 - sign * _NEARLY), lengths)
        candidates = np.flatnonzero(near)
        run = np.searchsorted(starts, candidates, side="right") - 1
        _, first, count = np.unique(run, return_index=True, return_counts=True)
        chosen = candidates[first]
        for place in np.flatnonzero(count > 1).tolist():
            some = candidates[first[place] : first[place] + count[place]]
            chosen[place] = _exactly(numerator, denominator, some, highest=sign > 0)
        found.append(chosen)
    return found[0], found[1]


def _double(halves: Halves) -> npt.NDArray[np.float64]:
    return halves[:, 0].astype(np.float64) * 2.0**64 + halves[:, 1]


def _exactly(numerator: Halves, denominator: Halves, rows: Integers, *, highest: bool) -> int:
    """The row of the highest or lowest quotient."""
    pairs = list(zip(integers(numerator[rows]), integers(denominator[rows]), strict=True))
    best = 0
    for place in range(1, len(pairs)):
        difference = pairs[place][0] * pairs[best][1] - pairs[best][0] * pairs[place][1]
        if difference and (difference > 0) is highest:
            best = place
    return int(rows[best])

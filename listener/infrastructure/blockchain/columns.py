"""Trades in bulk: the logs of a large reply as numpy columns instead of an object for each.

A log is taken into the columns only where it has exactly the form that its venue's `TradeLayout` says; any
other is left to the venue's decoder. Amounts are two 64-bit halves, and sums are made of 32-bit limbs: all is
exact.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice, pairwise, repeat
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from listener.application.errors import InconsistentReply
from listener.application.history import BulkFold, Emitter
from listener.application.state import PriceMode
from listener.domain.entities import Market, MinuteFold, Trade
from listener.domain.facts import Swapped
from listener.domain.value_objects import MINUTE_MS, BlockRef, MarketId, TradeId
from listener.infrastructure.blockchain.venues.venue import TradeLayout
from listener.infrastructure.blockchain.wire import Log, Row

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Halves = npt.NDArray[np.uint64]
"""Unsigned integers below 2**128: the last axis holds their upper and their lower 64 bits."""

BASE, QUOTE, FEE, BASE_RESERVE, QUOTE_RESERVE = range(5)

WORD: Final = 64
"""Hex digits of a data word or a topic."""
MOST_BLOCKS: Final = 2**48
MOST_LOGS: Final = 2**31

_ADDRESS: Final = re.compile("0x[0-9a-f]{40}")
_EIGHT_ZEROS: Final = np.frombuffer(b"00000000", np.uint64)[0]
_LOW: Final = np.uint64(0xFFFF_FFFF)
_LIMB: Final = np.uint64(32)
_NOT_HEX: Final = 256
_NEARLY: Final = 1e-12
"""Quotients of doubles that are closer than this may be in the wrong order: exact ones decide."""


def _pairs(digits: str) -> npt.NDArray[np.uint16]:
    """The byte that two hex digits stand for, by the two as a 16-bit integer; `_NOT_HEX` for all others."""
    table = np.full(2**16, _NOT_HEX, np.uint16)
    for high in digits:
        for low in digits:
            table[np.frombuffer((high + low).encode(), np.uint16)[0]] = int(high + low, 16)
    return table


_HEX: Final = _pairs("0123456789abcdefABCDEF")
_LOWER_HEX: Final = _pairs("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Columns:
    """Trades of final blocks, in order. Implements `TradeBatch`.

    Attributes:
        refs: blocks by number, those of the rows among them.
        sources: all emitters.
        block: number of each row's block, ascending.
        log_index: of each row.
        source: index into `sources` of each row.
        tx_hash: of each row.
        trader: 40 hex digits for each row.
        is_buy: of each row.
        amounts: base, quote, fee and the two reserves of each row.
        has_fee: of each row.
        has_reserves: of each row.
    """

    refs: Mapping[int, BlockRef]
    sources: Sequence[Emitter]
    block: Integers
    log_index: Integers
    source: Integers
    tx_hash: list[str]
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

    def emitters(self) -> dict[Emitter, int]:
        """See `TradeBatch.emitters`."""
        counts = np.bincount(self.source, minlength=len(self.sources)).tolist()
        return {emitter: count for emitter, count in zip(self.sources, counts, strict=True) if count}

    def per_block(self) -> dict[int, int]:
        """See `TradeBatch.per_block`."""
        numbers, counts = np.unique(self.block, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def joined(self, later: Sequence["Columns"]) -> "Columns":
        """See `TradeBatch.joined`."""
        parts = [self, *later]
        index = {emitter: None for part in parts for emitter in part.sources}
        places = {emitter: place for place, emitter in enumerate(index)}
        translated = [
            np.array([places[emitter] for emitter in part.sources], np.int64)[part.source] for part in parts
        ]
        return Columns(
            {number: ref for part in parts for number, ref in part.refs.items()},
            list(index),
            np.concatenate([part.block for part in parts]),
            np.concatenate([part.log_index for part in parts]),
            np.concatenate(translated),
            [tx_hash for part in parts for tx_hash in part.tx_hash],
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
        tx_hash = self.tx_hash[chosen] if isinstance(chosen, slice) else self._tx_hashes(chosen)
        return replace(
            self,
            block=self.block[chosen],
            log_index=self.log_index[chosen],
            source=self.source[chosen],
            tx_hash=tx_hash,
            trader=self.trader[chosen],
            is_buy=self.is_buy[chosen],
            amounts=self.amounts[chosen],
            has_fee=self.has_fee[chosen],
            has_reserves=self.has_reserves[chosen],
        )

    def swaps(self, emitters: Collection[Emitter]) -> list[tuple[BlockRef, Swapped]]:
        """See `TradeBatch.swaps`."""
        rows = np.flatnonzero(self._of(emitters))
        refs, sources = self.refs, self.sources
        return [
            (refs[block], Swapped(sources[source].source, log_index, tx_hash, sources[source].market, *told))
            for block, log_index, source, tx_hash, *told in zip(
                self.block[rows].tolist(),
                self.log_index[rows].tolist(),
                self.source[rows].tolist(),
                self._tx_hashes(rows),
                *self._told(rows),
                strict=True,
            )
        ]

    def _of(self, emitters: Collection[Emitter]) -> Flags:
        """Which rows are of these emitters."""
        chosen: Flags = np.array([emitter in emitters for emitter in self.sources], np.bool_)[self.source]
        return chosen

    def _tx_hashes(self, rows: Integers) -> list[str]:
        tx_hash = self.tx_hash
        return [tx_hash[row] for row in rows.tolist()]

    def _told(self, rows: Integers) -> tuple[list[Any], ...]:
        """What the events say, as Python's objects: side, trader, base, quote, fee and reserves."""
        texts = np.empty((len(rows), 42), np.uint8)
        texts[:, :2] = np.frombuffer(b"0x", np.uint8)
        texts[:, 2:] = self.trader[rows]
        text = texts.tobytes().decode("ascii")
        base, quote, fee, base_reserve, quote_reserve = (
            integers(self.amounts[rows, kind]) for kind in range(5)
        )
        return (
            self.is_buy[rows].tolist(),
            [text[at : at + 42] for at in range(0, len(text), 42)],
            base,
            quote,
            _or_none(fee, self.has_fee[rows]),
            _or_none(list(zip(base_reserve, quote_reserve, strict=True)), self.has_reserves[rows]),
        )

    def fold(
        self, markets: Mapping[Emitter, Market], newest: int, price_mode: PriceMode
    ) -> dict[Emitter, BulkFold]:
        """See `TradeBatch.fold`."""
        ours = self._of(markets)
        priced = _all_positive(self.amounts, BASE, QUOTE)
        zeros = np.bincount(self.source[ours & ~priced], minlength=len(self.sources)).tolist()
        rows = np.flatnonzero(ours & priced)
        rows = rows[np.argsort(self.source[rows], kind="stable")]
        edges = np.searchsorted(self.source[rows], np.arange(len(self.sources) + 1)).tolist()
        kept = [np.arange(max(start, end - newest), end) for start, end in pairwise(edges)]
        trades = iter(self._trades(rows[np.concatenate(kept)], markets, price_mode))
        minutes = self._minutes(rows, price_mode)
        return {
            emitter: BulkFold(
                end - start,
                zeros[place],
                minutes.get(place, ()),
                list(islice(trades, min(end - start, newest))),
            )
            for place, (emitter, (start, end)) in enumerate(zip(self.sources, pairwise(edges), strict=True))
            if end > start or zeros[place]
        }

    def _trades(
        self, rows: Integers, markets: Mapping[Emitter, Market], price_mode: PriceMode
    ) -> list[Trade]:
        blocks = self.block[rows].tolist()
        refs = [self.refs[block] for block in blocks]
        ours = [markets.get(emitter) for emitter in self.sources]
        ids = [market and market.id for market in ours]
        exponents = [market and market.price_exponent for market in ours]
        sources = self.source[rows].tolist()
        return list(
            map(
                Trade._make,
                zip(
                    [ids[source] for source in sources],
                    blocks,
                    self.log_index[rows].tolist(),
                    [ref.hash for ref in refs],
                    self._tx_hashes(rows),
                    [ref.timestamp for ref in refs],
                    *self._told(rows),
                    [exponents[source] for source in sources],
                    repeat(price_mode == "spot"),
                    strict=False,
                ),
            )
        )

    def _minutes(self, rows: Integers, price_mode: PriceMode) -> dict[int, list[MinuteFold]]:
        """Folds of rows that are sorted by emitter, by the emitter's index."""
        if not len(rows):
            return {}
        source, times = self.source[rows], self._minute(rows)
        starts = np.flatnonzero(np.r_[True, (source[1:] != source[:-1]) | (times[1:] != times[:-1])])
        ends = np.r_[starts[1:], len(rows)]
        numerator, denominator = self._price(rows, price_mode)
        high, low = _extremes(numerator, denominator, starts, ends)
        prices = [
            list(zip(integers(numerator[at]), integers(denominator[at]), strict=True))
            for at in (starts, high, low, ends - 1)
        ]
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
    lower: list[int] = halves[:, 1].tolist()
    if not halves[:, 0].any():
        return lower
    return [upper << 64 | low for upper, low in zip(halves[:, 0].tolist(), lower, strict=True)]


def _sums(halves: Halves, starts: Integers) -> list[int]:
    """Exact sums of runs of rows."""
    limbs = [halves[:, 1] & _LOW, halves[:, 1] >> _LIMB, halves[:, 0] & _LOW, halves[:, 0] >> _LIMB]
    added = [np.add.reduceat(limb, starts) for limb in limbs if limb.any()]
    if not added:
        return [0] * len(starts)
    sums: list[int] = added[0].tolist()
    for place, limb in enumerate(added[1:], 1):
        sums = [total + (more << 32 * place) for total, more in zip(sums, limb.tolist(), strict=True)]
    return sums


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


class Reading(NamedTuple):
    """What a reply holds.

    Attributes:
        hashes: of the blocks with logs, by number.
        trades: those that have their layout's form; their `refs` are still missing.
        others: all other logs.
    """

    hashes: Mapping[int, str]
    trades: Columns | None
    others: Sequence[Log]


def read(rows: Sequence[Row], layouts: Mapping[str, TradeLayout]) -> Reading:
    """Put the trades of a reply into columns.

    Raises:
        InconsistentReply: logs of one block name two hashes or two numbers, or numbers that are none.
    """
    texts = [row.block_hash for row in rows]
    numbers = [row.block_number for row in rows]
    number_of = dict(zip(texts, numbers, strict=True))
    if [number_of[text] for text in texts] != numbers:
        raise InconsistentReply("a reply has logs of one block under two numbers")
    values = {text: _integer(number, MOST_BLOCKS) for text, number in number_of.items()}
    hashes: dict[int, str] = {}
    for text, value in values.items():
        if hashes.setdefault(value, text.lower()) != text.lower():
            raise InconsistentReply(f"a reply has logs of two blocks {value}")
    indices = [row.log_index for row in rows]
    index_of = {text: _integer(text, MOST_LOGS) for text in set(indices)}
    block = np.fromiter(map(values.__getitem__, texts), np.int64, len(rows))
    log_index = np.fromiter(map(index_of.__getitem__, indices), np.int64, len(rows))
    taken = np.zeros(len(rows), np.bool_)
    parts: list[Columns] = []
    if _ascending(block, log_index):
        for topic, layout in layouts.items():
            part = _part(rows, block, log_index, topic, layout)
            if part is not None:
                columns, places = part
                taken[places] = True
                parts.append(columns)
    others = [row.log() for row in compress(rows, (~taken).tolist())]
    if not parts:
        return Reading(hashes, None, others)
    trades = parts[0].joined(parts[1:]) if len(parts) > 1 else parts[0]
    if len(parts) > 1:
        trades = trades.rows(np.lexsort((trades.log_index, trades.block)))
    return Reading(hashes, trades, others)


def _integer(text: str, bound: int) -> int:
    """A number of the node's, in hex."""
    try:
        value = int(text, 16)
    except ValueError as error:
        raise InconsistentReply(f"a log at {text[:40]!r}") from error
    if not 0 <= value < bound:
        raise InconsistentReply(f"a log at {text[:40]!r}")
    return value


def _ascending(block: Integers, log_index: Integers) -> bool:
    later = block[1:] > block[:-1]
    same = (block[1:] == block[:-1]) & (log_index[1:] > log_index[:-1])
    return bool((later | same).all())


def _part(
    rows: Sequence[Row], block: Integers, log_index: Integers, topic: str, layout: TradeLayout
) -> tuple[Columns, Integers] | None:
    """The rows that fit one layout, and which these are."""
    template = _template(topic, layout)
    topics = [bytes(row.topics) for row in rows]
    data = [row.data for row in rows]
    digits = 2 + layout.words * WORD
    fits = [len(one) == len(template) and len(two) == digits for one, two in zip(topics, data, strict=True)]
    places = np.flatnonzero(np.array(fits, np.bool_))
    text = "".join(compress(data, fits))
    if not len(places) or not text.isascii():
        return None
    told = np.frombuffer(b"".join(compress(topics, fits)), np.uint8).reshape(len(places), -1)
    words = np.frombuffer(text.encode(), np.uint8).reshape(len(places), -1)
    fixed = np.frombuffer(template, np.uint8)
    constant = fixed != 0
    good: Flags = (told[:, constant] == fixed[constant]).all(axis=1)
    trader = _topic(told, layout.trader)
    good &= _is_lower_hex(trader)
    amounts, whole = _amounts(words, layout)
    good &= whole & (amounts[:, layout.is_buy, 0] == 0) & (amounts[:, layout.is_buy, 1] <= 1)
    sources, source, known = _sources([rows[place].address for place in places.tolist()], told, layout)
    good &= known
    kept = np.flatnonzero(good)
    if not len(kept):
        return None
    places = places[kept]
    reserves = layout.reserves or (0, 0)
    order = [layout.base, layout.quote, layout.fee or 0, *reserves]
    columns = Columns(
        {},
        sources,
        block[places],
        log_index[places],
        source[kept],
        [rows[place].transaction_hash for place in places.tolist()],
        trader[kept],
        amounts[kept, layout.is_buy, 1] == 1,
        amounts[np.ix_(kept, np.array(order))],
        np.full(len(kept), layout.fee is not None),
        np.full(len(kept), layout.reserves is not None),
    )
    return columns, places


def _template(topic: str, layout: TradeLayout) -> bytes:
    """The topics of a log as JSON, zero bytes for the digits that vary."""
    told = [topic.encode()]
    for index in range(1, layout.topics):
        digits = b"0" * 24 + b"\0" * 40 if index in {layout.market, layout.trader} else b"\0" * WORD
        told.append(b"0x" + digits)
    return b'["' + b'","'.join(told) + b'"]'


def _topic(told: Bytes, index: int) -> Bytes:
    """The 40 digits of an address topic."""
    end = 2 + index * (WORD + 5) + 2 + WORD
    return np.ascontiguousarray(told[:, end - 40 : end])


def _is_lower_hex(digits: Bytes) -> Flags:
    good: Flags = (_LOWER_HEX[digits.view(np.uint16)] != _NOT_HEX).all(axis=1)
    return good


def _amounts(words: Bytes, layout: TradeLayout) -> tuple[Halves, Flags]:
    """All data words as halves, and which rows are hex and below 2**128 throughout."""
    digits = words[:, 2:].reshape(len(words), layout.words, WORD)
    upper = np.ascontiguousarray(digits[:, :, :32]).view(np.uint64)
    values = _HEX[np.ascontiguousarray(digits[:, :, 32:]).view(np.uint16)]
    good: Flags = (upper == _EIGHT_ZEROS).all(axis=(1, 2)) & (values != _NOT_HEX).all(axis=(1, 2))
    good &= (words[:, 0] == ord("0")) & (words[:, 1] == ord("x"))
    halves: Halves = values.astype(np.uint8).view(">u8").astype(np.uint64)
    return halves, good


def _sources(
    addresses: Sequence[str], told: Bytes, layout: TradeLayout
) -> tuple[list[Emitter], Integers, Flags]:
    """Emitters; each row's; and which rows name the same market as their emitter's first."""
    places = {address: place for place, address in enumerate(dict.fromkeys(addresses))}
    source = np.fromiter(map(places.__getitem__, addresses), np.int64, len(addresses))
    lowered = [address.lower() for address in places]
    known = np.array([bool(_ADDRESS.fullmatch(address)) for address in lowered], np.bool_)
    if len(set(lowered)) < len(lowered):
        known[:] = False
    if layout.market is None:
        return [Emitter(address, None) for address in lowered], source, known[source]
    named = _topic(told, layout.market)
    first = named[np.unique(source, return_index=True)[1]]
    known &= _is_lower_hex(first)
    same: Flags = (named == first[source]).all(axis=1)
    markets = [MarketId("0x" + one.tobytes().decode("ascii", "replace")) for one in first]
    return (
        [Emitter(address, market) for address, market in zip(lowered, markets, strict=True)],
        source,
        known[source] & same,
    )

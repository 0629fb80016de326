"""All markets in memory: what search and sorting need, in columns.

100,000 markets take some 40 MB and are searched in a few milliseconds. Answers are read from Redis; the index
only says which markets are meant.
"""

import asyncio
import hashlib
from array import array
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from listener.application.interfaces import Clock
from listener.application.reading import MarketReader, MarketView
from listener.infrastructure.redis.row_feed import RowBatch

MARKETS_MAX: Final = 500_000
"""Markets that are kept; later ones are left out, and said to be."""
LOAD_TOGETHER: Final = 1_000
"""Ids that are read at once."""
VIEWS_TOGETHER: Final = 250
"""Markets whose figures are read at once."""
REFRESH_S: Final = 1.0
"""How often what has changed is read again."""
REFRESH_MAX: Final = 2_000
"""Markets that are read again at once: the ones named as changed, then some of the others in turn."""
HEAL_MAX: Final = 250
"""Of those, ones that nobody has named: what was missed is right again after a while."""
OVERLAP_MS: Final = 60_000
"""New markets are looked for from a little before the newest one: blocks can share a time."""
NEVER: Final = float("-inf")


class MarketSort(StrEnum):
    """Orders of a list of markets."""

    NEWEST = "newest"
    AGE = "age"
    VOLUME = "volume"
    TRADES = "trades"
    GAINERS = "gainers"
    LOSERS = "losers"


class Place(NamedTuple):
    """Where a market stands in an order: by value, then by creation, then by a number of its own."""

    value: float
    created: int
    tie: int


class Found(NamedTuple):
    """A page of ids.

    Attributes:
        total: how many match.
        last: place of the last one, if others follow.
    """

    markets: list[str]
    total: int
    last: Place | None


class MarketIndex:
    """Ids, texts and figures of all markets.

    Args:
        reader: where they come from.
        clock: to wait between refreshes.
    """

    def __init__(self, reader: MarketReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._created, self._ties = array("q"), array("Q")
        self._volumes, self._trades, self._changes = array("d"), array("d"), array("d")
        self._changed: dict[str, None] = {}
        self._orders: dict[MarketSort, NDArray[np.int64]] = {}
        self._turn = 0
        self.complete = False

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, market: object) -> bool:
        return market in self._rows

    async def run(self) -> None:
        """Load everything, then keep it up to date.

        Raises:
            StoreUnavailable, StoreMisused: see `MarketReader`; run it again to go on.
        """
        while True:
            await self.refresh()
            await self._clock.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Load what is new, and read again what has changed."""
        await self._load_new()
        named = list(self._changed)[:REFRESH_MAX]
        for market in named:
            del self._changed[market]
        try:
            await self._read([*named, *self._next_in_turn(min(HEAL_MAX, REFRESH_MAX - len(named)))])
        except BaseException:
            self.changed(named)
            raise
        finally:
            self._orders.clear()

    def changed(self, markets: Iterable[str]) -> None:
        """These markets are new, have other figures, or are gone: read them again with the next refresh."""
        self._changed.update(dict.fromkeys(markets))

    def follow(self, batch: RowBatch) -> None:
        """Consumer of the row feed: markets that rows name are read again; all, where rows were missed."""
        for row in batch.rows:
            if row.event == "market_data":
                self._changed[row.data.decode()] = None
            elif row.event in {"market_created", "market_graduated"}:
                self._changed[orjson.loads(row.data)["s"]] = None
        if batch.missed or any(row.event == "resync" for row in batch.rows):
            self.changed(self._ids)

    def health_check(self) -> dict[str, object]:
        """How many markets there are, and how many of them wait to be read again."""
        return {"markets": len(self._rows), "complete": self.complete, "changed": len(self._changed)}

    def apply(self, views: Mapping[str, MarketView | None]) -> None:
        """Put in what was read; None: the market is gone. Orders follow with the next refresh."""
        for market, view in views.items():
            if view is None:
                self._remove(market)
            else:
                self._put(market, view)

    def find(self, text: str, sort: MarketSort, limit: int, after: Place | None = None) -> Found:
        """A page of the markets with `text` in their id, symbol, name or creator.

        Args:
            text: any case; empty: all markets.
            sort: their order.
            limit: how many at most.
            after: only those that stand behind this place, as it is now.
        """
        order = self._order(sort)
        if text:
            needle = text.lower()
            hits = np.fromiter((needle in texts for texts in self._texts), bool, len(self._texts))
            order = order[hits[order]]
        total = len(order)
        if after is not None:
            order = order[self._behind(order, sort, after)]
        rows = order[:limit].tolist()
        last = self._place(rows[-1], sort) if rows and len(order) > limit else None
        return Found([self._ids[row] for row in rows], total, last)

    async def _load_new(self) -> None:
        newest = max(self._created, default=0) - OVERLAP_MS
        while len(self._rows) < MARKETS_MAX:
            found = await self._reader.market_ids(newest, LOAD_TOGETHER)
            await self._read([market for market, _created in found if market not in self._rows])
            self._orders.clear()
            if len(found) < LOAD_TOGETHER:
                self.complete = len(self._rows) < MARKETS_MAX
                return
            newest = found[-1][1]
        self.complete = False

    async def _read(self, markets: list[str]) -> None:
        for start in range(0, len(markets), VIEWS_TOGETHER):
            part = markets[start : start + VIEWS_TOGETHER]
            self.apply(dict(zip(part, await self._reader.views(part), strict=True)))
            await asyncio.sleep(0)

    def _next_in_turn(self, count: int) -> list[str]:
        if self._turn >= len(self._ids):
            self._turn = 0
        part = self._ids[self._turn : self._turn + count]
        self._turn += count
        return part

    def _put(self, market: str, view: MarketView) -> None:
        record, stats = view.record, view.stats or {}
        words = (market, record.get("symbol"), record.get("name"), record.get("creator"))
        text = "\n".join(str(word) for word in words).lower()
        row = self._rows.get(market)
        if row is None:
            if len(self._rows) >= MARKETS_MAX:
                return
            row = self._rows[market] = len(self._ids)
            self._ids.append(market)
            self._texts.append(text)
            self._created.append(0)
            self._ties.append(_tie(market))
            for column in (self._volumes, self._trades, self._changes):
                column.append(0.0)
        self._texts[row] = text
        self._created[row] = _whole(record.get("createdAt"))
        self._volumes[row] = _number(stats.get("quoteVolume"), 0.0)
        self._trades[row] = _number(stats.get("count"), 0.0)
        self._changes[row] = _number(stats.get("priceChangePercent"), NEVER)

    def _remove(self, market: str) -> None:
        """The last row takes the place of the one that goes."""
        row = self._rows.pop(market, None)
        if row is None:
            return
        self._orders.clear()
        columns: tuple[array[Any], ...] = (
            self._created,
            self._ties,
            self._volumes,
            self._trades,
            self._changes,
        )
        last_id, last_text = self._ids.pop(), self._texts.pop()
        if row < len(self._ids):
            self._ids[row], self._texts[row] = last_id, last_text
            self._rows[last_id] = row
        for column in columns:
            last = column.pop()
            if row < len(self._ids):
                column[row] = last

    def _values(self, sort: MarketSort) -> NDArray[np.float64]:
        """What an order goes by, greatest first."""
        size = len(self._ids)
        if sort is MarketSort.NEWEST:
            return np.zeros(size)
        if sort is MarketSort.AGE:
            return -np.array(self._created, np.float64)
        if sort is MarketSort.VOLUME:
            return np.array(self._volumes)
        if sort is MarketSort.TRADES:
            return np.array(self._trades)
        changes = np.array(self._changes)
        return changes if sort is MarketSort.GAINERS else np.where(np.isinf(changes), NEVER, -changes)

    def _order(self, sort: MarketSort) -> NDArray[np.int64]:
        """Rows in an order; kept for a while, as sorting 100,000 takes 10 ms."""
        order = self._orders.get(sort)
        if order is None:
            keys = (np.array(self._ties), np.array(self._created), self._values(sort))
            order = self._orders[sort] = np.lexsort(keys)[::-1]
        return order

    def _behind(self, order: NDArray[np.int64], sort: MarketSort, place: Place) -> NDArray[np.bool_]:
        values, created = self._values(sort)[order], np.array(self._created)[order]
        ties = np.array(self._ties)[order]
        same_value, same_created = values == place.value, created == place.created
        behind: NDArray[np.bool_] = (values < place.value) | (
            same_value & ((created < place.created) | (same_created & (ties < np.uint64(place.tie))))
        )
        return behind

    def _place(self, row: int, sort: MarketSort) -> Place:
        return Place(float(self._values(sort)[row]), self._created[row], self._ties[row])


def _tie(market: str) -> int:
    """The same number in every process, so that a page can be followed by one from another instance."""
    return int.from_bytes(hashlib.blake2b(market.encode(), digest_size=8).digest())


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _number(value: object, otherwise: float) -> float:
    """Good enough to sort by."""
    return float(value) if isinstance(value, int | str) else otherwise

"""Lists of markets: search, orders and pages from memory."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Row, RowId
from listener.application.reading import MarketView
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.gateway import cursors, market_index
from listener.infrastructure.gateway.market_index import MarketIndex, MarketSort, Place
from listener.infrastructure.gateway.replies import Problem
from listener.infrastructure.redis.row_feed import RowBatch


class Shelf:
    """The part of `MarketReader` that an index asks.

    Attributes:
        markets: what is stored, by id.
        asked: ids whose figures were read, in order.
        away: raise instead of answering figures.
    """

    def __init__(self) -> None:
        self.markets: dict[str, MarketView] = {}
        self.asked: list[str] = []
        self.away = False

    def put(self, market: str, created: int, volume: str = "0", *, symbol: str = "", **stats: object) -> None:
        """Store a market."""
        record = {"symbol": symbol, "name": f"Name of {symbol}", "creator": "0xCC", "createdAt": created}
        figures = {"quoteVolume": volume, "count": 1, "priceChangePercent": "0"} | stats
        self.markets[market] = MarketView(market, record, figures)

    async def market_ids(self, after: int, limit: int) -> list[tuple[str, int]]:
        """See `MarketReader.market_ids`."""
        all_ids = sorted((_created(view), market) for market, view in self.markets.items())
        later = [(market, created) for created, market in all_ids if created > after]
        if len(later) <= limit:
            return later
        return [pair for pair in later if pair[1] <= later[limit - 1][1]]

    async def views(self, markets: Sequence[str]) -> list[MarketView | None]:
        """See `MarketReader.views`."""
        if self.away:
            raise StoreUnavailable("away")
        self.asked += markets
        return [self.markets.get(market) for market in markets]


async def loaded(count: int, volume: str = "0") -> tuple[Shelf, MarketIndex]:
    """A shelf with so many markets, and an index that knows them."""
    shelf = Shelf()
    for number in range(count):
        shelf.put(f"m{number}", number, volume)
    index = index_of(shelf)
    await index.refresh()
    shelf.asked.clear()
    return shelf, index


def _created(view: MarketView) -> int:
    created = view.record["createdAt"]
    assert isinstance(created, int)
    return created


def index_of(shelf: Shelf) -> MarketIndex:
    """An index, empty yet."""
    reader: Any = shelf
    return MarketIndex(reader, SystemClock())


def ids(index: MarketIndex, sort: MarketSort = MarketSort.NEWEST, text: str = "") -> list[str]:
    """All that is found."""
    return index.find(text, sort, 1_000).markets


async def test_everything_is_loaded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many markets, some of one instant across a piece's end, come once each; then the index is complete."""
    monkeypatch.setattr(market_index, "LOAD_TOGETHER", 10)
    shelf = Shelf()
    for number in range(95):
        shelf.put(f"m{number:03}", 1_000_000 * (number // 7))
    index = index_of(shelf)
    assert not index.complete
    await index.refresh()
    assert index.complete
    assert len(index) == 95
    assert sorted(ids(index)) == sorted(shelf.markets)


async def test_a_market_of_a_time_that_was_passed_is_found() -> None:
    """Blocks can share a time: what is created at the newest market's instant is found later as well."""
    shelf = Shelf()
    shelf.put("a", 5_000_000)
    index = index_of(shelf)
    await index.refresh()
    shelf.put("b", 5_000_000)
    await index.refresh()
    assert set(ids(index)) == {"a", "b"}


async def test_more_than_fit_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(market_index, "MARKETS_MAX", 5)
    _, index = await loaded(9)
    assert (len(index), index.complete) == (5, False)


def rows(*events: tuple[str, bytes], missed: bool = False) -> RowBatch:
    """A batch of the feed."""
    found = [Row(RowId(1, number), event, data) for number, (event, data) in enumerate(events, 1)]
    return RowBatch(RowId(1, 0), found, RowId(1, len(found)), missed)


async def test_rows_say_what_to_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A market whose figures changed, a new one and a graduated one are read; others are not."""
    monkeypatch.setattr(market_index, "HEAL_MAX", 0)
    shelf, index = await loaded(5, "1")
    shelf.put("m2", 2, "100")
    index.follow(
        rows(
            ("market_data", b"m2"),
            ("trade_update", b'{"s":"m3"}'),
            ("market_graduated", b'{"s":"m4"}'),
            ("market_data", b"m2"),
        )
    )
    await index.refresh()
    assert shelf.asked == ["m2", "m4"]
    assert ids(index, MarketSort.VOLUME)[0] == "m2"


@pytest.mark.parametrize("batch", [rows(missed=True), rows(("resync", b'{"reason":"history"}'))])
async def test_after_a_gap_all_are_read_again(batch: RowBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows were missed nobody knows what changed."""
    monkeypatch.setattr(market_index, "HEAL_MAX", 0)
    shelf, index = await loaded(5)
    index.follow(batch)
    await index.refresh()
    assert sorted(shelf.asked) == sorted(shelf.markets)


async def test_what_nobody_named_is_right_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some markets are read again in turn, so that an error does not stay."""
    monkeypatch.setattr(market_index, "HEAL_MAX", 2)
    shelf, index = await loaded(5)
    shelf.put("m4", 4, "100")
    for _ in range(4):
        await index.refresh()
    assert ids(index, MarketSort.VOLUME)[0] == "m4"


async def test_a_refresh_that_fails_forgets_nothing() -> None:
    """What was named before Redis went away is read when it is back."""
    shelf = Shelf()
    shelf.put("a", 1)
    shelf.put("b", 2)
    index = index_of(shelf)
    await index.refresh()
    shelf.put("a", 1, "100")
    index.changed(["a"])
    shelf.away = True
    with pytest.raises(StoreUnavailable):
        await index.refresh()
    assert index.health_check()["changed"] == 1
    shelf.away = False
    await index.refresh()
    assert ids(index, MarketSort.VOLUME) == ["a", "b"]
    assert index.health_check() == {"markets": 2, "complete": True, "changed": 0}


async def test_a_market_that_a_reorg_undid_is_gone() -> None:
    """Whichever it was, the others stay where they are."""
    shelf = Shelf()
    for number in range(5):
        shelf.put(f"m{number}", number, str(number), symbol=f"S{number}")
    for gone in range(5):
        index = index_of(shelf)
        await index.refresh()
        index.apply({f"m{gone}": None})
        left = [f"m{number}" for number in range(5) if number != gone]
        assert ids(index, MarketSort.AGE) == ids(index, MarketSort.LOSERS)[::-1] == left
        assert ids(index, MarketSort.VOLUME) == left[::-1]
        assert [ids(index, text=f"s{number}") for number in range(5)] == [
            [] if number == gone else [f"m{number}"] for number in range(5)
        ]
        assert f"m{gone}" not in index


MARKET = st.tuples(st.integers(0, 5), st.sampled_from(["0", "0.5", "7", "1e3"]), st.sampled_from("QZ"))


@given(
    st.lists(MARKET, max_size=25), st.sampled_from(MarketSort), st.integers(1, 7), st.sampled_from(["", "q"])
)
async def test_pages_put_together_are_the_list(
    markets: list[tuple[int, str, str]], sort: MarketSort, limit: int, text: str
) -> None:
    """With many equal figures and times: no market is left out between pages, and none comes twice."""
    index = index_of(Shelf())
    shelf = Shelf()
    for number, (created, volume, symbol) in enumerate(markets):
        change = str(number % 3) if number % 4 else None
        shelf.put(f"m{number:02}", created, volume, symbol=symbol, priceChangePercent=change)
    index.apply(dict(shelf.markets))
    whole = index.find(text, sort, 1_000)
    assert whole.last is None
    assert len(whole.markets) == whole.total
    assert set(whole.markets) == {
        m for m, v in shelf.markets.items() if text in str(v.record["symbol"]).lower()
    }
    seen: list[str] = []
    after: Place | None = None
    while True:
        page = index.find(text, sort, limit, after)
        assert page.total == whole.total
        seen += page.markets
        if page.last is None:
            break
        after = cursors.decode(cursors.encode(sort, page.last), sort)
        assert after == page.last
    assert seen == whole.markets


async def test_a_page_goes_on_from_a_market_that_has_moved() -> None:
    """A cursor is a place, not a market: whoever stands behind it comes, whatever happened since."""
    shelf = Shelf()
    for number in range(6):
        shelf.put(f"m{number}", number, str(10 - number))
    index = index_of(shelf)
    await index.refresh()
    page = index.find("", MarketSort.VOLUME, 3)
    assert page.markets == ["m0", "m1", "m2"]
    index.apply({"m2": None, "m4": None})
    assert index.find("", MarketSort.VOLUME, 3, page.last).markets == ["m3", "m5"]


def test_a_cursor_of_another_order_is_refused() -> None:
    """Its number would mean something else."""
    text = cursors.encode(MarketSort.AGE, Place(-1.0, 1, 1))
    with pytest.raises(Problem, match="cursor"):
        cursors.decode(text, MarketSort.VOLUME)

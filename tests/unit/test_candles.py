"""Candles: a monoid whose elements know the place of their trades."""

from collections.abc import Sequence
from decimal import Decimal
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from listener.domain.entities import Candle, MarketStats, Trade
from listener.domain.value_objects import DAY_MS, MINUTE_MS, TradeId, ratio
from tests.fakes.brute import figures_in, figures_of
from tests.fakes.build import ETHER, MONDAY_MS, market, trade

prices = st.decimals("0.000000001", "1000", places=9).filter(bool)


@st.composite
def trades_in_order(draw: st.DrawFn, least: int = 1) -> list[Trade]:
    """Trades of one bucket at distinct places of the chain."""
    places = draw(
        st.lists(st.tuples(st.integers(9, 12), st.integers(8, 11)), min_size=least, max_size=10, unique=True)
    )
    return [
        trade(
            *place,
            draw(prices),
            base=draw(st.integers(1, 2**256 - 1)),
            quote=draw(st.integers(1, 10**24)),
            buy=draw(st.booleans()),
        )
        for place in sorted(places)
    ]


def candle(one: Trade) -> Candle:
    """A candle of one trade."""
    return Candle.of([one], MONDAY_MS)


def fold(candles: Sequence[Candle]) -> Candle:
    """All candles merged, from the left."""
    return reduce(Candle.merge, candles)


@given(trades_in_order())
def test_a_fold_is_what_one_would_count(trades: list[Trade]) -> None:
    """Open, high, low, close, volumes and counts of a fold are those of its trades."""
    merged = fold([candle(one) for one in trades])
    assert figures_in(merged) == figures_of(trades)
    assert (merged.first, merged.last) == (trades[0].id, trades[-1].id)
    assert merged.low <= min(merged.open, merged.close)
    assert merged.high >= max(merged.open, merged.close)


@given(trades_in_order())
def test_trades_fold_at_once_as_one_by_one(trades: list[Trade]) -> None:
    """The short way of the hot path gives what the law says."""
    assert Candle.of(trades, MONDAY_MS) == fold([candle(one) for one in trades])


@given(trades_in_order(3), st.data())
def test_any_grouping_gives_the_same(trades: list[Trade], data: st.DataObject) -> None:
    """Merging is associative: batches can be folded before they meet."""
    candles = [candle(one) for one in trades]
    first = data.draw(st.integers(1, len(candles) - 2))
    second = data.draw(st.integers(first + 1, len(candles) - 1))
    left, middle, right = candles[:first], candles[first:second], candles[second:]
    expected = fold(candles)
    assert fold(left).merge(fold(middle)).merge(fold(right)) == expected
    assert fold(left).merge(fold(middle).merge(fold(right))) == expected


@given(trades_in_order(2), st.randoms(use_true_random=False))
def test_the_order_of_merging_does_not_matter(trades: list[Trade], random: object) -> None:
    """Places decide what is first and last, not the order in which candles are merged."""
    candles = [candle(one) for one in trades]
    shuffled = list(candles)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(shuffled) == fold(candles)


@given(trades_in_order(2), st.data())
def test_interleaved_candles_merge(trades: list[Trade], data: st.DataObject) -> None:
    """Two candles whose trades alternate merge into the candle of all of them."""
    chosen = data.draw(st.lists(st.booleans(), min_size=len(trades), max_size=len(trades)))
    one = [candle(t) for t, mine in zip(trades, chosen, strict=True) if mine]
    other = [candle(t) for t, mine in zip(trades, chosen, strict=True) if not mine]
    if one and other:
        assert fold(one).merge(fold(other)) == fold([candle(t) for t in trades])


def test_the_previous_close_stays_with_the_first_trade() -> None:
    """`pc` belongs to the earlier candle, whichever way round two are merged."""
    early = candle(trade(9, 0))._replace(previous_close=Decimal(7))
    late = candle(trade(10, 0))
    assert early.merge(late).previous_close == 7
    assert late.merge(early).previous_close == 7


def test_a_merge_keeps_its_own_label() -> None:
    """The result is labelled as the candle that was asked to merge."""
    wide = candle(trade(9, 0))._replace(open_time=MONDAY_MS - DAY_MS)
    assert wide.merge(candle(trade(10, 0))).open_time == MONDAY_MS - DAY_MS


def test_blocks_are_ordered_as_numbers() -> None:
    """Block 10 comes after block 9 and log 10 after log 9: places are not texts."""
    merged = candle(trade(10, 0, "2")).merge(candle(trade(9, 10, "1"))).merge(candle(trade(9, 9, "3")))
    assert (merged.open, merged.close) == (3, 2)
    assert (merged.first, merged.last) == (TradeId(9, 9), TradeId(10, 0))


def test_a_sale_is_not_bought() -> None:
    """Bought volume and buys count buys of base only."""
    one = candle(trade(1, 0, base=5, quote=7, buy=False))
    assert (one.base, one.quote, one.bought_base, one.bought_quote, one.trades, one.buys) == (
        5,
        7,
        0,
        0,
        1,
        0,
    )


@given(trades_in_order())
def test_statistics_speak_of_their_window(trades: list[Trade]) -> None:
    """Change, percentage and average follow from the window's fold; the times span 24 h exactly."""
    window = fold([candle(one) for one in trades])
    stats = MarketStats(MONDAY_MS, trades[-1].price, window)
    assert stats.price_change == trades[-1].price - trades[0].price
    assert stats.price_change_percent * trades[0].price / 100 - stats.price_change < Decimal("1e-15")
    assert stats.weighted_average_price(3) == ratio(window.quote, window.base, 3)
    assert stats.close_time == MONDAY_MS + MINUTE_MS - 1
    assert stats.close_time - stats.open_time == DAY_MS - 1


def test_statistics_of_an_empty_window_hold_the_last_price() -> None:
    """Nothing traded: open is the last price, nothing changed, there is no average."""
    stats = MarketStats(MONDAY_MS, Decimal("0.25"), None)
    assert stats.open_price == stats.last_price
    assert (stats.price_change, stats.price_change_percent) == (0, 0)
    assert stats.weighted_average_price(0) is None


def test_the_change_of_far_apart_prices_is_exact() -> None:
    """A difference of prices is never rounded, however far apart they are."""
    window = candle(trade(1, 0, "1e-150"))
    stats = MarketStats(MONDAY_MS, Decimal("1e77"), window)
    assert len(stats.price_change.as_tuple().digits) == 227


def test_a_market_knows_its_exponent() -> None:
    """Base decimals minus quote decimals turns a ratio of units into one of whole tokens."""
    assert market(0, base_decimals=6, quote_decimals=18).price_exponent == -12
    assert ratio(ETHER, 10**6, market(0, base_decimals=6).price_exponent) == 1

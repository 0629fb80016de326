"""What is written to Redis reads back as it was, and looks as the contract says."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import BlockUndo, MarketUndo
from listener.application.state import Written
from listener.domain.entities import Candle, Market, MarketStats, Trade
from listener.domain.value_objects import EXACT, MINUTE_MS, Address, TradeId, ratio
from listener.infrastructure.redis import codec
from listener.infrastructure.redis.codec import (
    CandleTexts,
    decode_candle,
    decode_market,
    decode_undo,
    decode_written,
    encode_candle,
    encode_trade,
    encode_undo,
    market_fields,
    stats_fields,
)
from tests.fakes.build import MONDAY_MS, POOL, TRADER, block, digest, market, token

MAX = 2**256 - 1
amounts = st.one_of(st.integers(1, MAX), st.sampled_from([1, MAX]))
places = st.builds(TradeId, st.integers(0, 2**53), st.integers(0, 10**6))
prices = st.builds(ratio, amounts, amounts, st.integers(-255, 255))
times = st.integers(0, 4_102_444_800_000)
decimals = st.integers(0, 255)
texts = st.text(max_size=64)

candles = st.builds(
    Candle,
    times,
    *[prices] * 4,
    *[amounts] * 4,
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    places,
    places,
    st.none() | prices,
)
markets = st.builds(
    market,
    base_decimals=decimals,
    quote_decimals=decimals,
    name=texts,
    symbol=texts,
    status=st.sampled_from(["trading", "graduated"]),
    successor=st.sampled_from(["", POOL]),
)
optional_candles = st.none() | candles
undone = st.builds(
    MarketUndo,
    st.just(token(0)),
    st.booleans(),
    st.none() | markets,
    st.integers(0, 10**6),
    st.none() | prices,
    times,
    st.lists(st.tuples(st.sampled_from(["1m", "1w"]), times, optional_candles), max_size=3).map(tuple),
)


@given(candles, decimals, decimals)
def test_a_candle_survives_a_round_trip(candle: Candle, base: int, quote: int) -> None:
    """Every amount, price and place reads back exactly, for any decimals."""
    encoded = encode_candle(candle, market(base_decimals=base, quote_decimals=quote))
    assert decode_candle(encoded, base, quote) == candle


@given(markets)
def test_a_record_survives_a_round_trip(record: Market) -> None:
    """Through the texts of a HASH, and back."""
    fields = {name: str(value) for name, value in market_fields(record).items()}
    assert decode_market(record.id, fields) == record


@given(st.lists(undone, max_size=2), times, decimals, decimals)
def test_a_before_image_survives_a_round_trip(
    undos: list[MarketUndo], as_of: int, base: int, quote: int
) -> None:
    """What a rollback restores is exactly what was there."""
    undo = BlockUndo(block(7), as_of, tuple(undos), "logs")
    record = market(base_decimals=base, quote_decimals=quote)
    encoded = encode_undo(undo, {token(0): record}, CandleTexts())
    assert decode_undo(encoded) == undo
    assert decode_written(encoded) == Written.of(undo)


def plain(value: Decimal) -> str:
    """A number in plain notation, the obvious way."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def units(amount: int, places: int) -> str:
    """An amount in whole tokens, the obvious way."""
    return plain(EXACT.scaleb(Decimal(amount), -places))


heights = st.integers(0, 1 << 40)
positive = st.integers(1, 10**40)


def obvious(fields: dict[str, object]) -> bytes:
    """JSON without what is not known."""
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


@given(candles, decimals, decimals)
def test_a_candle_is_written_as_plain_json(candle: Candle, base: int, quote: int) -> None:
    """To the last byte what an obvious program writes, for any figures and decimals."""
    fields = {
        "t": candle.open_time,
        **{name: plain(price) for name, price in zip("ohlc", candle[1:5], strict=True)},
        "pc": None if candle.previous_close is None else plain(candle.previous_close),
        **{
            name: units(amount, base if name in "vV" else quote)
            for name, amount in zip("vqVQ", candle[5:9], strict=True)
        },
        "n": candle.trades,
        "N": candle.buys,
        "f": str(candle.first),
        "L": str(candle.last),
    }
    assert encode_candle(candle, market(base_decimals=base, quote_decimals=quote)) == obvious(fields)


@given(
    st.builds(
        Trade,
        *[texts, heights, heights, texts, texts, times, st.booleans(), texts],
        *[positive, amounts, st.none() | amounts, st.none() | st.tuples(amounts, amounts)],
        *[st.integers(-30, 30), st.booleans()],
    ),
    *[decimals, decimals],
)
def test_a_trade_is_written_as_plain_json(trade: Trade, base: int, quote: int) -> None:
    """To the last byte what an obvious program writes, whatever a node put into ids and hashes."""
    fields = {
        "id": str(trade.id),
        "s": trade.market,
        "t": trade.timestamp,
        "b": trade.id.block,
        "bh": trade.block_hash,
        "li": trade.id.log_index,
        "tx": trade.tx_hash,
        "side": "buy" if trade.is_buy else "sell",
        "trader": trade.trader,
        "p": plain(trade.price),
        "xp": plain(trade.execution_price),
        "sp": None if trade.spot_price is None else plain(trade.spot_price),
        "v": units(trade.base, base),
        "q": units(trade.quote, quote),
        "fee": None if trade.fee is None else units(trade.fee, quote),
    }
    assert encode_trade(trade, market(base_decimals=base, quote_decimals=quote)) == obvious(fields)


def candle(price: str, opened: int = MONDAY_MS) -> Candle:
    """A candle of one trade."""
    return Candle(opened, *[Decimal(price)] * 4, 1, 1, 1, 1, 1, 1, TradeId(1, 0), TradeId(1, 0))


def test_a_candle_that_was_encoded_is_not_encoded_again() -> None:
    """The newest candle of each series is remembered by the object it was, and only that."""
    texts, first, second = CandleTexts(), candle("1"), candle("2")
    encoded = texts.encode(first, market(), "1m")
    assert texts.encode(first, market(), "1m") is encoded
    assert texts.encode(first, market(), "5m") is not encoded
    assert texts.encode(first, market(1), "1m") is not encoded
    assert texts.encode(second, market(), "1m") == encode_candle(second, market())
    assert texts.encode(first, market(), "1m") == encoded
    alike = candle("1")
    assert texts.encode(alike, market(), "1m") is not texts.encode(first, market(), "1m")


def test_few_markets_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the market that has been known longest is forgotten."""
    monkeypatch.setattr(codec, "MARKETS_REMEMBERED", 2)
    texts, only = CandleTexts(), candle("1")
    encoded = [texts.encode(only, market(number), "1m") for number in range(3)]
    assert len(texts._known) == 2
    assert [texts.encode(only, market(number), "1m") is encoded[number] for number in (1, 2)] == [True, True]
    assert texts.encode(only, market(0), "1m") is not encoded[0]


def test_a_candle_looks_as_documented() -> None:
    """Names, order and notation of the public contract."""
    candle = Candle(
        1767225600000,
        *map(Decimal, ("0.0000000015", "0.0000000016", "0.0000000015", "0.0000000016")),
        1_200_500_000_000_000_000_000,
        1_800_000_000_000,
        10**21,
        1_500_000_000_000,
        3,
        2,
        TradeId(120, 4),
        TradeId(121, 0),
        Decimal("0.0000000014"),
    )
    assert encode_candle(candle, market()) == (
        b'{"t":1767225600000,"o":"0.0000000015","h":"0.0000000016","l":"0.0000000015","c":"0.0000000016",'
        b'"pc":"0.0000000014","v":"1200.5","q":"0.0000018","V":"1000","Q":"0.0000015","n":3,"N":2,'
        b'"f":"120-4","L":"121-0"}'
    )


def trade(fee: int | None, reserves: tuple[int, int] | None, *, by_reserves: bool = False) -> Trade:
    """A sale of 2 for 3."""
    return Trade(
        token(0),
        5,
        1,
        digest("b"),
        digest("t"),
        MONDAY_MS,
        False,  # noqa: FBT003 - its side
        Address(TRADER),
        2 * 10**18,
        3 * 10**18,
        fee,
        reserves,
        0,
        by_reserves,
    )


def test_a_trade_looks_as_documented() -> None:
    """Every field of the contract, in plain notation; what is not known is left out."""
    whole = orjson.loads(encode_trade(trade(10**15, (10**18, 10**19)), market()))
    place = {"t": MONDAY_MS, "b": 5, "bh": digest("b"), "li": 1, "tx": digest("t")}
    prices = {"p": "1.5", "xp": "1.5", "sp": "10"}
    amounts = {"v": "2", "q": "3", "fee": "0.001"}
    who = {"id": "5-1", "s": token(0), "side": "sell", "trader": TRADER}
    assert whole == who | place | prices | amounts
    for unknown in (None, (0, 10**18), (10**18, 0)):
        assert whole.keys() - orjson.loads(encode_trade(trade(None, unknown), market())).keys() == {
            "sp",
            "fee",
        }


def test_a_trades_price_may_be_the_one_after_it() -> None:
    """Where reserves tell it; else it is what was paid."""
    found = [
        orjson.loads(encode_trade(trade(None, reserves, by_reserves=True), market()))
        for reserves in ((10**18, 10**19), None)
    ]
    assert [(told["p"], told["xp"]) for told in found] == [("10", "1.5"), ("1.5", "1.5")]


@given(candles, prices)
def test_figures_are_plain_text(window: Candle, last: Decimal) -> None:
    """No exponent and no negative zero in any figure, however large or small."""
    stats = MarketStats(MONDAY_MS, last, window)
    for name, value in stats_fields(stats, market()).items():
        if isinstance(value, str):
            assert set(value) <= set("-0123456789."), name
            assert value != "-0"
    assert stats_fields(stats, market())["closeTime"] == MONDAY_MS + MINUTE_MS - 1

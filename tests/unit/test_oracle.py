"""The oracle against examples worked out by hand, and against planted differences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any

import fakeredis
import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from tests import oracle
from tests.oracle import Block, Chain, Settings, TokenMetadata

FACTORY = "0x" + "fa" * 20
STRANGER = "0x" + "66" * 20
TOKEN, CURVE = "0x" + "a1" * 20, "0x" + "c1" * 20
TOKEN2, CURVE2 = "0x" + "a2" * 20, "0x" + "c2" * 20
CREATOR = "0x" + "cc" * 20
TRADER = "0x" + "dd" * 20
POOL = "0x" + "99" * 20
ETHER = 10**18

MONDAY = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())
METADATA = {TOKEN: TokenMetadata(18, "First", "ONE"), TOKEN2: TokenMetadata(6, "Second", "TWO")}


def padded(address: str) -> str:
    """An address as an indexed argument."""
    return "0x" + "00" * 12 + address[2:]


def trade(
    base: int,
    quote: int,
    *,
    buy: int = 1,
    token: str = TOKEN,
    curve: str = CURVE,
    fee: int = 0,
    reserves: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """A Trade log without its position."""
    numbers = [buy, base, quote, fee, *reserves]
    return {
        "address": curve,
        "topics": [oracle.TRADE_TOPIC, padded(token), padded(TRADER)],
        "data": "0x" + encode(["uint256"] * 6, numbers).hex(),
    }


def created(token: str = TOKEN, curve: str = CURVE, factory: str = FACTORY) -> dict[str, Any]:
    """A CurveCreated log without its position."""
    return {
        "address": factory,
        "topics": [oracle.CURVE_CREATED_TOPIC, padded(token), padded(curve), padded(CREATOR)],
        "data": "0x" + encode(["string", "string"], ["First", "ONE"]).hex(),
    }


def graduated(pool: str = POOL, token: str = TOKEN, curve: str = CURVE) -> dict[str, Any]:
    """A Graduated log without its position."""
    return {
        "address": curve,
        "topics": [oracle.GRADUATED_TOPIC, padded(token), padded(pool)],
        "data": "0x" + encode(["uint256", "uint256"], [1, 2]).hex(),
    }


def block_hash(number: int) -> str:
    """The hash of a block of the test chain."""
    return f"0x{number + 0xB10C:064x}"


def chain_of(*blocks: tuple[int, list[list[dict[str, Any]]]], metadata: Any = None) -> Chain:
    """Build a chain from (timestamp in s, transactions, each a list of logs), numbered from 100."""
    headers, logs = [], []
    for number, (timestamp, transactions) in enumerate(blocks, start=100):
        headers.append(Block(number, block_hash(number), timestamp))
        log_index = 0
        for index, transaction in enumerate(transactions):
            for log in transaction:
                position = {
                    "blockNumber": hex(number),
                    "blockHash": block_hash(number),
                    "transactionHash": f"0x{number * 1000 + index:064x}",
                    "transactionIndex": hex(index),
                    "logIndex": hex(log_index),
                }
                logs.append({**log, **position})
                log_index += 1
    return Chain(headers, logs, METADATA if metadata is None else metadata, genesis="0x" + "00" * 31 + "01")


def settings(**changes: Any) -> Settings:
    """Settings of the tests."""
    return Settings(**{"factories": [FACTORY], "intervals": ("1m", "5m", "1d", "1w"), **changes})


def trade_ids(expected: oracle.Expected, market: str = TOKEN) -> list[str]:
    """Ids of the counted trades, newest first."""
    return [item["id"] for item in expected.trades.get(market, [])]


# ------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("numerator", "denominator", "text"),
    [
        (0, 1, "0"),
        (1, 1, "1"),
        (100, 1, "100"),
        (1, 3, "0.333333333333333333333333"),
        (2, 3, "0.666666666666666666666667"),
        (1, 10**30, "0.000000000000000000000000000001"),
        (123456789012345678901234, 1, "123456789012345678901234"),
        # 25 digits that end in 5: to the even neighbour, down and up.
        (1234567890123456789012345, 1, "1234567890123456789012340"),
        (1234567890123456789012335, 1, "1234567890123456789012340"),
        # One more behind the half: no tie any more.
        (12345678901234567890123451, 10, "1234567890123456789012350"),
        # Nines that carry into a new digit.
        (9999999999999999999999995, 1, "10000000000000000000000000"),
        (9999999999999999999999994, 1, "9999999999999999999999990"),
        (-1234567890123456789012335, 10**24, "-1.23456789012345678901234"),
    ],
)
def test_round_to_24_digits_half_to_even(numerator: int, denominator: int, text: str) -> None:
    """Ties go to the even neighbour, and the result is written out in full."""
    assert oracle.decimal_string(oracle.round_significant(Fraction(numerator, denominator))) == text


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**40))
def test_rounding_agrees_with_the_decimal_module(numerator: int, denominator: int) -> None:
    """An independent division with the same precision and rounding gives the same number."""
    context = Context(prec=24, rounding=ROUND_HALF_EVEN)
    other = context.divide(Decimal(numerator), Decimal(denominator))
    mine = oracle.decimal_string(oracle.round_significant(Fraction(numerator, denominator)))
    assert Decimal(mine) == other
    assert "e" not in mine.lower()
    assert mine == "0" or not ("." in mine and mine.endswith("0"))


def test_a_number_without_end_is_refused() -> None:
    """A third has no decimal form; nothing is cut off silently."""
    with pytest.raises(ValueError, match="finite"):
        oracle.decimal_string(Fraction(1, 3))


@pytest.mark.parametrize(
    ("moment", "interval", "opens"),
    [
        (datetime(2026, 1, 4, 23, 59, 59, tzinfo=UTC), "1w", datetime(2025, 12, 29, tzinfo=UTC)),
        (datetime(2026, 1, 5, tzinfo=UTC), "1w", datetime(2026, 1, 5, tzinfo=UTC)),
        (datetime(2026, 1, 11, 23, 59, tzinfo=UTC), "1w", datetime(2026, 1, 5, tzinfo=UTC)),
        (datetime(2026, 1, 7, 13, 37, 42, tzinfo=UTC), "5m", datetime(2026, 1, 7, 13, 35, tzinfo=UTC)),
        (datetime(2026, 1, 7, 13, 37, 42, tzinfo=UTC), "4h", datetime(2026, 1, 7, 12, 0, tzinfo=UTC)),
        (datetime(2026, 1, 7, 13, 37, 42, tzinfo=UTC), "1d", datetime(2026, 1, 7, tzinfo=UTC)),
    ],
)
def test_open_time(moment: datetime, interval: str, opens: datetime) -> None:
    """Buckets are aligned to UTC, and weeks open on Monday."""
    millis = int(moment.timestamp()) * 1000
    assert oracle.open_time(millis, interval) == int(opens.timestamp()) * 1000


# --------------------------------------------------------------------------------------------- computation


def two_markets() -> Chain:
    """A chain over a weekend: two markets, trades before and after Monday 00:00."""
    return chain_of(
        (MONDAY - 120, [[created()], [created(TOKEN2, CURVE2)]]),  # 100
        (
            MONDAY - 60,
            [[trade(2 * ETHER, ETHER, fee=10**16, reserves=(4 * ETHER, ETHER))], [trade(ETHER, ETHER)]],
        ),  # 101: at 0.5, then at 1
        (MONDAY - 1, [[trade(4 * ETHER, ETHER, buy=0)]]),  # 102: same minute, at 0.25
        (
            MONDAY,
            [[trade(ETHER, 3 * ETHER)], [trade(2_000_000, ETHER, token=TOKEN2, curve=CURVE2)]],
        ),  # 103: next minute, day and week, at 3; and 2 of the other token at 0.5
    )


def test_market_records() -> None:
    """A record states what is known from the creation and the token."""
    expected = oracle.compute(two_markets(), settings())
    assert expected.markets == {TOKEN: (MONDAY - 120) * 1000, TOKEN2: (MONDAY - 120) * 1000}
    assert expected.records[TOKEN] == {
        "venue": "bonding_curve",
        "token": TOKEN,
        "quote": "0x0000000000000000000000000000000000000000",
        "quoteSymbol": "ETH",
        "baseDecimals": 18,
        "quoteDecimals": 18,
        "name": "First",
        "symbol": "ONE",
        "creator": CREATOR,
        "createdBlock": 100,
        "createdAt": (MONDAY - 120) * 1000,
        "status": "trading",
        "successor": "",
        "emitter": CURVE,
    }


def test_trades_newest_first() -> None:
    """Trades carry both prices, fee and position, and are ordered by block and log index."""
    expected = oracle.compute(two_markets(), settings())
    assert trade_ids(expected) == ["103-0", "102-0", "101-1", "101-0"]
    assert expected.trades[TOKEN][-1] == {
        "id": "101-0",
        "s": TOKEN,
        "t": (MONDAY - 60) * 1000,
        "b": 101,
        "bh": block_hash(101),
        "li": 0,
        "tx": f"0x{101000:064x}",
        "side": "buy",
        "trader": TRADER,
        "p": "0.5",
        "xp": "0.5",
        "sp": "0.25",
        "v": "2",
        "q": "1",
        "fee": "0.01",
    }
    assert "sp" not in expected.trades[TOKEN][0]
    assert expected.trades[TOKEN2][0]["v"] == "2"
    assert expected.trades[TOKEN2][0]["p"] == "0.5"


def test_candles() -> None:
    """Two minutes, days and weeks; the second candle knows the close of the first."""
    expected = oracle.compute(two_markets(), settings())
    first = {
        "t": (MONDAY - 60) * 1000,
        "o": "0.5",
        "h": "1",
        "l": "0.25",
        "c": "0.25",
        "v": "7",
        "q": "3",
        "V": "3",
        "Q": "2",
        "n": 3,
        "N": 2,
        "f": "101-0",
        "L": "102-0",
    }
    second = {
        "t": MONDAY * 1000,
        "o": "3",
        "h": "3",
        "l": "3",
        "c": "3",
        "pc": "0.25",
        "v": "1",
        "q": "3",
        "V": "1",
        "Q": "3",
        "n": 1,
        "N": 1,
        "f": "103-0",
        "L": "103-0",
    }
    assert expected.candles[TOKEN, "1m"] == [first, second]
    assert expected.candles[TOKEN, "5m"] == [{**first, "t": (MONDAY - 300) * 1000}, second]
    assert expected.candles[TOKEN, "1d"] == [{**first, "t": (MONDAY - 86_400) * 1000}, second]
    assert expected.candles[TOKEN, "1w"] == [{**first, "t": (MONDAY - 7 * 86_400) * 1000}, second]
    assert [candle["t"] for candle in expected.candles[TOKEN2, "1w"]] == [MONDAY * 1000]


def test_one_minute_candles_exist_without_being_listed() -> None:
    """Everything else is folded from them."""
    expected = oracle.compute(two_markets(), settings(intervals=["1h"]))
    assert {interval for _, interval in expected.candles} == {"1m", "1h"}


def test_spot_price_falls_back_to_execution_price() -> None:
    """Where the event has no reserves, candles use the execution price."""
    expected = oracle.compute(two_markets(), settings(price_mode="spot"))
    assert [item["p"] for item in expected.trades[TOKEN]] == ["3", "0.25", "1", "0.25"]
    assert expected.candles[TOKEN, "1m"][0]["o"] == "0.25"


def test_spot_price_needs_both_reserves() -> None:
    """A reserve of zero makes no price, neither 0 nor infinite."""
    blocks = [(MONDAY, [[created()], [trade(1, 1, reserves=(0, 5)), trade(1, 1, reserves=(5, 0))]])]
    expected = oracle.compute(chain_of(*blocks), settings(price_mode="spot"))
    assert [item.get("sp") for item in expected.trades[TOKEN]] == [None, None]


def test_prices_are_rounded_once_to_24_digits() -> None:
    """A third and two thirds; decimals of both tokens shift the point."""
    blocks = [(MONDAY, [[created(TOKEN2, CURVE2)], [trade(3, 2, token=TOKEN2, curve=CURVE2)]])]
    expected = oracle.compute(chain_of(*blocks), settings())
    assert expected.trades[TOKEN2][0]["p"] == "0.000000000000666666666666666666666667"
    assert expected.trades[TOKEN2][0]["v"] == "0.000003"
    assert expected.trades[TOKEN2][0]["q"] == "0.000000000000000002"


def test_statistics() -> None:
    """Worked out by hand from four trades."""
    expected = oracle.compute(two_markets(), settings())
    assert expected.stats[TOKEN] == {
        "openPrice": "0.5",
        "highPrice": "3",
        "lowPrice": "0.25",
        "lastPrice": "3",
        "priceChange": "2.5",
        "priceChangePercent": "500",
        "weightedAvgPrice": "0.75",  # 6 / 8
        "volume": "8",
        "quoteVolume": "6",
        "count": 4,
        "buyVolume": "4",
        "sellVolume": "4",
        "buyCount": 3,
        "sellCount": 1,
        "openTime": (MONDAY + 60 - 86_400) * 1000,
        "closeTime": (MONDAY + 60) * 1000 - 1,
    }


def test_statistics_roll_off() -> None:
    """Minutes fall out one by one, 24 h after they opened, and the window names the last change."""
    first, second, day = (MONDAY - 60) * 1000, MONDAY * 1000, 86_400_000
    ticks = oracle.compute(two_markets(), settings()).ticks[TOKEN]

    still_in = oracle.statistics(ticks, first + day - 1)
    assert (still_in["count"], still_in["closeTime"]) == (4, second + 59_999)

    first_out = oracle.statistics(ticks, first + day)
    assert (first_out["count"], first_out["volume"], first_out["openPrice"]) == (1, "1", "3")
    assert first_out["priceChange"] == "0"
    assert first_out["priceChangePercent"] == "0"
    assert first_out["closeTime"] == first + day + 59_999
    assert first_out["openTime"] == first + 60_000

    long_after = oracle.statistics(ticks, second + 30 * day)
    assert long_after == {
        "openPrice": "3",
        "highPrice": "3",
        "lowPrice": "3",
        "lastPrice": "3",
        "priceChange": "0",
        "priceChangePercent": "0",
        "volume": "0",
        "quoteVolume": "0",
        "count": 0,
        "buyVolume": "0",
        "sellVolume": "0",
        "buyCount": 0,
        "sellCount": 0,
        "openTime": second + 60_000,
        "closeTime": second + day + 59_999,
    }


def test_price_change_may_be_negative() -> None:
    """From 3 down to 1: minus two thirds, rounded in percent."""
    blocks = [(MONDAY, [[created()], [trade(1, 3), trade(1, 1)]])]
    stats = oracle.compute(chain_of(*blocks), settings()).stats[TOKEN]
    assert stats["priceChange"] == "-2"
    assert stats["priceChangePercent"] == "-66.6666666666666666666667"


def test_a_market_without_trades_has_nothing_but_its_record() -> None:
    """No statistics, no candles, no trades."""
    expected = oracle.compute(chain_of((MONDAY, [[created()]])), settings())
    assert list(expected.records) == [TOKEN]
    assert (expected.stats, expected.candles, expected.trades) == ({}, {}, {})


def test_creation_may_come_last_in_its_transaction() -> None:
    """Trades of the creating transaction count, those of earlier ones do not."""
    expected = oracle.compute(
        chain_of((MONDAY, [[trade(1, 1)], [trade(1, 2), created()], [trade(1, 3)]])), settings()
    )
    assert trade_ids(expected) == ["100-3", "100-1"]


def test_strangers_do_not_count() -> None:
    """Neither a curve that no factory made nor a factory that nobody configured."""
    expected = oracle.compute(
        chain_of((MONDAY, [[created(factory=STRANGER)], [trade(1, 1)], [trade(1, 1, curve=STRANGER)]])),
        settings(),
    )
    assert expected.records == {}
    assert expected.trades == {}


def test_the_first_claim_wins() -> None:
    """A second claim of the token or of the curve changes nothing."""
    expected = oracle.compute(
        chain_of(
            (
                MONDAY,
                [
                    [created()],
                    [created(TOKEN, CURVE2)],
                    [created(TOKEN2, CURVE)],
                    [trade(1, 1), trade(1, 1, curve=CURVE2), trade(1, 1, token=TOKEN2)],
                ],
            )
        ),
        settings(),
    )
    assert {market: record["emitter"] for market, record in expected.records.items()} == {TOKEN: CURVE}
    assert trade_ids(expected) == ["100-3"]


def test_unreadable_decimals_reject_the_market() -> None:
    """A rejected creation claims nothing."""
    chain = chain_of((MONDAY, [[created()], [trade(1, 1)]]), metadata={TOKEN: None})
    expected = oracle.compute(chain, settings())
    assert (expected.records, expected.trades) == ({}, {})


def test_blocks_before_the_start_do_not_count() -> None:
    """A market that was created before the start block does not exist."""
    expected = oracle.compute(two_markets(), settings(start_block=101))
    assert expected.records == {}
    assert expected.last_block == Block(103, block_hash(103), MONDAY)


@pytest.mark.parametrize(
    "log",
    [
        trade(0, 1),
        trade(1, 0),
        trade(1, 1, buy=2),
        trade(1, 1, token=TOKEN2),
        {**trade(1, 1), "data": trade(1, 1)["data"] + "00"},
        {**trade(1, 1), "data": trade(1, 1)["data"][:-64]},
        {**trade(1, 1), "data": "0x"},
        {**trade(1, 1), "topics": []},
        {**trade(1, 1), "topics": trade(1, 1)["topics"][:2]},
        {**trade(1, 1), "topics": [*trade(1, 1)["topics"], padded(TRADER)]},
        {**trade(1, 1), "topics": [oracle.TRADE_TOPIC, padded(TOKEN), "0x01" + padded(TRADER)[4:]]},
        {**trade(1, 1), "topics": [oracle.TRADE_TOPIC, "0x" + "00" * 11 + "01" + TOKEN[2:], padded(TRADER)]},
        {**graduated(), "data": "0x"},
        {**graduated(), "topics": graduated()["topics"][:2]},
        graduated(token=TOKEN2),
        {**created(TOKEN2, CURVE2), "data": "0x"},
        {**created(TOKEN2, CURVE2), "data": created()["data"][: 2 + 64 * 3]},
        {**created(TOKEN2, CURVE2), "topics": created(TOKEN2, CURVE2)["topics"][:3]},
    ],
)
def test_malformed_logs_are_ignored(log: dict[str, Any]) -> None:
    """They change nothing, and the good log after them counts."""
    expected = oracle.compute(chain_of((MONDAY, [[created()], [log, trade(1, 1)]])), settings())
    assert list(expected.records) == [TOKEN]
    assert expected.records[TOKEN]["status"] == "trading"
    assert trade_ids(expected) == ["100-2"]


@pytest.mark.parametrize(("pool", "successor"), [(POOL, POOL), (oracle.ZERO_ADDRESS, "")])
def test_graduation(pool: str, successor: str) -> None:
    """The market keeps its id and names the pool, unless there is none."""
    expected = oracle.compute(chain_of((MONDAY, [[created()], [graduated(pool)]])), settings())
    assert expected.records[TOKEN]["status"] == "graduated"
    assert expected.records[TOKEN]["successor"] == successor


def test_input_that_is_no_chain_is_refused() -> None:
    """Logs of other blocks, gaps and falling time are mistakes of the caller."""
    good = two_markets()
    orphan = [{**good.logs[0], "blockHash": block_hash(7)}]
    with pytest.raises(ValueError, match="not in the chain"):
        oracle.compute(Chain(good.blocks, orphan, {}), settings())
    with pytest.raises(ValueError, match="follows"):
        oracle.compute(Chain([good.blocks[0], good.blocks[2]], [], {}), settings())
    with pytest.raises(ValueError, match="time falls"):
        oracle.compute(Chain([good.blocks[1], good.blocks[2]._replace(timestamp=0)], [], {}), settings())
    with pytest.raises(ValueError, match="earlier"):
        oracle.compute(good, settings(as_of=MONDAY * 1000 - 1))


def test_oldest_kept() -> None:
    """Retention counts back from the head; one-minute candles have a minimum."""
    minute, day, head = 60_000, 86_400_000, MONDAY * 1000
    kept = oracle.oldest_kept(settings(intervals=["1h", "1d"], retention={"1h": 7 * day}), head)
    assert kept == {"1m": head - 1_441 * minute, "1h": head - 7 * day, "1d": 0}
    kept = oracle.oldest_kept(settings(intervals=["1m"], retention={"1m": minute}), head)
    assert kept == {"1m": head - 1_441 * minute}
    kept = oracle.oldest_kept(settings(intervals=["1m"]), head)
    assert kept == {"1m": 0}


# ---------------------------------------------------------------------------------------------- comparison

CHAIN_ID = 31337
TAG = "{31337}"
CANDLES = f"candles:{TAG}:{TOKEN}:1m"
TRADES = f"trades:{TAG}:{TOKEN}"
STATS = f"stats:{TAG}:{TOKEN}"
MARKET = f"market:{TAG}:{TOKEN}"
MARKETS = f"markets:{TAG}"
HEAD = f"head:{TAG}"


def store(client: Any, expected: oracle.Expected) -> None:
    """Write what is expected, with things beside it that are nobody's business."""
    assert expected.last_block is not None
    head = {
        "number": expected.last_block.number,
        "hash": expected.last_block.hash,
        "timestamp": expected.last_block.timestamp * 1000,
        "asOf": expected.as_of,
        "gen": 1,
        "epoch": 1767225600123,
        "seq": 7,
        "schema": 1,
        "chainId": CHAIN_ID,
        "genesis": expected.genesis,
    }
    client.hset(HEAD, mapping=head)
    client.set(f"partitions:{CHAIN_ID}", "1")
    client.zadd(MARKETS, expected.markets)
    for market, record in expected.records.items():
        client.hset(f"market:{TAG}:{market}", mapping=record)
    for market, stats in expected.stats.items():
        client.hset(f"stats:{TAG}:{market}", mapping=stats)
    for market, trades in expected.trades.items():
        client.rpush(f"trades:{TAG}:{market}", *[json.dumps(item) for item in trades])
    for (market, interval), series in expected.candles.items():
        members = {json.dumps(candle): candle["t"] for candle in series}
        client.zadd(f"candles:{TAG}:{market}:{interval}", members)
    client.set(f"private:{TAG}", "x")
    client.set("candles:{1}:other:1m", "x")


@pytest.fixture
def expected() -> oracle.Expected:
    """The two markets, an hour after the last block."""
    return oracle.compute(two_markets(), settings(as_of=(MONDAY + 3600) * 1000))


@pytest.fixture(params=[True, False], ids=["text", "bytes"])
def client(request: pytest.FixtureRequest, expected: oracle.Expected) -> Any:
    """A Redis that holds exactly what is expected."""
    fake = fakeredis.FakeRedis(decode_responses=request.param)
    store(fake, expected)
    return fake


def swap(client: Any, position: int, **changes: Any) -> None:
    """Replace fields of the one-minute candle at `position`, keeping its score; None removes a field."""
    member, score = client.zrange(CANDLES, 0, -1, withscores=True)[position]
    candle = {**json.loads(member), **changes}
    client.zrem(CANDLES, member)
    client.zadd(CANDLES, {json.dumps({k: v for k, v in candle.items() if v is not None}): score})


def add_member(client: Any, text: str, score: float) -> None:
    """Put any text beside the one-minute candles."""
    client.zadd(CANDLES, {text: score})


def repeat_a_candle(client: Any) -> None:
    """Add the first candle again, true but spelled otherwise."""
    member, score = client.zrange(CANDLES, 0, 0, withscores=True)[0]
    add_member(client, oracle.text(member) + " ", score)


def repeat_a_field(client: Any) -> None:
    """Write the open time of the first candle twice, the second time right."""
    member, score = client.zrange(CANDLES, 0, 0, withscores=True)[0]
    client.zrem(CANDLES, member)
    add_member(client, '{"t":0,' + oracle.text(member)[1:], score)


def retype(client: Any, key: str) -> None:
    """Make a string of whatever the key was."""
    client.delete(key)
    client.set(key, "x")


def test_equal_content_has_no_differences(client: Any, expected: oracle.Expected) -> None:
    """Private keys and other chains do not matter, nor does the order of JSON fields."""
    swap(client, 0, t=None)
    swap(client, 0, t=(MONDAY - 60) * 1000)
    assert oracle.compare_redis(client, CHAIN_ID, expected) == []
    assert oracle.read_as_of(client, CHAIN_ID) == (MONDAY + 3600) * 1000


PLANTED = {
    "head number": lambda c: c.hset(HEAD, "number", 102),
    "head hash": lambda c: c.hset(HEAD, "hash", block_hash(102)),
    "head timestamp": lambda c: c.hset(HEAD, "timestamp", MONDAY),
    "head asOf before block": lambda c: c.hset(HEAD, "asOf", MONDAY * 1000 - 1),
    "head asOf a day on": lambda c: c.hset(HEAD, "asOf", (MONDAY + 86_400) * 1000),
    "head without seq": lambda c: c.hdel(HEAD, "seq"),
    "head genesis": lambda c: c.hset(HEAD, "genesis", block_hash(0)),
    "head schema": lambda c: c.hset(HEAD, "schema", 2),
    "head missing": lambda c: c.delete(HEAD),
    "partitions": lambda c: c.set(f"partitions:{CHAIN_ID}", "2"),
    "partitions missing": lambda c: c.delete(f"partitions:{CHAIN_ID}"),
    "market not listed": lambda c: c.zrem(MARKETS, TOKEN),
    "market listed for nothing": lambda c: c.zadd(MARKETS, {STRANGER: 1}),
    "market creation time": lambda c: c.zadd(MARKETS, {TOKEN: 1}),
    "market field": lambda c: c.hset(MARKET, "status", "graduated"),
    "market field missing": lambda c: c.hdel(MARKET, "successor"),
    "market field too many": lambda c: c.hset(MARKET, "decimals", "18"),
    "market missing": lambda c: c.delete(MARKET),
    "market unknown": lambda c: c.hset(f"market:{TAG}:{STRANGER}", "token", STRANGER),
    "stats figure": lambda c: c.hset(STATS, "volume", "8.0"),
    "stats closeTime": lambda c: c.hincrby(STATS, "closeTime", 60_000),
    "stats too many": lambda c: c.hset(STATS, "x", "1"),
    "stats missing": lambda c: c.delete(STATS),
    "stats type": lambda c: retype(c, STATS),
    "trade missing at the end": lambda c: c.rpop(TRADES),
    "trade missing in front": lambda c: c.lpop(TRADES),
    "trade twice": lambda c: c.lpush(TRADES, c.lindex(TRADES, 0)),
    "trade unknown": lambda c: c.rpush(TRADES, "{}"),
    "trade not JSON": lambda c: c.lset(TRADES, 0, "x"),
    "trade field": lambda c: c.lset(TRADES, 0, json.dumps({**json.loads(c.lindex(TRADES, 0)), "b": "103"})),
    "trades missing": lambda c: c.delete(TRADES),
    "candle price": lambda c: swap(c, 0, h="1.1"),
    "candle price spelled otherwise": lambda c: swap(c, 0, h="1.0"),
    "candle count as text": lambda c: swap(c, 0, n="3"),
    "candle count as float": lambda c: swap(c, 0, n=3.0),
    "candle without pc": lambda c: swap(c, 1, pc=None),
    "first candle with pc": lambda c: swap(c, 0, pc="0.5"),
    "candle field too many": lambda c: swap(c, 0, x=1),
    "candle open time": lambda c: swap(c, 0, t=0),
    "candle missing": lambda c: c.zremrangebyrank(CANDLES, 0, 0),
    "candle unknown": lambda c: add_member(c, '{"t":60000}', 60_000),
    "candle twice": repeat_a_candle,
    "candle in between": lambda c: add_member(c, "x", MONDAY * 1000 + 0.5),
    "candle field twice": repeat_a_field,
    "series missing": lambda c: c.delete(CANDLES),
    "series of an unknown interval": lambda c: c.zadd(f"candles:{TAG}:{TOKEN}:2m", {"{}": 1}),
    "series type": lambda c: retype(c, CANDLES),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED.keys())
def test_planted_differences_are_found(client: Any, expected: oracle.Expected, plant: Any) -> None:
    """Whatever is missing, unexpected or different is named."""
    plant(client)
    assert oracle.compare_redis(client, CHAIN_ID, expected) != []


def test_statistics_are_compared_as_of_the_stored_instant(client: Any, expected: oracle.Expected) -> None:
    """The stored instant decides, unless the test knows it better."""
    later = (MONDAY + 90_000) * 1000
    client.hset(HEAD, "asOf", later)
    assert oracle.compare_redis(client, CHAIN_ID, expected) != []
    client.delete(STATS, f"stats:{TAG}:{TOKEN2}")
    for market, ticks in expected.ticks.items():
        client.hset(f"stats:{TAG}:{market}", mapping=oracle.statistics(ticks, later))
    assert oracle.compare_redis(client, CHAIN_ID, expected) == []
    assert oracle.compare_redis(client, CHAIN_ID, expected, as_of=later) == []
    assert oracle.compare_redis(client, CHAIN_ID, expected, as_of=later + 1) != []


def test_old_candles_may_be_gone_but_not_wrong(client: Any, expected: oracle.Expected) -> None:
    """Beyond retention a candle may be there or not; a whole series too."""
    kept_from = {"1m": MONDAY * 1000}
    swap(client, 0, h="1.1")
    assert oracle.compare_redis(client, CHAIN_ID, expected, must_exist_from=kept_from) != []
    client.zremrangebyrank(CANDLES, 0, 0)
    assert oracle.compare_redis(client, CHAIN_ID, expected, must_exist_from=kept_from) == []
    client.delete(CANDLES)
    assert oracle.compare_redis(client, CHAIN_ID, expected, must_exist_from=kept_from) != []
    kept_from = {"1m": MONDAY * 1000 + 1}
    assert oracle.compare_redis(client, CHAIN_ID, expected, must_exist_from=kept_from) == []


def test_trade_lists_may_be_cut_at_the_end(client: Any, expected: oracle.Expected) -> None:
    """The newest two have to be there; a third may."""
    client.rpop(TRADES)
    assert oracle.compare_redis(client, CHAIN_ID, expected, trades_kept=2) == []
    client.rpop(TRADES)
    assert oracle.compare_redis(client, CHAIN_ID, expected, trades_kept=2) == []
    client.rpop(TRADES)
    assert oracle.compare_redis(client, CHAIN_ID, expected, trades_kept=2) != []


def node_view(expected: oracle.Expected) -> dict[str, Any]:
    """What a backend holds that has seen everything, as it came from the socket."""
    return {
        "markets": {
            market: {
                "record": {**record, "s": market},
                "stats": {**expected.stats[market], "s": market},
            }
            for market, record in expected.records.items()
        },
        "candles": {
            (market, interval): {
                **series[-1],
                "s": market,
                "i": interval,
                "T": series[-1]["t"] + oracle.interval_ms(interval) - 1,
            }
            for (market, interval), series in expected.candles.items()
        },
        "trades": {market: list(trades) for market, trades in expected.trades.items()},
    }


def test_a_backend_that_agrees(client: Any, expected: oracle.Expected) -> None:
    """A view with everything in it has no differences."""
    assert oracle.compare_node_view(client, CHAIN_ID, node_view(expected)) == []


PLANTED_IN_VIEW = {
    "market missing": lambda v: v["markets"].pop(TOKEN),
    "market unknown": lambda v: v["markets"].update({STRANGER: {"record": {}, "stats": None}}),
    "record": lambda v: v["markets"][TOKEN]["record"].update(status="graduated"),
    "stats": lambda v: v["markets"][TOKEN]["stats"].update(count=5),
    "stats missing": lambda v: v["markets"][TOKEN].update(stats=None),
    "candle missing": lambda v: v["candles"].pop((TOKEN, "1m")),
    "candle unknown": lambda v: v["candles"].update({(STRANGER, "1m"): {"t": 0}}),
    "candle price": lambda v: v["candles"][TOKEN, "1m"].update(c="2"),
    "candle close time": lambda v: v["candles"][TOKEN, "1m"].update(T=1),
    "candle of another market": lambda v: v["candles"][TOKEN, "1m"].update(s=TOKEN2),
    "trade missing": lambda v: v["trades"][TOKEN].pop(1),
    "trade missing at the end": lambda v: v["trades"][TOKEN].pop(),
    "trade twice": lambda v: v["trades"][TOKEN].append(v["trades"][TOKEN][-1]),
    "trades missing": lambda v: v["trades"].pop(TOKEN),
}


@pytest.mark.parametrize("plant", PLANTED_IN_VIEW.values(), ids=PLANTED_IN_VIEW.keys())
def test_a_backend_that_differs(client: Any, expected: oracle.Expected, plant: Any) -> None:
    """Whatever a backend has missed, kept or mixed up is named."""
    view = node_view(expected)
    plant(view)
    assert oracle.compare_node_view(client, CHAIN_ID, view) != []


def test_a_backend_may_hold_candles_that_redis_dropped(client: Any, expected: oracle.Expected) -> None:
    """Old enough, and they are not missed; and intervals may be left out of the comparison."""
    client.delete(CANDLES)
    view = node_view(expected)
    assert oracle.compare_node_view(client, CHAIN_ID, view) != []
    assert oracle.compare_node_view(client, CHAIN_ID, view, intervals=["5m"]) == []
    kept_from = {"1m": MONDAY * 1000 + 1}
    assert oracle.compare_node_view(client, CHAIN_ID, view, must_exist_from=kept_from) == []


# ------------------------------------------------------------------------------------------------- reading


def abi_string(content: bytes) -> bytes:
    """The answer of a function that returns a string."""
    return encode(["bytes"], [content])


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        (abi_string(b"Token"), "Token"),
        (abi_string("Größe 🚀".encode()), "Größe 🚀"),
        (b"MKR".ljust(32, b"\0"), "MKR"),
        (abi_string(b"A\x00B\nC\x1b[31m"), "ABC[31m"),
        (abi_string("\u202eevil\u200b".encode()), "evil"),
        (abi_string(b"x" * 65), "x" * 64),
        (abi_string(b""), "0xa1a1…a1a1"),
        (abi_string(b"\xff\xfe\x80\xc0"), "0xa1a1…a1a1"),
        (abi_string(b"\n\t"), "0xa1a1…a1a1"),
        (abi_string(b"cut")[:-32], "0xa1a1…a1a1"),
        (bytes(32), "0xa1a1…a1a1"),
        (b"", "0xa1a1…a1a1"),
    ],
)
def test_names(raw: bytes, label: str) -> None:
    """Printable, short, and never empty."""
    assert oracle.label_of(raw, TOKEN) == label


@pytest.mark.parametrize(
    ("raw", "decimals"),
    [
        (encode(["uint8"], [6]), 6),
        (encode(["uint8"], [255]), 255),
        (encode(["uint8"], [0]), 0),
        (encode(["uint256"], [256]), None),
        (b"\xff" * 32, None),
        (b"\x12", None),
        (b"", None),
    ],
)
def test_decimals(raw: bytes, decimals: int | None) -> None:
    """A uint8 or nothing."""
    assert oracle.decimals_of(raw) == decimals


class ScriptedNode:
    """Serves a test chain over JSON-RPC. Every token is called Name, has no symbol and 18 decimals."""

    def __init__(self, chain: Chain, silent: set[str]) -> None:
        self.chain = chain
        self.silent = silent

    def __call__(self, method: str, params: list[Any]) -> Any:
        """Answer a request."""
        if method == "eth_getBlockByNumber":
            number = int(params[0], 16)
            if number == 0:
                return {"hash": self.chain.genesis}
            block = next((block for block in self.chain.blocks if block.number == number), None)
            return block and {
                "hash": block.hash,
                "parentHash": block_hash(number - 1),
                "timestamp": hex(block.timestamp),
            }
        if method == "eth_getLogs":
            assert params[0]["fromBlock"] == params[0]["toBlock"]
            return [log for log in self.chain.logs if log["blockNumber"] == params[0]["fromBlock"]]
        assert method == "eth_call"
        call, block = params
        assert block == "latest"
        answers = {
            "0x313ce567": encode(["uint8"], [18]),  # decimals()
            "0x06fdde03": encode(["string"], ["Name"]),  # name()
        }
        if call["to"] in self.silent or call["data"] not in answers:
            raise oracle.RpcError("execution reverted")
        return "0x" + answers[call["data"]].hex()


def test_read_chain() -> None:
    """What is read is what the node has, with the metadata of announced tokens."""
    chain = two_markets()
    read = oracle.read_chain(ScriptedNode(chain, silent={TOKEN2}), 100, 103, [FACTORY])
    assert read.blocks == chain.blocks
    assert read.logs == chain.logs
    assert read.genesis == chain.genesis
    assert read.metadata == {TOKEN: TokenMetadata(18, "Name", "0xa1a1…a1a1"), TOKEN2: None}
    assert list(oracle.compute(read, settings()).records) == [TOKEN]


def test_read_chain_refuses_a_moving_chain() -> None:
    """A block that does not follow the one before, or is not there, stops the reading."""
    chain = two_markets()
    blocks = [*chain.blocks[:2], chain.blocks[2]._replace(hash="0x" + "ee" * 32), chain.blocks[3]]
    with pytest.raises(ValueError, match="does not follow"):
        oracle.read_chain(ScriptedNode(Chain(blocks, [], {}, chain.genesis), set()), 100, 103, [FACTORY])
    with pytest.raises(ValueError, match="no block 104"):
        oracle.read_chain(ScriptedNode(chain, set()), 100, 104, [FACTORY])

"""Trades in bulk: columns say what the decoders say, and fold to what single trades fold to."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.changes import MarketState
from listener.application.errors import Retryable
from listener.application.history import BulkFold, Emitter, History
from listener.application.rules import PriceMode
from listener.application.use_cases.process_block import minutes_of
from listener.domain.entities import Candle, Trade
from listener.domain.facts import BlockFacts, Swapped
from listener.domain.part import Part
from listener.domain.value_objects import Address, BlockRef, MarketId, format_decimal, format_units, ratio
from listener.infrastructure import columns as infrastructure_columns
from listener.infrastructure.blockchain.bulk import read
from listener.infrastructure.blockchain.venues import BondingCurve, decode_log
from listener.infrastructure.blockchain.venues.bonding_curve import CURVE_CREATED, TRADE
from listener.infrastructure.blockchain.venues.venue import TradeLayout
from listener.infrastructure.blockchain.wire import Log
from listener.infrastructure.columns import BASE, QUOTE, Columns, Newest
from listener.infrastructure.decimal_texts import quotients, units
from listener.infrastructure.exact import extremes
from listener.infrastructure.redis.codec import encode_trade
from listener.infrastructure.redis.trade_texts import encode_newest
from tests.fakes.amounts import sizes
from tests.fakes.build import MONDAY_MS, curve, digest, market, rules, swap, token
from tests.fakes.bulk import columns

SECOND_MS = 1_000
OTHER_TRADE = "0x" + "77" * 32


def word(value: int) -> str:
    """A data word or topic, without its prefix."""
    return f"{value:064x}"


def reply(*logs: dict[str, Any]) -> bytes:
    """Logs as they come from a node."""
    return msgspec.json.encode(logs)


def log(
    block: int = 1,
    log_index: int = 0,
    source: str = curve(0),
    market_id: str = token(0),
    trader: str = "0x" + "dd" * 20,
    words: Sequence[int] = (1, 5, 7, 1, 50, 70),
    **changes: Any,
) -> dict[str, Any]:
    """A trade's log."""
    told = {
        "address": source,
        "topics": [TRADE, "0x" + market_id[2:].rjust(64, "0"), "0x" + trader[2:].rjust(64, "0")],
        "data": "0x" + "".join(map(word, words)),
        "blockNumber": hex(block),
        "blockHash": digest(block),
        "transactionHash": digest(block, log_index),
        "logIndex": hex(log_index),
    }
    return told | changes


def refs(blocks: Sequence[int]) -> list[BlockRef]:
    """Blocks two seconds apart."""
    return [
        BlockRef(number, digest(number), digest(number - 1), MONDAY_MS + 2 * SECOND_MS * number)
        for number in sorted(set(blocks))
    ]


def decoded(told: bytes) -> list[BlockFacts]:
    """What the decoders say, one log after the other."""
    found: dict[int, list[Any]] = {}
    for one in msgspec.json.decode(told, type=list[Log]):
        found.setdefault(int(one.block_number, 16), []).append(decode_log(one, BondingCurve.decoders))
    return [
        BlockFacts(ref, tuple(fact for fact in found[ref.number] if fact is not None))
        for ref in refs(list(found))
    ]


def in_columns(told: bytes) -> History:
    """What the columns and, for the rest, the decoders say."""
    reading = read(told, BondingCurve.layouts)
    rest: dict[int, list[Any]] = {number: [] for number in reading.hashes}
    for other in reading.others:
        rest[other.place()[0]].append(decode_log(other, BondingCurve.decoders))
    blocks = [
        BlockFacts(ref, tuple(fact for fact in rest[ref.number] if fact is not None))
        for ref in refs(list(rest))
    ]
    return History(blocks, reading.trades and reading.trades.at([block.block for block in blocks]))


amounts = st.one_of(
    st.integers(0, 3),
    st.integers(0, 1 << 100),
    st.integers(0, (1 << 128) - 1),
    st.integers(0, (1 << 256) - 1),
)
oddities = st.sampled_from(
    [
        {},
        {"data": "0x"},
        {"data": "0x" + "0" * 383 + "g"},
        {"data": "0X" + "0" * 384},
        {"data": "0x" + "0" * 382},
        {"data": "é" * 386},
        {"topics": []},
        {"topics": [TRADE]},
        {"topics": [CURVE_CREATED, "0x" + word(1), "0x" + word(2)]},
        {"topics": [TRADE, "0x" + word(1 << 200), "0x" + word(2)]},
        {"topics": [TRADE, "0x" + word(1), "0x" + word(1 << 161)]},
        {"topics": [TRADE, "0x" + word(0xABC).upper(), "0x" + word(0xDEF)]},
        {"topics": [TRADE, "0x" + word(0xABC), "0x" + word(0xDEF).upper()]},
        {"topics": [TRADE.upper(), "0x" + word(1), "0x" + word(2)]},
        {"address": curve(3).upper().replace("X", "x")},
        {"address": "nobody"},
        {"blockHash": "0x" + "AB" * 32, "blockNumber": "0x77"},
    ]
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Logs in order, some of them odd."""
    logs = []
    index = 0
    for block in range(1, draw(st.integers(1, 4)) + 1):
        for _ in range(draw(st.integers(0, 4))):
            number = draw(st.integers(0, 2))
            index += draw(st.integers(1, 300))
            words = [draw(st.sampled_from([0, 0, 1, 1, 2, 1 << 255])), *(draw(amounts) for _ in range(5))]
            one = log(
                block,
                index,
                curve(number),
                token(draw(st.sampled_from([number, number, 9]))),
                "0x" + draw(st.text("0123456789abcdef", min_size=40, max_size=40)),
                words,
            )
            odd = draw(st.one_of(st.just({}), oddities))
            if "blockHash" not in odd:
                logs.append(one | odd)
    return reply(*logs)


@given(replies())
def test_columns_say_what_the_decoders_say(told: bytes) -> None:
    """Whatever a reply holds: every log is told as its decoder tells it, in order, none twice, none lost."""
    assert list(in_columns(told).facts()) == decoded(told)


def test_plain_trades_come_in_columns() -> None:
    """Else there is nothing to be fast about."""
    rows = reply(*(log(block, index) for block in (1, 2) for index in (0, 1, 5)))
    reading = read(rows, BondingCurve.layouts)
    assert (len(reading.trades or ()), len(reading.others)) == (6, 0)


def test_logs_of_one_length_are_told_apart() -> None:
    """One digit more in one number and one less in another, or another event: neither hides the trades."""
    other = log(1, 0x100)
    other["topics"] = [OTHER_TRADE, *other["topics"][1:]]
    logs = [other, log(1, 0x101), log(0x10, 0x11), log(0x10, 0x12), log(0x10, 0x100)]
    assert len({len(msgspec.json.encode(one)) for one in logs[:4]}) == 1
    reading = read(reply(*logs), BondingCurve.layouts)
    assert reading.trades is not None
    assert reading.trades.log_index.tolist() == [0x101, 0x11, 0x12, 0x100]
    assert [one.place() for one in reading.others] == [(1, 0x100)]


def test_two_kinds_of_trades_are_in_order() -> None:
    """Each layout reads its own; together they are in the order of the chain."""
    bare = TradeLayout(topics=2, words=3, market=None, trader=1, is_buy=2, base=0, quote=1)
    others = [
        log(
            block,
            7,
            curve(5),
            topics=[OTHER_TRADE, "0x" + word(0xBEEF)],
            data="0x" + word(11) + word(12) + word(1),
        )
        for block in (1, 2)
    ]
    rows = reply(log(1, 3), others[0], log(1, 9), log(2, 3), others[1])
    reading = read(rows, {**BondingCurve.layouts, OTHER_TRADE: bare})
    assert reading.trades is not None
    assert not reading.others
    told = reading.trades.at(refs([1, 2]))
    swaps = told.swaps(told.emitters())
    assert [(ref.number, one.log_index) for ref, one in swaps] == [(1, 3), (1, 7), (1, 9), (2, 3), (2, 7)]
    who = Address(f"0x{0xBEEF:040x}")
    assert swaps[1][1] == Swapped(
        curve(5),
        7,
        digest(1, 7),
        None,
        is_buy=True,
        trader=who,
        base=11,
        quote=12,
        fee=None,
        reserves=None,
    )


@pytest.mark.parametrize(
    "logs",
    [
        [log(1, 0), log(2, 0, blockHash=digest(1))],
        [log(1, 0), log(1, 1, blockHash=digest(9))],
        [log(1, 0, blockNumber="0x")],
        [log(1, 0, blockNumber="-0x1")],
        [log(1, 0, blockNumber="0x" + "f" * 30)],
        [log(1, 0, logIndex="one")],
        [log(1, 0, logIndex="0x" + "f" * 20)],
        [log(1, 0, topics="none")],
    ],
)
def test_replies_that_contradict_themselves_are_refused(logs: list[dict[str, Any]]) -> None:
    """Places that are none, or one block with two numbers, or two blocks with one."""
    with pytest.raises(Retryable):
        read(reply(*logs), BondingCurve.layouts)


def test_a_reply_out_of_order_is_left_to_the_careful_way() -> None:
    """There the order within each block is checked."""
    reading = read(reply(log(1, 1), log(1, 0)), BondingCurve.layouts)
    assert reading.trades is None
    assert len(reading.others) == 2


prices = st.one_of(st.integers(1, 5), st.integers(10**20, 10**20 + 3), st.integers(1, (1 << 128) - 1))


@st.composite
def trades(draw: st.DrawFn) -> list[tuple[BlockRef, Swapped]]:
    """Trades of a few markets, many of them at nearly the same price, over some minutes."""
    found = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        ref = refs([number * draw(st.sampled_from([1, 40]))])[0]
        if found and ref.number <= found[-1][0].number:
            continue
        for index in range(draw(st.integers(1, 8))):
            fact = swap(draw(st.integers(0, 2)))(index, "")
            assert isinstance(fact, Swapped)
            reserves = draw(
                st.one_of(st.none(), st.tuples(st.integers(0, 2), prices), st.tuples(prices, prices))
            )
            found.append(
                (
                    ref,
                    fact._replace(
                        is_buy=draw(st.booleans()),
                        base=draw(st.one_of(st.just(0), prices, prices)),
                        quote=draw(prices),
                        fee=draw(st.one_of(st.none(), prices)),
                        reserves=reserves,
                    ),
                )
            )
    return found


RULES = rules("5m", "1h")


def minutes(fold: BulkFold) -> list[Candle]:
    """All of them; the newest, and those before it, are the same where they are told apart."""
    if fold.minutes is None:
        return []
    each, before, last = list(fold.minutes.each), fold.minutes.before, fold.minutes.last
    assert each[-1] == last
    whole = [Part.of(one) for one in each[:-1]]
    assert before == (reduce(lambda one, more: one.merge(more, more.until), whole) if whole else None)
    return each


@given(trades(), st.integers(0, 5), st.sampled_from(["execution", "spot"]))
def test_folds_are_those_of_single_trades(
    swaps: list[tuple[BlockRef, Swapped]], newest: int, mode: PriceMode
) -> None:
    """Minutes, counts and the newest trades of each emitter, exactly, however near prices are."""
    batch = columns(swaps, [ref for ref, _ in swaps])
    decimals = {0: (18, 18), 1: (6, 18), 2: (18, 6)}
    markets = {
        Emitter(curve(number), token(number)): market(number, base_decimals=base, quote_decimals=quote)
        for number, (base, quote) in decimals.items()
        if Emitter(curve(number), token(number)) in batch.emitters()
    }
    by = replace(RULES, trades_kept=newest, price_mode=mode)
    folds, _, left = batch.fold({emitter: MarketState.new(one, 3) for emitter, one in markets.items()}, by)
    for emitter, whose in markets.items():
        own = [(ref, one) for ref, one in swaps if one.source == emitter.source]
        single = [as_trade(ref, one, whose.id, whose.price_exponent, mode) for ref, one in own if one.base]
        most = max(sum(one.base for _, one in own), sum(one.quote for _, one in own))
        assert (emitter in left) if most >= 1 << 128 else (emitter not in left or most >= 1 << 126)
        if emitter in left or not own:
            continue
        fold = folds[emitter]
        assert (fold.trades, fold.zero_amounts) == (len(single), len(own) - len(single))
        assert [one._replace(previous_close=None) for one in minutes(fold)] == minutes_of(single)
        assert list(fold.newest) == single[max(len(single) - newest, 0) :]


@given(
    trades(),
    st.lists(
        st.tuples(st.sampled_from([0, 6, 18, 40, 77]), st.sampled_from([0, 18, 30])), min_size=3, max_size=3
    ),
    st.sampled_from(["execution", "spot"]),
)
def test_many_are_encoded_as_each_is(
    swaps: list[tuple[BlockRef, Swapped]], decimals: tuple[tuple[int, int], ...], mode: PriceMode
) -> None:
    """To the last byte, for several markets at once, whatever their decimals."""
    batch = columns(swaps, [ref for ref, _ in swaps])
    markets = {
        emitter: market(
            number := int(emitter.source, 16) - 0xC0000,
            base_decimals=decimals[number][0],
            quote_decimals=decimals[number][1],
        )
        for emitter in batch.emitters()
    }
    states = {emitter: MarketState.new(one, 3) for emitter, one in markets.items()}
    folds = batch.fold(states, replace(RULES, trades_kept=5, price_mode=mode)).markets
    parts = [fold.newest for fold in folds.values() if isinstance(fold.newest, Newest)]
    assert encode_newest(parts) == [[encode_trade(one, part.market) for one in part] for part in parts]


@given(st.lists(st.integers(0, (1 << 128) - 1), min_size=1), st.integers(0, 80))
def test_units_are_written_as_one_by_one(amounts: list[int], decimals: int) -> None:
    """Plain decimals without trailing zeros, at any size."""
    halves = np.array([[amount >> 64, amount & (1 << 64) - 1] for amount in amounts], np.uint64)
    told = [row.tobytes().translate(None, b"\0").decode() for row in units(halves, decimals)]
    assert told == [format_units(amount, decimals) for amount in amounts]


@given(
    st.lists(st.tuples(sizes, sizes, st.integers(0, 40)), min_size=1, max_size=20),
    st.sampled_from([0, -12, 12]),
)
def test_quotients_are_written_as_one_by_one(pairs: list[tuple[int, int, int]], exponent: int) -> None:
    """24 digits, half to even, at any size; also where the quotient has few digits or many nines."""
    exact = [(q * s % (1 << 128) or 1, b * s % (1 << 128) or 1) for q, b, s in pairs]
    numerators, denominators = (
        np.array([[value >> 64, value & (1 << 64) - 1] for value in side], np.uint64)
        for side in zip(*exact, strict=True)
    )
    rows = quotients(numerators, denominators, exponent)
    told = [row.tobytes().translate(None, b"\0").decode() for row in rows]
    assert told == [format_decimal(ratio(q, b, exponent)) for q, b in exact]


def as_trade(ref: BlockRef, one: Swapped, market_id: MarketId, exponent: int, mode: PriceMode) -> Trade:
    """A trade of its own."""
    return Trade(
        market_id,
        ref.number,
        one.log_index,
        ref.hash,
        one.tx_hash,
        ref.timestamp,
        one.is_buy,
        one.trader,
        one.base,
        one.quote,
        one.fee,
        one.reserves,
        exponent,
        mode == "spot",
    )


def test_prices_that_doubles_cannot_tell_apart() -> None:
    """The highest and the lowest of a minute differ in the thirtieth digit."""
    huge = 10**30
    quotes = [huge + 1, huge + 3, huge, huge + 2]
    (ref,) = refs([1])
    swaps = []
    for index, quote in enumerate(quotes):
        fact = swap(0)(index, "")
        assert isinstance(fact, Swapped)
        swaps.append((ref, fact._replace(base=huge, quote=quote)))
    batch = columns(swaps, [ref])
    numerator, denominator = batch.amounts[:, QUOTE], batch.amounts[:, BASE]
    high, low = extremes(numerator, denominator, np.array([0]), np.array([4]))
    assert (high.tolist(), low.tolist()) == ([1], [2])


@given(trades(), st.data())
def test_parts_make_the_whole(swaps: list[tuple[BlockRef, Swapped]], data: st.DataObject) -> None:
    """Cut at any block and joined again, a batch says the same; each part has its own blocks."""
    batch = columns(swaps, [ref for ref, _ in swaps])
    number = data.draw(st.integers(0, swaps[-1][0].number + 1))
    early, late = batch.split(number)
    assert [ref.number <= number for ref, _ in early.swaps(early.emitters())] == [True] * len(early)
    assert [ref.number > number for ref, _ in late.swaps(late.emitters())] == [True] * len(late)
    whole = early.joined([late])
    assert whole.swaps(whole.emitters()) == batch.swaps(batch.emitters())
    assert whole.emitters() == batch.emitters()
    assert whole.per_block() == batch.per_block()


@given(trades())
def test_emitters_whose_keys_collide_are_told_apart(swaps: list[tuple[BlockRef, Swapped]]) -> None:
    """A key is not believed: emitters with the same one are grouped by all of their digits."""
    batch = columns(swaps, [ref for ref, _ in swaps])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infrastructure_columns, "_MIXED", np.zeros(10, np.uint64))
        assert batch.swaps(batch.emitters()) == swaps
        assert sum(batch.emitters().values()) == len(swaps)


def test_batches_of_different_emitters_are_joined() -> None:
    """Each keeps its own."""
    first, second = ([(ref, swap(number)(0, ""))] for number, ref in enumerate(refs([1, 2])))
    parts: list[Columns] = [columns(part, [part[0][0]]) for part in (first, second)]  # type: ignore[arg-type]
    whole = parts[0].joined(parts[1:])
    assert whole.swaps(whole.emitters()) == [*first, *second]


def test_a_layout_names_its_events_topic() -> None:
    """Columns are only taken where the decoder of the same topic exists."""
    assert BondingCurve.layouts.keys() <= BondingCurve.decoders.keys()
    assert replace(columns([], []), refs={}).emitters() == {}

"""The venue's event table: exact topics, good logs, and every way in which a log can be bad."""

import re
from typing import Final

import pytest
from eth_abi.abi import encode
from hypothesis import example, given
from hypothesis import strategies as st

from listener.domain.facts import Graduated, Malformed, MarketAnnounced, Swapped
from listener.domain.value_objects import ZERO_ADDRESS
from listener.infrastructure.blockchain.venues import ALL, BondingCurve, decode_log
from listener.infrastructure.blockchain.venues.venue import Decoder
from listener.infrastructure.blockchain.wire import Log
from tests.fakes.build import digest

CREATED: Final = "0xe190ed6c0ff5074358a7d29c1e854e318bac23840399ffc2b90c206b1e7fd204"
TRADED: Final = "0x2c76e7a47fd53e2854856ac3f0a5f3ee40d15cfaa82266357ea9779c486ab9c3"
GRADUATED: Final = "0x18a56450d3c666e2bae9e0829fcada82a9ab0deef6e33c2496752c88d4155c9d"
"""Keccak-256 of the signatures in contracts/, written down: a decoder cannot change them by mistake."""
FACTORY, TOKEN, CURVE, WHO, POOL = (f"0x{byte * 20}" for byte in ("fa", "a1", "c1", "dd", "99"))
MAX: Final = 2**256 - 1
ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")


def topic_of(name: str) -> str:
    """Topic 0 of one of the venue's events, from its decoder's name."""
    return next(topic for topic, decoder in BondingCurve.decoders.items() if decoder.__name__ == name)


def log(*topics: str, data: str = "0x", address: str = CURVE) -> Log:
    """A log at block 16, index 10."""
    return Log(address, list(topics), data, "0x10", digest("block"), digest("tx"), "0xa")


def arg(address: str) -> str:
    """An indexed address."""
    return "0x" + "00" * 12 + address[2:]


def data(*words: int) -> str:
    """Words as data."""
    return "0x" + "".join(f"{word:064x}" for word in words)


def trade_log(*words: int, address: str = CURVE) -> Log:
    """A `Trade` with these words."""
    return log(topic_of("trade"), arg(TOKEN), arg(WHO), data=data(*words), address=address)


def decode(one: Log) -> object:
    """What a log says."""
    return decode_log(one, BondingCurve.decoders)


def test_topics_are_those_of_the_contracts() -> None:
    """Three events, no other, each with its decoder."""
    assert {topic: decoder.__name__ for topic, decoder in BondingCurve.decoders.items()} == {
        CREATED: "curve_created",
        TRADED: "trade",
        GRADUATED: "graduated",
    }


def test_venues_do_not_share_topics() -> None:
    """An event belongs to one venue: names and topics are distinct."""
    topics = [topic for venue in ALL for topic in venue.decoders]
    assert len(topics) == len(set(topics))
    assert len({venue.name for venue in ALL}) == len(ALL)


def test_a_creation_is_read() -> None:
    """Token, curve and creator from the topics; quoted in the chain's own coin."""
    texts = "0x" + encode(["string", "string"], ["Moon Cat", "CAT"]).hex()
    topics = topic_of("curve_created"), arg(TOKEN), arg(CURVE), arg(WHO)
    made = decode(log(*topics, data=texts, address=FACTORY.upper()))
    assert made == MarketAnnounced(
        FACTORY, 10, digest("tx"), "bonding_curve", TOKEN, TOKEN, ZERO_ADDRESS, CURVE, WHO
    )


@pytest.mark.parametrize(("flag", "is_buy"), [(1, True), (0, False)])
def test_a_trade_is_read(flag: int, is_buy: bool) -> None:
    """Side, amounts, fee and reserves, to the last unit."""
    made = decode(trade_log(flag, MAX, 1, 0, MAX - 1, 2))
    assert made == Swapped(CURVE, 10, digest("tx"), TOKEN, is_buy, WHO, MAX, 1, 0, (MAX - 1, 2))


@pytest.mark.parametrize(("pool", "successor"), [(POOL, POOL), (ZERO_ADDRESS, "")])
def test_a_graduation_is_read(pool: str, successor: str) -> None:
    """The pool that takes over; the zero address is none."""
    made = decode(log(topic_of("graduated"), arg(TOKEN), arg(pool), data=data(1, 2)))
    assert made == Graduated(CURVE, 10, digest("tx"), TOKEN, successor, (1, 2))


@pytest.mark.parametrize("topics", [[], [digest("Transfer")], [""], ["0x"]])
def test_other_events_say_nothing(topics: list[str]) -> None:
    """A log without our topic is none of ours, whatever it carries."""
    assert decode(log(*topics, data=data(1))) is None


TRADE, GRADUATION, CREATION = "trade", "graduated", "curve_created"
GOOD = data(1, 2, 3, 4, 5, 6)
BAD = {
    "no arguments": (TRADE, [], "0x"),
    "a topic too few": (TRADE, [arg(TOKEN)], GOOD),
    "a topic too many": (TRADE, [arg(TOKEN), arg(WHO), arg(WHO)], GOOD),
    "a word too few": (TRADE, [arg(TOKEN), arg(WHO)], data(1, 2, 3, 4, 5)),
    "a word too many": (TRADE, [arg(TOKEN), arg(WHO)], data(1, 2, 3, 4, 5, 6, 7)),
    "half a word": (TRADE, [arg(TOKEN), arg(WHO)], GOOD + "00"),
    "odd length": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:-1]),
    "no data": (TRADE, [arg(TOKEN), arg(WHO)], ""),
    "no hex": (TRADE, [arg(TOKEN), arg(WHO)], "0x" + "zz" * 192),
    "no prefix": (TRADE, [arg(TOKEN), arg(WHO)], "00" + GOOD[2:]),
    "a sign": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:66] + "-" + GOOD[67:]),
    "a plus": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:66] + "+" + GOOD[67:]),
    "a space": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:66] + " " + GOOD[67:]),
    "an underscore": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:68] + "_" + GOOD[69:]),
    "other digits": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:-1] + "٣"),
    "a prefix inside": (TRADE, [arg(TOKEN), arg(WHO)], GOOD[:66] + "0x" + GOOD[68:]),
    "no bool": (TRADE, [arg(TOKEN), arg(WHO)], data(2, 2, 3, 4, 5, 6)),
    "a dirty address": (TRADE, ["0x01" + arg(TOKEN)[4:], arg(WHO)], GOOD),
    "a short topic": (TRADE, [TOKEN, arg(WHO)], GOOD),
    "an address without hex": (TRADE, [arg("0x" + "zz" * 20), arg(WHO)], GOOD),
    "a topic without prefix": (TRADE, ["00" + arg(TOKEN)[2:], arg(WHO)], GOOD),
    "a graduation without data": (GRADUATION, [arg(TOKEN), arg(POOL)], "0x"),
    "a creation without a creator": (CREATION, [arg(TOKEN), arg(CURVE)], "0x"),
    "a creation with a dirty curve": (CREATION, [arg(TOKEN), "0x" + "11" * 32, arg(WHO)], "0x"),
}


@pytest.mark.parametrize(("event", "topics", "payload"), BAD.values(), ids=BAD.keys())
def test_a_bad_log_is_malformed(event: str, topics: list[str], payload: str) -> None:
    """What its event's signature does not allow is refused by name, with emitter, place and reason."""
    made = decode(log(topic_of(event), *topics, data=payload))
    assert isinstance(made, Malformed)
    assert (made.source, made.log_index, made.tx_hash) == (CURVE, 10, digest("tx"))
    assert made.reason


words = st.one_of(st.integers(0, MAX), st.sampled_from([0, 1, 2, MAX]))
hexes = st.text("0123456789abcdefABCDEFxX_+- z", max_size=140)
noise = st.one_of(st.text(max_size=80), hexes, st.just("0x"), hexes.map(lambda text: "0x" + text))
topics = st.one_of(st.just(arg(TOKEN)), st.just("0x" + "ff" * 32), noise)
payloads = st.one_of(st.lists(words, max_size=8).map(lambda some: data(*some)), noise)


@given(st.sampled_from(sorted(BondingCurve.decoders)), st.lists(topics, max_size=5), payloads, noise)
@example(CREATED, [], "0x", "")
def test_decoding_never_raises(event: str, some: list[str], payload: str, address: str) -> None:
    """Whatever topics, data and emitter are, the answer is a fact with possible values, or a refusal."""
    made = decode_log(
        Log(address, [event, *some], payload, "0x10", digest("block"), digest("tx"), "0xa"),
        BondingCurve.decoders,
    )
    assert made is None or isinstance(made, MarketAnnounced | Swapped | Graduated | Malformed)
    if isinstance(made, Swapped):
        assert made.reserves is not None
        assert all(0 <= amount <= MAX for amount in (made.base, made.quote, made.fee or 0, *made.reserves))
        assert ADDRESS.fullmatch(made.trader)
        assert ADDRESS.fullmatch(str(made.market))
    if isinstance(made, MarketAnnounced):
        assert all(ADDRESS.fullmatch(part) for part in (made.token, made.source, made.creator))
    if isinstance(made, Graduated):
        assert made.successor == "" or ADDRESS.fullmatch(made.successor)


@given(words, words, words, words, words, st.booleans())
def test_every_trade_reads_as_it_was_written(
    base: int,
    quote: int,
    fee: int,
    reserve_base: int,
    reserve_quote: int,
    is_buy: bool,
) -> None:
    """Any 256-bit amounts come back exactly."""
    made = decode(trade_log(int(is_buy), base, quote, fee, reserve_base, reserve_quote))
    assert made == Swapped(
        CURVE, 10, digest("tx"), TOKEN, is_buy, WHO, base, quote, fee, (reserve_base, reserve_quote)
    )


def test_decoders_are_plain_functions() -> None:
    """A venue is a table from topic to function: nothing is kept between logs."""
    decoders: list[Decoder] = list(BondingCurve.decoders.values())
    assert all(decoder(trade_log(1, 2, 3, 4, 5, 6)) for decoder in decoders if decoder.__name__ == "trade")

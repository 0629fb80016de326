"""Logs blooms: what they can prove, against one that is set bit by bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.infrastructure.blockchain.bloom import (
    BLOOM_BITS,
    MOST_BITS,
    TopicBits,
    bits_of,
    bloom_of,
    parse_bloom,
    says_something,
)
from listener.infrastructure.blockchain.wire import Log
from tests.fakes.node import FULL_BLOOM, NO_BLOOM
from tests.fakes.node import bloom_of as reference

WORDS = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())


def log(address: str, topics: list[str]) -> Log:
    """A log whose place does not matter."""
    return Log(address, topics, "0x", "0x1", "0x" + "ab" * 32, "0x" + "cd" * 32, "0x0")


LOGS = st.builds(log, ADDRESSES, st.lists(WORDS, max_size=4))


@given(st.lists(LOGS, max_size=20))
def test_a_bloom_is_what_the_yellow_paper_says(logs: list[Log]) -> None:
    """Three bits for each address and topic, the same as set one by one."""
    expected = reference([{"address": each.address, "topics": each.topics} for each in logs])
    assert bloom_of(logs) == parse_bloom(expected)


@given(st.lists(LOGS, min_size=1, max_size=20))
def test_nothing_that_is_there_is_denied(logs: list[Log]) -> None:
    """A bloom has no false negatives."""
    topics = {topic for each in logs for topic in each.topics}
    bits = TopicBits(topics)
    assert not bits.denies(bloom_of(logs), topics)
    assert bits.hints_at_others(bloom_of(logs), set()) == bool(topics)
    assert not bits.hints_at_others(bloom_of(logs), topics)


def test_an_empty_bloom_denies_everything() -> None:
    """And hints at nothing."""
    topics = ["0x" + f"{n:064x}" for n in range(3)]
    assert TopicBits(topics).denies(0, {topics[1]})
    assert not TopicBits(topics).denies(0, set())
    assert not TopicBits(topics).hints_at_others(0, set())


def test_a_topic_has_at_most_three_bits_of_2048() -> None:
    """The keccak of 32 zero bytes, known from Solidity storage slots, begins 290decd9 548b."""
    assert bits_of("0x" + "00" * 32) == 1 << 0x10D | 1 << (0xECD9 & 2047) | 1 << (0x548B & 2047)
    assert bits_of("0x" + "00" * 32) == bits_of("00" * 32)


def test_letter_case_does_not_matter() -> None:
    """Some nodes write checksummed addresses."""
    lower, upper = log("0x" + "ab" * 20, ["0x" + "cd" * 32]), log("0x" + "AB" * 20, ["0x" + "CD" * 32])
    assert bloom_of([lower]) == bloom_of([upper])


def test_a_full_bloom_says_nothing() -> None:
    """Up to half of the bits, no more: then one random topic in eight would match."""
    assert says_something(0)
    assert says_something((1 << MOST_BITS) - 1)
    assert not says_something((1 << MOST_BITS + 1) - 1)
    assert not says_something((1 << BLOOM_BITS) - 1)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "0x",
        "0x00",
        "00" * 257,
        "0x" + "00" * 255,
        "0x" + "00" * 257,
        "0x" + "zz" * 256,
        "0X" + "00" * 256,
    ],
)
def test_what_is_no_bloom_is_none(text: str | None) -> None:
    """Missing, too short, too long, not hex: no conclusions are drawn from it."""
    assert parse_bloom(text) is None


def test_blooms_are_read() -> None:
    """The first bit is the last of the text."""
    assert parse_bloom(NO_BLOOM) == 0
    assert parse_bloom(FULL_BLOOM) == (1 << BLOOM_BITS) - 1
    assert parse_bloom("0x" + "00" * 255 + "01") == 1


@pytest.mark.parametrize("address", ["0xzz", "", "0x1"])
def test_what_is_not_hex_has_no_bits(address: str) -> None:
    """A hostile reply is refused with one kind of error; nothing at all is hex, too."""
    if not address:
        assert bits_of(address)
        return
    with pytest.raises(ValueError, match="hex"):
        bloom_of([log(address, [])])

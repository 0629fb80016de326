"""What a venue is, and the few helpers its decoders share.

To add a venue: write one file like `bonding_curve.py` with an event table, add it to `ALL`, and copy
its test. A decoder is a plain function from a log to a fact; it raises `BadLog` for a log that does not have
the form its event must have, and never anything else. The table of layouts may stay empty.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, NamedTuple, Protocol

from eth_utils.crypto import keccak

from listener.domain.facts import Fact, Malformed
from listener.domain.value_objects import Address
from listener.infrastructure.blockchain.wire import Log

Decoder = Callable[[Log], Fact]

_WORD: Final = 64
_HEX: Final = re.compile("0x[0-9a-fA-F]*")
_ADDRESS_TOPIC: Final = re.compile("0x0{24}[0-9a-f]{40}")


class TradeLayout(NamedTuple):
    """Where a trade event has its values, so that history can be decoded in bulk.

    It says what the event's decoder says, with the emitter's address as `source`; all amounts are unsigned.
    What the layout does not fit, the decoder gets.

    Attributes:
        topics: how many there are, topic 0 included.
        words: how many data words there are.
        market: topic that names the market; None: none does.
        trader: topic that names who traded.
        is_buy: word that says so, 0 or 1.
        base: word.
        quote: word.
        fee: word, if there is one.
        reserves: words of base and quote after the trade, if there are such.
    """

    topics: int
    words: int
    market: int | None
    trader: int
    is_buy: int
    base: int
    quote: int
    fee: int | None = None
    reserves: tuple[int, int] | None = None


class Venue(Protocol):
    """A family of contracts with the same events.

    Attributes:
        name: stored as `venue` in market records.
        decoders: by topic 0.
        layouts: of trade events that have one, by topic 0: the same as their decoder, in bulk.
    """

    name: ClassVar[str]
    decoders: ClassVar[Mapping[str, Decoder]]
    layouts: ClassVar[Mapping[str, TradeLayout]]


class BadLog(ValueError):
    """A log that its event's signature does not allow."""


def topic(signature: str) -> str:
    """Topic 0 of an event, such as `Transfer(address,address,uint256)`."""
    return "0x" + keccak(text=signature).hex()


def selector(signature: str) -> str:
    """The first bytes of a call of a function, such as `decimals()`."""
    return topic(signature)[:10]


def words(log: Log, topics: int, data_words: int) -> list[int]:
    """The data of a log as unsigned 256-bit words.

    Args:
        log: any log.
        topics: how many topics it must have, topic 0 included.
        data_words: how many words of data it must have.

    Raises:
        BadLog: it has others.
    """
    expect_topics(log, topics)
    text = log.data
    if len(text) != 2 + data_words * _WORD:
        raise BadLog(f"{len(text) - 2} hex digits of data, expected {data_words * _WORD}")
    data = _bytes(text)
    if len(data) != data_words * 32:
        raise BadLog("data is not hex")
    return [int.from_bytes(data[at : at + 32]) for at in range(0, len(data), 32)]


def _bytes(text: str) -> bytes:
    try:
        if text[:2] == "0x":
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise BadLog("data is not hex")


def expect_texts(log: Log, texts: int) -> None:
    """Refuse data that does not begin with so many ABI strings, each inside the data."""
    digits = _hex_data(log)[2:]
    if len(digits) % 2:
        raise BadLog("half a byte of data")
    data = bytes.fromhex(digits)
    for head in range(0, 32 * texts, 32):
        start = int.from_bytes(data[head : head + 32])
        end = start + 32 + int.from_bytes(data[start : start + 32])
        if len(data) < head + 32 or len(data) < start + 32 or len(data) < end:
            raise BadLog("a text outside the data")


def _hex_data(log: Log) -> str:
    if not _HEX.fullmatch(log.data):
        raise BadLog("data is not hex")
    return log.data


def expect_topics(log: Log, topics: int) -> None:
    """Refuse a log with another number of topics."""
    if len(log.topics) != topics:
        raise BadLog(f"{len(log.topics)} topics, expected {topics}")


def topic_address(log: Log, index: int) -> Address:
    """An indexed address argument."""
    word = log.topics[index]
    if _ADDRESS_TOPIC.fullmatch(word):
        return Address("0x" + word[26:])
    if _ADDRESS_TOPIC.fullmatch(word.lower()):
        return Address("0x" + word[26:].lower())
    raise BadLog(f"topic {index} is not an address")


def boolean(word: int) -> bool:
    """A bool argument; anything but 0 and 1 is no bool."""
    if word > 1:
        raise BadLog(f"{word} is not a bool")
    return word == 1


def decode_log(log: Log, decoders: Mapping[str, Decoder]) -> Fact | None:
    """What a log says; None if its topic is not ours."""
    decoder = decoders.get(log.topics[0]) if log.topics else None
    if decoder is None:
        return None
    try:
        return decoder(log)
    except BadLog as error:
        return Malformed(log.address.lower(), int(log.log_index, 16), log.transaction_hash, str(error))

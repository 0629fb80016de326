"""Logs blooms of block headers: they can prove that a log is missing, but not that none is.

Source: Ethereum yellow paper, section 4.4.3; https://eips.ethereum.org/EIPS/eip-7668 on their use today.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

from eth_utils.crypto import keccak

from listener.infrastructure.blockchain.wire import Log

BloomPolicy = Literal["strict", "lenient", "off"]
"""What to make of a bloom that contradicts the logs: `strict` refuses the block until they agree, `lenient`
looks once more and then goes on, `off` never looks."""

BLOOM_BITS: Final = 2048
MOST_BITS: Final = BLOOM_BITS // 2
"""A bloom with more bits set says nothing: a random topic would match more than one in eight of them."""


def parse_bloom(text: str | None) -> int | None:
    """A bloom as an integer; None if it is missing or no bloom."""
    if text is None or len(text) != 2 + BLOOM_BITS // 4 or not text.startswith("0x"):
        return None
    try:
        return int(text, 16)
    except ValueError:
        return None


def says_something(bloom: int) -> bool:
    """Whether the bloom is empty enough to tell topics apart."""
    return bloom.bit_count() <= MOST_BITS


@lru_cache(maxsize=8192)
def bits_of(value: str) -> int:
    """The bits that an address or topic, in hex, sets in a bloom.

    Raises:
        ValueError: it is not hex.
    """
    digest = keccak(bytes.fromhex(value.removeprefix("0x")))
    bits = 0
    for at in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[at : at + 2]) % BLOOM_BITS)
    return bits


def bloom_of(logs: Iterable[Log]) -> int:
    """The bloom of a block with exactly these logs.

    Raises:
        ValueError: an address or topic is not hex.
    """
    bloom = 0
    for log in logs:
        bloom |= bits_of(log.address.lower())
        for topic in log.topics:
            bloom |= bits_of(topic.lower())
    return bloom


class TopicBits:
    """The bits of our topics, worked out once.

    Args:
        topics: topic 0 of every event that matters.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._bits = [(topic, bits_of(topic)) for topic in topics]

    def hints_at_others(self, bloom: int, came: set[str]) -> bool:
        """Whether the bloom says that topics may be there of which no log came."""
        return any(bloom & bits == bits for topic, bits in self._bits if topic not in came)

    def denies(self, bloom: int, came: set[str]) -> bool:
        """Whether the bloom says that a topic cannot be there of which a log came."""
        return any(bloom & bits != bits for topic, bits in self._bits if topic in came)

"""Node replies as they come: hex strings, checked when they become domain values."""

from typing import Final

import msgspec

from listener.application.errors import InconsistentReply
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import BlockRef

UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding a hostile reply may raise."""


MOST_BLOCKS: Final = 2**48
MOST_LOGS: Final = 2**31
"""In a block."""
MOST_SECONDS: Final = 2**37
"""Since 1970: four thousand years."""


def _number(text: str, bound: int) -> int:
    number = int(text, 16)
    if not 0 <= number < bound:
        raise ValueError(f"{text[:40]!r} is out of bounds")
    return number


class Header(msgspec.Struct, rename="camel"):
    """The part of a block header that we use. Transactions stay undecoded: few blocks need them."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str | None = None
    transactions: msgspec.Raw = msgspec.Raw(b"[]")

    def ref(self) -> BlockRef:
        """The block's place in the chain, time in milliseconds.

        Raises:
            InconsistentReply: a field is not what it must be.
        """
        try:
            return BlockRef(
                _number(self.number, MOST_BLOCKS),
                self.hash.lower(),
                self.parent_hash.lower(),
                _number(self.timestamp, MOST_SECONDS) * 1000,
            )
        except (InvalidValue, ValueError) as error:
            raise InconsistentReply(f"not a block header: {error}") from error

    def transaction_hashes(self) -> list[str]:
        """Hashes of the block's transactions, in lower case.

        Raises:
            InconsistentReply: there are none in the header.
        """
        try:
            hashes = msgspec.json.decode(self.transactions, type=list[str])
        except UNREADABLE as error:
            raise InconsistentReply(f"block {self.number}: no transaction hashes: {error}") from error
        return [text.lower() for text in hashes]


class Log(msgspec.Struct, rename="camel"):
    """A log as `eth_getLogs` returns it."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str
    transaction_index: str | None = None

    def place(self) -> tuple[int, int]:
        """Block number and index within the block.

        Raises:
            InconsistentReply: they are not hex numbers, or such as no chain has.
        """
        try:
            return _number(self.block_number, MOST_BLOCKS), _number(self.log_index, MOST_LOGS)
        except ValueError as error:
            place = f"{self.block_number[:40]!r}, {self.log_index[:40]!r}"
            raise InconsistentReply(f"a log at {place}") from error


class Receipt(msgspec.Struct, rename="camel"):
    """The part of a transaction receipt that we use."""

    transaction_hash: str
    block_hash: str
    logs: list[Log]

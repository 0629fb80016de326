"""Node replies as they come: hex strings, checked when they become domain values."""

from typing import Final

import msgspec

from listener.application.errors import InconsistentReply
from listener.domain.errors import InvalidValue
from listener.domain.value_objects import BlockRef

UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding a hostile reply may raise."""


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
                int(self.number, 16),
                self.hash.lower(),
                self.parent_hash.lower(),
                int(self.timestamp, 16) * 1000,
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

    def place(self) -> tuple[int, int]:
        """Block number and index within the block.

        Raises:
            InconsistentReply: they are not hex numbers.
        """
        try:
            return int(self.block_number, 16), int(self.log_index, 16)
        except ValueError as error:
            raise InconsistentReply(f"a log at {self.block_number!r}, {self.log_index!r}") from error


class Receipt(msgspec.Struct, rename="camel"):
    """The part of a transaction receipt that we use."""

    transaction_hash: str
    block_hash: str
    logs: list[Log]

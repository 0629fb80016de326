"""Numbers that a node writes: those that no chain has are refused before anybody calculates with them."""

import pytest

from listener.application.errors import InconsistentReply
from listener.infrastructure.blockchain.wire import MOST_BLOCKS, MOST_LOGS, MOST_SECONDS, Header, Log

HASH = "0x" + "ab" * 32


def header(number: str = "0x1", timestamp: str = "0x2") -> Header:
    """A header with these numbers."""
    return Header(number, HASH, HASH, timestamp)


def log(number: str = "0x1", index: str = "0x2") -> Log:
    """A log in that place."""
    return Log("0x" + "1" * 40, [], "0x", number, HASH, HASH, index)


def test_numbers_are_read() -> None:
    """Up to the largest; time in milliseconds."""
    assert header().ref().timestamp == 2_000
    assert header(hex(MOST_BLOCKS - 1), hex(MOST_SECONDS - 1)).ref().number == MOST_BLOCKS - 1
    assert log(hex(MOST_BLOCKS - 1), hex(MOST_LOGS - 1)).place() == (MOST_BLOCKS - 1, MOST_LOGS - 1)


@pytest.mark.parametrize("number", ["", "0x", "-0x1", "one", hex(MOST_BLOCKS), "0x" + "f" * 64])
def test_other_numbers_are_refused(number: str) -> None:
    """Negative ones, texts, and what would not fit where they are kept."""
    for place in (log(number=number), log(index=number)):
        with pytest.raises(InconsistentReply):
            place.place()
    for wrong in (header(number=number), header(timestamp=number)):
        with pytest.raises(InconsistentReply):
            wrong.ref()

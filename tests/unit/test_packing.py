"""Commands on the wire: as the protocol says, however long they are."""

import pytest

from listener.infrastructure.redis.client import PACKED_TOGETHER, Word, _Packed


def wire(*words: bytes) -> bytes:
    """The obvious encoding: a count, and each word after its length."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def packed(*words: Word) -> bytes:
    """What the connection would write."""
    return b"".join(_Packed().pack_command(*words))


def test_words_of_every_kind_are_written() -> None:
    """Texts, bytes and numbers, empty ones and those that look like the protocol."""
    assert packed("SET", "ключ", b"\x00\r\n$1\r\n", 10**15, -1, "") == wire(
        b"SET", "ключ".encode(), b"\x00\r\n$1\r\n", b"1000000000000000", b"-1", b""
    )


@pytest.mark.parametrize("name", ["CONFIG GET", b"CONFIG GET"])
def test_a_name_of_two_words_is_two_words(name: Word) -> None:
    """As the client library writes some commands; an argument with a space stays one."""
    assert packed(name, "a b") == wire(b"CONFIG", b"GET", b"a b")


@pytest.mark.parametrize(
    "count", [PACKED_TOGETHER + extra for extra in (-1, 0, 1, 2, PACKED_TOGETHER, 10_000)]
)
def test_a_long_command_is_one_command(count: int) -> None:
    """Packed in parts, it is the same bytes."""
    words = [b"word-%d" % number for number in range(count)]
    assert packed(*words) == wire(*words)
    assert packed("SCRIPT LOAD", *words) == wire(b"SCRIPT", b"LOAD", *words)

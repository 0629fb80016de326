"""What a room starts with is of one instant, where it has to be."""

from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any

import pytest

from listener.application.interfaces import RowId
from listener.infrastructure.gateway.room_reads import TRIES, RoomReads
from listener.infrastructure.gateway.rooms import RoomName
from listener.infrastructure.redis.client import Command, Database
from listener.infrastructure.redis.keys import Keys
from tests.fakes.build import token


class Moving(Database):
    """A server whose head moves while it answers.

    Args:
        heads: number of the newest row before and after what is read, for one question after the other.
    """

    def __init__(self, *heads: tuple[int, int]) -> None:
        self.heads = chain(heads, repeat(heads[-1]))
        self.asked = 0

    async def run_all(self, commands: Iterable[Command]) -> list[Any]:  # noqa: ARG002 - always the same
        """See `Database.run_all`."""
        self.asked += 1
        before, after = next(self.heads)
        records = [b'{"id":"r-%d-0","rule":"r","s":"%s"}' % (before, token(0).encode())]
        return [[b"7", b"%d" % before], records, [b"7", b"%d" % after]]


@pytest.mark.parametrize("room", [f"trades:{token(0)}", "alerts", f"alerts:{token(0)}"])
async def test_what_is_told_once_is_shown_as_of_its_place(room: str) -> None:
    """Trades and alerts are read again until the head did not move meanwhile, and not for ever."""
    database = Moving((1, 2), (2, 3), (3, 3))
    found = await RoomReads(database, Keys(31337)).snapshot(RoomName.parse(room))
    assert found
    assert (found.position, database.asked) == (RowId(7, 3), 3)
    assert b"r-3-0" in found.items[0]
    database = Moving((1, 2))
    assert await RoomReads(database, Keys(31337)).snapshot(RoomName.parse(room)) is None
    assert database.asked == TRIES

"""Events of final blocks for listing services, and the markets they belong to, in Redis or Valkey."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import orjson

from listener.application.errors import ForeignData
from listener.application.listing import Coverage, Listed, ListedBlock, ListedEvent
from listener.domain.entities import Market
from listener.domain.value_objects import Address, MarketId
from listener.infrastructure.redis.client import Command, Database, Word
from listener.infrastructure.redis.codec import decode_market
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.store import text

RECORD: Final = files("listener.infrastructure.redis").joinpath("listing.lua").read_text()
DROPPED_AT_ONCE: Final = 1_000
"""Blocks that one write lets go, at most: it adds far fewer."""
RECORDS_TOGETHER: Final = 250
"""Market records read in one round trip."""


class RedisListing:
    """`ListingStore`, with reading commands only, and `ListingRecords`.

    Args:
        database: the server; may be a replica for those who only read.
        keys: names of the stream's keys.
        most_bytes: of recorded events; Redis takes about a quarter more.
    """

    def __init__(self, database: Database, keys: Keys, most_bytes: int) -> None:
        self._database = database
        self._keys = keys
        self._most_bytes = most_bytes

    async def committed(self) -> int:
        """See `ListingStore.committed`."""
        number = await self._database.run("HGET", self._keys.head, "number")
        return -1 if number is None else int(number)

    async def factories(self) -> frozenset[Address]:
        """See `ListingStore.factories`."""
        names = await self._database.run("HGET", self._keys.settings, "setting:BONDING_CURVE_FACTORY_ADDRESS")
        return frozenset(Address(name) for name in names.decode().split(",")) if names else frozenset()

    async def markets(self, pools: Iterable[str], ids: Iterable[str]) -> Mapping[MarketId, Market]:
        """See `ListingStore.markets`."""
        wanted, emitters = set(ids), sorted(pools)
        if emitters:
            named = await self._database.run("HMGET", self._keys.sources, *emitters)
            wanted.update(name.decode() for name in named if name is not None)
        found: dict[MarketId, Market] = {}
        ordered = sorted(wanted)
        for start in range(0, len(ordered), RECORDS_TOGETHER):
            some = ordered[start : start + RECORDS_TOGETHER]
            records = await self._database.run_all(("HGETALL", self._keys.market(name)) for name in some)
            for name, record in zip(some, records, strict=True):
                if record:
                    found[MarketId(name)] = decode_market(MarketId(name), text(record))
        return found

    async def coverage(self) -> Coverage | None:
        """See `ListingStore.coverage`."""
        return self._coverage(await self._database.run(*self._covered()))

    def _covered(self) -> Command:
        return ("HMGET", self._keys.coverage, "first", "last", "hash", "time")

    def _coverage(self, fields: Sequence[bytes | None]) -> Coverage | None:
        first, last, block_hash, time = fields
        if last is None:
            return None
        if first is None or block_hash is None or time is None:
            raise ForeignData(f"the key {self._keys.coverage} in Redis was not written by this service")
        return Coverage(int(first), int(last), block_hash.decode(), int(time))

    async def recorded(self, first: int, last: int) -> Sequence[ListedBlock] | None:
        """See `ListingStore.recorded`.

        What is covered is read before and after: the end only grows, and the beginning too.
        """
        covered = self._covered()
        blocks: Command = ("ZRANGE", self._keys.listing, first, last, "BYSCORE")
        before, members, after = await self._database.run_all([covered, blocks, covered])
        begins, ends = self._coverage(after), self._coverage(before)
        if begins is None or ends is None or first < begins.first or last > ends.last:
            return None
        return [decode_block(member) for member in members]

    async def record(
        self, listed: Listed, previous: Coverage | None, *, oldest_s: int, anew: bool
    ) -> Coverage:
        """See `ListingRecords.record`. One script."""
        first, last = listed.first, listed.last
        words: list[Word] = [previous.last, previous.hash] if previous else ["", ""]
        words.append(first.number if anew or previous is None else "")
        words += [last.number, last.hash, last.timestamp // 1000, oldest_s]
        words += [self._most_bytes, DROPPED_AT_ONCE]
        for block in listed.blocks:
            words += [block.number, encode_block(block)]
        fields = await self._database.run_script(RECORD, [self._keys.listing, self._keys.coverage], words)
        coverage = self._coverage(fields)
        if coverage is None:
            raise ForeignData(f"the key {self._keys.coverage} in Redis was removed while it was written")
        return coverage


def encode_block(block: ListedBlock) -> bytes:
    """`[number, time, events]`; the script reads the first two."""
    return orjson.dumps([block.number, block.time_s, [list(event) for event in block.events]])


def decode_block(member: bytes) -> ListedBlock:
    """Inverse of `encode_block`."""
    number, time_s, events = orjson.loads(member)
    return ListedBlock(number, time_s, [_event(fields) for fields in events])


def _event(fields: list[Any]) -> ListedEvent:
    *_, reserves = fields
    return ListedEvent._make(fields)._replace(reserves=(reserves[0], reserves[1]) if reserves else None)

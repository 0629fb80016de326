"""Who writes: a key that expires unless its holder renews it."""

import secrets
from typing import Final

from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys

HOLD: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
"""
RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {1}
"""


class RedisLease:
    """`Lease` on Redis 7 or Valkey.

    Args:
        database: the server.
        keys: names of the stream's keys.
        duration_ms: how long it lasts without being renewed.
        service: whose lease it is; empty: the writer's.
    """

    def __init__(self, database: Database, keys: Keys, duration_ms: int, service: str = "") -> None:
        self._database = database
        self._key = keys.lease_of(service) if service else keys.lease
        self._duration_ms = duration_ms
        self._holder = secrets.token_hex(16)

    async def hold(self) -> bool:
        """See `Lease.hold`."""
        words = (self._holder, self._duration_ms)
        held = await self._database.run_script(HOLD, [self._key], words)
        return bool(held[0])

    async def release(self) -> None:
        """See `Lease.release`."""
        await self._database.run_script(RELEASE, [self._key], [self._holder])

"""The connection to Redis, and what its errors mean.

Timeouts are ours (`asyncio.timeout`), not the client's: redis-py guards its writes with `asyncio.wait_for`,
which before Python 3.12 can lose a cancellation, and a service that loses one cannot be stopped.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from listener.application.errors import StoreMisused, StoreUnavailable

Word = str | int | bytes
Command = tuple[Word, ...]

_PASSING = re.compile(r"\b(LOADING|OOM|MISCONF|READONLY|BUSY|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|NOREPLICAS)\b")
"""Codes of errors that pass, wherever the client library puts them."""


_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    OSError,
)
DEFAULT_TIMEOUT_S: Final = 5.0


class Database:
    """Commands and scripts on one Redis or Valkey server.

    Nothing is retried here: a repeated write would be a second write. Every method raises
    `StoreUnavailable` for what may pass (away, slow, loading, out of memory, a replica) and `StoreMisused`
    for the rest.
    """

    def __init__(self, redis: Redis, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls, url: str, timeout_s: float) -> "Database":
        """A client of `url` (`redis://`, `rediss://`, `unix://`); the timeout is for each answer."""
        return cls(
            Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=None,
            ),
            timeout_s,
        )

    async def close(self) -> None:
        """Close connections."""
        await self._redis.aclose()

    async def run(self, *words: Word) -> Any:  # noqa: ANN401 - what a command answers is its own
        """One command."""
        async with self._guarded():
            return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def run_all(self, commands: Iterable[Command]) -> list[Any]:
        """Several commands in one round trip, answers in their order. Not atomic."""
        async with self._guarded():
            pipe = self._redis.pipeline(transaction=False)
            for words in commands:
                pipe.execute_command(*words)
            return await pipe.execute()

    async def run_script(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
        """A Lua script, sent by its hash; its text only where the server does not know it."""
        async with self._guarded():
            answer: list[Any] = await self._redis.register_script(script)(keys=keys, args=words)
            return answer

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        """Limit the time, and raise our errors."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (AuthenticationError, AuthenticationWrongNumberOfArgsError, NoPermissionError) as error:
            raise StoreMisused(f"Redis refuses us: {error}; check user and password in REDIS_URL") from error
        except _AWAY as error:
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        except RedisError as error:
            if _PASSING.search(str(error)):
                raise StoreUnavailable(f"Redis: {error}") from error
            raise StoreMisused(f"Redis: {type(error).__name__}: {error}") from error

"""The connection to Redis, and what its errors mean."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from listener.application.errors import Fatal, StoreUnavailable

Word = str | int | bytes
Command = tuple[Word, ...]

_PASSING = ("LOADING", "OOM", "MISCONF", "READONLY", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN")


class StoreMisused(Fatal):
    """Redis refused a command for what it says: a defect, or a server of another kind."""


class Database:
    """Commands and scripts on one Redis or Valkey server.

    Nothing is retried here: a repeated write would be a second write. Every method raises
    `StoreUnavailable` for what may pass (away, slow, loading, out of memory, a replica) and `StoreMisused`
    for the rest.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @classmethod
    def connect(cls, url: str, timeout_s: float) -> "Database":
        """A client of `url` (`redis://`, `rediss://`, `unix://`); the timeout is for each answer."""
        return cls(
            Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
            )
        )

    async def close(self) -> None:
        """Close connections."""
        await self._redis.aclose()

    async def run(self, *words: Word) -> Any:  # noqa: ANN401 - what a command answers is its own
        """One command."""
        async with _translated():
            return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def run_all(self, commands: Iterable[Command]) -> list[Any]:
        """Several commands in one round trip, answers in their order. Not atomic."""
        async with _translated():
            pipe = self._redis.pipeline(transaction=False)
            for words in commands:
                pipe.execute_command(*words)
            return await pipe.execute()

    async def run_script(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
        """A Lua script, sent by its hash; its text only where the server does not know it."""
        async with _translated():
            answer: list[Any] = await self._redis.register_script(script)(keys=keys, args=words)
            return answer


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (AuthenticationError, AuthenticationWrongNumberOfArgsError, NoPermissionError) as error:
        raise StoreMisused(f"Redis refuses us: {error}; check user and password in REDIS_URL") from error
    except (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
    except RedisError as error:
        if str(error).startswith(_PASSING):
            raise StoreUnavailable(f"Redis: {error}") from error
        raise StoreMisused(f"Redis: {type(error).__name__}: {error}") from error

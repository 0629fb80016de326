"""The connection to Redis, and what its errors mean.

Timeouts are ours (`asyncio.timeout`), not the client's: redis-py guards its writes with `asyncio.wait_for`,
which before Python 3.12 can lose a cancellation, and a service that loses one cannot be stopped.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, Self, TypeVar

import hiredis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from listener.application.errors import StoreMisused, StoreUnavailable
from listener.infrastructure.breaker import Breaker

T = TypeVar("T")

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
FAILURES: Final = 5
RECOVERY_S: Final = 1.0
"""The breaker around Redis: so many failures in a row, and nobody asks for so long."""
PACKED_TOGETHER: Final = 256
"""Words of a command that are packed at once."""


@cache
def _sha1(script: str) -> str:
    """By which the server knows a script. There are a handful of them."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _pack(words: Any) -> Any:  # noqa: ANN401 - the library says that it takes a single word
    return hiredis.pack_command(words)


class _Packed:
    """A connection that writes commands by `hiredis`: a commit has thousands of words."""

    def pack_command(self, *words: Word) -> Iterable[bytes | memoryview]:
        """The command on the wire; its first word may be several, as `CONFIG GET`.

        A long one comes in parts, each made when it is sent: it would take its size in memory several times.
        """
        name = words[0]
        if isinstance(name, str | bytes) and len(parts := name.split()) > 1:
            words = (*parts, *words[1:])
        return [_pack(words)] if len(words) <= PACKED_TOGETHER else _in_parts(words)

    async def send_packed_command(
        self,
        command: Iterable[bytes | memoryview],
        check_health: bool = True,  # noqa: FBT001, FBT002 - the library's
    ) -> None:
        """Send a command; one in parts as fast as the server takes them."""
        send = super().send_packed_command  # type: ignore[misc]
        if isinstance(command, Generator):
            for part in command:
                await send([part], check_health)
                check_health = False
        else:
            await send(command, check_health)


def _in_parts(words: Sequence[Word]) -> Generator[bytes | memoryview]:
    yield b"*%d\r\n" % len(words)
    for start in range(0, len(words), PACKED_TOGETHER):
        part = words[start : start + PACKED_TOGETHER]
        header = len(b"*%d\r\n" % len(part))
        yield memoryview(_pack(part))[header:]


class Database:
    """Commands and scripts on one Redis or Valkey server.

    Nothing is retried here: a repeated write would be a second write. Every method raises
    `StoreUnavailable` for what may pass (away, slow, loading, out of memory, a replica) and `StoreMisused`
    for the rest.
    """

    def __init__(self, redis: Redis, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._breaker = Breaker(
            "Redis",
            failures=FAILURES,
            recovery_s=RECOVERY_S,
            counts=(StoreUnavailable,),
            refusal=StoreUnavailable,
        )

    @property
    def health(self) -> str:
        """State of the circuit breaker: `closed`, `open` or `half-open`."""
        return self._breaker.state

    @classmethod
    def connect(cls, url: str, timeout_s: float) -> Self:
        """A client of `url` (`redis://`, `rediss://`, `unix://`); the timeout is for each answer."""
        redis = Redis.from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None
        )
        pool = redis.connection_pool
        pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})
        return cls(redis, timeout_s)

    async def close(self) -> None:
        """Close connections."""
        await self._redis.aclose()

    async def run(self, *words: Word) -> Any:  # noqa: ANN401 - what a command answers is its own
        """One command."""
        return await self._guarded(lambda: self._redis.execute_command(*words))  # type: ignore[no-untyped-call]

    async def run_all(self, commands: Iterable[Command]) -> list[Any]:
        """Several commands in one round trip, answers in their order. Not atomic."""
        pipe = self._redis.pipeline(transaction=False)
        for words in commands:
            pipe.execute_command(*words)
        return await self._guarded(pipe.execute)

    async def run_script(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
        """A Lua script, sent by its hash; its text only where the server does not know it."""
        answer: list[Any] = await self._guarded(lambda: self._run_script(script, keys, words))
        return answer

    async def _run_script(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> Any:  # noqa: ANN401
        call = ("EVALSHA", _sha1(script), len(keys), *keys, *words)
        try:
            return await self._redis.execute_command(*call)  # type: ignore[no-untyped-call]
        except NoScriptError:
            await self._redis.script_load(script)
            return await self._redis.execute_command(*call)  # type: ignore[no-untyped-call]

    async def server(self) -> str:
        """Identity of the running server: another one after a restart or a failover; empty if it has none."""
        try:
            info = await self.run("INFO", "server")
        except StoreMisused:
            return ""
        text = info if isinstance(info, dict) else {}
        return str(text.get("run_id", ""))

    async def rewrite_log(self) -> None:
        """Have the server write its append-only file anew, if it has one and may.

        Redis up to 7.0 at least, cut off inside a transaction and restarted, goes on behind the open
        transaction, and its next restart runs both as one. A new file has no such place.
        """
        with suppress(StoreMisused):
            if (await self.run("INFO", "persistence")).get("aof_enabled"):
                await self.run("BGREWRITEAOF")

    async def memory(self, key: str) -> int:
        """Bytes that a key takes, about; 0 if there is none, or the server does not say."""
        try:
            return int(await self.run("MEMORY", "USAGE", key) or 0)
        except StoreMisused:
            return 0

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask, unless the breaker is open."""
        return await self._breaker.run(lambda: self._timed(call))

    async def _timed(self, call: Callable[[], Awaitable[T]]) -> T:
        """Limit the time, and raise our errors."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call()
        except (AuthenticationError, AuthenticationWrongNumberOfArgsError, NoPermissionError) as error:
            raise StoreMisused(f"Redis refuses us: {error}; check user and password in REDIS_URL") from error
        except _AWAY as error:
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        except RedisError as error:
            if _PASSING.search(str(error)):
                raise StoreUnavailable(f"Redis: {error}") from error
            raise StoreMisused(f"Redis: {type(error).__name__}: {error}") from error

"""What Redis and its client may answer, and which of our errors it becomes."""

import asyncio

import pytest
from redis import exceptions
from redis.asyncio import Redis

from listener.application.errors import ListenerError, StoreMisused, StoreUnavailable
from listener.infrastructure.redis.client import Database
from tests.fakes.servers import listening, scripted_redis

PASSING = (
    b"LOADING Redis is loading the dataset in memory",
    b"OOM command not allowed when used memory > 'maxmemory'.",
    b"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    b"READONLY You can't write against a read only replica.",
    b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    b"CLUSTERDOWN The cluster is down",
    b"TRYAGAIN Multiple keys request during rehashing of slot",
    b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"NOREPLICAS Not enough good replicas to write.",
    b"ERR max number of clients reached",
)
LASTING = (
    b"WRONGPASS invalid username-password pair or user is disabled.",
    b"NOAUTH Authentication required.",
    b"NOPERM User x has no permissions to run the 'get' command",
    b"WRONGTYPE Operation against a key holding the wrong kind of value",
    b"ERR unknown command 'XADD', with args beginning with: ",
    b"ERR value is not an integer or out of range",
    b"MOVED 3999 127.0.0.1:6381",
    b"CROSSSLOT Keys in request don't hash to the same slot",
)
CALLS = ("command", "pipeline", "script")


async def call(database: Database, kind: str) -> object:
    """One call of that kind."""
    if kind == "command":
        return await database.run("GET", "x")
    if kind == "pipeline":
        return await database.run_all([("GET", "x"), ("GET", "y")])
    return await database.run_script("return {1}", ["x"], [])


async def error_of(answer: bytes, kind: str) -> ListenerError:
    """Our error for a raw answer."""
    async with scripted_redis(answer, b"$-1\r\n") as port:
        database = Database.connect(f"redis://127.0.0.1:{port}/0", 2)
        with pytest.raises(ListenerError) as raised:
            await call(database, kind)
        await database.close()
    return raised.value


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("answer", PASSING, ids=lambda answer: answer.split()[0].decode())
async def test_what_passes_is_retryable(answer: bytes, kind: str) -> None:
    """A server that is loading, full, busy, a replica or in a cluster's turmoil is waited for."""
    error = await error_of(b"-" + answer + b"\r\n", kind)
    assert isinstance(error, StoreUnavailable)
    assert error.__cause__ is not None


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("answer", LASTING, ids=lambda answer: answer.split()[0].decode())
async def test_what_lasts_is_fatal(answer: bytes, kind: str) -> None:
    """A wrong password, a missing permission or command, a key of another type: somebody has to act."""
    error = await error_of(b"-" + answer + b"\r\n", kind)
    assert isinstance(error, StoreMisused)
    assert error.__cause__ is not None


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("answer", [b"", b"$5\r\nab", b"?what\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_is_no_answer_is_typed(answer: bytes, kind: str) -> None:
    """A connection that closes, or bytes that are not Redis's protocol, are errors of ours, never others."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            greetings = data.count(b"SETINFO")
            writer.write(b"+OK\r\n" * greetings)
            if not greetings or data.count(b"*") > greetings:
                writer.write(answer)
                break
            await writer.drain()
        await writer.drain()

    async with listening(handle) as port:
        database = Database.connect(f"redis://127.0.0.1:{port}/0", 2)
        with pytest.raises(ListenerError):
            await call(database, kind)
        await database.close()


async def test_a_silent_server_is_given_up() -> None:
    """Every await has a timeout, connecting included."""

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(handle) as port:
        database = Database.connect(f"redis://127.0.0.1:{port}/0", 0.1)
        for kind in CALLS:
            with pytest.raises(StoreUnavailable):
                await call(database, kind)
        await database.close()


class Failing(Redis):
    """A client that raises what it is told."""

    error: Exception = OSError()

    async def execute_command(self, *_args: object, **_options: object) -> object:
        """Fail."""
        raise self.error


def every(kind: type[Exception]) -> set[type[Exception]]:
    """A class and all its subclasses in redis-py's module of exceptions."""
    found = {kind, *(child for direct in kind.__subclasses__() for child in every(direct))}
    return {one for one in found if one.__module__ == exceptions.__name__}


MAPPED = sorted(every(exceptions.RedisError), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", [*MAPPED, OSError, ConnectionResetError, TimeoutError, asyncio.TimeoutError])
async def test_every_exception_of_the_client_is_mapped(kind: type[Exception]) -> None:
    """No exception class of redis-py leaves `Database` as it is."""
    client = Failing()
    moved = issubclass(kind, exceptions.AskError)
    client.error = kind("1 127.0.0.1:1") if moved else kind("text")
    with pytest.raises((StoreUnavailable, StoreMisused)):
        await Database(client).run("GET", "x")


@pytest.mark.parametrize(
    "kind",
    [
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.BusyLoadingError,
        exceptions.ReadOnlyError,
        exceptions.OutOfMemoryError,
        exceptions.MaxConnectionsError,
        exceptions.ClusterDownError,
        exceptions.MasterDownError,
        exceptions.TryAgainError,
        OSError,
        TimeoutError,
    ],
)
async def test_the_passing_ones_are_retryable(kind: type[Exception]) -> None:
    """The classes that say that the server will be back are retryable, whatever their text."""
    client = Failing()
    client.error = kind("text")
    with pytest.raises(StoreUnavailable):
        await Database(client).run("GET", "x")


async def test_a_defect_of_ours_is_not_disguised() -> None:
    """Only errors of the client and the network are translated."""
    client = Failing()
    client.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await Database(client).run("GET", "x")
    client.error = asyncio.CancelledError()  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await Database(client).run("GET", "x")

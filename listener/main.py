"""The composition root: settings → adapters → use cases → one task group.

Exit codes: 0 stopped on request; 1 a defect; 2 a setting is missing or malformed; 3 wrong chain;
4 Redis holds something else (another chain, a newer schema, data made with other settings);
5 a fork too deep to undo; 6 another instance has taken over; 7 Redis or the node refuses what we ask.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from listener import __version__
from listener.application.errors import Fatal, InvalidConfiguration
from listener.application.services.follower import Follower, FollowerLimits
from listener.application.services.publisher import Publisher, PublisherLimits
from listener.application.services.supervisor import keep_running
from listener.config.settings import Settings, load_settings
from listener.infrastructure.blockchain.heads import HintSlot, NewHeads
from listener.infrastructure.blockchain.rpc import HttpRpc
from listener.infrastructure.blockchain.source import RpcChainSource
from listener.infrastructure.blockchain.venues import ALL
from listener.infrastructure.blockchain.venues.venue import Decoder
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.observability.health import Health, HealthServer
from listener.infrastructure.observability.logs import SecretMask, configure
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.store import RedisStore
from listener.infrastructure.websocket.backend import SocketIoBackend

POLL_BESIDE_WEBSOCKET_S = 5.0
"""A subscription can die silently: the tip is asked for at least this often, and far more often without."""
BATCH_ROWS = 200
MESSAGE_BYTES = 900_000
"""Node's socket.io refuses messages over 1 MB without an error."""


def decoders() -> dict[str, Decoder]:
    """Decoders of all venues by topic 0.

    Raises:
        ValueError: two venues claim the same topic.
    """
    table: dict[str, Decoder] = {}
    for venue in ALL:
        if table.keys() & venue.decoders.keys():
            raise ValueError(f"venue {venue.name} has an event that another venue has too")
        table |= venue.decoders
    return table


class Service:
    """All parts, wired."""

    def __init__(self, settings: Settings) -> None:
        timeout_s = settings.redis_timeout_ms / 1000
        rules, keys, clock = settings.rules(), Keys(settings.chain_id), SystemClock()
        poll_s = settings.poll_interval_ms / 1000
        commits, hints = LocalSignal(), HintSlot(poll_s)
        expected = ["chain"]
        if settings.backend_socket_url:
            expected.append("backend")
        self._health = Health.expecting(*expected)
        self._observer = LogObserver(self._health, ProgressDisplay(), SecretMask(settings.secrets()))
        self._clock = clock
        self._rpc = HttpRpc(str(settings.blockchain_http_url), settings.rpc_timeout_ms / 1000)
        self._database = Database.connect(str(settings.redis_url), timeout_s)
        self._server = HealthServer(self._health, settings.websocket_host, settings.websocket_port)
        self._follower = Follower(
            chain=RpcChainSource(self._rpc, decoders()),
            hints=hints,
            store=RedisStore(self._database, keys, rules, settings.outbox_max_rows),
            clock=clock,
            observer=self._observer,
            signal=commits,
            rules=rules,
            limits=FollowerLimits(
                poll_s=max(poll_s, POLL_BESIDE_WEBSOCKET_S),
                range_blocks=settings.range_blocks,
                commit_trades=settings.batch_size,
                cached_markets=settings.market_cache,
                close_grace_ms=settings.close_grace_ms,
            ),
            chain_id=settings.chain_id,
            start=settings.start_block,
            fingerprint=settings.fingerprint(),
            tell_backend=settings.backend_socket_url is not None,
        )
        self._heads = (
            NewHeads(str(settings.blockchain_ws_url), settings.chain_id, hints, self._observer, poll_s + 10)
            if settings.blockchain_ws_url
            else None
        )
        self._backend: SocketIoBackend | None = None
        if settings.backend_socket_url and settings.backend_auth_token:
            self._backend = SocketIoBackend(
                str(settings.backend_socket_url),
                settings.backend_auth_token.get_secret_value(),
                settings.chain_id,
                keys.stream,
                settings.backend_ack_timeout_ms / 1000,
            )
            self._publisher = Publisher(
                outbox=RedisOutbox(self._database, keys),
                backend=self._backend,
                signal=commits,
                clock=clock,
                observer=self._observer,
                limits=PublisherLimits(BATCH_ROWS, MESSAGE_BYTES, settings.processing_interval_ms / 1000),
            )

    async def run(self) -> None:
        """Run until cancelled, or until something fatal happens.

        Raises:
            InvalidConfiguration: the health port is taken.
            ExceptionGroup: with the `Fatal` error of the part that failed.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._rpc.close)
            if self._backend:
                stack.push_async_callback(self._backend.close)
            stack.push_async_callback(self._server.close)
            port = await self._listen()
            structlog.get_logger("listener").info("Listener started", version=__version__, health_port=port)
            async with asyncio.TaskGroup() as tasks:
                for name, part in self._parts():
                    tasks.create_task(keep_running(name, part, self._clock, self._observer), name=name)

    async def _listen(self) -> int:
        try:
            return await self._server.start()
        except OSError as error:
            raise InvalidConfiguration(f"WEBSOCKET_PORT: cannot listen: {error.strerror or error}") from error

    def _parts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [("chain", self._follower.run)]
        if self._heads:
            parts.append(("heads", self._heads.run))
        if self._backend:
            parts.append(("backend", self._publisher.run))
        return parts


async def serve(settings: Settings) -> int:
    """Run the service until SIGINT or SIGTERM; the exit code."""
    log = structlog.get_logger("listener")
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    try:
        await Service(settings).run()
    except asyncio.CancelledError:
        log.info("Stopped on request")
    except (Fatal, BaseExceptionGroup) as error:
        fatal = _fatal(error)
        if fatal is None:
            log.exception("Error, a defect")
            return 1
        log.error("Error, stopping", error=f"{type(fatal).__name__}: {fatal}")  # noqa: TRY400 - told in one line
        return fatal.exit_code
    except Exception:
        log.exception("Error, a defect")
        return 1
    return 0


def _fatal(error: BaseException) -> Fatal | None:
    """The fatal error that ended the task group; None: it was something that nobody foresaw."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Fatal) else None


def run() -> int:
    """Read settings, set up logs, serve."""
    try:
        settings = load_settings()
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        return error.exit_code
    configure(settings.log_level, settings.log_file, settings.secrets())
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(run())

"""Wiring of the gateway: alone (`listener serve`), or as the process that `listener.main` starts."""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog
from fastapi import APIRouter
from starlette.types import ASGIApp

from listener import __version__
from listener.administering import webhook_admin
from listener.application.errors import InvalidConfiguration
from listener.application.services.supervisor import keep_running
from listener.application.use_cases.present_listing import Flavour
from listener.config.gateway import check_exposure
from listener.config.settings import Settings, load_settings
from listener.infrastructure.child_process import Parent
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.gateway.alerts import alerts_router
from listener.infrastructure.gateway.app import create_app
from listener.infrastructure.gateway.gateway_metrics import GatewayMetrics, Measured
from listener.infrastructure.gateway.hub import HubLimits
from listener.infrastructure.gateway.listing_routes import listing_routes
from listener.infrastructure.gateway.live import LiveSockets
from listener.infrastructure.gateway.market_index import MarketIndex
from listener.infrastructure.gateway.operations import Checked, Operations, Upstream
from listener.infrastructure.gateway.position import Position
from listener.infrastructure.gateway.security import Rate, Security
from listener.infrastructure.gateway.server import (
    Server,
    ServerOptions,
    make_server,
    run_server,
)
from listener.infrastructure.gateway.udf import udf_routes
from listener.infrastructure.gateway.udf_index import IndexedSymbols
from listener.infrastructure.gateway.webhooks import webhooks_router
from listener.infrastructure.gateway.writes import is_loopback
from listener.infrastructure.listening import listen, port_of
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask, configure
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.redis.alert_rules import RedisAlertRules
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.fired import FiredAlerts
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.reader import RedisReader
from listener.infrastructure.redis.row_feed import RowFeed
from listener.running import code_of
from listener.wiring import Node, listing_answers

FEED_TIMEOUT_S: Final = 5.0
"""Least time for an answer to the feed, whose reads wait for rows for a second."""


NICER: Final = 5
"""How much lower our priority is than the follower's: where processors are scarce, blocks come first."""


class Gateway:
    """All parts of the gateway, wired. It reads Redis, and writes what its users ask for.

    Args:
        settings: those of the service.
        host: the address at which we listen.
        upstream: address of the follower's own server; None: we serve alone.
    """

    def __init__(self, settings: Settings, host: str, upstream: str | None = None) -> None:
        self._clock = SystemClock()
        self._observer = LogObserver(Health(), ProgressDisplay(), SecretMask(settings.secrets()))
        url, keys = str(settings.gateway_redis_url or settings.redis_url), Keys(settings.chain_id)
        timeout_s = settings.redis_timeout_ms / 1000
        self._database = Database.connect(url, timeout_s)
        self._feed_database = Database.connect(url, max(timeout_s, FEED_TIMEOUT_S))
        self._upstream = Upstream(upstream) if upstream else None
        reader = RedisReader(self._database, keys)
        self._index = MarketIndex(reader, self._clock)
        self._feed = RowFeed(self._feed_database, keys)
        self._feed.subscribe(self._index.follow)
        self._security = _security(settings, host)
        services: dict[str, Checked] = {"index": self._index, "security": self._security}
        self.metrics = GatewayMetrics()
        self.operations = Operations(reader, self._clock, services, self._upstream, self.metrics)
        position = Position(reader, self._clock)
        self._node = Node.connect(settings, self._observer) if settings.listings_enabled else None
        app = create_app(
            reader,
            self._security,
            index=self._index,
            position=position,
            operations=self.operations,
            origins=settings.gateway_cors_origins,
            routers=[
                udf_routes(reader, IndexedSymbols(self._index), self._clock, prefix="/udf"),
                alerts_router(
                    RedisAlertRules(self._database, keys),
                    FiredAlerts(self._database, keys),
                    position,
                    self._clock,
                ),
                *self._listing_routes(settings),
                webhooks_router(webhook_admin(settings, self._database)),
            ],
        )
        self._live = self._live_sockets(settings, keys, app)
        services["live"] = self._live.hub
        self._server = make_server(Measured(self._live.app, self.metrics), _options(settings))

    def _listing_routes(self, settings: Settings) -> list[APIRouter]:
        """Both services' routes over the same answers."""
        if self._node is None:
            return []
        listings = listing_answers(settings, self._node, self._database, self._clock)
        return [listing_routes(listings, flavour, private=self._security.needs_key) for flavour in Flavour]

    def _live_sockets(self, settings: Settings, keys: Keys, other: ASGIApp) -> LiveSockets:
        live = LiveSockets(
            self._database,
            keys,
            self._feed,
            self._security,
            other,
            origins=settings.gateway_cors_origins,
            limits=HubLimits(coalesce_s=settings.gateway_coalesce_ms / 1000),
            meter=self.metrics,
        )
        self.metrics.clients = live.hub.by_transport
        self.metrics.rooms = lambda: {"": live.hub.occupied()}
        return live

    def _parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Name and coroutine function of what runs in the background."""
        yield "index", self._index.run
        yield "feed", self._feed.run
        yield from self._live.parts()

    async def run(self, listening: socket.socket, parent: Parent | None = None) -> None:
        """Serve until SIGINT or SIGTERM, or until the parent process is gone.

        Raises:
            ExceptionGroup: with the `Fatal` error of the part that failed.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._feed_database.close)
            if self._upstream:
                stack.push_async_callback(self._upstream.close)
            if self._node:
                stack.push_async_callback(self._node.close)
            await self._serve(listening, parent)

    async def _serve(self, listening: socket.socket, parent: Parent | None) -> None:
        self._server.stop_on_signals()
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(keep_running(part, self._clock, self._observer), name=name)
                for name, part in self._parts()
            ]
            if parent:
                parts.append(tasks.create_task(_with_parent(parent, self._server), name="parent"))
            try:
                await self._server.serve(sockets=[listening])
            finally:
                for part in parts:
                    part.cancel()


async def _with_parent(parent: Parent, server: Server) -> None:
    """Tell the parent that we serve; stop when it is gone."""
    await server.up.wait()
    await parent.beat()
    server.stop()


def _security(settings: Settings, host: str) -> Security:
    return Security(
        settings.gateway_api_keys,
        Rate(settings.gateway_rate_per_s, settings.gateway_rate_burst),
        Rate(settings.gateway_key_rate_per_s, settings.gateway_key_rate_burst),
        local=is_loopback(host) and not settings.gateway_trusted_proxies,
    )


def _options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        settings.gateway_connections_max,
        settings.gateway_trusted_proxies,
        settings.gateway_tls_cert,
        settings.gateway_tls_key,
    )


def run_alone(settings: Settings, host: str | None = None, port: int | None = None) -> int:
    """`listener serve`; the exit code.

    Args:
        settings: those of the service.
        host: where to listen; None: as the settings say.
        port: None: as the settings say; where it is in use, one of the next is taken.
    """
    host = settings.websocket_host if host is None else host
    configure(settings.log_level, settings.log_file, settings.secrets())

    async def work() -> None:
        check_exposure(settings, host, settings.environment)
        gateway = Gateway(settings, host)
        try:
            listening = listen(host, settings.websocket_port if port is None else port)
        except OSError as error:
            raise InvalidConfiguration(f"WEBSOCKET_PORT: cannot listen: {error.strerror or error}") from error
        structlog.get_logger("listener").info(
            "Gateway started", version=__version__, gateway_port=port_of(listening)
        )
        await gateway.run(listening)

    return _finish(work)


def run_child(settings: Settings, listening: int, parent: int, upstream: str) -> int:
    """The process that `listener.main` starts; the exit code.

    Args:
        settings: those of the service.
        listening: descriptor of the public port's socket.
        parent: descriptor of the socket to the parent process.
        upstream: address of the follower's own server.
    """
    configure(settings.log_level, settings.log_file, settings.secrets())
    os.nice(NICER)

    async def work() -> None:
        public = socket.socket(fileno=listening)
        await Gateway(settings, public.getsockname()[0], upstream).run(public, Parent(parent))

    return _finish(work)


def _finish(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    try:
        run_server(work)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - this is where it ends
        return code_of(error)
    return 0


def main() -> int:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listening", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    arguments = parser.parse_args()
    try:
        settings = load_settings()
    except InvalidConfiguration as error:
        sys.stderr.write(f"Error in the settings:\n{error}\n")
        return error.exit_code
    return run_child(settings, arguments.listening, arguments.parent, arguments.upstream)


if __name__ == "__main__":
    sys.exit(main())

"""The processes beside the one that follows the chain, whether it leads or stands by.

Where one of them fails, all else goes on.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from listener.application.errors import GatewayStopped, WebhooksStopped
from listener.application.interfaces import Clock, Observer
from listener.config.settings import Settings
from listener.infrastructure.child_process import ChildProcess, Program
from listener.infrastructure.observability.health import HealthServer
from listener.infrastructure.redis.webhook_store import RedisWebhooks
from listener.infrastructure.webhooks.supervision import WebhookWatch

GATEWAY: Final = Program("the gateway's process", (sys.executable, "-m", "listener.serving"), GatewayStopped)
DELIVERY: Final = Program(
    "the process that delivers webhooks", (sys.executable, "-m", "listener.delivering"), WebhooksStopped
)

Part = tuple[str, Callable[[], Awaitable[None]], str]
"""Name, coroutine function, and what its failures are reported as."""


class Children:
    """The gateway, and the process that delivers webhooks.

    Args:
        settings: which of them run.
        server: answers at the public port while no gateway does.
        webhooks: while there are endpoints, somebody delivers to them.
        clock: to wait.
        observer: told how they fare.
        keep_rows: called with whether endpoints may be away for long, as a backend may.
    """

    def __init__(
        self,
        settings: Settings,
        server: HealthServer,
        webhooks: RedisWebhooks,
        clock: Clock,
        observer: Observer,
        keep_rows: Callable[[bool], None],
    ) -> None:
        self._settings = settings
        self._server = server
        self._webhooks = webhooks
        self._clock = clock
        self._observer = observer
        self._keep_rows = keep_rows

    async def parts(self) -> list[Part]:
        """What runs each of them; the server listens for the gateway's questions from now on."""
        return [*await self._gateway(), *self._delivery()]

    async def _gateway(self) -> list[Part]:
        if not self._settings.gateway_enabled:
            return []
        upstream = ("--upstream", await self._server.start_internal())
        process = ChildProcess(
            GATEWAY._replace(command=(*GATEWAY.command, *upstream)),
            {"--listening": self._server.public},
            self._gateway_serves,
            self._server.answer_public,
        )
        return [("gateway", process.run, "gateway")]

    async def _gateway_serves(self) -> None:
        self._observer.healthy("gateway")
        await self._server.leave_public()
        structlog.get_logger("listener").info("Gateway serves")

    def _delivery(self) -> Iterator[Part]:
        if self._settings.webhooks_enabled:
            child = ChildProcess(DELIVERY, serves=self._delivery_works)
            watch = WebhookWatch(self._webhooks, child, self._clock, self._wanted)
            yield "webhooks", watch.run, "webhooks"

    async def _delivery_works(self) -> None:
        self._observer.healthy("webhooks")

    def _wanted(self, wanted: bool) -> None:  # noqa: FBT001 - the only one
        self._keep_rows(wanted)
        if not wanted:
            self._observer.healthy("webhooks")

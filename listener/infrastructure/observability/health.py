"""Whether the service is alive and ready, in memory and over HTTP."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from listener.infrastructure.listening import BACKLOG, PORTS_TRIED, listen, port_of

__all__ = ["DISPENSABLE", "PORTS_TRIED", "Health", "HealthServer"]

DISPENSABLE: Final = ("heads", "audit", "gateway", "listings", "webhooks", "endpoint ", "handler ")
"""Services, by how their names begin, without which the chain is still followed."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
CLOSE_S: Final = 2.0
"""Requests under way may take so long when the server closes."""


@dataclass(slots=True)
class Health:
    """The state of each part. A part that has not spoken yet is not ready."""

    troubles: dict[str, str] = field(default_factory=dict)
    synced: bool | None = None
    """None: not known yet."""
    block: int = -1
    rejected: Counter[str] = field(default_factory=Counter)
    """Logs that were not counted, by reason, since the start."""
    leads: bool | None = None
    """False: another instance works, this one stands by."""
    stalled: str = ""
    """Why the chain counts as standing still; empty: it does not."""
    audited: int = -1
    differences: Counter[str] = field(default_factory=Counter)
    """Blocks of which a second look found other logs: `repaired` or only `reported`."""
    breakers: Callable[[], Mapping[str, str]] = dict
    """State of each external service's circuit breaker."""

    @classmethod
    def expecting(cls, *services: str) -> "Health":
        """All of `services` must report before the whole is ready."""
        return cls(dict.fromkeys(services, "starting"))

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty if it is."""
        if self.leads is False:
            return ["standing by: another instance leads"]
        troubles = self.troubles.items()
        reasons = [f"{service}: {why}" for service, why in troubles if not service.startswith(DISPENSABLE)]
        if not self.synced and not reasons:
            reasons.append(f"catching up, at block {self.block}")
        return reasons

    def degraded(self) -> list[str]:
        """What is missing without keeping the service from its work."""
        degraded = sorted(service for service in self.troubles if service.startswith(DISPENSABLE))
        return [*degraded, f"chain: {self.stalled}"] if self.stalled else degraded

    def health_check(self) -> dict[str, object]:
        """Each part that has spoken, for code: `healthy`, and what is wrong where it is not.

        `follower` stands for the whole: whether it follows the head, and why not.
        """
        parts: dict[str, object] = {
            service: {"healthy": False, "detail": why} for service, why in sorted(self.troubles.items())
        }
        for service, state in self.breakers().items():
            parts.setdefault(service, {"healthy": state in {"ok", "closed"}, "detail": state})
        reasons = self.reasons()
        parts["follower"] = {"healthy": not reasons, "detail": "; ".join(reasons), "block": self.block}
        parts["leadership"] = {"healthy": True, "detail": self.role}
        parts.setdefault("audit", {"healthy": True, "detail": f"at block {self.audited}"})
        return parts

    @property
    def role(self) -> str:
        """Whether this instance works or stands by."""
        return {True: "leader", False: "standby", None: "starting"}[self.leads]


class HealthServer:
    """`/health` answers while the process lives, `/ready` while it follows the head, `/metrics` with figures.

    It listens at two places: on this host only, where the gateway asks it, and at the public port, as long as
    no gateway does. Either way somebody answers there.

    Args:
        health: what is told.
        host: address of the public port.
        port: the public port, or the first that is tried; 0: a free one.
        tls: of the public port; None: plain HTTP.

    Attributes:
        metrics: makes the text that `/metrics` answers; None: there is none.
    """

    def __init__(self, health: Health, host: str, port: int, tls: SSLContext | None = None) -> None:
        self._health = health
        self._host = host
        self._port = port
        self._tls = tls
        app = web.Application(middlewares=[self._one_each])
        app.router.add_get("/health", self._alive)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._exposition)
        self.metrics: Callable[[], Awaitable[bytes]] | None = None
        app.router.add_route("*", "/{path:.*}", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
        self._gateway = False
        self._public: socket.socket | None = None
        self._site: web.SockSite | None = None
        self._accepts: socket.socket | None = None

    async def start(self) -> int:
        """Listen at the public port; which it is: the one asked for or, where it is in use, one of the next.

        Raises:
            OSError: they are all in use, or the address is not ours.
        """
        await self._runner.setup()
        self._public = listen(self._host, self._port)
        await self.answer_public()
        return port_of(self._public)

    @property
    def public(self) -> socket.socket:
        """The public port's socket, for another process to listen at as well.

        Raises:
            RuntimeError: it is not open.
        """
        if self._public is None:
            raise RuntimeError("call start first")
        return self._public

    async def start_internal(self) -> str:
        """Listen on this host only as well; the address, without a path.

        From now on a gateway is expected: what it would answer is told to come again.
        """
        self._gateway = True
        site = web.SockSite(self._runner, internal := listen("127.0.0.1", 0), backlog=BACKLOG)
        await site.start()
        return f"http://127.0.0.1:{port_of(internal)}"

    async def answer_public(self) -> None:
        """Answer at the public port, if nobody does for us."""
        if self._site is None:
            self._accepts = self.public.dup()
            self._site = web.SockSite(self._runner, self._accepts, ssl_context=self._tls, backlog=BACKLOG)
            await self._site.start()

    async def leave_public(self) -> None:
        """Another process answers at the public port now.

        asyncio never answers nor closes a connection that is accepted, but has no transport yet, when its
        server is closed. So we stop accepting first, and close in the loop's next round.
        """
        site, self._site = self._site, None
        if site is not None and self._accepts is not None:
            asyncio.get_running_loop().remove_reader(self._accepts)
            await asyncio.sleep(0)
            await site.stop()

    async def close(self) -> None:
        """Stop listening."""
        self._site = None
        await self._runner.cleanup()
        if self._public is not None:
            self._public.close()
            self._public = None

    @web.middleware
    async def _one_each(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One request a connection: the next one shall reach the gateway."""
        response = await handler(request)
        if self._gateway:
            response.force_close()
        return response

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        if not self._gateway:
            raise web.HTTPNotFound
        error = {"code": "unavailable", "message": "the gateway is starting, try again"}
        return web.json_response({"error": error}, status=503, headers={"Retry-After": "1"})

    async def _alive(self, _request: web.Request) -> web.Response:
        health = self._health
        body = {
            "status": "alive",
            "role": health.role,
            "block": health.block,
            "rejected": health.rejected,
            "audited": health.audited,
            "differences": health.differences,
            "breakers": health.breakers(),
        }
        return web.json_response(body)

    async def _exposition(self, _request: web.Request) -> web.Response:
        if self.metrics is None:
            return web.json_response({"error": "no metrics"}, status=404)
        return web.Response(body=await self.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def _ready(self, _request: web.Request) -> web.Response:
        reasons = self._health.reasons()
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "degraded": self._health.degraded(),
            "role": self._health.role,
            "block": self._health.block,
        }
        return web.json_response(body, status=503 if reasons else 200)

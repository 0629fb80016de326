"""Whether the service is alive and ready, in memory and over HTTP."""

import errno
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

DISPENSABLE: Final = ("heads", "audit", "endpoint ")
"""Services, by how their names begin, without which the chain is still followed."""
PORTS_TRIED: Final = 10


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

    @property
    def role(self) -> str:
        """Whether this instance works or stands by."""
        return {True: "leader", False: "standby", None: "starting"}[self.leads]


class HealthServer:
    """`/health` answers while the process lives, `/ready` while it follows the head."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._health = health
        self._host = host
        self._port = port
        app = web.Application()
        app.router.add_get("/health", self._alive)
        app.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> int:
        """Listen; the port that was taken: the one asked for or, where it is in use, one of the next.

        Several instances on one host then work without settings of their own.

        Raises:
            OSError: they are all in use, or the address is not ours.
        """
        await self._runner.setup()
        last = min(self._port + PORTS_TRIED, 65_536) if self._port else 1
        for port in range(self._port, last):
            try:
                await web.TCPSite(self._runner, self._host, port).start()
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or port == last - 1:
                    raise
        self._port = int(self._runner.addresses[0][1])
        return self._port

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

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

"""Whether the service is alive and ready, in memory and over HTTP."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

DISPENSABLE: Final = frozenset({"heads"})
"""Services without which the chain is still followed, by polling."""


@dataclass(slots=True)
class Health:
    """The state of each part. A part that has not spoken yet is not ready."""

    troubles: dict[str, str] = field(default_factory=dict)
    synced: bool | None = None
    """None: not known yet."""
    block: int = -1
    rejected: Counter[str] = field(default_factory=Counter)
    """Logs that were not counted, by reason, since the start."""

    @classmethod
    def expecting(cls, *services: str) -> "Health":
        """All of `services` must report before the whole is ready."""
        return cls(dict.fromkeys(services, "starting"))

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty if it is."""
        troubles = self.troubles.items()
        reasons = [f"{service}: {why}" for service, why in troubles if service not in DISPENSABLE]
        if not self.synced and not reasons:
            reasons.append(f"catching up, at block {self.block}")
        return reasons


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
        """Listen; the port that was taken.

        Raises:
            OSError: the port is in use.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self._port

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _alive(self, _request: web.Request) -> web.Response:
        body = {"status": "alive", "block": self._health.block, "rejected": self._health.rejected}
        return web.json_response(body)

    async def _ready(self, _request: web.Request) -> web.Response:
        reasons = self._health.reasons()
        degraded = sorted(DISPENSABLE & self._health.troubles.keys())
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "degraded": degraded,
            "block": self._health.block,
        }
        return web.json_response(body, status=503 if reasons else 200)

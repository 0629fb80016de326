"""`/health`, `/ready` and `/metrics`: the follower's, where one runs beside us, and our own."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
import orjson
from fastapi import APIRouter
from starlette.responses import Response

from listener.application.errors import ListenerError
from listener.application.interfaces import Clock
from listener.application.reading import MarketReader
from listener.infrastructure.gateway.replies import json_reply

UPSTREAM_TIMEOUT_S: Final = 3.0
STALE_S: Final = 180.0
"""A writer that follows the head moves `asOf` each minute: an older head has none, or one that catches up."""
NO_STORE: Final = {"Cache-Control": "no-store"}
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Checked(Protocol):
    """A service that can say how it is."""

    def health_check(self) -> Mapping[str, object]:
        """What it counts and what troubles it, JSON-ready."""
        ...


class Metrics(Protocol):
    """Our own figures in Prometheus' text format."""

    def render(self) -> bytes:
        """The exposition, ending with a newline."""
        ...


class Answer(NamedTuple):
    """Of the follower."""

    status: int
    body: bytes


class Upstream:
    """The follower's own server, on this host.

    Args:
        url: such as `http://127.0.0.1:4711`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, path: str) -> Answer | None:
        """Its answer; None: there is none."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(UPSTREAM_TIMEOUT_S), self._session.get(self._url + path) as answer:
                return Answer(answer.status, await answer.read())
        except (aiohttp.ClientError, OSError):
            return None

    async def close(self) -> None:
        """Close connections."""
        if self._session:
            await self._session.close()


class Operations:
    """What monitors ask.

    Args:
        reader: to see whether there is something to serve.
        clock: how old the head is.
        services: parts of the gateway by name.
        upstream: the follower beside us; None: we serve alone.
        metrics: our own figures.
    """

    def __init__(
        self,
        reader: MarketReader,
        clock: Clock,
        services: Mapping[str, Checked],
        upstream: Upstream | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._services = services
        self._upstream = upstream
        self._metrics = metrics

    def health_check(self) -> dict[str, object]:
        """What each part of the gateway says of itself."""
        return {name: dict(service.health_check()) for name, service in self._services.items()}

    async def health(self) -> Response:
        """The process lives; with a follower beside it: both do."""
        own = {"gateway": self.health_check()}
        if self._upstream is None:
            return _json(200, {"status": "alive", "role": "reader", **own})
        answer = await self._upstream.ask("/health")
        if answer is None:
            return _json(503, {"status": "unreachable", "role": "unknown", **own})
        return _json(answer.status, _object(answer.body) | own)

    async def ready(self) -> Response:
        """There is something to serve and it is up to date; with a follower: what that says."""
        if self._upstream is None:
            reasons, block = await self._reasons()
            body = {
                "ready": not reasons,
                "reasons": reasons,
                "degraded": [],
                "role": "reader",
                "block": block,
            }
            return _json(503 if reasons else 200, body)
        answer = await self._upstream.ask("/ready")
        if answer is None:
            reasons = ["the follower does not answer"]
            body = {"ready": False, "reasons": reasons, "degraded": [], "role": "unknown", "block": -1}
            return _json(503, body)
        return Response(answer.body, answer.status, NO_STORE, "application/json")

    async def exposition(self) -> Response:
        """The follower's figures, and ours."""
        answer = await self._upstream.ask("/metrics") if self._upstream else None
        body = answer.body if answer and answer.status == 200 else b""
        return Response(body + (self._metrics.render() if self._metrics else b""), 200, NO_STORE, METRICS)

    async def _reasons(self) -> tuple[list[str], int]:
        try:
            head = await self._reader.head()
        except ListenerError as error:
            return [f"redis: {type(error).__name__}"], -1
        if head is None:
            return ["nothing is stored yet"], -1
        age_s = (self._clock.now() - head.as_of) / 1000
        return [f"the head is {age_s:.0f} s old"] if age_s > STALE_S else [], head.number


def operations_router(operations: Operations) -> APIRouter:
    """The routes; not a part of the API that is described."""
    router = APIRouter(include_in_schema=False)
    for path, answer in (
        ("/health", operations.health),
        ("/ready", operations.ready),
        ("/metrics", operations.exposition),
    ):
        router.add_api_route(path, answer, methods=["GET", "HEAD"])
    return router


def _json(status: int, body: Mapping[str, object]) -> Response:
    return json_reply(orjson.dumps(body), status, NO_STORE)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}

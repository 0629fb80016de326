"""`/api/v1/webhooks`: endpoints, their secrets, their logs. For keys with the scope `admin`."""

from collections.abc import Awaitable
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import APIRouter, Body, Path, Query
from starlette.responses import Response

from listener.application.errors import ListenerError, WebhookConflict
from listener.application.services.webhook_admin import WebhookAdmin
from listener.application.webhook_rules import parse_row
from listener.application.webhooks import LOG_MAX, Endpoint
from listener.infrastructure.gateway import webhook_schemas as schemas
from listener.infrastructure.gateway.replies import Problem, check_read_only, invalid, json_reply, not_found
from listener.infrastructure.gateway.rest import ERRORS
from listener.infrastructure.gateway.schemas import ErrorBody
from listener.infrastructure.webhooks.presenting import attempt_item, endpoint_item, replay_item

T = TypeVar("T")

PRIVATE: Final = {"Cache-Control": "no-store"}
NO_TEXT: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorBody, "description": "the body is no text"},
    413: {"model": ErrorBody, "description": "the body is too long"},
}
CONFLICT: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorBody, "description": "it does not fit the endpoint's state"}
}

EndpointId = Annotated[str, Path(description="id of an endpoint", pattern=r"^[0-9a-f]{1,32}$")]


def webhooks_router(admin: WebhookAdmin) -> APIRouter:
    """The routes.

    Args:
        admin: does what is asked.
    """
    webhooks = Webhooks(admin)
    router = APIRouter(prefix="/api/v1/webhooks", responses=ERRORS | NO_TEXT, tags=["webhooks"])
    add, changed = router.add_api_route, schemas.Webhook
    made: Any = {"response_model": schemas.WebhookWithSecret, "responses": CONFLICT, "methods": ["POST"]}
    add("", webhooks.create, status_code=201, **made)
    add("", webhooks.endpoints, response_model=schemas.WebhookList)
    add("/{endpoint}", webhooks.show, response_model=schemas.Webhook)
    add("/{endpoint}", webhooks.delete, methods=["DELETE"], status_code=204, response_class=Response)
    add("/{endpoint}/enable", webhooks.enable, methods=["POST"], response_model=changed)
    add("/{endpoint}/disable", webhooks.disable, methods=["POST"], response_model=changed)
    add("/{endpoint}/rotate", webhooks.rotate, **made)
    add("/{endpoint}/deliveries", webhooks.deliveries, response_model=schemas.AttemptList)
    add(
        "/{endpoint}/redeliver",
        webhooks.redeliver,
        methods=["POST"],
        status_code=202,
        response_model=schemas.Range,
        responses=CONFLICT,
    )
    return router


class Webhooks:
    """Handlers of the routes."""

    def __init__(self, admin: WebhookAdmin) -> None:
        self._admin = admin

    async def create(self, asked: Annotated[schemas.NewWebhook, Body()]) -> Response:
        """Add an endpoint. It gets what is committed from now on; its secret is in this answer only."""
        endpoint = await _done(self._admin.create(asked.url, asked.events, asked.note))
        return await self._with_secret(endpoint, 201, {"Location": f"/api/v1/webhooks/{endpoint.id}"})

    async def endpoints(self) -> Response:
        """All endpoints and how they do."""
        found = await self._admin.endpoints()
        return _reply({"items": [endpoint_item(*pair) for pair in found]})

    async def show(self, endpoint: EndpointId) -> Response:
        """One endpoint."""
        return _reply(await self._item(endpoint))

    async def delete(self, endpoint: EndpointId) -> Response:
        """Remove an endpoint with its log. A request that is under way may still arrive."""
        if not await _done(self._admin.delete(endpoint)):
            raise not_found("endpoint")
        return Response(status_code=204, headers=PRIVATE)

    async def enable(self, endpoint: EndpointId) -> Response:
        """Deliver from where it stopped; one that fails is tried at once."""
        return await self._changed(endpoint, self._admin.enable(endpoint))

    async def disable(self, endpoint: EndpointId) -> Response:
        """Send nothing more to it. What it misses is kept as long as any row."""
        return await self._changed(endpoint, self._admin.disable(endpoint))

    async def rotate(
        self, endpoint: EndpointId, asked: Annotated[schemas.Rotation | None, Body()] = None
    ) -> Response:
        """Make a new secret, shown in this answer only. Both sign until the overlap is over."""
        overlap_ms = (asked or schemas.Rotation()).overlapMs
        found = await _done(self._admin.rotate(endpoint, overlap_ms))
        if found is None:
            raise not_found("endpoint")
        return await self._with_secret(found, 200, {})

    async def deliveries(
        self, endpoint: EndpointId, limit: Annotated[int, Query(ge=1, le=LOG_MAX)] = 100
    ) -> Response:
        """The newest requests to it, newest first; a thousand or so are remembered."""
        await self._item(endpoint)
        found = await self._admin.attempts(endpoint, limit)
        return _reply({"items": [attempt_item(attempt) for attempt in found]})

    async def redeliver(self, endpoint: EndpointId, asked: Annotated[schemas.Redelivery, Body()]) -> Response:
        """Send a message of the log, or a range of rows, once more. What is asked for must still be kept."""
        rows = (asked.first, asked.last)
        if asked.message is not None and rows == (None, None):
            begun = await _done(self._admin.redeliver(endpoint, asked.message))
        elif asked.message is None and asked.first is not None and asked.last is not None:
            wanted = parse_row(asked.first), parse_row(asked.last)
            begun = await _done(self._admin.redeliver_rows(endpoint, *wanted))
        else:
            raise invalid("write message, or first and last")
        if begun is None:
            raise not_found("endpoint")
        return _reply(replay_item(begun), 202)

    async def _changed(self, endpoint: str, change: Awaitable[bool]) -> Response:
        if not await _done(change):
            raise not_found("endpoint")
        return _reply(await self._item(endpoint))

    async def _item(self, endpoint: str) -> dict[str, object]:
        found = await self._admin.show(endpoint)
        if found is None:
            raise not_found("endpoint")
        return endpoint_item(*found)

    async def _with_secret(self, endpoint: Endpoint, status: int, headers: dict[str, str]) -> Response:
        item = await self._item(endpoint.id)
        return _reply({**item, "secret": endpoint.secrets[0].text}, status, headers)


async def _done(change: Awaitable[T]) -> T:
    """What a change answers, or the problem that its sender is told."""
    try:
        return await change
    except WebhookConflict as error:
        raise Problem(409, "conflict", str(error)) from error
    except ListenerError as error:
        check_read_only(error)
        raise


def _reply(body: dict[str, object], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return json_reply(orjson.dumps(body), status, PRIVATE | (headers or {}))

"""The ASGI application: routes behind a guard, errors in one shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from listener import __version__
from listener.application.reading import MarketReader
from listener.infrastructure.gateway import replies
from listener.infrastructure.gateway.guard import Guard
from listener.infrastructure.gateway.market_index import MarketIndex
from listener.infrastructure.gateway.operations import Operations, operations_router
from listener.infrastructure.gateway.pages import pages_router
from listener.infrastructure.gateway.position import Position
from listener.infrastructure.gateway.rest import rest_router
from listener.infrastructure.gateway.security import Security

TITLE: Final = "0xPads Blockchain Listener"
DESCRIPTION: Final = """
Markets, candles, trades and 24 h figures of bonding curves. Times are Unix **milliseconds**; prices and
amounts are **decimal strings** in whole tokens. Candles are sparse: `fill=true` gives one for each bucket.
"""
KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
PREFLIGHT_AGE_S: Final = 3_600


def create_app(
    reader: MarketReader,
    security: Security,
    *,
    index: MarketIndex,
    position: Position,
    operations: Operations,
    origins: Sequence[str] = (),
    routers: Sequence[APIRouter] = (),
    mounts: Mapping[str, ASGIApp] | None = None,
) -> ASGIApp:
    """The application. What runs in the background (the index, for one) is its caller's to run.

    Args:
        reader: what is served.
        security: keys and rates.
        index: for lists of markets.
        position: how new answers are.
        operations: `/health` and its like.
        origins: pages that may ask, such as `https://app.example.org`; `*`: all.
        routers: further routes.
        mounts: further applications by path.
    """
    app = FastAPI(
        title=TITLE,
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    rest = rest_router(reader, index, position, private=security.needs_key)
    for router in (*routers, rest, operations_router(operations), pages_router(app)):
        app.include_router(router)
    for path, mounted in (mounts or {}).items():
        app.mount(path, mounted)
    replies.install(app)
    if security.needs_key:
        _describe_keys(app)
    return Outermost(
        CORSMiddleware(
            Guard(app, security),
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "If-None-Match", "Content-Type"],
            expose_headers=["ETag", "Retry-After"],
            max_age=PREFLIGHT_AGE_S,
        )
    )


class Outermost:
    """Headers that every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _describe_keys(app: FastAPI) -> None:
    """Say in `/openapi.json` how a key is shown."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = KEYS
        schema["security"] = [{name: []} for name in KEYS]
        return schema

    app.openapi = described  # type: ignore[method-assign]

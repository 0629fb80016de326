"""Routes of TradingView's datafeed. What they answer, and why so, is in `udf_feed`."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from listener.application.errors import ListenerError, Retryable
from listener.application.interfaces import Clock
from listener.application.reading import MarketReader
from listener.infrastructure.gateway.udf_feed import BARS_MOST, SEARCH_MOST, BadRequest, Datafeed, SymbolIndex
from listener.infrastructure.gateway.udf_symbols import SYMBOL_CHARS_MOST

QUOTES_MOST: Final = 100
"""Symbols in one request for quotes."""
SECONDS_MOST: Final = 10**11
"""Times beyond this are milliseconds, or nonsense."""
CACHED_S: Final = 60


def udf_routes(reader: MarketReader, index: SymbolIndex, clock: Clock, prefix: str = "/udf") -> APIRouter:
    """The datafeed's routes."""
    feed = Datafeed(reader, index, clock)
    router = APIRouter(prefix=prefix, tags=["TradingView datafeed"])

    async def config(_request: Request) -> Response:
        return _json(await feed.config(), CACHED_S)

    async def time(_request: Request) -> Response:
        return Response(feed.time(), media_type="text/plain", headers=_NO_STORE)

    async def symbols(request: Request) -> Response:
        return _json(await feed.symbol(_text(request, "symbol")), CACHED_S)

    async def search(request: Request) -> Response:
        query = request.query_params
        kind, venue = query.get("type", ""), query.get("exchange", "")
        limit = _whole(request, "limit", 1, 10**6)
        text = query.get("query", "")[:SYMBOL_CHARS_MOST]
        return _json(await feed.search(text, kind, venue, SEARCH_MOST if limit is None else limit))

    async def quotes(request: Request) -> Response:
        asked = [symbol for symbol in request.query_params.get("symbols", "").split(",") if symbol]
        if not asked or len(asked) > QUOTES_MOST or max(map(len, asked)) > SYMBOL_CHARS_MOST:
            raise BadRequest(f"symbols: 1 to {QUOTES_MOST} tickers, separated by commas")
        return _json(await feed.quotes(asked))

    async def history(request: Request) -> Response:
        start, end = (_whole(request, name, -SECONDS_MOST, SECONDS_MOST) for name in ("from", "to"))
        countback = _whole(request, "countback", 0, 10**9)
        if start is None and countback is None:
            raise BadRequest("from or countback is missing")
        return _json(
            await feed.history(
                _text(request, "symbol"), _text(request, "resolution"), start, end, countback or None
            )
        )

    for path, endpoint, summary in (
        ("/config", config, "What the datafeed can do"),
        ("/time", time, "Server time in seconds"),
        ("/symbols", symbols, "One symbol, by ticker or name"),
        ("/search", search, "Symbols that fit a text"),
        ("/quotes", quotes, "Rolling 24 h figures of symbols"),
        ("/history", history, "Bars"),
    ):
        router.add_api_route(
            path,
            _told(endpoint),
            methods=["GET"],
            summary=summary,
            name=f"udf_{endpoint.__name__}",
            response_class=Response,
            openapi_extra={"parameters": PARAMETERS[path], "responses": RESPONSES},
        )
    return router


Endpoint = Callable[[Request], Awaitable[Response]]
_NO_STORE: Final = {"cache-control": "no-store"}
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,18})?")


def _told(endpoint: Endpoint) -> Endpoint:
    """Errors as the library understands them."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except BadRequest as error:
            return _error(str(error), error.status)
        except Retryable:
            return _error("data is not available at the moment, try again", 503)
        except ListenerError:
            return _error("data cannot be read", 500)

    answer.__name__ = endpoint.__name__
    return answer


def _json(body: bytes, cached_s: int = 0) -> Response:
    headers = {"cache-control": f"private, max-age={cached_s}"} if cached_s else _NO_STORE
    return Response(body, media_type="application/json", headers=headers)


def _error(message: str, status: int) -> Response:
    body = orjson.dumps({"s": "error", "errmsg": message})
    return Response(body, status, media_type="application/json", headers=_NO_STORE)


def _text(request: Request, name: str) -> str:
    text = request.query_params.get(name, "")
    if not 0 < len(text) <= SYMBOL_CHARS_MOST:
        raise BadRequest(f"{name} is missing or too long")
    return text


def _whole(request: Request, name: str, least: int, most: int) -> int | None:
    """A whole number; one with a fraction is cut. None if it was not given."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"{name}: not a whole number")
    number = int(text.partition(".")[0])
    if not least <= number <= most:
        raise BadRequest(f"{name}: out of bounds")
    return number


def _parameter(name: str, kind: str, description: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": kind},
    }


PARAMETERS: Final[dict[str, list[dict[str, Any]]]] = {
    "/config": [],
    "/time": [],
    "/symbols": [_parameter("symbol", "string", "ticker (market id) or name", required=True)],
    "/search": [
        _parameter("query", "string", "symbol, name or address"),
        _parameter("type", "string", "`crypto`, or empty"),
        _parameter("exchange", "string", "venue, or empty"),
        _parameter("limit", "integer", f"at most {SEARCH_MOST}"),
    ],
    "/quotes": [_parameter("symbols", "string", "tickers, separated by commas", required=True)],
    "/history": [
        _parameter("symbol", "string", "ticker (market id) or name", required=True),
        _parameter("resolution", "string", "`1`, `5`, `60`, `1D`, …", required=True),
        _parameter("from", "integer", "seconds, inclusive; ignored with `countback`"),
        _parameter("to", "integer", "seconds, exclusive; unset: to the newest bar"),
        _parameter("countback", "integer", f"bars before `to`, at most {BARS_MOST}"),
    ],
}
RESPONSES: Final = {
    "200": {"description": "as the UDF page says"},
    "400": {"description": '`{"s":"error","errmsg":…}`'},
    "404": {"description": '`{"s":"error","errmsg":"unknown_symbol"}`'},
    "503": {"description": "Redis is away; try again"},
}

"""`/api/v1`: markets, candles, trades and 24 h figures over HTTP."""

import hashlib
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from listener.application.reading import HeadRecord, MarketReader, MarketView, Stretch
from listener.application.use_cases.present_candles import CandleFormat, Opening, join_raw, render
from listener.application.use_cases.read_candles import CandleQuery, read_candles
from listener.domain.value_objects import Interval
from listener.infrastructure.gateway import cursors, schemas
from listener.infrastructure.gateway.market_index import MarketIndex, MarketSort
from listener.infrastructure.gateway.position import Position
from listener.infrastructure.gateway.replies import invalid, json_reply, not_found

CANDLES_MAX: Final = 1_500
"""Candles in one answer."""
TRADES_MAX: Final = 1_000
"""Trades in one answer."""
PAGE_MAX: Final = 100
"""Markets on a page."""
SEARCH_MAX: Final = 80
"""Characters of a search text."""
TIME_MAX: Final = 10**14
"""Milliseconds: the year 5138."""
CLOSED_AFTER_MS: Final = 3_600_000
"""A candle that ended so long before the head is not expected to change: no chain here undoes so much."""
CLOSED: Final = "max-age=3600, stale-while-revalidate=86400"
LIVE: Final = "no-cache"
"""Keep it, but ask whether it is still so: the answer to that is short (`ETag`)."""
SHORT: Final = "max-age=1"

MarketId = Annotated[
    str,
    Path(description="market id", pattern=r"^[0-9A-Za-z_.:-]{1,100}$", examples=["0x" + "ab" * 20]),
]
Time = Annotated[int | None, Query(ge=0, le=TIME_MAX, description="Unix milliseconds")]

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": schemas.ErrorBody, "description": "an API key is needed"},
    403: {"model": schemas.ErrorBody, "description": "the API key lacks a scope"},
    404: {"model": schemas.ErrorBody, "description": "no such market"},
    414: {"model": schemas.ErrorBody, "description": "the query is too long"},
    422: {"model": schemas.ErrorBody, "description": "a parameter cannot be"},
    429: {"model": schemas.ErrorBody, "description": "too often; `Retry-After` says when to come again"},
    503: {"model": schemas.ErrorBody, "description": "data is not available just now"},
}
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "as `If-None-Match` has it"}}


def rest_router(
    reader: MarketReader, index: MarketIndex, position: Position, *, private: bool = False
) -> APIRouter:
    """The routes, the busiest first. Handlers answer JSON that is ready; models only describe it.

    Args:
        reader: what is answered.
        index: for lists of markets.
        position: how new it is.
        private: answers are for the caller alone.
    """
    rest = Rest(reader, index, position, private=private)
    router = APIRouter(prefix="/api/v1", responses=ERRORS)
    add = router.add_api_route
    add(
        "/markets/{market}/candles",
        rest.candles,
        response_model=schemas.CandleList | list[schemas.CcxtRow] | list[schemas.BinanceRow],
        responses=NOT_MODIFIED,
        tags=["candles"],
    )
    add("/config", rest.config, response_model=schemas.Config, tags=["service"])
    add("/markets", rest.markets, response_model=schemas.MarketPage, tags=["markets"])
    add("/markets/{market}", rest.market, response_model=schemas.Market, tags=["markets"])
    add("/markets/{market}/stats", rest.stats, response_model=schemas.StatsReply, tags=["markets"])
    add("/markets/{market}/trades", rest.trades, response_model=schemas.TradeList, tags=["markets"])
    return router


class Rest:
    """Handlers of the routes."""

    def __init__(
        self, reader: MarketReader, index: MarketIndex, position: Position, *, private: bool
    ) -> None:
        self._private = private
        self._reader = reader
        self._index = index
        self._position = position

    async def config(self) -> Response:
        """Chain, intervals and the committed head."""
        head = await self._position.head()
        body = {
            "chainId": head.chain_id,
            "intervals": await self._position.intervals(),
            "number": head.number,
            "asOf": head.as_of,
        }
        return self._reply(body | _at(head))

    async def markets(
        self,
        q: Annotated[
            str, Query(max_length=SEARCH_MAX, description="part of id, symbol, name or creator, any case")
        ] = "",
        sort: Annotated[
            MarketSort,
            Query(
                description="newest first; oldest first (age); most quote volume, trades, gain, loss in 24 h"
            ),
        ] = MarketSort.NEWEST,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
        cursor: Annotated[
            str | None,
            Query(pattern=cursors.PATTERN, description="from the page before, with the same q and sort"),
        ] = None,
    ) -> Response:
        """Search and sort markets. Orders are a second or so behind; the figures on a page are not."""
        head = await self._position.head()
        after = cursors.decode(cursor, sort) if cursor else None
        found = self._index.find(q.strip(), sort, limit, after)
        views = await self._reader.views(found.markets) if found.markets else []
        body = {
            "items": [_market(view) for view in views if view is not None],
            "total": found.total,
            "complete": self._index.complete,
            "cursor": cursors.encode(sort, found.last) if found.last else None,
        }
        return self._reply(body | _at(head))

    async def market(self, market: MarketId) -> Response:
        """A market's record and its 24 h figures."""
        return self._reply(_market(await self._found(market)))

    async def stats(self, market: MarketId) -> Response:
        """A market's 24 h figures."""
        head = await self._position.head()
        view = await self._found(market)
        return self._reply({"s": view.market, "stats": view.stats} | _at(head))

    async def trades(
        self, market: MarketId, limit: Annotated[int, Query(ge=1, le=TRADES_MAX)] = 100
    ) -> Response:
        """The newest trades, newest first. So many are kept as `TRADES_RETENTION` says."""
        market = market.lower()
        head = await self._position.head()
        found = await self._reader.trades(market, limit)
        if not found:
            await self._found(market)
        return json_reply(
            _opened({"s": market} | _at(head)) + join_raw(found) + b"}",
            headers={"Cache-Control": self._cache(SHORT)},
        )

    async def candles(
        self,
        request: Request,
        market: MarketId,
        interval: Annotated[str, Query(pattern=r"^\d{1,5}[mhdw]$", examples=["1m"])],
        start: Annotated[Time, Query(alias="from", description="earliest open time")] = None,
        end: Annotated[Time, Query(alias="to", description="first open time that is not wanted")] = None,
        limit: Annotated[int, Query(ge=1, le=CANDLES_MAX)] = 500,
        fill: Annotated[  # noqa: FBT002 - a field of the query
            bool, Query(description="give buckets without a trade the previous close and volume 0")
        ] = False,
        opening: Annotated[
            Opening, Query(alias="open", description="open at the first trade, or at the close before")
        ] = "first",
        form: Annotated[
            CandleFormat,
            Query(alias="format", description="`ccxt` and `binance` answer arrays, without anything around"),
        ] = "objects",
    ) -> Response:
        """Candles, ascending: with `from` the first `limit` of them, without it the last ones before `to`."""
        market = market.lower()
        parsed = await self._interval(interval)
        if start is not None and end is not None and start >= end:
            raise invalid("from: must be before to")
        head = await self._position.head()
        query = CandleQuery(market, parsed, Stretch(start, end, limit, start is None), fill, opening)
        body = await self._candles(query, form)
        if body == b"[]":
            await self._found(market)
        headers = {
            "Cache-Control": self._cache(CLOSED if _closed(query, head) else LIVE),
            "ETag": _tag(body),
        }
        if headers["ETag"] in _known(request):
            return Response(status_code=304, headers=headers)
        if form == "objects":
            body = _opened({"s": market, "i": interval} | _at(head)) + body + b"}"
        return json_reply(body, headers=headers)

    def _cache(self, rule: str) -> str:
        """Answers that need a key are not for caches that others share."""
        return f"{'private' if self._private else 'public'}, {rule}"

    def _reply(self, body: dict[str, object]) -> Response:
        return json_reply(orjson.dumps(body), headers={"Cache-Control": self._cache(SHORT)})

    async def _candles(self, query: CandleQuery, form: CandleFormat) -> bytes:
        """Candles as they are stored where nothing must be computed."""
        if query.plain and form == "objects":
            return join_raw(await self._reader.candles(query.market, query.interval.name, query.stretch))
        return render(await read_candles(self._reader, query), query.interval, form)

    async def _interval(self, name: str) -> Interval:
        known = await self._position.intervals()
        if known and name not in known:
            raise invalid(f"interval: one of {', '.join(known)}")
        return Interval.parse(name)

    async def _found(self, market: str) -> MarketView:
        view = await self._reader.market(market.lower())
        if view is None:
            raise not_found("market")
        return view


def _market(view: MarketView) -> dict[str, object]:
    return {"s": view.market, **view.record, "stats": view.stats}


def _at(head: HeadRecord) -> dict[str, object]:
    return {"epoch": head.epoch, "seq": head.seq}


def _opened(fields: dict[str, object]) -> bytes:
    """An object up to the place of its items."""
    return orjson.dumps(fields)[:-1] + b',"items":'


def _closed(query: CandleQuery, head: HeadRecord) -> bool:
    """Whether all that was asked for ended long ago."""
    end = query.stretch.end
    return end is not None and end + query.interval.ms + CLOSED_AFTER_MS <= head.as_of


def _tag(items: bytes) -> str:
    """Tag of an answer with these items. It is weak, as the position beside them moves with every block."""
    return f'W/"{hashlib.sha256(items).hexdigest()[:24]}"'


def _known(request: Request) -> list[str]:
    """Tags of the answers that the caller has."""
    return [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]

"""`/dexscreener` and `/geckoterminal`: what the two listing services ask. See docs/listings.md."""

from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from listener.application.services.listings import BLOCKS_MAX, Listings
from listener.application.use_cases.present_listing import (
    Flavour,
    Record,
    asset_record,
    block_record,
    event_records,
    pair_record,
)
from listener.infrastructure.gateway import listing_schemas as schemas
from listener.infrastructure.gateway.replies import json_reply, not_found
from listener.infrastructure.gateway.rest import ERRORS

BLOCK_NUMBER_MAX: Final = 2**53 - 1
NEWEST: Final = "no-store"
CHANGES: Final = "max-age=60"
FOR_EVER: Final = "max-age=86400, immutable"
"""Final blocks and pairs do not change."""

Number = Annotated[int, Query(ge=0, le=BLOCK_NUMBER_MAX)]
Name = Annotated[str, Query(alias="id", pattern=r"^[0-9A-Za-z_.:-]{1,150}$", examples=["0x" + "ab" * 20])]


def listing_routes(listings: Listings, flavour: Flavour, *, private: bool = False) -> APIRouter:
    """The routes of one service.

    Args:
        listings: what is answered.
        flavour: which service it is.
        private: answers are for the caller alone.
    """
    routes = ListingRoutes(listings, flavour, private=private)
    router = APIRouter(prefix=f"/{flavour}", responses=ERRORS, tags=["listing services"])
    for path, endpoint, model in (
        ("/latest-block", routes.latest_block, schemas.LatestBlock),
        ("/asset", routes.asset, schemas.AssetReply),
        ("/pair", routes.pair, schemas.PairReply),
        ("/events", routes.events, schemas.Events),
    ):
        name = f"{flavour}_{endpoint.__name__}"
        router.add_api_route(path, endpoint, response_model=model, name=name)
    return router


class ListingRoutes:
    """Handlers of the routes."""

    def __init__(self, listings: Listings, flavour: Flavour, *, private: bool) -> None:
        self._listings = listings
        self._flavour = flavour
        self._access = "private" if private else "public"

    async def latest_block(self) -> Response:
        """The newest block that is final and whose events can be asked for; it never goes back."""
        return self._reply({"block": block_record(await self._listings.latest())}, NEWEST)

    async def asset(self, name: Name) -> Response:
        """A token that was launched, or the chain's own coin (the zero address)."""
        asset = await self._listings.asset(name)
        if asset is None:
            raise not_found("asset")
        return self._reply({"asset": asset_record(asset, self._flavour)}, CHANGES)

    async def pair(self, name: Name) -> Response:
        """A market, by its pool."""
        pair = await self._listings.pair(name)
        if pair is None:
            raise not_found("pair")
        return self._reply({"pair": pair_record(pair, self._flavour)}, FOR_EVER)

    async def events(
        self,
        first: Annotated[Number, Query(alias="fromBlock", description="first block")],
        last: Annotated[Number, Query(alias="toBlock", description=f"last block; at most {BLOCKS_MAX}")],
    ) -> Response:
        """Events of final blocks, both ends included, in order."""
        blocks = await self._listings.events(first, last)
        return self._reply({"events": event_records(blocks, self._flavour)}, FOR_EVER)

    def _reply(self, body: Record, rule: str) -> Response:
        cached = rule if rule == NEWEST else f"{self._access}, {rule}"
        return json_reply(orjson.dumps(body), headers={"Cache-Control": cached})

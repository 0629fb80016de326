"""`/api/v1/alerts`: alert rules, and what came true of them."""

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Body, Path, Query
from starlette.responses import Response

from listener.application.errors import ListenerError
from listener.application.interfaces import Clock
from listener.application.use_cases.present_candles import join_raw
from listener.domain.alerts import RULE_ID, AlertCondition
from listener.domain.errors import TooManyRules
from listener.domain.value_objects import MarketId
from listener.infrastructure.gateway import alert_schemas as schemas
from listener.infrastructure.gateway.position import Position
from listener.infrastructure.gateway.replies import Problem, check_read_only, json_reply, not_found
from listener.infrastructure.gateway.rest import ERRORS
from listener.infrastructure.gateway.schemas import ErrorBody
from listener.infrastructure.redis.alert_codec import rule_item
from listener.infrastructure.redis.alert_rules import RedisAlertRules
from listener.infrastructure.redis.fired import FIRED_KEPT, FiredAlerts

PAGE_MAX: Final = 500
"""Rules on a page."""
PRIVATE: Final = {"Cache-Control": "no-store"}
"""Rules change when their owners say so, and are theirs."""
RULE_PATTERN: Final = f"^{RULE_ID.pattern}$"

RuleId = Annotated[str, Path(description="id of a rule", pattern=RULE_PATTERN)]
OfMarket = Annotated[str | None, Query(description="of this market only", pattern=schemas.MARKET_PATTERN)]
OF_A_BODY: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorBody, "description": "the body is no text"},
    409: {"model": ErrorBody, "description": "there are as many rules as there may be"},
    413: {"model": ErrorBody, "description": "the body is too long"},
}


def alerts_router(rules: RedisAlertRules, fired: FiredAlerts, position: Position, clock: Clock) -> APIRouter:
    """The routes.

    Args:
        rules: where rules are kept.
        fired: what came true.
        position: how new that is.
        clock: for the time at which a rule is made.
    """
    alerts = Alerts(rules, fired, position, clock)
    router = APIRouter(prefix="/api/v1/alerts", responses=ERRORS, tags=["alerts"])
    add = router.add_api_route
    add(
        "",
        alerts.create,
        methods=["POST"],
        status_code=201,
        response_model=schemas.Rule,
        responses=OF_A_BODY,
    )
    add("", alerts.page, response_model=schemas.RulePage)
    add("/fired", alerts.fired, response_model=schemas.FiredList, response_model_exclude_none=True)
    add("/{rule}", alerts.rule, response_model=schemas.Rule)
    add("/{rule}", alerts.delete, methods=["DELETE"], status_code=204, response_class=Response)
    return router


class Alerts:
    """Handlers of the routes."""

    def __init__(self, rules: RedisAlertRules, fired: FiredAlerts, position: Position, clock: Clock) -> None:
        self._rules = rules
        self._fired = fired
        self._position = position
        self._clock = clock

    async def create(self, asked: Annotated[schemas.NewAlertRule, Body()]) -> Response:
        """Make a rule. It counts from the next block on."""
        condition = AlertCondition.parse(asked.model_dump(mode="json"))
        try:
            rule = await self._rules.create(condition, self._clock.now())
        except TooManyRules as error:
            raise Problem(409, "too_many_rules", str(error)) from error
        except ListenerError as error:
            check_read_only(error)
            raise
        where = {"Location": f"/api/v1/alerts/{rule.id}"}
        return json_reply(orjson.dumps(rule_item(rule)), 201, PRIVATE | where)

    async def page(
        self,
        market: OfMarket = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
        cursor: Annotated[str | None, Query(pattern=RULE_PATTERN, description="from the page before")] = None,
    ) -> Response:
        """Rules, oldest first; with `market` without those that are for all markets."""
        found = await self._rules.page(cursor or "", limit, MarketId(market.lower()) if market else None)
        body = {
            "items": [rule_item(rule) for rule in found.rules],
            "total": found.total,
            "cursor": found.after,
        }
        return json_reply(orjson.dumps(body), headers=PRIVATE)

    async def fired(
        self,
        market: OfMarket = None,
        rule: Annotated[str | None, Query(pattern=RULE_PATTERN, description="of this rule only")] = None,
        limit: Annotated[int, Query(ge=1, le=FIRED_KEPT)] = 100,
    ) -> Response:
        """The newest alerts, newest first. Those that a reorg has undone say so."""
        head = await self._position.head()
        found = await self._fired.newest(limit, (market or "").lower(), rule or "")
        opened = b'{"epoch":%d,"seq":%d,"items":' % (head.epoch, head.seq)
        return json_reply(opened + join_raw(found) + b"}", headers=PRIVATE)

    async def rule(self, rule: RuleId) -> Response:
        """One rule."""
        found = await self._rules.get(rule)
        if found is None:
            raise not_found("rule")
        return json_reply(orjson.dumps(rule_item(found)), headers=PRIVATE)

    async def delete(self, rule: RuleId) -> Response:
        """Remove a rule. Alerts of blocks that are under way may still come."""
        try:
            removed = await self._rules.delete(rule)
        except ListenerError as error:
            check_read_only(error)
            raise
        if not removed:
            raise not_found("rule")
        return Response(status_code=204, headers=PRIVATE)

"""The REST surface against its own description: made-up requests, and answers that must be as described."""

from typing import Any, Final

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import BaseSchema, Case, GenerationMode

from tests.gateway.conftest import Data
from tests.gateway.serving import INTERVALS, Served

EXAMPLES: Final = 40
"""Requests for each route, valid ones and as many others."""
ROUTES: Final = {
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/markets"),
    ("GET", "/api/v1/markets/{market}"),
    ("GET", "/api/v1/markets/{market}/stats"),
    ("GET", "/api/v1/markets/{market}/trades"),
    ("GET", "/api/v1/markets/{market}/candles"),
    ("GET", "/api/v1/alerts"),
    ("POST", "/api/v1/alerts"),
    ("GET", "/api/v1/alerts/fired"),
    ("GET", "/api/v1/alerts/{rule}"),
    ("DELETE", "/api/v1/alerts/{rule}"),
}

PLAIN: Final = "/api/v1/config"
"""Takes no parameters: nothing about a request can be wrong."""
CASES: Final = [
    (method, path, mode)
    for method, path in sorted(ROUTES)
    for mode in GenerationMode
    if path != PLAIN or mode.is_positive
]
DONE: Final = {"GET": 200, "POST": 201, "DELETE": 204}


@pytest.fixture(scope="session")
def described(gateway: Served) -> BaseSchema:
    """What the gateway says of itself."""
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{gateway.port}/openapi.json")


def test_no_route_is_forgotten(described: BaseSchema) -> None:
    """Each route of `/api` is asked below; those of webhooks in `test_webhooks.py`."""
    found = {
        (method.upper(), path)
        for path in described
        if path.startswith("/api/")
        for method in described[path]
        if not path.startswith("/api/v1/webhooks")
    }
    assert found == ROUTES


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_every_answer_is_as_described(
    described: BaseSchema, gateway: Served, data: Data, method: str, path: str, mode: GenerationMode
) -> None:
    """Whatever is asked, valid or not: a described status, a body of its schema, never a 5xx.

    Valid requests are asked of what there is, see `existing`.
    """
    operation = described[path][method]
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if mode.is_positive:
            existing(case, gateway, data)
        statuses.add(case.call_and_validate().status_code)

    ask()
    assert statuses & ({DONE[method]} if mode.is_positive else {404, 422})


def existing(case: Case, gateway: Served, data: Data) -> None:
    """Put in what no description can say: which markets, intervals and rules there are, no made-up cursor."""
    if "market" in case.path_parameters:
        case.path_parameters["market"] = data.markets[0]
    if "interval" in case.query:
        case.query["interval"] = INTERVALS[len(str(case.query)) % len(INTERVALS)]
    if "rule" in case.path_parameters:
        case.path_parameters["rule"] = a_rule(gateway, data)
    if isinstance(case.body, dict):
        possible(case.body, data)
    case.query.pop("cursor", None)
    if case.query.get("from") is not None:
        case.query.pop("to", None)


def a_rule(gateway: Served, data: Data) -> str:
    """The id of a rule that there is."""
    rule = orjson.dumps({"kind": "graduated", "market": data.markets[0]})
    return str(gateway.ask("/api/v1/alerts", "POST", rule, Content_Type="application/json").json["id"])


def possible(rule: dict[str, Any], data: Data) -> None:
    """Make a rule of what looks like one: a market that exists, a threshold that can be reached."""
    rule["market"] = data.markets[0]
    if "threshold" in rule:
        rule["threshold"] = "5"
    rule.pop("hysteresis", None)

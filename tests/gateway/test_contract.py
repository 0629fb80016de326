"""The REST surface against its own description: made-up requests, and answers that must be as described."""

from typing import Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import BaseSchema, Case, GenerationMode

from tests.gateway.conftest import Data
from tests.gateway.serving import INTERVALS, Served

EXAMPLES: Final = 40
"""Requests for each route, valid ones and as many others."""
ROUTES: Final = {
    "/api/v1/config",
    "/api/v1/markets",
    "/api/v1/markets/{market}",
    "/api/v1/markets/{market}/stats",
    "/api/v1/markets/{market}/trades",
    "/api/v1/markets/{market}/candles",
}

PLAIN: Final = "/api/v1/config"
"""Takes no parameters: nothing about a request can be wrong."""
CASES: Final = [
    (path, mode) for path in sorted(ROUTES) for mode in GenerationMode if path != PLAIN or mode.is_positive
]


@pytest.fixture(scope="session")
def described(gateway: Served) -> BaseSchema:
    """What the gateway says of itself."""
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{gateway.port}/openapi.json")


def test_no_route_is_forgotten(described: BaseSchema) -> None:
    """Each route of `/api` is asked below."""
    assert {path for path in described if path.startswith("/api/")} == ROUTES


@pytest.mark.parametrize(("path", "mode"), CASES)
def test_every_answer_is_as_described(
    described: BaseSchema, data: Data, path: str, mode: GenerationMode
) -> None:
    """Whatever is asked, valid or not: a described status, a body of its schema, never a 5xx.

    Valid requests are asked of what there is, see `existing`.
    """
    operation = described[path]["GET"]
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
            existing(case, data)
        statuses.add(case.call_and_validate().status_code)

    ask()
    assert statuses & ({200} if mode.is_positive else {404, 422})


def existing(case: Case, data: Data) -> None:
    """Put in what no description can say: which markets and intervals there are, and no made-up cursor."""
    if "market" in case.path_parameters:
        case.path_parameters["market"] = data.markets[0]
    if "interval" in case.query:
        case.query["interval"] = INTERVALS[len(str(case.query)) % len(INTERVALS)]
    case.query.pop("cursor", None)
    if case.query.get("from") is not None:
        case.query.pop("to", None)

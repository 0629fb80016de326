"""`/api/v1/webhooks` on a real server: what operators do, who may, and answers that are as described."""

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from listener.infrastructure.gateway.keys import Scope, make_key
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, Answer, Served

BASE: Final = "/api/v1/webhooks"
URL: Final = "https://example.org/hooks"
JSON: Final = "application/json"
ROUTES: Final = {
    (BASE, "GET"),
    (BASE, "POST"),
    (f"{BASE}/{{endpoint}}", "GET"),
    (f"{BASE}/{{endpoint}}", "DELETE"),
    (f"{BASE}/{{endpoint}}/enable", "POST"),
    (f"{BASE}/{{endpoint}}/disable", "POST"),
    (f"{BASE}/{{endpoint}}/rotate", "POST"),
    (f"{BASE}/{{endpoint}}/deliveries", "GET"),
    (f"{BASE}/{{endpoint}}/redeliver", "POST"),
}
EXAMPLES: Final = 12


@pytest.fixture(autouse=True)
def clean(data: Data) -> Iterator[None]:
    """No endpoint is left."""
    yield
    with redis.Redis(port=data.port) as plain:
        plain.delete(KEYS.webhooks)


def send(gateway: Served, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """A request with a JSON body."""
    encoded = None if body is None else json.dumps(body).encode()
    return gateway.ask(BASE + path, method, encoded, Content_Type=JSON, **headers)


def created(gateway: Served, **fields: Any) -> dict[str, Any]:
    """A new endpoint, as it was answered."""
    answer = send(gateway, "POST", "", {"url": URL, **fields})
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_the_life_of_an_endpoint(gateway: Served) -> None:
    """Created, listed, disabled, enabled, rotated, deleted; secrets are shown when they are made, only."""
    began_ms = time.time() * 1000
    made = created(gateway, events=["trade_update", "alert"], note="ops")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["createdAt"] >= began_ms - 1
    assert (made["url"], made["events"], made["note"]) == (URL, ["trade_update", "alert"], "ops")
    assert (made["status"], made["failing"], made["redelivering"]) == ("enabled", None, None)
    path = f"/{made['id']}"
    assert send(gateway, "GET", path).json == made
    assert send(gateway, "GET", "").json == {"items": [made]}
    assert send(gateway, "POST", f"{path}/disable").json["status"] == "disabled"
    assert send(gateway, "POST", f"{path}/redeliver", {"first": "1-1", "last": "1-1"}).status == 422
    assert send(gateway, "POST", f"{path}/enable").json["status"] == "enabled"
    rotated = send(gateway, "POST", f"{path}/rotate", {"overlapMs": 60_000}).json
    assert rotated["secret"] != secret
    assert [life["until"] is None for life in rotated["secrets"]] == [True, False]
    assert send(gateway, "POST", f"{path}/rotate").status == 200
    assert secret not in send(gateway, "GET", "").body.decode()
    assert send(gateway, "GET", f"{path}/deliveries").json == {"items": []}
    gone = send(gateway, "DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    assert send(gateway, "GET", "").json == {"items": []}
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/enable"), ("GET", "/deliveries")):
        assert send(gateway, method, path + rest).error == "not_found"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "url"),
        ({"url": "http://127.0.0.1/"}, "127.0.0.1 is not a public address"),
        ({"url": "gopher://example.org"}, "https://"),
        ({"url": "https://a:b@example.org"}, "no user"),
        ({"url": URL, "events": ["trades"]}, "no event 'trades'"),
        ({"url": URL, "events": ["alert"] * 99}, "events"),
        ({"url": URL, "note": "x" * 201}, "note"),
        ({"url": URL, "secret": "whsec_bWluZQ=="}, "secret"),
        ({"url": "https://example.org/" + "x" * 3_000}, "url"),
        ([], "dict"),
    ],
)
def test_endpoints_that_cannot_be(gateway: Served, body: Any, said: str) -> None:
    """Each is refused in words, and nothing is kept."""
    refused = send(gateway, "POST", "", body)
    assert (refused.status, refused.error) == (422, "invalid_parameter")
    assert said in refused.json["error"]["message"]
    assert send(gateway, "GET", "").json == {"items": []}


def test_redelivery(gateway: Served, data: Data) -> None:
    """Of rows that are kept, once at a time; what is asked in any other way says what to write."""
    with redis.Redis(port=data.port, decode_responses=True) as plain:
        rows = [entry for entry, _ in plain.xrange(KEYS.outbox, count=5)]
    path = f"/{created(gateway)['id']}/redeliver"
    for body in ({}, {"first": rows[0]}, {"message": "m", "first": rows[0], "last": rows[1]}):
        assert (
            "write message, or first and last" in send(gateway, "POST", path, body).json["error"]["message"]
        )
    assert "delivery log" in send(gateway, "POST", path, {"message": "m"}).json["error"]["message"]
    asked = {"first": rows[1], "last": rows[3]}
    begun = send(gateway, "POST", path, asked)
    assert (begun.status, begun.json) == (202, asked)
    again = send(gateway, "POST", path, asked)
    assert (again.status, again.error) == (409, "conflict")


def test_who_may(data: Data) -> None:
    """Where there are keys, one with the scope `admin`, for reading as well: URLs of others are told."""
    reader, read = make_key(frozenset({Scope.READ, Scope.STREAM}), "reader")
    admin, all_of_it = make_key(frozenset({Scope.ADMIN}), "operator")
    served = Served(data.port, GATEWAY_API_KEYS=f"{read},{all_of_it}")
    try:
        for method in ("GET", "POST"):
            assert send(served, method, "", {"url": URL}).status == 401
            assert send(served, method, "", {"url": URL}, X_API_Key=reader).status == 403
        assert send(served, "POST", "", {"url": URL}, X_API_Key=admin).status == 201
        assert len(send(served, "GET", "", X_API_Key=admin).json["items"]) == 1
    finally:
        served.child.stop()


def test_who_may_without_keys(gateway: Served) -> None:
    """Users of this host: neither a page of another host, nor one whose name was made to lead here."""
    evil = "https://evil.example.org"
    assert send(gateway, "POST", "", {"url": URL}, Origin=evil).status == 403
    assert send(gateway, "GET", "", Host="evil.example.org").status == 403
    assert send(gateway, "GET", "").json == {"items": []}
    assert send(gateway, "GET", "", Origin="http://localhost:3000", Host="localhost").status == 200


CASES: Final = [
    (*route, mode) for route in sorted(ROUTES) for mode in GenerationMode if route != (BASE, "GET")
]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_every_answer_is_as_described(
    gateway: Served, data: Data, path: str, method: str, mode: GenerationMode
) -> None:
    """Whatever is asked, valid or not: a described status, a body of its schema, never a 5xx."""
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{gateway.port}/openapi.json")
    assert {
        (known, verb.upper()) for known in described if known.startswith(BASE) for verb in described[known]
    } == ROUTES
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        if mode.is_positive:
            existing(case, gateway, data)
        statuses.add(case.call_and_validate().status_code)

    ask()
    assert statuses
    assert max(statuses) < 500


def existing(case: Case, gateway: Served, data: Data) -> None:
    """Put in what no description can say: an endpoint that there is, a URL, rows that are kept."""
    with redis.Redis(port=data.port, decode_responses=True) as plain:
        row = plain.xrange(KEYS.outbox, count=1)[0][0]
        plain.delete(KEYS.webhooks)
    if "endpoint" in case.path_parameters:
        case.path_parameters["endpoint"] = created(gateway)["id"]
    if case.path == BASE:
        case.body = {**case.body, "url": URL, "note": "ops"}
    elif case.path.endswith("/redeliver"):
        case.body = {"first": row, "last": row}


def test_a_user_who_may_only_read(data: Data) -> None:
    """Sees endpoints, and is told where they are changed."""
    with redis.Redis(port=data.port) as plain:
        plain.acl_setuser(
            "looker", enabled=True, passwords=["+a-password"], keys=["*{31337}*"], categories=["+@read"]
        )
        served = Served(data.port, GATEWAY_REDIS_URL=f"redis://looker:a-password@127.0.0.1:{data.port}/0")
        try:
            assert send(served, "GET", "").json == {"items": []}
            refused = send(served, "POST", "", {"url": URL})
            assert refused.status == 403
            assert refused.json["error"]["code"] == "read_only"
        finally:
            served.child.stop()
            plain.acl_deluser("looker")

"""Alert rules over HTTP: made, listed by pages, shown, removed; who may; and what came true of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import redis

from listener.infrastructure.gateway.keys import Scope, make_key
from listener.infrastructure.redis.fired import FIRED_KEPT
from tests.fakes.build import token
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, Answer, Served, forget_alerts

ROOT: Final = Path(__file__).resolve().parents[2]
PATH: Final = "/api/v1/alerts"
READ, READ_KEPT = make_key(frozenset({Scope.READ, Scope.STREAM}), "charts")
ADMIN, ADMIN_KEPT = make_key(frozenset({Scope.READ, Scope.ADMIN}), "operator")
ABOVE: Final = {"kind": "price_above", "threshold": "0.0000000015"}


def post(gateway: Served, rule: object, **headers: str) -> Answer:
    """Ask for a rule."""
    body = rule if isinstance(rule, bytes) else json.dumps(rule).encode()
    return gateway.ask(PATH, "POST", body, **{"Content_Type": "application/json", **headers})


def made(gateway: Served, **rule: Any) -> dict[str, Any]:
    """A rule that is made."""
    answer = post(gateway, rule)
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    assert answer.headers["location"] == f"{PATH}/{found['id']}"
    return found


@pytest.fixture(autouse=True)
def database(data: Data) -> Iterator[redis.Redis]:
    """A plain client; rules and what fired are gone afterwards."""
    with redis.Redis(port=data.port) as plain:
        forget_alerts(plain)
        yield plain
        forget_alerts(plain)


def test_a_rule_is_made_shown_and_removed(gateway: Served, data: Data) -> None:
    """Each kind comes back as it was asked for, is found by its id, and is gone once removed."""
    market = data.markets[0]
    asked: list[dict[str, Any]] = [
        ABOVE,
        {"kind": "price_below", "market": market, "threshold": "0.1", "repeat": True, "hysteresis": "2.5"},
        {"kind": "change", "market": market, "threshold": "-10", "windowMs": 300_000, "note": "a fall"},
        {"kind": "volume_spike", "threshold": "5", "windowMs": 60_000},
        {"kind": "trade_size", "market": market, "threshold": "10", "repeat": True},
        {"kind": "market_created"},
        {"kind": "graduated", "market": market},
    ]
    head = gateway.ask("/api/v1/config").json["number"]
    for rule in asked:
        found = made(gateway, **rule)
        assert rule.items() <= found.items()
        assert found["since"] == head
        shown = gateway.ask(f"{PATH}/{found['id']}")
        assert (shown.status, shown.json) == (200, found)
        removed = gateway.ask(f"{PATH}/{found['id']}", "DELETE")
        assert (removed.status, removed.body) == (204, b"")
        for method in ("GET", "DELETE"):
            answer = gateway.ask(f"{PATH}/{found['id']}", method)
            assert (answer.status, answer.error) == (404, "not_found")
    assert gateway.ask(PATH).json == {"items": [], "total": 0, "cursor": None}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (b"{", "JSON"),
        (b"[]", "dictionary"),
        ({}, "kind"),
        ({"kind": "price_sideways", "threshold": "1"}, "price_sideways"),
        ({"kind": "price_above"}, "threshold"),
        ({"kind": "price_above", "threshold": 1.5}, "threshold"),
        ({"kind": "price_above", "threshold": "0"}, "threshold"),
        ({"kind": "price_above", "threshold": "1e3"}, "threshold"),
        ({"kind": "price_above", "threshold": "-1"}, "threshold"),
        ({"kind": "price_above", "threshold": "9" * 41}, "threshold"),
        ({"kind": "market_created", "threshold": "1"}, "threshold"),
        ({"kind": "change", "threshold": "-100", "windowMs": 60_000}, "threshold"),
        ({"kind": "change", "threshold": "5"}, "windowMs"),
        ({"kind": "change", "threshold": "5", "windowMs": 90_000}, "windowMs"),
        ({"kind": "volume_spike", "threshold": "5", "windowMs": 86_400_000}, "windowMs"),
        (ABOVE | {"windowMs": 60_000}, "windowMs"),
        (ABOVE | {"hysteresis": "2"}, "hysteresis"),
        (ABOVE | {"hysteresis": "100", "repeat": True}, "hysteresis"),
        (ABOVE | {"repeat": "sometimes"}, "repeat"),
        (ABOVE | {"note": "x" * 201}, "note"),
        (ABOVE | {"market": "no such place"}, "market"),
        (ABOVE | {"market": token(999)}, "market"),
        (ABOVE | {"id": "mine"}, "id"),
    ],
)
def test_what_is_no_rule_is_refused(gateway: Served, rule: object, said: str) -> None:
    """The answer names the field, and nothing is made."""
    answer = post(gateway, rule)
    assert (answer.status, answer.error) == (422, "invalid_parameter")
    assert said in answer.json["error"]["message"]
    assert gateway.ask(PATH).json["total"] == 0


def test_a_page_of_another_site_cannot_send_a_form(gateway: Served) -> None:
    """What browsers send to other sites without asking first is no rule."""
    body = json.dumps(ABOVE).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert gateway.ask(PATH, "POST", body, Content_Type=content_type).status == 422
    strange = {"Content_Type": "application/json", "Origin": "https://evil.example.org"}
    answer = gateway.ask(PATH, "POST", body, **strange)
    assert (answer.status, answer.error) == (403, "forbidden")
    assert gateway.ask(PATH).json["total"] == 0


def test_a_body_has_a_bound(gateway: Served) -> None:
    """A large body is refused before it is read, one that is no text afterwards."""
    answer = post(gateway, b"\xff:-")
    assert (answer.status, answer.error) == (400, "bad_request")
    answer = post(gateway, ABOVE | {"note": "x" * 70_000})
    assert (answer.status, answer.error) == (413, "payload_too_large")


def test_pages_hold_each_rule_once(gateway: Served, data: Data) -> None:
    """Cursors lead through all rules in the order of their making, or through those of one market.

    Ids begin with the time in milliseconds; rules of the same one are in any order.
    """
    markets = [*data.markets[:2], None]
    rules = [made(gateway, **ABOVE, market=markets[number % 3]) for number in range(9)]
    rules.sort(key=lambda rule: str(rule["id"]))
    assert [rule["createdAt"] for rule in rules] == sorted(rule["createdAt"] for rule in rules)
    for market in (None, data.markets[0], data.markets[1]):
        mine = [rule for rule in rules if market in (None, rule.get("market"))]
        query, found = f"?limit=2{f'&market={market}' if market else ''}", []
        page = gateway.ask(PATH + query).json
        while True:
            assert page["total"] == len(mine)
            found += page["items"]
            if page["cursor"] is None:
                break
            page = gateway.ask(f"{PATH}{query}&cursor={page['cursor']}").json
        assert found == mine
    for query in ("limit=0", "limit=501", "cursor=a%20b", "market=a%20b"):
        assert gateway.ask(f"{PATH}?{query}").error == "invalid_parameter"


def fill(database: redis.Redis, count: int) -> list[dict[str, Any]]:
    """Tell so many alerts, of three rules and two markets; they, newest first."""
    alerts = [
        {"id": f"r{n % 3}-{n}-0", "rule": f"r{n % 3}", "kind": "trade_size", "s": token(n % 2), "b": n,
         "bh": f"0x{n:064x}", "t": n * 1_000, "trade": f"{n}-0", "value": "2", "threshold": "1"}
        for n in range(count)
    ]  # fmt: skip
    database.lpush(KEYS.fired, *map(orjson.dumps, alerts))
    return alerts[::-1]


def test_what_came_true(gateway: Served, database: redis.Redis) -> None:
    """Newest first, each alert as it stands: one that was undone says so; by market and by rule."""
    alerts = fill(database, 20)
    head = gateway.ask("/api/v1/config").json
    answer = gateway.ask(f"{PATH}/fired?limit=5").json
    assert answer == {"epoch": head["epoch"], "seq": head["seq"], "items": alerts[:5]}
    mine = [alert for alert in alerts if (alert["s"], alert["rule"]) == (token(1), "r2")]
    assert gateway.ask(f"{PATH}/fired?market={token(1).upper()}&rule=r2").json["items"] == mine
    database.lpush(KEYS.fired, orjson.dumps(alerts[3] | {"retracted": True}))
    found = gateway.ask(f"{PATH}/fired").json["items"]
    assert found == [alerts[3] | {"retracted": True}, *alerts[:3], *alerts[4:]]
    assert gateway.ask(f"{PATH}/fired?limit={FIRED_KEPT + 1}").error == "invalid_parameter"


def test_who_may_write(data: Data) -> None:
    """With keys: one with the scope `admin` writes, one with `read` only reads, and none does nothing."""
    served = Served(data.port, GATEWAY_API_KEYS=f"{READ_KEPT},{ADMIN_KEPT}")
    try:
        assert post(served, ABOVE).error == "unauthorized"
        assert post(served, ABOVE, X_API_Key=READ).error == "forbidden"
        rule = post(served, ABOVE, X_API_Key=ADMIN).json
        path = f"{PATH}/{rule['id']}"
        for key in (READ, ADMIN):
            assert served.ask(path, X_API_Key=key).json == rule
        assert served.ask(path, "DELETE").error == "unauthorized"
        assert served.ask(path, "DELETE", X_API_Key=READ).error == "forbidden"
        assert served.ask(path, "DELETE", X_API_Key=ADMIN).status == 204
    finally:
        served.child.stop()


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [({"GATEWAY_TRUSTED_PROXIES": "10.0.0.1"}, ()), ({}, ("--host", "0.0.0.0"))],  # noqa: S104
)
def test_without_keys_only_this_host_may_write(
    data: Data, settings: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """A gateway that others reach, themselves or through a proxy, is not written to without a key."""
    served = Served(data.port, *arguments, **settings)
    try:
        assert post(served, ABOVE).error == "forbidden"
        assert served.ask(f"{PATH}/abc", "DELETE").error == "forbidden"
        assert served.ask(PATH).status == 200
    finally:
        served.child.stop()


def test_a_gateway_that_may_only_read_says_so(data: Data, database: redis.Redis, gateway: Served) -> None:
    """On a Redis user who may not write, rules are read, and making or removing one is refused in words.

    One who may run the commands that the document names may do both.
    """
    rule = made(gateway, **ABOVE)
    may = {"enabled": True, "passwords": ["+p"], "keys": ["*{31337}*"]}
    database.acl_setuser("looker", **may, categories=["+@read"])
    served = Served(data.port, GATEWAY_REDIS_URL=f"redis://looker:p@127.0.0.1:{data.port}/0")
    try:
        assert served.ask(f"{PATH}/{rule['id']}").json == rule
        assert served.ask(f"{PATH}/fired").json["items"] == []
        for more in ((), ("+@scripting",)):
            database.acl_setuser("looker", **may, categories=["+@read", *more])
            for answer in (post(served, ABOVE), served.ask(f"{PATH}/{rule['id']}", "DELETE")):
                assert (answer.status, answer.error) == (403, "read_only")
        named = re.search(r"needs `([^`]*)`", (ROOT / "docs" / "gateway.md").read_text())
        assert named
        words = named[1].split()
        database.acl_setuser(
            "looker",
            **may,
            categories=[word for word in words if "@" in word],
            commands=[word for word in words if "@" not in word],
        )
        assert post(served, ABOVE).status == 201
        assert served.ask(f"{PATH}/{rule['id']}", "DELETE").status == 204
    finally:
        served.child.stop()
        database.acl_deluser("looker")


@pytest.mark.parametrize("document", ["README.md", "docs/gateway.md"])
def test_examples_of_the_documents(gateway: Served, data: Data, document: str) -> None:
    """The rules that the documents have you make are made, and what they ask for is answered."""
    text = (ROOT / document).read_text().replace("0x…", data.markets[0])
    bodies = re.findall(rf"{PATH} -H 'Content-Type: application/json' \\\n  -d '([^']+)'", text)
    assert bodies
    made = [post(gateway, body.encode()) for body in bodies]
    assert [answer.status for answer in made] == [201] * len(bodies)
    for url in re.findall(rf"'http://[\w.:]+({PATH}[^'\s]+)'", text):
        answer = gateway.ask(url)
        assert answer.status == 200
        assert len(answer.json["items"]) == (0 if "/fired" in url else len(bodies))
    for words in re.findall(rf"-X DELETE http://[\w.:]+({PATH}/)<id>", text):
        assert gateway.ask(f"{words}{made[0].json['id']}", "DELETE").status == 204


def test_there_is_a_bound(gateway: Served) -> None:
    """More rules for all markets than there may be are refused with a word of its own."""
    for _ in range(100):
        made(gateway, kind="market_created")
    answer = post(gateway, {"kind": "market_created"})
    assert (answer.status, answer.error) == (409, "too_many_rules")
    assert gateway.ask(f"{PATH}?limit=1").json["total"] == 100

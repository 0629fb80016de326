"""The routes of listing services on a running gateway."""

from collections.abc import Iterator
from typing import Final

import pytest
import redis

from listener.application.listing import ListedBlock, ListedEvent
from listener.infrastructure.redis.listing import encode_block
from tests.fakes.build import curve, token
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, Served

BUSY: Final = 30
FLAVOURS: Final = ("/dexscreener", "/geckoterminal")
EVENT: Final = ListedEvent("buy", 0, 0, "0x", "0xm", "0xp", "1.5", "2", "0.75", ("1", "2"))


@pytest.fixture
def recorded(data: Data) -> Iterator[None]:
    """Blocks 1 to 50 with an event in the first 30."""
    with redis.Redis(port=data.port) as plain:
        for number in range(1, BUSY + 1):
            block = ListedBlock(number, 12 * number, [EVENT])
            plain.zadd(KEYS.listing, {encode_block(block): number})
        plain.hset(KEYS.coverage, mapping={"first": 1, "last": 50, "hash": "0x", "time": 600, "bytes": 9})
        yield
        plain.delete(KEYS.listing, KEYS.coverage)


@pytest.mark.usefixtures("recorded")
def test_events_are_served_from_redis(gateway: Served) -> None:
    """Both ends included, in both flavours, without a node; caches may keep them."""
    for flavour in FLAVOURS:
        answer = gateway.ask(f"{flavour}/events?fromBlock=29&toBlock=50")
        assert answer.status == 200
        assert [event["block"]["blockNumber"] for event in answer.json["events"]] == [29, 30]
        assert answer.json["events"][0] == {
            "block": {"blockNumber": 29, "blockTimestamp": 348},
            "eventType": "swap",
            "txnId": "0x",
            "txnIndex": 0,
            "eventIndex": 0,
            "maker": "0xm",
            "pairId": "0xp",
            "asset0Out": "1.5",
            "asset1In": "2",
            "priceNative": "0.75",
            "reserves": {"asset0": "1", "asset1": "2"},
        }
        assert answer.headers["cache-control"] == "public, max-age=86400, immutable"
        latest = gateway.ask(f"{flavour}/latest-block")
        assert latest.json == {"block": {"blockNumber": 50, "blockTimestamp": 600}}
        assert latest.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("recorded")
def test_without_a_node(gateway: Served) -> None:
    """What needs it is 503 and says when to come again; what is no market at all is 404."""
    for flavour in FLAVOURS:
        for path in (
            "/events?fromBlock=0&toBlock=5",
            f"/pair?id={curve(0)}",
            f"/asset?id={token(0)}",
        ):
            answer = gateway.ask(flavour + path)
            assert (answer.status, answer.error) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        assert gateway.ask(f"{flavour}/asset?id=0x{'0' * 40}").status == 200
        for path in (f"/pair?id=0x{'12' * 20}", f"/asset?id={curve(0)}"):
            assert gateway.ask(flavour + path).error == "not_found"
        assert gateway.ask(f"{flavour}/events?fromBlock=1").error == "invalid_parameter"
        assert gateway.ask(f"{flavour}/events?fromBlock=1&toBlock=51").error == "unavailable"


def test_the_routes_are_described(gateway: Served) -> None:
    """`/openapi.json` names every route of both services, with what it answers."""
    paths = gateway.ask("/openapi.json").json["paths"]
    for flavour in FLAVOURS:
        for route in ("latest-block", "asset", "pair", "events"):
            described = paths[f"{flavour}/{route}"]["get"]["responses"]
            assert {"200", "422", "503"} <= set(described)


def test_they_can_be_switched_off(data: Data) -> None:
    """Then there are no such routes."""
    served = Served(data.port, LISTINGS_ENABLED="false")
    try:
        assert [served.ask(f"{flavour}/latest-block").status for flavour in FLAVOURS] == [404, 404]
    finally:
        served.child.stop()

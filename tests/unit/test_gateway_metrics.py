"""Requests and clients of the gateway, counted."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from listener.infrastructure.gateway.gateway_metrics import GatewayMetrics, Measured


def samples(metrics: GatewayMetrics) -> dict[str, float]:
    """Samples by name and values of labels."""
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> GatewayMetrics:
    """Nothing counted yet."""
    return GatewayMetrics()


async def test_requests_are_counted_by_route(metrics: GatewayMetrics) -> None:
    """By the pattern, not the path: whoever asks for random paths makes no new series."""
    app = FastAPI()

    @app.get("/markets/{market}")
    async def market(market: str) -> dict[str, str]:
        return {"market": market}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a defect")

    transport = httpx.ASGITransport(Measured(app, metrics), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        for path in ("/markets/a", "/markets/b", "/random/1", "/random/2", "/broken"):
            await http.get(path)
        await http.request("BREW", "/markets/a")
    found = samples(metrics)
    assert found["gateway_requests_total:GET:/markets/{market}:200"] == 2
    assert found["gateway_requests_total:GET:other:404"] == 2
    assert found["gateway_requests_total:GET:/broken:500"] == 1
    assert found["gateway_request_seconds_count:/markets/{market}"] == 3
    assert not [name for name in found if "BREW" in name or "random" in name]


async def test_polls_are_counted_and_not_timed(metrics: GatewayMetrics) -> None:
    """They wait for news on purpose, so that their time would look like a slow gateway."""
    app = FastAPI()
    app.add_api_route("/socket.io/{rest}", lambda: "")
    transport = httpx.ASGITransport(Measured(app, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        for path in ("/socket.io", "/socket.io/x", "/socket.iox"):
            await http.get(path)
    found = samples(metrics)
    assert sum(value for name, value in found.items() if "_total:GET:/socket.io:" in name) == 2
    assert "gateway_request_seconds_count:/socket.io" not in found
    assert found["gateway_request_seconds_count:other"] == 1


def test_clients_are_looked_up(metrics: GatewayMetrics) -> None:
    """As they are when somebody asks; nothing without sockets."""
    assert samples(metrics)["gateway_rooms"] == 0
    metrics.clients = lambda: {"socketio": 3, "websocket": 2}
    metrics.rooms = lambda: {"": 4}
    metrics.sent("websocket", 7)
    metrics.dropped("slow")
    metrics.flushed(0.01)
    found = samples(metrics)
    assert (found["gateway_clients:socketio"], found["gateway_clients:websocket"]) == (3, 2)
    assert (found["gateway_rooms"], found["gateway_messages_total:websocket"]) == (4, 7)
    assert (found["gateway_dropped_total:slow"], found["gateway_flush_seconds_count"]) == (1, 1)


def test_names_are_the_gateways_own(metrics: GatewayMetrics) -> None:
    """Both expositions are sent as one, in which a name may stand once only."""
    assert all(name.startswith("gateway_") for name in samples(metrics))

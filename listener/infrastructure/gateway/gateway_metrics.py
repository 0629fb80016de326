"""The gateway's own figures for Prometheus. Names begin with `gateway_`, so both expositions can be one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
OTHER: Final = "other"
"""Route of a request that fits none: paths are the sender's, and there may be any number of them."""
POLLS: Final = "/socket.io"
"""Requests below it are polls, which wait for news on purpose: they are counted and not timed."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})

Figures = Callable[[], Mapping[str, float]]
"""Looked up when somebody asks: values by label, `""` for the only one."""


class GatewayMetrics:
    """Counts requests and fan-out; everything else is looked up.

    `clients` may be set to what tells how many there are, by transport; `rooms` to the number of rooms with
    members.
    """

    def __init__(self) -> None:
        self.clients: Figures = dict
        self.rooms: Figures = dict
        disable_created_metrics()  # type: ignore[no-untyped-call]  # for the whole process
        self.registry = CollectorRegistry(auto_describe=True)
        registry = self.registry
        self._requests = Counter(
            "gateway_requests", "HTTP requests.", ["route", "method", "status"], registry=registry
        )
        self._request_s = Histogram(
            "gateway_request_seconds",
            "HTTP requests, to the last byte.",
            ["route"],
            buckets=REQUEST_S,
            registry=registry,
        )
        self._sent = Counter(
            "gateway_messages", "Messages to clients, by transport.", ["transport"], registry=registry
        )
        self._dropped = Counter(
            "gateway_dropped", "Clients or messages let go, by reason.", ["reason"], registry=registry
        )
        self._flush_s = Histogram(
            "gateway_flush_seconds",
            "A room's flush, from its begin to its last message.",
            buckets=REQUEST_S,
            registry=registry,
        )
        ProcessCollector(namespace="gateway", registry=registry)
        registry.register(_Looked(self))

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered, or given up."""
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        if route != POLLS:
            self._request_s.labels(route).observe(seconds)

    def sent(self, transport: str, messages: int) -> None:
        """Messages went out to clients."""
        self._sent.labels(transport).inc(messages)

    def dropped(self, reason: str, count: int = 1) -> None:
        """Clients or messages were let go."""
        self._dropped.labels(reason).inc(count)

    def flushed(self, seconds: float) -> None:
        """A room's changes went out."""
        self._flush_s.observe(seconds)

    def render(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self.registry)


class _Looked(Collector):
    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        clients = GaugeMetricFamily("gateway_clients", "Live socket clients.", labels=["transport"])
        for transport, count in self._metrics.clients().items():
            clients.add_metric([transport], count)
        yield clients
        yield GaugeMetricFamily(
            "gateway_rooms", "Rooms with members.", value=sum(self._metrics.rooms().values())
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they are collected."""
        return ()


class Measured:
    """Counts and times the HTTP requests of an application."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.requested(route_of(scope), scope["method"], status, perf_counter() - started)


def route_of(scope: Scope) -> str:
    """The pattern that a request fitted, such as `/api/v1/markets/{market}`."""
    if f"{scope['path']}/".startswith(f"{POLLS}/"):
        return POLLS
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else OTHER

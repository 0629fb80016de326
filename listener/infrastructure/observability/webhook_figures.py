"""Figures of webhook endpoints: how many are in which state, and how long each that fails has failed."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from listener.application.webhooks import Endpoint, EndpointState, Status
from listener.domain.value_objects import Timestamp

ACTIVE: Final = "active"
FAILING: Final = "failing"
STATES: Final = (ACTIVE, FAILING, Status.DISABLED.value, Status.GIVEN_UP.value)


class WebhookFigures:
    """Set from what is stored when somebody asks. Endpoints are at most a hundred, and so are labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._endpoints = Gauge(
            "listener_webhook_endpoints", "Webhook endpoints, by state.", ["state"], registry=registry
        )
        self._failing_s = Gauge(
            "listener_webhook_failing_seconds",
            "How long a webhook endpoint has taken nothing.",
            ["endpoint"],
            registry=registry,
        )
        for state in STATES:
            self._endpoints.labels(state)

    def update(self, endpoints: Mapping[str, tuple[Endpoint, EndpointState]], now: Timestamp) -> None:
        """What is stored now."""
        counts = Counter(_state(state) for _, state in endpoints.values())
        for name in STATES:
            self._endpoints.labels(name).set(counts[name])
        self._failing_s.clear()
        for key, (_, state) in endpoints.items():
            if state.failing and state.status is Status.ENABLED:
                self._failing_s.labels(key).set(max(now - state.failing.since, 0) / 1000)


def _state(state: EndpointState) -> str:
    if state.status is not Status.ENABLED:
        return state.status.value
    return FAILING if state.failing else ACTIVE

"""Figures that are looked up when somebody asks: states, lags and ages."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from listener.infrastructure.observability.health import Health

if TYPE_CHECKING:
    from listener.infrastructure.observability.metrics import Metrics

CLOSED: Final = ("ok", "closed")
OUTCOMES: Final = ("repaired", "reported", "missed")


class States(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, metrics: "Metrics", health: Health) -> None:
        self._metrics = metrics
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        metrics, health = self._metrics, self._health
        for name, text, value in (
            ("head_block", "Number of the newest committed block; -1: none yet.", health.block),
            ("tip_block", "Number of the node's newest block; -1: not known yet.", metrics.tip),
            ("head_lag_blocks", "Blocks that the head is behind the node's newest.", metrics.lag_blocks),
            ("head_lag_seconds", "Age of the newest committed block.", metrics.lag_s),
            ("outbox_undelivered_rows", "Rows that wait for the backend.", metrics.undelivered_rows),
            (
                "outbox_age_seconds",
                "Age of the oldest row that waits for the backend.",
                metrics.undelivered_s,
            ),
            ("synced", "1: follows the head.", int(bool(health.synced))),
            ("leader", "1: this instance writes.", int(bool(health.leads))),
            ("ready", "1: as /ready says.", int(not health.reasons())),
            ("chain_stalled", "1: the node's newest block stays the same.", int(bool(health.stalled))),
            ("audited_block", "Newest block that was looked at twice; -1: none.", health.audited),
        ):
            yield GaugeMetricFamily(f"listener_{name}", text, value=value)
        yield _labelled(
            "trouble", "1: the service is in trouble.", "service", dict.fromkeys(health.troubles, 1)
        )
        states = {name: int(state not in CLOSED) for name, state in health.breakers().items()}
        yield _labelled(
            "breaker_open", "1: calls to the service are refused or tried singly.", "service", states
        )
        found = CounterMetricFamily(
            "listener_audit_differences",
            "Blocks of which a second look found other logs.",
            labels=["outcome"],
        )
        for outcome in OUTCOMES:
            found.add_metric([outcome], health.differences[outcome])
        yield found

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they are collected."""
        return ()


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"listener_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

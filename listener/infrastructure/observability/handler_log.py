"""What becomes of a handler's events: log lines, health, figures."""

from collections import Counter
from typing import Final

from listener.application.interfaces import RowId
from listener.application.typed_events import Event, Resync
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay

HANDLED: Final = "handled"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
STOPPED: Final = "stopped"
OUTCOMES: Final = (HANDLED, FAILED, SKIPPED, STOPPED)


class HandlerLog(LogObserver):
    """`HandlerObserver`, and `Observer` of the delivery to one handler.

    Args:
        name: of the handler.
        health: where its trouble is shown, as `handler <name>`.
        mask: of what must not be logged.
        metrics: where its events are counted; None: nowhere.

    Attributes:
        service: what its trouble is shown as.
        counts: events by what became of them.
    """

    def __init__(self, name: str, health: Health, mask: SecretMask, metrics: Metrics | None) -> None:
        super().__init__(health, ProgressDisplay(), mask)
        self._name = name
        self._metrics = metrics
        self.service = f"handler {name}"
        self.counts: Counter[str] = Counter()
        self._leads: bool | None = None
        self._waits = False
        for outcome in OUTCOMES if metrics else ():
            self._count(outcome, 0)  # a series that begins with its first event hides it from `increase`

    def handled(self, event: Event) -> None:  # noqa: ARG002 - of the port
        """See `HandlerObserver.handled`."""
        self._count(HANDLED)
        super().healthy(self.service)

    def failed(self, event: Event, error: BaseException, retry_in_s: float) -> None:
        """See `HandlerObserver.failed`."""
        self._count(FAILED)
        self._health.troubles[self.service] = self._mask.text(_described(event, error))
        self._log.warning(
            "Handler failed, trying again",
            handler=self._name,
            event_type=type(event).__name__,
            key=event.key,
            retry_in_s=round(retry_in_s, 2),
            exc_info=error,
        )

    def gave_up(self, event: Event, error: BaseException, *, stops: bool) -> None:
        """See `HandlerObserver.gave_up`."""
        self._count(STOPPED if stops else SKIPPED)
        self._health.troubles[self.service] = self._mask.text(_described(event, error))
        self._log.error(
            "Handler stopped" if stops else "Handler failed, event skipped",
            handler=self._name,
            event_type=type(event).__name__,
            key=event.key,
            exc_info=error,
        )

    def missed(self, event: Resync) -> None:
        """See `HandlerObserver.missed`."""
        self._log.warning("Handler must read again", handler=self._name, reason=event.reason)

    def ended(self, error: BaseException) -> None:
        """Delivery has ended by an error that is not the handler's."""
        self._count(STOPPED)
        self._health.troubles[self.service] = self._mask.text(f"{type(error).__name__}: {error}")
        self._log.error("Handler's delivery ended", handler=self._name, exc_info=error)

    def leading(self, *, leads: bool) -> None:
        """See `Observer.leading`: of several processes one delivers to a name."""
        if self._leads is not leads:
            self._log.info(
                "Handler gets events" if leads else "Handler stands by: another process handles its events",
                handler=self._name,
            )
        self._leads = leads

    def superseded(self, error: Exception) -> None:
        """See `Observer.superseded`."""
        self._log.warning("Handler's delivery begins anew", handler=self._name, error=str(error))

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`."""
        self._waits = True
        if self._metrics is not None:
            self._metrics.retried(service)
        super().trouble(service, error, retry_in_s)

    def healthy(self, service: str) -> None:  # noqa: ARG002 - whatever it is called, it is ours
        """See `Observer.healthy`: rows can be read again. What the handler itself failed at is not over."""
        if self._waits:
            self._waits = False
            super().healthy(self.service)

    def delivered(self, last: RowId, messages: int, seconds: float) -> None:
        """See `Observer.delivered`."""
        self._log.debug(
            "Handler's place saved",
            handler=self._name,
            seq=last.seq,
            messages=messages,
            ms=round(seconds * 1000, 2),
        )

    def _count(self, outcome: str, count: int = 1) -> None:
        self.counts[outcome] += count
        if self._metrics is not None:
            self._metrics.handler_event(self._name, outcome, count)


def _described(event: Event, error: BaseException) -> str:
    return f"{type(event).__name__} {event.key}: {type(error).__name__}: {error}"

"""Log lines of the process that delivers webhooks. URLs may be secret: of each its host is shown."""

from urllib.parse import urlsplit

import structlog

from listener.application.webhooks import Attempt, Endpoint, Failing
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay


class WebhookLog(LogObserver):
    """`WebhookObserver`, and `Observer` for what is not about one endpoint."""

    def __init__(self, mask: SecretMask) -> None:
        self._states = Health()
        super().__init__(self._states, ProgressDisplay(), mask)
        self._lines = structlog.get_logger("listener.webhooks")

    def leading(self, *, leads: bool) -> None:
        """See `Observer.leading`."""
        if self._states.leads is not leads:
            self._lines.info("Delivering webhooks" if leads else "Standing by: another one delivers webhooks")
        self._states.leads = leads

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """See `Observer.trouble`: each endpoint meets the same one, and it is told once."""
        if service not in self._states.troubles:
            super().trouble(service, error, retry_in_s)

    def attempted(self, endpoint: Endpoint, attempt: Attempt, retry_in_s: float | None) -> None:
        """See `WebhookObserver.attempted`."""
        log = self._lines.warning if attempt.error else self._lines.debug
        log(
            "Webhook failed" if attempt.error else "Webhook delivered",
            endpoint=endpoint.id,
            host=_host(endpoint),
            message=attempt.id,
            webhook_event=attempt.event,
            attempt=attempt.attempt,
            status=attempt.status,
            error=attempt.error,
            ms=attempt.ms,
            **({} if retry_in_s is None else {"retry_in_s": round(retry_in_s, 1)}),
        )

    def recovered(self, endpoint: Endpoint, failing: Failing) -> None:
        """See `WebhookObserver.recovered`."""
        self._lines.info(
            "Webhook endpoint works again",
            endpoint=endpoint.id,
            host=_host(endpoint),
            failed_attempts=failing.attempts,
        )

    def gave_up(self, endpoint: Endpoint, reason: str) -> None:
        """See `WebhookObserver.gave_up`."""
        self._lines.error(
            "Webhook endpoint disabled: nothing more is sent to it until it is enabled",
            endpoint=endpoint.id,
            host=_host(endpoint),
            reason=reason,
        )


def _host(endpoint: Endpoint) -> str:
    return urlsplit(endpoint.url).netloc

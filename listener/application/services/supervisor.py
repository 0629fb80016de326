"""One retry layer for everything: exponential backoff with full jitter, for ever, and out loud."""

from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from listener.application.errors import Retryable, StoreUnavailable
from listener.application.interfaces import Clock, Observer

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
BACKOFF_STORE_S: Final = 3.0
"""Redis is ours: nobody is annoyed by our asking, and everything waits for it."""
HEALTHY_AFTER_S: Final = 10.0
"""A service that ran this long before it failed starts again with the shortest wait."""


async def keep_running(
    service: Callable[[], Awaitable[None]], clock: Clock, observer: Observer, *, blame: str = ""
) -> None:
    """Run `service` again and again while it fails with `Retryable`; other errors pass through.

    Args:
        service: what to run.
        clock: to wait.
        observer: told of each failure.
        blame: what failures are reported as; by default, the service of the error.
    """
    attempts_before = 0
    started = clock.monotonic()

    async def attempt() -> None:
        nonlocal started
        started = clock.monotonic()
        await service()

    def wait(call: RetryCallState) -> float:
        nonlocal attempts_before
        if clock.monotonic() - started > HEALTHY_AFTER_S:
            attempts_before = call.attempt_number - 1
        error = call.outcome.exception() if call.outcome else None
        longest = BACKOFF_STORE_S if isinstance(error, StoreUnavailable) else BACKOFF_MAX_S
        backoff = wait_random_exponential(multiplier=BACKOFF_FIRST_S, max=longest)
        call.attempt_number -= attempts_before
        try:
            return backoff(call)
        finally:
            call.attempt_number += attempts_before

    def tell(call: RetryCallState) -> None:
        error = call.outcome.exception() if call.outcome else None
        if isinstance(error, Retryable):
            observer.trouble(blame or error.service, error, call.upcoming_sleep)

    await AsyncRetrying(
        retry=retry_if_exception_type(Retryable), wait=wait, sleep=clock.sleep, before_sleep=tell
    )(attempt)

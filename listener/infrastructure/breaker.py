"""A circuit breaker around a service of others: while it is open nobody asks, and that is the backoff."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Literal, TypeVar

from circuitbreaker import CircuitBreaker

T = TypeVar("T")
State = Literal["closed", "open", "half-open"]

_STATES: Final[dict[str, State]] = {"closed": "closed", "open": "open", "half_open": "half-open"}


class Breaker:
    """Refuses calls to a service that has failed too often, until it had time to recover.

    After that time one call at a time is let through: if it succeeds the breaker closes, if it fails the
    breaker is open for as long again. A cancelled call says nothing about the service.

    Args:
        name: of the service, for messages.
        failures: so many in a row open it.
        recovery_s: how long it stays open.
        counts: errors that are failures of the service; any other `Exception` is an answer of it.
        refusal: the error of a refused call, made from its text.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        recovery_s: float,
        counts: tuple[type[Exception], ...],
        refusal: Callable[[str], Exception],
    ) -> None:
        self.name = name
        self._failures = failures
        self._recovery_s = recovery_s
        self._counts = counts
        self._refusal = refusal
        self._circuit = self._made(failures, recovery_s)
        self._probing = False

    @property
    def state(self) -> State:
        """Whether calls are let through: all, none, or one at a time."""
        return _STATES[self._circuit.state]

    @property
    def open_for_s(self) -> float:
        """How long it stays open, to the second; 0 if it is not."""
        return max(float(self._circuit.open_remaining), 0.0) if self.state == "open" else 0.0

    @property
    def last_failure(self) -> Exception | None:
        """The newest failure since the last success."""
        failure = self._circuit.last_failure
        return failure if isinstance(failure, Exception) else None

    def admits(self) -> bool:
        """Whether a call would be let through now."""
        return self.state == "closed" or (self.state == "half-open" and not self._probing)

    def refused(self) -> str:
        """Why a call is not let through."""
        waits = f"next try in {self.open_for_s:.0f} s" if self.state == "open" else "a first try is under way"
        return f"open, {waits}: {self.last_failure}"

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, or refuse it.

        Raises:
            Exception: what the call raised, or the refusal.
        """
        if not self.admits():
            raise self._refusal(f"{self.name}: {self.refused()}")
        circuit, probe = self._circuit, self.state == "half-open"
        self._probing |= probe
        try:
            outcome = await call()
        except Exception as error:
            if self._concerns(circuit, probe=probe):
                self._note(error)
            raise
        else:
            if self._concerns(circuit, probe=probe):
                self._note(None)
            return outcome
        finally:
            if probe:
                self._probing = False

    def trip(self, error: Exception, for_s: float) -> None:
        """Open at once, for a given time."""
        self._circuit = CircuitBreaker(1, for_s, Exception, self.name)
        with suppress(Exception), self._circuit:
            raise error

    def _concerns(self, circuit: CircuitBreaker, *, probe: bool) -> bool:
        """Whether a call's end still says something: not if the breaker has opened since it began."""
        return circuit is self._circuit and (probe or self.state == "closed")

    def _note(self, error: Exception | None) -> None:
        if isinstance(error, self._counts):
            with suppress(*self._counts), self._circuit:
                raise error
        elif self._circuit.last_failure is not None:
            self._circuit = self._made(self._failures, self._recovery_s)

    def _made(self, failures: int, recovery_s: float) -> CircuitBreaker:
        return CircuitBreaker(failures, recovery_s, self._counts, self.name)

"""The service as a library: what happens on the chain calls functions of your own.

```python
app = Listener()

@app.on(TradeProcessed)
async def store(event: TradeProcessed) -> None:
    ...

asyncio.run(app.run())
```

Each handler has a name, and under it a place in the stream, kept in Redis: it gets every event after its
commit, in order, at least once, and goes on where it stopped. docs/library.md says what that means in full.
"""

import inspect
import re
from asyncio import TaskGroup
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple, TypedDict, TypeVar, Unpack, overload

from listener.application.errors import HandlerStopped, InvalidConfiguration
from listener.application.services.handlers import HandlerRules
from listener.application.typed_events import Event
from listener.config.settings import Settings, load_settings
from listener.handling import Handling, Registered
from listener.infrastructure.observability.handler_log import FAILED, HANDLED, SKIPPED, STOPPED
from listener.infrastructure.observability.health import Health
from listener.main import Service
from listener.main import run as run_process

A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ATTEMPTS: Final = 5
ATTEMPTS_MAX: Final = 1_000
TIMEOUT_S: Final = 30.0
TIMEOUT_S_MAX: Final = 3_600.0
BATCH: Final = 50
BATCH_MAX: Final = 1_000


class HandlerOptions(TypedDict, total=False):
    """How a handler is called.

    Attributes:
        name: under which its place is kept, of letters, digits, `_`, `.` and `-`; by default the function's.
        start: where a new name begins: at what happens from `now` on, or at the `oldest` row that is kept.
        attempts: how often it gets an event that it fails at, 1 to 1,000; 5 by default.
        timeout_s: for each attempt, up to 3,600; 30 by default.
        on_error: after the last attempt, `skip` the event, or `stop` before it; `skip` by default.
        batch: rows of the stream, 1 to 1,000, after which its place is saved; 50 by default. As many may be
            handled again after a crash.
    """

    name: str
    start: Literal["now", "oldest"]
    attempts: int
    timeout_s: float
    on_error: Literal["skip", "stop"]
    batch: int


class HandlerStatus(NamedTuple):
    """How a handler fares, since the start of this process.

    Attributes:
        handled: events.
        failed: attempts that failed and were followed by another.
        skipped: events that were given up.
        stopped: delivery has ended; its events wait.
    """

    handled: int
    failed: int
    skipped: int
    stopped: bool


class Listener:
    """Handlers, and the service that calls them or runs beside them.

    Args:
        settings: of the service; None: from the environment and `.env`, read when it runs.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._given = settings
        self._handlers: dict[str, Registered] = {}
        self._handling: Handling | None = None

    @overload
    def on(
        self, first: type[A], /, **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[[A], Awaitable[None]]], Callable[[A], Awaitable[None]]]: ...

    @overload
    def on(
        self, first: type[A], second: type[B], /, **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[[A | B], Awaitable[None]]], Callable[[A | B], Awaitable[None]]]: ...

    @overload
    def on(
        self, first: type[A], second: type[B], third: type[C], /, **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[[A | B | C], Awaitable[None]]], Callable[[A | B | C], Awaitable[None]]]: ...

    @overload
    def on(
        self, *kinds: type[Event], **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[[Any], Awaitable[None]]], Callable[[Any], Awaitable[None]]]: ...

    def on(self, *kinds: type[Event], **options: Unpack[HandlerOptions]) -> Any:
        """Register an `async def` for events of these types; it gets them one at a time, in their order.

        Raises:
            InvalidConfiguration: it is no coroutine function, its name is taken, or an option is none.
        """

        def register(handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
            registered = _registered(handler, kinds, options)
            name = registered.rules.name
            if name in self._handlers:
                raise InvalidConfiguration(f"two handlers are called {name!r}: write name='…'")
            self._handlers[name] = registered
            return handler

        return register

    async def run(self) -> None:
        """Run the service, and the handlers in its process, until cancelled.

        Raises:
            InvalidConfiguration: no handler is registered, or other processes would read other settings.
            ExceptionGroup: with the `Fatal` error that ended the service. A handler never ends it.
        """
        settings = self._settings()
        self._check_children(settings)
        service = Service(settings, keeps_rows=True)
        self._handling = self._wired(settings, service)
        async with TaskGroup() as tasks:
            handling = tasks.create_task(self._handle(self._handling), name="handlers")
            await service.run()
            handling.cancel()

    async def consume(self) -> None:
        """Run the handlers beside a service that runs elsewhere on the same Redis, until cancelled.

        Raises:
            InvalidConfiguration: no handler is registered.
            HandlerStopped: the last handler has stopped.
        """
        self._handling = self._wired(self._settings())
        await self._handling.run()

    def main(self, *, follow: bool = True) -> int:
        """`run`, or `consume` if not `follow`, as a program: logs, signals, and an exit code to end with."""
        return run_process(self._given, self.run if follow else self.consume)

    def status(self) -> dict[str, HandlerStatus]:
        """How each handler fares, by name."""
        logs = self._handling.logs if self._handling else {}
        counted = {name: logs[name].counts if name in logs else Counter() for name in self._handlers}
        return {
            name: HandlerStatus(counts[HANDLED], counts[FAILED], counts[SKIPPED], bool(counts[STOPPED]))
            for name, counts in counted.items()
        }

    def _settings(self) -> Settings:
        return self._given or load_settings()

    def _wired(self, settings: Settings, service: Service | None = None) -> Handling:
        if not self._handlers:
            raise InvalidConfiguration("no handler is registered: write @app.on(TradeProcessed) above one")
        handlers = tuple(self._handlers.values())
        if service is None:
            return Handling(settings, handlers, Health())
        return Handling(settings, handlers, service.health, service.metrics)

    def _check_children(self, settings: Settings) -> None:
        """The processes of the gateway and of webhooks get no settings from us."""
        if self._given is None or not (settings.gateway_enabled or settings.webhooks_enabled):
            return
        with suppress(InvalidConfiguration):
            if load_settings() == settings:
                return
        raise InvalidConfiguration(
            "gateway and webhooks are processes that read the environment, and the settings given to "
            "Listener() differ: set gateway_enabled and webhooks_enabled to False, or set the environment"
        )

    @staticmethod
    async def _handle(handling: Handling) -> None:
        with suppress(HandlerStopped):
            await handling.run()


def _registered(
    handler: Callable[[Any], Awaitable[None]], kinds: tuple[type[Event], ...], options: HandlerOptions
) -> Registered:
    name = options.get("name") or str(getattr(handler, "__name__", ""))
    rules = HandlerRules(
        name,
        frozenset(kinds),
        options.get("attempts", ATTEMPTS),
        options.get("timeout_s", TIMEOUT_S),
        options.get("on_error", "skip"),
    )
    start, batch = options.get("start", "now"), options.get("batch", BATCH)
    problem = _problem(handler, rules, start, batch)
    if problem:
        raise InvalidConfiguration(f"handler {name!r}: {problem}")
    return Registered(handler, rules, from_oldest=start == "oldest", batch=batch)


def _problem(handler: object, rules: HandlerRules, start: str, batch: int) -> str:
    """What is wrong with a handler; empty: nothing."""
    called = getattr(handler, "__call__", None)  # noqa: B004 - of an object, not whether there is one
    checks = (
        (
            inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called),
            "write async def; what blocks goes into asyncio.to_thread",
        ),
        (bool(rules.kinds), "name the types of its events: @app.on(TradeProcessed)"),
        (
            all(
                isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
                for kind in rules.kinds
            ),
            "its events are types that this library exports, such as TradeProcessed",
        ),
        (bool(NAME.fullmatch(rules.name)), "a name is 1 to 64 letters, digits, _, . or -"),
        (1 <= rules.attempts <= ATTEMPTS_MAX, f"attempts are 1 to {ATTEMPTS_MAX}"),
        (0 < rules.timeout_s <= TIMEOUT_S_MAX, f"timeout_s is up to {TIMEOUT_S_MAX:.0f}"),
        (rules.on_error in {"skip", "stop"}, "on_error is skip or stop"),
        (1 <= batch <= BATCH_MAX, f"batch is 1 to {BATCH_MAX}"),
        (start in {"now", "oldest"}, "start is now or oldest"),
    )
    return next((problem for right, problem in checks if not right), "")

"""Handlers in Python as a link that the publisher delivers to: in order, and each on its own.

A handler that fails is tried again, and after so many attempts its event is reported and passed over, or its
delivery ends. Nothing of that reaches the writer or another handler.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from listener.application.errors import HandlerStopped
from listener.application.interfaces import Clock, Message, Outbox
from listener.application.typed_events import (
    Candle,
    CandleClosed,
    CandleRemoved,
    CandlesClosed,
    CandleUpdated,
    DayStats,
    Event,
    Resync,
    StatsUpdated,
)
from listener.application.use_cases.close_candles import OpenCandles, Reference
from listener.application.use_cases.publish_updates import CHART_DATA, MARKET_DATA
from listener.application.use_cases.read_events import place, read_events, typed
from listener.domain.value_objects import Interval, MarketId

T = TypeVar("T")

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
READ_TOGETHER: Final = 500
"""Candles or figures that are read at once."""

Handler = Callable[[Any], Awaitable[None]]
"""Gets one event at a time."""


class HandlerRules(NamedTuple):
    """How a handler is delivered to.

    Attributes:
        name: of the handler, and of its place in the stream.
        kinds: types of the events that it wants.
        attempts: how often it gets an event that it fails at.
        timeout_s: for each attempt.
        on_error: after the last attempt, `skip` the event, or `stop` before it.
    """

    name: str
    kinds: frozenset[type[Event]]
    attempts: int
    timeout_s: float
    on_error: Literal["skip", "stop"]


class HandlerObserver(Protocol):
    """Is told how a handler fares. Never fails, never blocks."""

    def handled(self, event: Event) -> None:
        """The handler returned."""
        ...

    def failed(self, event: Event, error: BaseException, retry_in_s: float) -> None:
        """The handler raised, or took too long; it gets the event again after `retry_in_s`."""
        ...

    def gave_up(self, event: Event, error: BaseException, *, stops: bool) -> None:
        """The last attempt has failed; the event is skipped, or delivery stops before it."""
        ...

    def missed(self, event: Resync) -> None:
        """There were changes that are not told one by one."""
        ...


class HandlerLink:
    """`UpdatePublisher` whose other end is a handler.

    Args:
        handler: what to call.
        rules: how.
        outbox: where candles and figures are read.
        open_candles: candles that the handler is told when they close; whoever saves the cursor saves them.
        clock: to wait.
        observer: told how it goes.
    """

    def __init__(
        self,
        handler: Handler,
        rules: HandlerRules,
        *,
        outbox: Outbox,
        open_candles: OpenCandles,
        clock: Clock,
        observer: HandlerObserver,
    ) -> None:
        self._handler = handler
        self._rules = rules
        self._outbox = outbox
        self._open = open_candles
        self._clock = clock
        self._observer = observer

    async def open(self) -> None:
        """See `UpdatePublisher.open`: there is nothing to connect."""

    def size(self, message: Message) -> int:  # noqa: ARG002 - of the port
        """See `UpdatePublisher.size`: nothing goes over a wire."""
        return 0

    async def send(self, message: Message) -> None:
        """Handle every event of a message.

        Raises:
            HandlerStopped: the handler failed for good and is not to skip.
            ForeignData: the message is none of ours.
            StoreUnavailable: candles or figures cannot be read now.
        """
        if message.event == CHART_DATA:
            await self._tell_candles(message)
        elif message.event == MARKET_DATA:
            await self._tell_stats(message)
        else:
            for event in read_events(message):
                if isinstance(event, CandlesClosed):
                    await self._tell_closed(message, event)
                elif isinstance(event, Resync):
                    self._observer.missed(event)
                await self._tell(event)

    def _wants(self, *kinds: type[Event]) -> bool:
        return not self._rules.kinds.isdisjoint(kinds)

    async def _tell_candles(self, message: Message) -> None:
        """Candles that have changed, as they are now; those that were closed before, as corrections."""
        mentioned = [_reference(item) for item in message.items]
        corrected: set[Reference] = set()
        if self._wants(CandleClosed):
            corrected = {reference for reference in mentioned if self._open.touch(reference)}
        if not self._wants(CandleUpdated, CandleRemoved):
            mentioned = [reference for reference in mentioned if reference in corrected]
        for part in _parts(mentioned):
            for reference, item in zip(part, await self._outbox.candles(part), strict=True):
                market, interval, open_time = reference
                what = {**place(message, _name(reference)), "market": market, "interval": interval.name}
                if item.get("deleted"):
                    await self._tell(CandleRemoved(**what, open_time=open_time))
                    continue
                candle = typed(item, Candle)
                await self._tell(CandleUpdated(**what, candle=candle))
                if reference in corrected:
                    await self._tell(CandleClosed(**what, candle=candle, corrected=True))

    async def _tell_closed(self, message: Message, event: CandlesClosed) -> None:
        """The candles that close with this, one by one."""
        if not self._wants(CandleClosed):
            return
        for part in _parts(self._open.close(event.interval, event.up_to)):
            for reference, item in zip(part, await self._outbox.candles(part), strict=True):
                if item.get("deleted"):
                    continue
                market, interval, _ = reference
                what = {**place(message, _name(reference)), "market": market, "interval": interval.name}
                await self._tell(CandleClosed(**what, candle=typed(item, Candle)))

    async def _tell_stats(self, message: Message) -> None:
        if not self._wants(StatsUpdated):
            return
        for part in _parts([MarketId(item["s"]) for item in _items(message)]):
            for market, item in zip(part, await self._outbox.stats(part), strict=True):
                stats = None if item.get("deleted") else typed(item, DayStats)
                await self._tell(StatsUpdated(**place(message, market), market=market, stats=stats))

    async def _tell(self, event: Event) -> None:
        """Have the handler handle an event, if it wants it.

        Raises:
            HandlerStopped: it failed for good and is not to skip.
        """
        if type(event) not in self._rules.kinds:
            return
        attempt = 1
        while (error := await self._call(event)) is not None:
            if attempt >= self._rules.attempts:
                stops = self._rules.on_error == "stop"
                self._observer.gave_up(event, error, stops=stops)
                if stops:
                    raise HandlerStopped(f"handler {self._rules.name} stopped before {event.key}") from error
                return
            pause_s = min(BACKOFF_FIRST_S * 2 ** (attempt - 1), BACKOFF_MAX_S)
            self._observer.failed(event, error, pause_s)
            await self._clock.sleep(pause_s)
            attempt += 1
        self._observer.handled(event)

    async def _call(self, event: Event) -> BaseException | None:
        """One attempt; what went wrong, if anything did."""
        try:
            async with asyncio.timeout(self._rules.timeout_s) as limit:
                await self._handler(event)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # what the handler waited for was cancelled, not we
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is told, and ends here
            if limit.expired():
                return TimeoutError(f"it did not return within {self._rules.timeout_s} s")
            return error
        return None


def _items(message: Message) -> list[dict[str, Any]]:
    return typed(list(message.items), list[dict[str, Any]])


def _reference(item: object) -> Reference:
    fields = typed(item, dict[str, Any])
    return MarketId(fields["s"]), Interval.parse(fields["i"]), fields["t"]


def _name(reference: Reference) -> str:
    market, interval, open_time = reference
    return f"{market}-{interval.name}-{open_time}"


def _parts(things: Iterable[T]) -> Iterable[Sequence[T]]:
    rest = iter(things)
    while part := list(islice(rest, READ_TOGETHER)):
        yield part

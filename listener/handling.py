"""Wiring of handlers: each gets a cursor, a lease and a publisher of its own."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

import structlog

from listener.application.errors import HandlerStopped
from listener.application.services.handlers import Handler, HandlerLink, HandlerRules
from listener.application.services.leadership import Leadership
from listener.application.services.publisher import Publisher, PublisherLimits
from listener.application.services.supervisor import keep_running
from listener.application.use_cases.close_candles import OpenCandles
from listener.config.settings import Settings
from listener.infrastructure.clock import LocalSignal, SystemClock
from listener.infrastructure.observability.handler_log import HandlerLog
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.logs import SecretMask
from listener.infrastructure.observability.metrics import Metrics
from listener.infrastructure.observability.observer import LogObserver
from listener.infrastructure.observability.progress import ProgressDisplay
from listener.infrastructure.redis.client import Database
from listener.infrastructure.redis.handler_outbox import HandlerOutbox
from listener.infrastructure.redis.keys import Keys
from listener.infrastructure.redis.lease import RedisLease
from listener.infrastructure.redis.outbox import RedisOutbox
from listener.infrastructure.redis.row_feed import RowFeed

FEED_TIMEOUT_S: Final = 5.0
"""Least time for an answer to the feed, whose reads wait for rows for a second."""


class Registered(NamedTuple):
    """A handler, and how it is called.

    Attributes:
        from_oldest: a new name begins at the oldest row that is kept; otherwise behind the newest one.
        batch: rows after which its place is saved.
    """

    handler: Handler
    rules: HandlerRules
    from_oldest: bool
    batch: int


class Handling:
    """Delivers to handlers, in this process.

    Args:
        settings: which Redis, which chain.
        handlers: all of them.
        health: where their trouble is shown.
        metrics: where their events are counted; None: nowhere.

    Attributes:
        logs: what became of events, by name of the handler.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Sequence[Registered],
        health: Health,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._clock = SystemClock()
        self._keys = Keys(settings.chain_id)
        self._mask = SecretMask(settings.secrets())
        self.logs = {
            handler.rules.name: HandlerLog(handler.rules.name, health, self._mask, metrics)
            for handler in handlers
        }
        self._signals = {name: LocalSignal() for name in self.logs}

    async def run(self) -> None:
        """Deliver until cancelled.

        Raises:
            HandlerStopped: the last of them has stopped.
        """
        url, timeout_s = str(self._settings.redis_url), self._settings.redis_timeout_ms / 1000
        database = Database.connect(url, timeout_s)
        feeding = Database.connect(url, max(timeout_s, FEED_TIMEOUT_S))
        feed = RowFeed(feeding, self._keys)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            stack.push_async_callback(feeding.close)
            async with asyncio.TaskGroup() as tasks:
                waking = tasks.create_task(self._wake(feed), name="handlers")
                deliveries = [
                    tasks.create_task(self._deliver(handler, database), name=handler.rules.name)
                    for handler in self._handlers
                ]
                await asyncio.wait(deliveries)
                waking.cancel()
        raise HandlerStopped(f"no handler is left: {', '.join(self.logs)}; the log says why")

    async def _wake(self, feed: RowFeed) -> None:
        """Hear of rows as they come. Where that ends, they are looked for every few seconds."""
        observer = LogObserver(Health(), ProgressDisplay(), self._mask)

        async def follow() -> None:
            await feed.start()
            self._notify()  # of rows that came before the feed began
            await feed.run()

        feed.subscribe(lambda _batch: self._notify())
        try:
            await keep_running(follow, self._clock, observer, blame="handlers")
        except Exception as error:  # noqa: BLE001 - told, and what is left is slower
            structlog.get_logger("listener").error("Handlers hear of rows late", exc_info=error)

    def _notify(self) -> None:
        for signal in self._signals.values():
            signal.notify()

    async def _deliver(self, handler: Registered, database: Database) -> None:
        """Deliver to one handler, and end without an error: others go on."""
        name = handler.rules.name
        log = self.logs[name]
        publisher = self._publisher(handler, database, self._signals[name])
        leadership = Leadership(
            RedisLease(database, self._keys, self._settings.lease_ms, consumer_of(name)),
            partial(keep_running, publisher.run, self._clock, log, blame=log.service),
            self._clock,
            log,
        )
        try:
            await keep_running(leadership.run, self._clock, log, blame=log.service)
        except Exception as error:  # noqa: BLE001 - told, and others go on
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not isinstance(first, HandlerStopped):
                log.ended(first)

    def _publisher(self, handler: Registered, database: Database, signal: LocalSignal) -> Publisher:
        name, open_candles = handler.rules.name, OpenCandles()
        return Publisher(
            outbox=HandlerOutbox(
                database, self._keys, consumer_of(name), open_candles, from_oldest=handler.from_oldest
            ),
            backend=HandlerLink(
                handler.handler,
                handler.rules,
                outbox=RedisOutbox(database, self._keys),
                open_candles=open_candles,
                clock=self._clock,
                observer=self.logs[name],
            ),
            signal=signal,
            clock=self._clock,
            observer=self.logs[name],
            limits=PublisherLimits(handler.batch, 1, self._settings.processing_interval_ms / 1000),
        )


def consumer_of(name: str) -> str:
    """Name of a handler as a consumer of the outbox."""
    return f"handler:{name}"
